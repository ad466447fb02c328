"""The one door to the outside. Every HTTP request and every websocket of this service is opened here.

What it guarantees, development mode (``allow_private``) apart:

- A URL is https or wss, on port 443, of a name that can be public. No userinfo, no IP address, no reserved name.
- The name is resolved once for a connection. One address outside the public unicast space refuses the name as a whole.
  The connection goes to the very addresses that were checked: nobody resolves again, so nobody can answer differently.
- A redirect is a new URL: checked in the same way, at most three, never from https to http.
- No proxy, cookie or credential comes from the environment or from an earlier answer.

And in any mode:

- Where a cloud serves its own machines their credentials, nothing is opened.
- Every answer is bounded in time (to connect, between bytes, in all, and by a least rate) and in decoded bytes.
- Only errors of ``chalicelib.atproto.errors`` come out: Unreachable, AddressRefused, BudgetExceeded, BadResponse.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, cast

import certifi
import httpx

from chalicelib.atproto.addresses import MALFORMED, METADATA, why_not_public
from chalicelib.atproto.content_coding import PIECE, decode
from chalicelib.atproto.errors import (
    AddressRefused,
    BadResponse,
    BudgetExceeded,
    InvalidSyntax,
    Unreachable,
)
from chalicelib.atproto.syntax import Origin, parse_origin
from chalicelib.atproto.transport import Clock, Timeouts, Transport

if TYPE_CHECKING:
    from chalicelib.atproto.websocket import Websocket

MAX_REDIRECTS: Final = 3
MAX_ERROR: Final = 64 * 1024
"""Bytes of an error's body. What is beyond is not read: the status says enough."""
MAX_RETRY_AFTER: Final = 24 * 3600.0
"""Seconds. A longer wait that a remote asks for is cut to this."""

_HTTP: Final = ("https", "http")
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_ADDRESSES: Final = 4  # of a name, tried in turn within the time to connect


@dataclass(frozen=True)
class Answer:
    """What was answered, with whatever status. ``retry_after`` is in seconds, where a 429 or 503 said so."""

    url: str
    status: int
    retry_after: float | None

    @property
    def succeeded(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True)
