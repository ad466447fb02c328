"""Connections for httpx that go where they are told to, and end when their time is over."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Self, cast

import httpcore
import httpx

from chalicelib.atproto.errors import BudgetExceeded

_KEEPALIVE: Final = 4.0  # seconds; below the 5 after which Node closes an idle connection, so that neither side races

_WATCH: Final = 1.0  # seconds

Find = Callable[[str, int, float], list[tuple[str, int]]]
"""The socket addresses to try for a name and port, found within so many seconds. May raise RemoteErrors."""


@dataclass(frozen=True)
class Timeouts:
    """Limits of one request, in seconds. ``min_rate`` is in bytes a second, over the time spent waiting for bytes. ``watch`` is
    called about once a second while an answer is awaited or read; what it raises ends the request."""

    connect: float = 10.0
    idle: float = 20.0
    total: float = 60.0
    min_rate: float = 1024.0
    watch: Callable[[], None] | None = None


class Clock(float):
    """The time budget of a request with all its redirects, kept by our end of the connection.

    httpcore hands the timeouts of a request untouched to the network stream that does the waiting, so this number (the
    idle timeout) carries the deadline there, whichever thread reads and whichever pooled connection is used.
    """

    limits: Timeouts
    deadline: float
    received: int
    waited: float
    ended: bool

    def __new__(cls, limits: Timeouts) -> Self:
        clock = super().__new__(cls, limits.idle)
        clock.limits = limits
        clock.deadline = time.monotonic() + limits.total
        clock.new_answer()
        return clock

    def new_answer(self) -> None:
        self.received = 0
        self.waited = 0.0
        self.ended = False

    def left(self, limit: float) -> float:
        """Seconds that the next operation may take, ``limit`` at most."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the time for the whole request has passed")
        return min(limit, left)

    def note(self, size: int, seconds: float) -> None:
        """Bytes that were received after so many seconds of waiting. Raises BudgetExceeded for a trickle."""
        if self.received:
            self.waited += seconds
        self.received += size
        self.ended = not size
        # A pause shorter than the idle timeout is in order, so the rate says nothing before that.
        if self.waited > self.limits.idle and self.received < self.waited * self.limits.min_rate:
            raise BudgetExceeded(f"the answer is slower than {self.limits.min_rate:.0f} bytes a second")


class _CheckedStream(httpcore.NetworkStream):
    """A connection that keeps to the request's clock."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        clock = cast(Clock, timeout)
        limit = clock.left(clock.limits.idle)
        start = time.monotonic()
        received = self._receive(max_bytes, limit, clock.limits.watch)
        clock.note(len(received), time.monotonic() - start)
        return received

    def _receive(self, max_bytes: int, limit: float, watch: Callable[[], None] | None) -> bytes:
        while watch is not None:
            watch()
            if limit <= _WATCH:
                break
            try:
                return self._stream.read(max_bytes, _WATCH)
            except httpcore.ReadTimeout:
                limit -= _WATCH
        return self._stream.read(max_bytes, limit)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        clock = cast(Clock, timeout)
        self._stream.write(buffer, clock.left(clock.limits.idle))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        clock = cast(Clock, timeout)
        try:
            limit = clock.left(clock.limits.connect)
            return _CheckedStream(self._stream.start_tls(ssl_context, server_hostname, limit))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _CheckedBackend(httpcore.NetworkBackend):
    """Where httpcore would resolve and connect by name, this connects to the addresses that ``find`` gives."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        clock = cast(Clock, timeout)
        until = time.monotonic() + clock.left(clock.limits.connect)
        places = self._find(host, port, until - time.monotonic())
        failure: Exception = httpcore.ConnectTimeout("no time was left to connect")
        for untried, (address, real_port) in zip(range(len(places), 0, -1), places, strict=True):
            left = until - time.monotonic()
            if left <= 0:
                break
            try:
                stream = self._sockets.connect_tcp(address, real_port, left / untried, None, ())
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _CheckedStream(stream)
        raise failure


class Transport(httpx.HTTPTransport):
    """httpx's transport on a network backend of ours, for which it has no parameter.

    Used without httpx.Client: nothing here keeps cookies, follows redirects or reads the environment.
    """

    def __init__(self, ssl_context: ssl.SSLContext, find: Find) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl_context,
            max_connections=None,  # callers bound themselves; waiting here would look like a remote's fault
            max_keepalive_connections=20,
            keepalive_expiry=_KEEPALIVE,
            network_backend=_CheckedBackend(find),
        )
