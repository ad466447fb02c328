"""A door to the simulated neighbourhood without sockets: the hosts' own answers and frames, byte by byte, in this process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from chalicelib.atproto.errors import Unreachable
from chalicelib.atproto.net import Response, StreamedResponse, asked_to_wait
from simulator.faults import Fault
from simulator.host import SUBSCRIBE, Host
from simulator.neighbourhood import Neighbourhood
from simulator.server import Refused, Server
from tests.oracle.processes import Killed, Process, current


class Wire:
    """One open stream. What the host sends waits here until ``deliver``."""

    def __init__(self, host: Host, process: Process) -> None:
        self.host = host
        self.process = process
        self.on_its_way: deque[bytes | None] = deque()
        self.waiting = SimpleNamespace(put_nowait=self.on_its_way.append)  # as the simulator's stream sends
        self.transport = SimpleNamespace(abort=self.cut)
        self.is_cut = False
        self._arrived: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()

    def deliver(self, count: int | None = None) -> int:
        """Let so many frames (None: all) arrive. Returns how many did."""
        arriving = len(self.on_its_way) if count is None else min(count, len(self.on_its_way))
        for _ in range(arriving):
            self._arrived.put_nowait(self.on_its_way.popleft())
        return arriving

    def cut(self) -> None:
        """The connection breaks: what is on its way is lost."""
        if not self.is_cut:
            self.is_cut = True
            self.on_its_way.clear()
            self._arrived.put_nowait(Unreachable("the connection broke"))

    async def __aiter__(self) -> AsyncIterator[list[bytes]]:
        arrived: bytes | Exception | None = await self._arrived.get()
        while arrived is not None:
            if isinstance(arrived, Exception):
                raise arrived
            frames = [arrived]
            while not self._arrived.empty() and isinstance(arrived := self._arrived.get_nowait(), bytes):
                frames.append(arrived)
            yield frames
            if isinstance(arrived, bytes):
                arrived = await self._arrived.get()


class InProcessDoor:
    """What the service uses of a ``Door``. ``down``: servers that do not answer."""

    allow_private = True
    user_agent = "oracle"

    def __init__(self, net: Neighbourhood, down: set[Server], wires: list[Wire], spend: Callable[[], None]) -> None:
        self._net = net
        self._spend = spend
        self._down = down
        self._wires = wires

    def get(self, url: str, *, max_bytes: int, accept: str = "", timeouts: Any = None) -> Response:
        with self.stream(url, max_bytes=max_bytes, timeouts=timeouts) as answer:
            return Response(answer.url, answer.status, answer.retry_after, b"".join(answer.chunks))

    @contextmanager
    def stream(self, url: str, *, max_bytes: int, accept: str = "", timeouts: Any = None) -> Iterator[StreamedResponse]:
        server, path, query = self._find(url)
        self._spend()
        if timeouts is not None and timeouts.watch is not None:
            timeouts.watch()
        endpoint = server.endpoint(path)
        fault = next((fault for on, fault in server._faults if on in (endpoint, "*") and fault.strikes(query)), Fault())
        if fault.cut_after is not None:
            raise Unreachable("the connection broke")
        try:
            reply = fault.answer or server.answer(endpoint, SimpleNamespace(path=path, query=query))  # type: ignore[arg-type]
        except Refused as refused:
            reply = refused.reply
        reply = reply(query) if callable(reply) else reply
        body = reply.body if isinstance(reply.body, bytes) else b"".join(reply.body)
        body = fault.edit(body) if fault.edit else body
        headers = {name.lower(): value for name, value in reply.headers.items()}
        pieces = (body[start : start + 700] for start in range(0, len(body), 700))
        yield StreamedResponse(url, reply.status, asked_to_wait(reply.status, headers), pieces)

    @asynccontextmanager
    async def websocket(self, url: str, **_: Any) -> AsyncIterator[Wire]:
        host, path, query = self._find(url)
        assert isinstance(host, Host)
        assert host.endpoint(path) == SUBSCRIBE
        process = process_of(asyncio.get_running_loop())
        cursor = int(query["cursor"]) if "cursor" in query else None
        wire = Wire(host, process)
        host.stream.cursors.append(cursor)
        wire.on_its_way.extend(host.stream._replay(cursor))
        host.stream._connections.add(wire)  # type: ignore[arg-type]
        self._wires.append(wire)
        try:
            yield wire
        finally:
            host.stream._connections.discard(wire)  # type: ignore[arg-type]
            self._wires.remove(wire)

    def close(self) -> None:
        pass

    def _find(self, url: str) -> tuple[Server, str, Mapping[str, str]]:
        process = current()
        if process is not None and process.dead:
            raise Killed
        parts = urlsplit(url)
        servers = (self._net.plc, *self._net.hosts, *self._net.relays)
        server = next((server for server in servers if server.port == parts.port), None)
        if server is None or server in self._down:
            raise Unreachable(f"{parts.netloc} can't be reached")
        return server, unquote(parts.path), dict(parse_qsl(parts.query))


_owner: dict[Any, Process] = {}


def belongs_to(loop: asyncio.AbstractEventLoop, process: Process) -> None:
    """Say whose event loop this is."""
    _owner[loop] = process


def process_of(loop: asyncio.AbstractEventLoop) -> Process:
    return _owner[loop]


def forget(loop: asyncio.AbstractEventLoop) -> None:
    _owner.pop(loop, None)
