"""An HTTP server on one loopback port, that counts what it is asked and fails as it is told."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from aiohttp import web

from .faults import Fault, Query, Reply


class Refused(Exception):
    """An XRPC error to answer with."""

    def __init__(self, status: int, name: str, message: str = "") -> None:
        super().__init__(message or name)
        self.reply = Reply.error(status, name, message)


class Server:
    """One port of 127.0.0.1. The port is its own from the beginning to ``close``, also while nothing listens there.

    ``requests``, ``bytes_sent`` and ``hang_ups`` count by endpoint (``com.atproto.sync.getRepo``, ``_health``,
    ``.well-known/did.json``); ``most_at_once`` is the largest number of requests that were ever under way together.
    """

    def __init__(self, port: int = 0) -> None:
        self.requests: Counter[str] = Counter()
        self.bytes_sent: Counter[str] = Counter()
        self.hang_ups: Counter[str] = Counter()
        self.most_at_once = 0
        self.changed = asyncio.Condition()
        self._at_once = 0
        self._faults: list[tuple[str, Fault]] = []
        self._reserved = _bind(port)
        self._runner: web.ServerRunner | None = None

    @property
    def port(self) -> int:
        return int(self._reserved.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def running(self) -> bool:
        return self._runner is not None

    async def start(self) -> None:
        """Listen. Again after a ``stop``: on the same port."""
        if self._runner:
            return
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.01)
        await self._runner.setup()
        await web.SockSite(self._runner, _bind(self.port)).start()

    async def stop(self) -> None:
        """The port is dead: connections are cut, new ones are refused."""
        runner, self._runner = self._runner, None
        if runner:
            await runner.cleanup()

    def take_new_port(self) -> None:
        """Give the port up for another. Only while stopped."""
        old, self._reserved = self._reserved, _bind(0)
        old.close()

    async def close(self) -> None:
        """Stop for good, and give the port back."""
        await self.stop()
        self._reserved.close()

    def fail(
        self,
        endpoint: str,
        answer: Reply | Callable[[Query], Reply] | None = None,
        *,
        times: int | None = None,
        **kind: Any,
    ) -> Fault:
        """Put a fault on an endpoint (``*``: all), for ``times`` requests or until it is cleared. See ``Fault``."""
        fault = Fault(answer=answer, times=times, **kind)
        self._faults.append((endpoint, fault))
        return fault

    def heal(self) -> None:
        """Clear all faults."""
        for _, fault in self._faults:
            fault.clear()
        self._faults.clear()

    async def until(self, condition: Callable[[], bool], within: float = 10) -> None:
        """Wait until ``condition`` holds. It is looked at whenever a request or a subscriber comes or goes."""
        async with asyncio.timeout(within), self.changed:
            await self.changed.wait_for(condition)

    def answer(self, endpoint: str, request: web.BaseRequest) -> Reply:
        """The true answer to a request; ``Refused`` for an error."""
        raise Refused(501, "MethodNotImplemented", "Method Not Implemented")

    async def serve(self, endpoint: str, request: web.BaseRequest, fault: Fault) -> web.StreamResponse:
        """Answer a request that is not delayed any more."""
        try:
            reply = fault.answer or self.answer(endpoint, request)
        except Refused as refused:
            reply = refused.reply
        return await self._send(endpoint, request, reply(request.query) if callable(reply) else reply, fault)

    def endpoint(self, path: str) -> str:
        """The name under which a path is counted and failed."""
        return path.removeprefix("/xrpc/").strip("/")

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        endpoint = self.endpoint(request.path)
        fault = next((f for on, f in self._faults if on in (endpoint, "*") and f.strikes(request.query)), Fault())
        self.requests[endpoint] += 1
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await self._notify()
        try:
            await asyncio.sleep(fault.delay)
            if fault.hang:
                await fault.released.wait()
            return await self.serve(endpoint, request, fault)
        finally:
            self._at_once -= 1
            await self._notify()

    async def _send(self, endpoint: str, request: web.BaseRequest, reply: Reply, fault: Fault) -> web.StreamResponse:
        body = reply.body
        if fault.edit:
            body = fault.edit(body if isinstance(body, bytes) else b"".join(body))
        response = web.StreamResponse(
            status=reply.status, headers={"Content-Type": reply.content_type, **reply.headers}
        )
        if isinstance(body, bytes):
            response.content_length = len(body)
            body = [body]
        sent = 0
        try:
            await response.prepare(request)
            for chunk in body:
                for stop, breaks in ((fault.cut_after, True), (fault.stall_after, False)):
                    if stop is not None and sent + len(chunk) > stop:
                        await response.write(chunk[: stop - sent])
                        if not breaks:
                            await fault.released.wait()
                        elif request.transport:
                            request.transport.close()
                        raise ConnectionResetError
                await response.write(chunk)
                sent += len(chunk)
                self.bytes_sent[endpoint] += len(chunk)
            await response.write_eof()
        except ConnectionError:
            self.hang_ups[endpoint] += 1
        return response

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()


def _bind(port: int) -> socket.socket:
    """A bound socket. Two may hold the same port: one that keeps it, and one that listens."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    share = socket.SO_REUSEADDR if sys.platform == "linux" else socket.SO_REUSEPORT
    bound.setsockopt(socket.SOL_SOCKET, share, 1)
    bound.bind(("127.0.0.1", port))
    return bound
