"""Frames of ``com.atproto.sync.subscribeRepos`` as typed events, with everything in them still to be verified.

A frame is two DAG-CBOR objects, a header and a body. Specifications: https://atproto.com/specs/event-stream,
https://atproto.com/specs/sync
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from chalicelib.atproto import drisl, plain
from chalicelib.atproto.errors import InvalidSyntax, MalformedCbor, MalformedFrame
from chalicelib.atproto.peek import HEADERS, MAX_SEQ, peek
from chalicelib.atproto.syntax import Did, Tid, parse_did, parse_tid

__all__ = [
    "AccountEvent",
    "CommitEvent",
    "ErrorEvent",
    "Event",
    "IdentityEvent",
    "InfoEvent",
    "MalformedEvent",
    "RepoOp",
    "SyncEvent",
    "UnknownEvent",
    "decode_frame",
    "peek",
]

_T = TypeVar("_T")

MAX_FRAME: Final = 5_000_000
"""Bytes of a frame."""
MAX_COMMIT_BLOCKS: Final = 2_000_000
"""Bytes of the CAR in a ``#commit``."""
MAX_SYNC_BLOCKS: Final = 10_000
"""Bytes of the CAR in a ``#sync``."""
MAX_OPS: Final = 200
"""Ops of a ``#commit``."""


class MalformedEvent(MalformedFrame):
    """A frame in good form whose body is not what its lexicon says: the connection is sound, this message is not.

    ``seq`` and ``did`` are what it says of itself, as far as they can be read.
    """

    def __init__(self, message: str, seq: int | None, did: Did | None) -> None:
        super().__init__(message)
        self.seq = seq
        self.did = did


class RepoOp(NamedTuple):
    """What a commit says that it did to one path: ``cid`` is the record now, ``prev`` the one before."""

    action: str
    path: str
    cid: bytes | None
    prev: bytes | None


class CommitEvent(NamedTuple):
    """``#commit``. ``too_big``: beyond a limit, or said to be; its blocks and ops are left out, for they are not whole."""

    seq: int
    did: Did
    rev: Tid
    since: str | None
    commit: bytes
    blocks: bytes
    ops: tuple[RepoOp, ...]
    prev_data: bytes | None
    too_big: bool
    time: str


@dataclass(frozen=True, slots=True)
class SyncEvent:
    """``#sync``: the repo is at this commit now, whatever was told before. ``blocks`` are left out where they are too large."""

    seq: int
    did: Did
    rev: Tid
    blocks: bytes
    time: str


@dataclass(frozen=True, slots=True)
class IdentityEvent:
    """``#identity``: the DID document or the handle may have changed."""

    seq: int
    did: Did
    time: str
    handle: str | None


@dataclass(frozen=True, slots=True)
class AccountEvent:
    """``#account``: the account's status at the sending host. An absent ``active`` means true."""

    seq: int
    did: Did
    active: bool
    status: str | None
    time: str


@dataclass(frozen=True, slots=True)
class InfoEvent:
    """``#info``, such as ``OutdatedCursor``."""

    name: str
    message: str | None


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """The last frame before the server closes, such as ``FutureCursor``."""

    error: str
    message: str | None


@dataclass(frozen=True, slots=True)
class UnknownEvent:
    """A message of a kind that is not known here: to be ignored, but for its ``seq``."""

    op: int
    kind: str | None
    seq: int | None


Event: TypeAlias = CommitEvent | SyncEvent | IdentityEvent | AccountEvent | InfoEvent | ErrorEvent | UnknownEvent


def decode_frame(frame: bytes) -> Event:
    """The event in a frame.

    Raises MalformedFrame where framing or CBOR is bad, so that the connection can't be trusted any longer; its subclass
    MalformedEvent where only this one message is.
    """
    if event := _plain_commit(frame):
        return event
    try:
        op, kind, at = _read_header(frame)
        body, end = drisl.decode_prefix(frame, at)
    except MalformedCbor as error:
        raise MalformedFrame(f"not two DAG-CBOR objects: {error}") from error
    if end != len(frame):
        raise MalformedFrame(f"{len(frame) - end} bytes follow the body")
    if not isinstance(body, dict):
        raise MalformedFrame("the body is not a map")
    fields = _Fields(body)
    read = _KINDS.get(kind or "") if op == 1 else _error if op == -1 else None
    if read is None:
        return UnknownEvent(op, kind, _readable(fields.seq))
    try:
        return read(fields, len(frame))
    except ValueError as error:
        raise MalformedEvent(f"{kind or 'error'}: {error}", _readable(fields.seq), _readable(fields.did)) from error


