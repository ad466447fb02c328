"""What can go wrong with an HTTP answer, on demand. ``Server.fail`` puts a fault on an endpoint and hands it back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .cbor import cid_of, cid_text

Query = Mapping[str, str]


@dataclass(frozen=True)
class Reply:
    """An HTTP answer before it is sent."""

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, status: int = 200, **headers: str) -> Reply:
        """A JSON answer."""
        return cls(status, json.dumps(value).encode(), headers=headers)

    @classmethod
    def error(cls, status: int, name: str, message: str = "", **headers: str) -> Reply:
        """An XRPC error."""
        return cls.of({"error": name, "message": message}, status, **headers)


@dataclass(eq=False)
class Fault:
    """One fault. Of the times it may strike, ``times`` are left (None: until it is cleared)."""

    times: int | None = None
    after: int = 0
    """So many requests pass before it strikes."""
    only: Query = field(default_factory=dict)
    """Query parameters that a request must have to be struck, such as ``{"did": ...}``."""
    delay: float = 0
    """Seconds before the answer."""
    hang: bool = False
    """No answer at all, and the connection stays open."""
    answer: Reply | Callable[[Query], Reply] | None = None
    """This in the place of the true answer."""
    edit: Callable[[bytes], bytes] | None = None
    """A change to the true answer's body."""
    cut_after: int | None = None
    """The connection breaks after so many bytes of the body."""
    stall_after: int | None = None
    """The body stops after so many bytes, and the connection stays open."""
    released: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def clear(self) -> None:
        """No more of it; what hangs or stalls is let go."""
        self.times = 0
        self.released.set()

    def strikes(self, query: Query) -> bool:
        """Whether a request is struck; counts it if so."""
        if self.times == 0 or any(query.get(name) != value for name, value in self.only.items()):
            return False
        if self.after > 0:
            self.after -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


def status(code: int, name: str = "InternalServerError", message: str = "", **headers: str) -> Reply:
    """An XRPC error answer, such as ``status(503, "Unavailable")``."""
    return Reply.error(code, name, message, **headers)


def rate_limited(retry_after: int) -> Reply:
    """429, to be tried again after so many seconds."""
    return Reply.error(429, "RateLimitExceeded", "Rate Limit Exceeded", **{"Retry-After": str(retry_after)})


def redirect(url: str, code: int = 302) -> Reply:
    return Reply(code, headers={"Location": url})


def truncate(size: int) -> Callable[[bytes], bytes]:
    """The first ``size`` bytes (negative: all but the last), as if they were all: whole HTTP, half a body."""
    return lambda body: body[:size]


def endless_repos(page_size: int = 500) -> Callable[[Query], Reply]:
    """listRepos without an end: each page is full of DIDs that are nowhere, and has a cursor."""

    def answer(query: Query) -> Reply:
        start = int(query.get("cursor") or 0)
        return Reply.of({"repos": strangers(start, page_size), "cursor": str(start + page_size)})

    return answer


def same_cursor_forever(query: Query) -> Reply:
    """listRepos whose every page has one DID and the same cursor."""
    return Reply.of({"repos": strangers(0, 1), "cursor": "again"})


def huge_repos(count: int) -> Callable[[Query], Reply]:
    """listRepos in one page of ``count`` DIDs, whatever the limit was."""
    return lambda query: Reply.of({"repos": strangers(0, count)})


def strangers(start: int, count: int) -> list[dict[str, Any]]:
    """Entries of listRepos for DIDs that are nowhere."""
    head = cid_text(cid_of(b"nothing"))
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"

    def did(number: int) -> str:
        return "did:plc:" + "".join(alphabet[number >> shift & 31] for shift in range(115, -1, -5))

    return [
        {"did": did(number), "head": head, "rev": "3mbdgiqqt2k2a", "active": True}
        for number in range(start, start + count)
    ]
