"""What a frame is, told from a few of its bytes: what lets most of a firehose pass without being decoded.

DAG-CBOR has one encoding for a value and one order for the keys of a map, so the first fields of each kind of message
stand where they stand. Bytes are compared with what they have to be, from the start on; nothing is searched for.
"""

from __future__ import annotations

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

_CID: Final = b"ccid\xd8*X%\x00"
_PREV: Final = b"dprev\xd8*X%\x00"
_CID_LENGTH: Final = 36


class Peek(NamedTuple):
    """A frame's kind; its ``seq`` and ``did`` (a commit's ``repo``) where the kind has them."""

    kind: Kind
    seq: int | None
    did: str | None


def peek(frame: bytes) -> Peek | None:
    """What the frame is, None where it takes decoding to tell.

    It reads the start alone, so the rest may still be malformed. But where ``decode_frame`` gives an event, the event is
    of this kind, with this seq and this DID.
    """
    try:
        if frame.startswith(HEADERS["commit"]):
            return _commit(frame)
        for kind, header in HEADERS.items():
            if frame.startswith(header):
                return _other(kind, frame, len(header))
    except (IndexError, UnicodeDecodeError):
        pass  # it ends before it should, or the DID is no ASCII
    return None


def _commit(frame: bytes) -> Peek | None:
    # The body's keys in order: ops, rev, seq, repo, and all longer ones; an op's: cid, path, prev, action.
    at = len(HEADERS["commit"]) + 6
    if frame[at - 5 : at - 1] != b"cops" or not 0x80 <= frame[at - 1] < 0x98:
        return None
    for _ in range(frame[at - 1] - 0x80):
        fields = frame[at]
        at += 1
        if frame.startswith(_CID, at):
            at += len(_CID) + _CID_LENGTH
        elif frame.startswith(b"ccid\xf6", at):
            at += 5
        else:
            return None
        if frame[at : at + 6] == b"dpathx":
            at += 7 + frame[at + 6]
        else:
            return None
        if fields == 0xA4 and frame.startswith(_PREV, at):
            at += len(_PREV) + _CID_LENGTH
        elif fields != 0xA3:
            return None
        if frame[at : at + 8] != b"factionf":
            return None
        at += 14
    if frame[at : at + 5] != b"crevm":
        return None
    seq, at = _seq(frame, at + 18)
    if not seq or frame[at : at + 6] != b"drepox":
        return None
    return Peek("commit", seq, _did(frame, at + 6))


def _other(kind: Kind, frame: bytes, at: int) -> Peek | None:
    if kind == "info" or kind == "error":
        return Peek(kind, None, None)
    at += 1
    if frame[at : at + 5] != b"cdidx":
        return None
    did = _did(frame, at + 5)
    at += 6 + len(did)
    if kind == "sync":
        if frame[at : at + 5] != b"crevm":
            return None
        at += 18
    seq, _ = _seq(frame, at)
    return Peek(kind, seq, did) if seq else None


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


def _did(frame: bytes, at: int) -> str:
    return frame[at + 1 : at + 1 + frame[at]].decode("ascii")