_OP: Final = re.compile(
    rb"([\xa3\xa4])ccid(?:\xf6|%b)dpath(?:%b(dprev)(?:\xf6|%b)faction|%bfaction)f(create|update|delete)"
    % (plain.LINK, plain.TEXT, plain.LINK, plain.TEXT),
    re.DOTALL,
)
_BEFORE_BLOCKS: Final = re.compile(
    rb"%b(.)cops(.)((?:%b)*)crev%bcseq%bdrepo%bdtime%beblobs(.)((?:%b)*)esince(?:\xf6|%b)fblocks(Y..|Z.{4})"
    % (
        re.escape(HEADERS["commit"]),
        plain.uncaptured(_OP.pattern),
        plain.TID,
        plain.NUMBER,
        plain.TEXT,
        plain.TEXT,
        plain.uncaptured(plain.LINK),
        plain.TID,
    ),
    re.DOTALL,
)
_AFTER_BLOCKS: Final = re.compile(
    rb"fcommit%b(frebase[\xf4\xf5])?ftooBig\xf4(hprevData(?:\xf6|%b))?" % (plain.LINK, plain.LINK), re.DOTALL
)


def _plain_commit(frame: bytes) -> CommitEvent | None:
    """The event of a commit as nearly all are; None where it takes the decoder to tell."""
    before = _BEFORE_BLOCKS.match(frame)
    if before is None:
        return None
    fields, ops_head, ops, rev, seq, did_head, did, time_head, time, blobs_head, blobs, since, blocks_head = (
        before.groups()
    )
    begin = before.end()
    end = begin + int.from_bytes(blocks_head[1:], "big")
    after = _AFTER_BLOCKS.fullmatch(frame, end)
    if after is None:
        return None
    commit, rebase, has_prev_data, prev_data = after.groups()
    told = [
        RepoOp(action.decode(), (path or lone).decode(), cid or None, prev or None)
        for head, cid, path_head, path, has_prev, prev, lone_head, lone, action in _OP.findall(ops)
        if plain.is_length(path_head or lone_head, len(path or lone)) and (head == b"\xa4") == bool(has_prev)
    ]
    number = int.from_bytes(seq[1:] or seq, "big")
    if not (
        fields[0] == 0xA0 + 10 + (rebase is not None) + (has_prev_data is not None)
        and ops_head[0] - 0x80 == len(told) <= plain.MAX_SHORT
        and blobs_head[0] - 0x80 == len(blobs) // plain.LINK_LENGTH <= plain.MAX_SHORT
        and plain.is_length(did_head, len(did))
        and plain.is_length(time_head, len(time))
        and plain.is_shortest(seq)
        and plain.is_shortest(blocks_head)
        and 0 < number <= MAX_SEQ
        and len(frame) <= MAX_FRAME
        and end - begin <= MAX_COMMIT_BLOCKS
    ):
        return None
    try:
        return CommitEvent(
            seq=number,
            did=parse_did(did.decode()),
            rev=parse_tid(rev.decode()),
            since=since.decode() if since else None,
            commit=commit,
            blocks=frame[begin:end],
            ops=tuple(told),
            prev_data=prev_data,
            too_big=False,
            time=time.decode(),
        )
    except InvalidSyntax:
        return None


def _read_header(frame: bytes) -> tuple[int, str | None, int]:
    for kind, header in HEADERS.items():
        if frame.startswith(header):
            return (1, f"#{kind}", len(header)) if kind != "error" else (-1, None, len(header))
    ordered, end = _in_order(frame)
    fields, end = (drisl.decode(ordered), end) if end else drisl.decode_prefix(frame)
    if not isinstance(fields, dict):
        raise MalformedFrame("the header is not a map")
    op, t = fields.get("op"), fields.get("t")
    if type(op) is not int:
        raise MalformedFrame("the header has no op")
    if not isinstance(t, str | None) or (op == 1 and t is None):
        raise MalformedFrame("the header has no t")
    return op, t, end


