"""The only way out: bounded answers, and patience with those who ask for it."""

from __future__ import annotations

import asyncio
import random
import re
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, TypeVar

import httpx

from discovery_client import entries
from discovery_client.errors import BadAnswer, Refused, Unreachable

T = TypeVar("T")
USER_AGENT = "atcr-discovery-client/0.1.0"
BUSY = frozenset({429, 500, 502, 503, 504})
"""Statuses after which it is worth to ask again."""
MAX_PAGE = 5_000_000
"""Bytes of one page, unpacked: 2,000 DIDs, each as long as it may be. Read as JSON it takes some 20 times as much memory."""


@dataclass(frozen=True)
class Limits:
    """What one source may cost each time that it is asked."""

    seconds: float = 60
    """For all of its pages, pauses included."""
    pages: int = 1_000
    bytes: int = 64_000_000
    """Of all its answers, unpacked."""


@dataclass(frozen=True)
class Retry:
    """How often something is tried, and how long the pauses are: ``pause`` seconds, then twice as long each time, a little
    at random; or as long as the other side asks for in Retry-After, if that is not longer than ``longest``."""

    attempts: int = 3
    pause: float = 0.5
    longest: float = 30

    def delay(self, attempt: int, asked: float | None) -> float | None:
        """Seconds until the next attempt after number ``attempt`` (from 1); None where there is none."""
        if attempt >= self.attempts or (asked is not None and asked > self.longest):
            return None
        if asked is not None:
            return asked
        return min(self.pause * 2.0 ** (attempt - 1), self.longest) * random.uniform(0.75, 1.25)  # noqa: S311


@cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()  # 50 ms


def client(seconds: float) -> httpx.AsyncClient:
    """For a ``Web``. ``seconds``: of silence, at most."""
    return httpx.AsyncClient(timeout=seconds, verify=_tls())


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def retry_after(self) -> float | None:
        """Seconds, at least 0."""
        text = self.headers.get("retry-after", "")
        if text.isascii() and text.isdigit():
            return float(text[:9])
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())

    @property
    def etag(self) -> str | None:
        """What may be sent back in If-None-Match."""
        text = self.headers.get("etag", "")
        return text if re.fullmatch(r'(?:W/)?"[\x21\x23-\x7e]{0,200}"', text) else None

    def refusal(self) -> Refused:
        """What it says, being an error."""
        return Refused(self.status, *entries.error(self.body))


@dataclass
class Web:
    """Asks one source, within what is left of its budget of bytes."""

    http: httpx.AsyncClient
    retry: Retry
    bytes_left: int
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep
    seconds: float | None = None
    """That one answer may take, where not a whole walk is timed."""
    attempts: int = field(default=0, init=False)
    """How often it has asked so far."""

    async def get(
        self,
        url: str,
        params: Mapping[str, str | int] | None = None,
        *,
        etag: str | None = None,
        most: int | None = None,
    ) -> Answer:
        """200 with ``most`` bytes; or 304, where ``etag`` was given. Raises SourceFailed."""
        headers = {"If-None-Match": etag} if etag else {}
        answer = await self.ask("GET", url, params=params, headers=headers, most=most)
        if answer.status == 200 or (answer.status == 304 and etag):
            return answer
        if answer.status in range(300, 400):
            to = entries.shown(answer.headers.get("location", "another place"))
            raise Refused(answer.status, "", f"it sends on to {to}: name that instead")
        raise answer.refusal()

    async def pages(
        self,
        url: str,
        params: Mapping[str, str | int],
        read: Callable[[bytes], tuple[Sequence[T], str | None]],
        *,
        most: int,
        cursor: str | None = None,
        etag: str | None = None,
    ) -> AsyncIterator[tuple[str | None, Answer, Sequence[T]]]:
        """Page after page from ``cursor`` to the end: with which cursor it was asked for, the answer, and what ``read`` finds
        in it. ``etag`` is of the first; a 304 to it is the last. Raises SourceFailed."""
        seen = {cursor}
        for _ in range(most):
            answer = await self.get(url, {**params, "cursor": cursor} if cursor else params, etag=etag, most=MAX_PAGE)
            found, following = ((), None) if answer.status == 304 else read(answer.body)
            yield cursor, answer, found
            if following is None:
                return
            if following in seen:
                raise BadAnswer("its cursors go in a circle")
            seen.add(following)
            cursor, etag = following, None
        raise BadAnswer(f"it has more than {most} pages")

    async def ask(
        self,
        method: str,
        url: str,
        *,
        worth: Callable[[Answer], bool] = lambda answer: answer.status in BUSY,
        **what: Any,
    ) -> Answer:
        """Any answer, after as many attempts as are allowed and ``worth`` it. Raises Unreachable, BadAnswer."""
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = await self._once(method, url, **what)
            except Unreachable:
                delay = self.retry.delay(attempt, None)
                if delay is None:
                    raise
            else:
                delay = self.retry.delay(attempt, answer.retry_after) if worth(answer) else None
                if delay is None:
                    return answer
            await self.wait(delay)

    async def _once(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, most: int | None = None, **what: Any
    ) -> Answer:
        self.attempts += 1
        sent = {"User-Agent": USER_AGENT, "Accept": "application/json", "Accept-Encoding": "gzip", **(headers or {})}
        try:
            async with (
                asyncio.timeout(self.seconds),
                self.http.stream(method, url, headers=sent, **what) as response,
            ):
                return Answer(response.status_code, response.headers, await self._body(response, most))
        except TimeoutError:
            raise Unreachable(f"no whole answer within {self.seconds or 0:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreachable(_why(error)) from error

    async def _body(self, response: httpx.Response, most: int | None) -> bytes:
        allowed = self.bytes_left if most is None else min(most, self.bytes_left)
        coding = response.headers.get("content-encoding", "identity").lower()
        if coding not in ("identity", "gzip"):
            raise BadAnswer(f"it answers in a coding that it was not asked for: {entries.shown(coding)}")
        unpack = zlib.decompressobj(wbits=31) if coding == "gzip" else None
        body = bytearray()
        async for chunk in response.aiter_raw():
            try:
                body += unpack.decompress(chunk, allowed + 1) if unpack else chunk
            except zlib.error:
                raise BadAnswer("it answers something else than the gzip that it says") from None
            if len(body) > allowed:
                raise BadAnswer("it answers more bytes than are allowed")
        if unpack and body and not unpack.eof:
            raise BadAnswer("its gzip ends too early")
        self.bytes_left -= len(body)
        return bytes(body)


def _why(error: Exception) -> str:
    return f"it cannot be reached ({type(error).__name__}{': ' if str(error) else ''}{entries.shown(error)})"
