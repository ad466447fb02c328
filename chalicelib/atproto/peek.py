"""What a frame is, told from a few of its bytes: what lets most of a firehose pass without being decoded.

DAG-CBOR has one encoding for a value and one order for the keys of a map, so the first fields of each kind of message
stand where they stand. Bytes are compared with what they have to be, from the start on; nothing is searched for.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError
from typing import Final, Literal, NamedTuple

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

_COMMIT: Final = HEADERS["commit"]
_FIRST_OP: Final = len(_COMMIT) + 6
_OP: Final = (b"\xa3ccid\xd8*X%\x00", b"\xa4ccid\xd8*X%\x00")
_OP_OF_DELETE: Final = (b"\xa3ccid\xf6", b"\xa4ccid\xf6")
_PREV: Final = b"dprev\xd8*X%\x00"
_CID_LENGTH: Final = 36
# Nearly the last field: only prevData follows. A commit that is too big may have left out some of its ops.
_WHOLE: Final = b"ftooBig\xf4"
_AFTER_BLOCKS: Final = 160
# After the ops: rev, a TID; seq, in eight bytes; and the length of the DID in repo.
_TAIL: Final = Struct(">5s13x5sQ6sB")


class Peek(NamedTuple):
    """A frame's kind; its ``seq`` and ``did`` (a commit's ``repo``) where the kind has them; the paths of a commit's ops.

    To ask whether one of ``paths`` starts with a scope's needles is quicker than to search the frame for them.
    """

    kind: Kind
    seq: int | None
    did: str | None
    paths: tuple[bytes, ...] = ()


def peek(frame: bytes) -> Peek | None:
    """What the frame is, None where it takes decoding to tell.

    It reads the start alone, so the rest may still be malformed. But where ``decode_frame`` gives an event, the event is
    of this kind, with this seq and this DID, and a commit is said to be whole, with ops for these paths and no others.
    """
    try:
        if frame.startswith(_COMMIT):
            return _commit(frame)
        for kind, header in HEADERS.items():
            if frame.startswith(header):
                return _other(kind, frame, len(header))
    except (IndexError, StructError, UnicodeDecodeError):
        pass  # it ends before it should, or has a text where none can be told
    return None


def _commit(frame: bytes) -> Peek | None:
    # The body's keys in order: ops, rev, seq, repo, and all longer ones; an op's: cid, path, prev, action.
    # A commit without ops may be one whose ops were left out as too big, which shows only further on.
    at = _FIRST_OP
    if frame[at - 5 : at - 1] != b"cops" or not 0x80 < frame[at - 1] < 0x98:
        return None
    paths = []
    for _ in range(frame[at - 1] - 0x80):
        has_prev = frame[at] == 0xA4
        if frame.startswith(_OP, at):
            at += 10 + _CID_LENGTH
        elif frame.startswith(_OP_OF_DELETE, at):
            at += 6
        else:
            return None
        if frame[at : at + 5] != b"dpath":
            return None
        path, at = _text(frame, at + 5)
        paths.append(path)
        if has_prev:
            if not frame.startswith(_PREV, at):
                return None
            at += len(_PREV) + _CID_LENGTH
        if frame[at : at + 8] != b"factionf":
            return None
        at += 14
    rev, seq_name, seq, repo, length = _TAIL.unpack_from(frame, at)
    if rev != b"crevm":
        return None
    if seq_name == b"cseq\x1b" and repo == b"drepox":
        at += _TAIL.size
        did = frame[at : at + length].decode("ascii")
    else:
        seq, at = _seq(frame, at + 18)
        if frame[at : at + 5] != b"drepo":
            return None
        did = _text(frame, at + 5)[0].decode("ascii")
    if frame.find(_WHOLE, len(frame) - _AFTER_BLOCKS) < 0:
        return None
    return Peek("commit", seq, did, tuple(paths)) if 0 < seq <= MAX_SEQ else None


def _other(kind: Kind, frame: bytes, at: int) -> Peek | None:
    if kind == "info" or kind == "error":
        return Peek(kind, None, None)
    at += 1
    if frame[at : at + 4] != b"cdid":
        return None
    did, at = _text(frame, at + 4)
    if kind == "sync":
        if frame[at : at + 5] != b"crevm":
            return None
        at += 18
    seq, _ = _seq(frame, at)
    return Peek(kind, seq, did.decode("ascii")) if seq else None


def _seq(frame: bytes, at: int) -> tuple[int, int]:
    """The number in the field ``seq`` and where it ends; 0 where it is none, or not a seq."""
    if frame[at : at + 4] != b"cseq":
        return 0, at
    info = frame[at + 4]
    if info < 24:
        return info, at + 5
    if not 24 <= info <= 27:
        return 0, at
    end = at + 5 + (1 << (info - 24))
    seq = int.from_bytes(frame[at + 5 : end], "big")
    return (seq, end) if seq <= MAX_SEQ else (0, at)


def _text(frame: bytes, at: int) -> tuple[bytes, int]:
    """A text of less than 256 bytes, and where it ends."""
    length = frame[at] - 0x60
    start = at + 1
    if length == 24:
        length = frame[start]
        start += 1
    elif not 0 <= length < 24:
        raise IndexError
    return frame[start : start + length], start + length