def _in_order(frame: bytes) -> tuple[bytes, int]:
    """A header whose ``op`` comes before its ``t``, as some servers write it, put in order; and where it ends, else 0."""
    if frame[:4] != b"\xa2bop" or frame[5:7] != b"at":
        return b"", 0
    end = 8 + (frame[7] & 31) if len(frame) > 7 else 0
    return frame[:1] + frame[5:end] + frame[1:5], end


class _Fields:
    """A map of a message, its fields taken by type. ValueError, which InvalidSyntax is as well, for what they can't be."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._body = body

    def optional(self, name: str, wanted: type[_T]) -> _T | None:
        value = self._body.get(name)
        if value is not None and type(value) is not wanted:
            raise ValueError(f"{name} is not of the type {wanted.__name__}")
        return value

    def required(self, name: str, wanted: type[_T]) -> _T:
        value = self.optional(name, wanted)
        if value is None:
            raise ValueError(f"{name} is missing")
        return value

    def seq(self) -> int:
        seq = self.required("seq", int)
        if not 0 < seq <= MAX_SEQ:
            raise ValueError(f"seq is not from 1 to {MAX_SEQ}")
        return seq

    def did(self) -> Did:
        return parse_did(self.required("repo" if "repo" in self._body else "did", str))

    def cid(self, name: str) -> bytes | None:
        link = self.optional(name, drisl.Link)
        return link.cid if link else None


def _readable(read: Callable[[], _T]) -> _T | None:
    try:
        return read()
    except ValueError:
        return None


def _commit(fields: _Fields, size: int) -> CommitEvent:
    ops, blocks = fields.required("ops", list), fields.required("blocks", bytes)
    too_big = (
        bool(fields.optional("tooBig", bool))
        or size > MAX_FRAME
        or len(ops) > MAX_OPS
        or len(blocks) > MAX_COMMIT_BLOCKS
    )
    return CommitEvent(
        seq=fields.seq(),
        did=fields.did(),
        rev=parse_tid(fields.required("rev", str)),
        since=fields.optional("since", str),
        commit=fields.required("commit", drisl.Link).cid,
        blocks=b"" if too_big else blocks,
        ops=() if too_big else tuple(map(_op, ops)),
        prev_data=fields.cid("prevData"),
        too_big=too_big,
        time=fields.required("time", str),
    )


def _op(op: Any) -> RepoOp:
    if type(op) is not dict:
        raise ValueError("an op is not a map")
    fields = _Fields(op)
    return RepoOp(fields.required("action", str), fields.required("path", str), fields.cid("cid"), fields.cid("prev"))


def _sync(fields: _Fields, size: int) -> SyncEvent:
    blocks = fields.required("blocks", bytes)
    return SyncEvent(
        seq=fields.seq(),
        did=fields.did(),
        rev=parse_tid(fields.required("rev", str)),
        blocks=blocks if len(blocks) <= MAX_SYNC_BLOCKS else b"",
        time=fields.required("time", str),
    )


def _identity(fields: _Fields, size: int) -> IdentityEvent:
    return IdentityEvent(fields.seq(), fields.did(), fields.required("time", str), fields.optional("handle", str))


def _account(fields: _Fields, size: int) -> AccountEvent:
    active = fields.optional("active", bool) is not False
    status = fields.optional("status", str)
    return AccountEvent(fields.seq(), fields.did(), active, status, fields.required("time", str))


def _error(fields: _Fields, size: int) -> ErrorEvent:
    return ErrorEvent(fields.required("error", str), fields.optional("message", str))


def _info(fields: _Fields, size: int) -> InfoEvent:
    return InfoEvent(fields.required("name", str), fields.optional("message", str))


_KINDS: Final[dict[str, Callable[[_Fields, int], Event]]] = {
    "#commit": _commit,
    "#identity": _identity,
    "#account": _account,
    "#sync": _sync,
    "#info": _info,
}
