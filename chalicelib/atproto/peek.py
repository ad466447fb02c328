"""What a commit's frame is about, told from a few of its bytes: what lets most of a firehose pass without being decoded.

DAG-CBOR has one encoding for a value and one order for the keys of a map, so the first fields of each kind of message
stand where they stand. Bytes are compared with what they have to be, from the start on; nothing is searched for.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from chalicelib.atproto import plain

MAX_SEQ: Final = 2**53 - 1
"""The highest seq; the lowest is 1."""

Kind = Literal["commit", "sync", "identity", "account", "info", "error"]
HEADERS: Final[dict[Kind, bytes]] = {
    "commit": b"\xa2atg#commitbop\x01",
    "identity": b"\xa2ati#identitybop\x01",
    "account": b"\xa2ath#accountbop\x01",
    "sync": b"\xa2ate#syncbop\x01",
    "info": b"\xa2ate#infobop\x01",
    "error": b"\xa1bop\x20",
}
"""The header of each kind of frame, as the one encoding has it."""

_OP: Final = rb"[\xa3\xa4]ccid(?:\xf6|%b)dpath(?:%bdprev%bfaction|%bfaction)f(?:create|update|delete)" % (
    plain.LINK,
    plain.TEXT,
    plain.LINK,
    plain.TEXT,
)
# A commit without ops may be one whose ops were left out as too big, which shows only further on. A text of plain
# characters ends before the field that follows it, so an op that matches can match in no other way: it is possessive.
_BEGIN: Final = re.compile(
    rb"%b.cops(?:[\x81-\x97]|\x98.)((?:%b)++)crev%bcseq%bdrepo([\x60-\x77]|x.)"
    % (re.escape(HEADERS["commit"]), plain.uncaptured(_OP), plain.uncaptured(plain.TID), plain.NUMBER),
    re.DOTALL,
)
# The last fields. A commit that is too big may have left out some of its ops.
_WHOLE: Final = (b"ftooBig\xf4", b"ftooBig\xf4hprevData\xf6")
_WHOLE_WITH_PREV: Final = b"ftooBig\xf4hprevData\xd8*X%"
_FROM_END: Final = -len(b"ftooBig\xf4hprevData") - plain.LINK_LENGTH


def peek(frame: bytes) -> tuple[int, str, bytes] | None:
    """The ``seq`` and ``repo`` of a commit, and the bytes in which the paths of its ops stand; None where it takes decoding
    to tell, as for all that is no commit.

    It reads the start alone, so the rest may still be malformed. But where ``decode_frame`` gives an event, the event is
    a commit with this seq and this DID, and it has no ops but these, in nothing that was left out either.
    """
    begin = _BEGIN.match(frame)
    if begin is None or not (frame.startswith(_WHOLE_WITH_PREV, _FROM_END) or frame.endswith(_WHOLE)):
        return None
    ops, number, length = begin.groups()
    seq = int.from_bytes(number[1:] or number, "big")
    at = begin.end()
    did = frame[at : at + (length[-1] if len(length) == 2 else length[0] - 0x60)]
    return (seq, did.decode("ascii"), ops) if 0 < seq <= MAX_SEQ and did.isascii() else None