class Response(Answer):
    """A whole answer."""

    body: bytes

    def json(self) -> Any:
        """The body as JSON. Raises BadResponse."""
        try:
            return json.loads(self.body, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise BadResponse(
                f"the answer of {self.url.partition('?')[0]} is not JSON", retry_after=self.retry_after
            ) from error


@dataclass(frozen=True)
class StreamedResponse(Answer):
    """An answer whose body arrives while it is read: once, and only inside the ``with`` that opened it."""

    chunks: Iterator[bytes]


@dataclass(frozen=True)
class Target:
    """A URL that may be opened, once its name has turned out to be public. Its name is in normal form."""

    parsed: httpx.URL
    origin: Origin

    @property
    def url(self) -> str:
        return str(self.parsed)


Resolve = Callable[[str, int], Sequence[str]]
Route = Callable[[str, int], tuple[str, int]]


def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, in the order in which they should be tried. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


class Door:
    """Opens connections to other hosts, for any number of threads and event loops. Close it, or use it as a context.

    ``resolve`` finds the addresses of a name. ``route`` says where a connection to a checked address really goes: it is
    there for tests, whose internet is a port on loopback. ``ssl_context`` replaces the default, which trusts public CAs.
    """

    def __init__(
        self,
        *,
        allow_private: bool = False,
        user_agent: str = "atcr-discovery",
        timeouts: Timeouts | None = None,
        ssl_context: ssl.SSLContext | None = None,
        resolve: Resolve = resolve_by_system,
        route: Route = lambda address, port: (address, port),
    ) -> None:
        self.allow_private = allow_private
        self.user_agent = user_agent
        self.ssl_context = ssl_context or ssl.create_default_context(cafile=certifi.where())
        self._timeouts = timeouts or Timeouts()
        self._resolve = resolve
        self._route = route
        self._transport = Transport(self.ssl_context, self._find)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections that are kept for the next request."""
        self._transport.close()

    def get(
        self, url: str, *, max_bytes: int, accept: str = "application/json", timeouts: Timeouts | None = None
    ) -> Response:
        """GET a small answer, whole. ``max_bytes`` bounds the decoded body. Raises the errors named above."""
        with self.stream(url, max_bytes=max_bytes, accept=accept, timeouts=timeouts) as answer:
            return Response(answer.url, answer.status, answer.retry_after, b"".join(answer.chunks))

    @contextmanager
    def stream(
        self, url: str, *, max_bytes: int, accept: str = "*/*", timeouts: Timeouts | None = None
    ) -> Iterator[StreamedResponse]:
        """GET an answer in chunks of some 64 KiB at most. Leaving the context before the end hangs up.

        The chunks raise BudgetExceeded beyond ``max_bytes`` decoded bytes, or when the answer is too slow. Those of an
        answer that is no success (2xx) just end beyond MAX_ERROR bytes.
        """
        clock = Clock(timeouts or self._timeouts)
        target, response = self._open(self.vet(url, _HTTP), accept, clock)
        try:
            yield StreamedResponse(
                url=target.url,
                status=response.status_code,
                retry_after=asked_to_wait(response.status_code, response.headers),
                chunks=_chunks(response, target, max_bytes, clock),
            )
        finally:
            response.close()

    def websocket(
        self,
        url: str,
        *,
        max_message: int,
        open_timeout: float = 15.0,
        close_timeout: float = 5.0,
        ping_interval: float = 30.0,
        ping_timeout: float = 30.0,
        pace: Callable[[int, int], float] = lambda frames, size: 0.0,
        opening: AbstractAsyncContextManager[object] | None = None,
    ) -> AbstractAsyncContextManager[Websocket]:
        """A websocket, without compression, closed at the end of the context. Redirects are refused. It is opened inside of
        ``opening``, such as a semaphore.

        What waits in memory is what one read brought (``READ_BYTES``) and a message that is not yet whole (at most
        ``max_message`` bytes); then the sender has to wait. ``pace`` is told how many frames and bytes were read, and says
        for how many seconds nothing more is to be read. A remote that leaves a ping unanswered for ``ping_timeout``
        seconds is cut off. Raises the errors named above.
        """
        from chalicelib.atproto.websocket import open_websocket  # the backfill starts sooner without

        return open_websocket(
            self,
            url,
            max_message=max_message,
            open_timeout=open_timeout,
            close_timeout=close_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            pace=pace,
            opening=opening or nullcontext(),
        )

    # What may be opened: for HTTP and websockets alike

    def vet(self, url: str, schemes: tuple[str, str], base: Target | None = None) -> Target:
        """The URL (relative to ``base``) as it may be opened. ``schemes``: the secure, the insecure one.

        Raises AddressRefused.
        """
        try:
            parsed = base.parsed.join(url) if base else httpx.URL(url)
        except (httpx.InvalidURL, ValueError) as error:
            raise AddressRefused(f"not a URL: {url[:200]!r}") from error
        if parsed.scheme not in schemes:
            raise AddressRefused(f"a URL with the scheme {parsed.scheme[:20]!r} is not opened")
        if parsed.userinfo:
            raise AddressRefused("a URL with user information in it is not opened")
        scheme = _HTTP[schemes.index(parsed.scheme)]
        try:
            origin = parse_origin(f"{scheme}://{parsed.netloc.decode('ascii')}", allow_private=self.allow_private)
        except (InvalidSyntax, UnicodeDecodeError) as error:
            raise AddressRefused(f"not opened: {error}") from error
        return Target(parsed.copy_with(host=origin.hostname, port=origin.port, fragment=None), origin)

    def look_up(self, origin: Origin) -> Future[Sequence[str]]:
        """A look-up in a thread of its own, as the system's resolver has no time limit and can't be interrupted."""
        future: Future[Sequence[str]] = Future()
        if why_not_public(origin.hostname) != MALFORMED:  # an address already
            future.set_result([origin.hostname])
            return future

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(self._resolve(origin.hostname, origin.port))
            except Exception as error:  # raised again where the result is asked for
                future.set_exception(error)

        threading.Thread(target=run, name="resolve", daemon=True).start()
        return future

    def places(self, origin: Origin, found: Sequence[str]) -> list[tuple[str, int]]:
        """Where to connect, in order, if all that was found may be opened. Raises AddressRefused, Unreachable."""
        if not found:
            raise Unreachable(f"{origin.hostname} has no address")
        for address in found:
            why = why_not_public(address)
            if why is not None and (why == METADATA or not self.allow_private):
                raise AddressRefused(f"{origin.hostname} resolves to an address that is not public ({why})")
        return [self._route(address, origin.port) for address in found[:_MAX_ADDRESSES]]

    def _find(self, host: str, port: int, seconds: float) -> list[tuple[str, int]]:
        origin = Origin(host, port, secure=False)  # only its name and port are asked for here
        with resolving(origin):
            found = self.look_up(origin).result(seconds)
        return self.places(origin, found)

    def _open(self, target: Target, accept: str, clock: Clock) -> tuple[Target, httpx.Response]:
        """Send the request, and again where it is redirected to."""
        headers = {"user-agent": self.user_agent, "accept": accept, "accept-encoding": "gzip"}
        timeout = {"connect": clock, "read": clock, "write": clock}
        for _ in range(MAX_REDIRECTS + 1):
            clock.new_answer()
            request = httpx.Request("GET", target.parsed, headers=headers, extensions={"timeout": timeout})
            with _translated(target, clock):
                response = self._transport.handle_request(request)
            location = response.headers.get("location")
            if response.status_code not in _REDIRECTS or location is None:
                return target, response
            response.close()
            following = self.vet(location, _HTTP, base=target)
            if target.origin.secure and not following.origin.secure:
                raise AddressRefused(f"{target.origin} redirects from https to http")
            target = following
        raise BadResponse(f"{target.origin} is the end of more than {MAX_REDIRECTS} redirects")


@contextmanager
def resolving(origin: Origin) -> Iterator[None]:
    """A resolver's errors as ours."""
    try:
        yield
    except TimeoutError as error:
        raise Unreachable(f"the name {origin.hostname} was not resolved in time") from error
    except (OSError, ValueError) as error:  # ValueError: the resolver can't even write it down
        raise Unreachable(f"the name {origin.hostname} does not resolve") from error


@contextmanager
def _translated(target: Target, clock: Clock) -> Iterator[None]:
    """httpx's errors as ours."""
    host = target.origin
    try:
        yield
    except (httpx.ConnectTimeout, httpx.ConnectError) as error:
        raise Unreachable(f"{host} can't be reached: {printable(str(error))}") from error
    except httpx.TimeoutException as error:
        if clock.received:
            raise BudgetExceeded(f"the answer of {host} takes too long") from error
        raise Unreachable(f"{host} does not answer in time") from error
    except httpx.ProtocolError as error:
        if clock.ended:
            raise Unreachable(f"{host} closed the connection before its answer was complete") from error
        raise BadResponse(f"{host} does not speak HTTP: {printable(str(error))}") from error
    except httpx.HTTPError as error:
        raise Unreachable(f"the connection to {host} broke: {printable(str(error))}") from error


def _chunks(response: httpx.Response, target: Target, max_bytes: int, clock: Clock) -> Iterator[bytes]:
    raw = cast(Iterable[bytes], response.stream)
    coding = response.headers.get("content-encoding", "")
    with _translated(target, clock):
        if response.is_success:
            yield from decode(raw, coding, max_bytes)
            return
        left = MAX_ERROR
        for chunk in decode(raw, coding, MAX_ERROR + 2 * PIECE):
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return


def seconds_to_wait(headers: Mapping[str, str], now: float) -> float | None:
    """What ``Retry-After`` (RFC 9110: seconds or a date) or else ``RateLimit-Reset`` asks for, in seconds from ``now``.

    ``now`` is in seconds since 1970. RateLimit-Reset counts seconds in the IETF's drafts, and is a time at the reference
    PDS. At most MAX_RETRY_AFTER; None where there is nothing that can be read.
    """
    asked = headers.get("retry-after", "").strip()
    if (seconds := _number(asked)) is None and asked:
        try:
            date = parsedate_to_datetime(asked)
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, OverflowError):
            seconds = None
    if seconds is None and (reset := _number(headers.get("ratelimit-reset", "").strip())) is not None:
        seconds = reset - now if reset > 1e9 else reset
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?", text) else None


def asked_to_wait(status: int, headers: Mapping[str, str]) -> float | None:
    """Seconds for which an answer with this status asks not to be asked again."""
    return seconds_to_wait(headers, time.time()) if status in (429, 503) else None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def printable(text: str) -> str:
    """The first line of what a library or a remote says, fit for a row, a log line and a terminal."""
    line = (text.splitlines() or [""])[0][:200]
    return "".join(character if character.isprintable() else "?" for character in line)
