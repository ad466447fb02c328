"""The event stream of a host: events with rising seqs, a backlog of them, and the connections that follow it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from aiohttp import WSCloseCode, web

from . import frames
from .clock import Clock


class Event(NamedTuple):
    """One frame as it was sent."""

    seq: int
    frame: bytes


class _Connection:
    """One subscriber: frames that wait for it, None where it is to be closed."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.waiting: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.flowing = asyncio.Event()
        self.flowing.set()


class Stream:
    """``backlog`` has the events that a cursor can still reach, ``trimmed_to`` is the seq of the last that is gone.

    Cursors: absent, the live tip; a seq, the backlog after it (``inclusive``: from it on); one before
    the backlog, ``#info`` OutdatedCursor and all of it; one after the last seq, FutureCursor and the end.
    """

    def __init__(self, clock: Clock, *, inclusive: bool = False, gap: int = 1) -> None:
        self.seq = 0
        self.gap = gap
        self.backlog: list[Event] = []
        self.trimmed_to = 0
        self.cursors: list[int | None] = []
        """The cursor of each connection that was ever made."""
        self.heard_by: list[Callable[[bytes], None]] = []
        """Who else is told of each event, at once and whatever the connections do: relays."""
        self._clock = clock
        self._inclusive = inclusive
        self._connections: set[_Connection] = set()
        self._held: list[Event] | None = None

    @property
    def connections(self) -> int:
        return len(self._connections)

    def emit(self, frame: Callable[[int, str], bytes]) -> Event:
        """Give the next event its seq and time, keep it, and send it to all."""
        self.seq += self.gap
        event = Event(self.seq, frame(self.seq, self._clock.timestamp()))
        if self._held is None:
            self._show(event)
        else:
            self._held.append(event)
        return event

    def send(self, *sent: bytes) -> None:
        """Send frames as they are to whoever is connected now: infos, errors, rubbish."""
        for connection in self._connections:
            for frame in sent:
                connection.waiting.put_nowait(frame)

    def repeat(self, count: int = 1) -> None:
        """Send the last events of the backlog again."""
        self.send(*(event.frame for event in self.backlog[-count:]))

    def hold_back(self) -> None:
        """From now on events wait, with the seqs that they have."""
        self._held = []

    def release(self, order: Callable[[list[Event]], Iterable[Event]] = list) -> None:
        """Send what was held back, in another order (such as ``reversed``) or only some of it."""
        held, self._held = self._held or [], None
        for event in order(held):
            self._show(event)

    def trim(self, keep: int = 0) -> None:
        """Forget all of the backlog but the last events."""
        gone = self.backlog[: len(self.backlog) - keep]
        if gone:
            self.trimmed_to = gone[-1].seq
            self.backlog = self.backlog[len(gone) :]

    def rewind(self, seq: int, backlog: Iterable[Event], trimmed_to: int) -> None:
        """Be as at another time: the next event gets the seq after ``seq``."""
        self.seq, self.backlog, self.trimmed_to = seq, list(backlog), trimmed_to

    def fail(self, name: str = "ConsumerTooSlow", text: str | None = None) -> None:
        """Tell all connections an error, and close them."""
        for connection in self._connections:
            connection.waiting.put_nowait(frames.error(name, text))
            connection.waiting.put_nowait(None)

    def close(self) -> None:
        """End all connections politely, after what waits was sent."""
        for connection in self._connections:
            connection.waiting.put_nowait(None)

    def disconnect(self) -> None:
        """Break all connections: no close frame, what waits is lost."""
        for connection in self._connections:
            connection.transport.abort()

    def freeze(self) -> None:
        """The connections that are open now stay so, and nothing comes over them any more, not even a pong."""
        for connection in self._connections:
            connection.transport.pause_reading()
            connection.flowing.clear()

    def thaw(self) -> None:
        """What was frozen goes on."""
        for connection in self._connections:
            connection.transport.resume_reading()
            connection.flowing.set()

    def _show(self, event: Event) -> None:
        self.backlog.append(event)
        self.send(event.frame)
        for hear in self.heard_by:
            hear(event.frame)

    async def serve(
        self, request: web.BaseRequest, cursor: int | None, changed: Callable[[], Awaitable[None]]
    ) -> web.WebSocketResponse:
        """Follow one connection to its end. ``changed`` is called when it is on the list, and when it is off."""
        socket = web.WebSocketResponse(compress=False)
        try:
            await socket.prepare(request)
        except ConnectionError:
            return socket
        transport = request.transport
        if not isinstance(transport, asyncio.Transport):  # gone already
            return socket
        connection = _Connection(transport)
        self.cursors.append(cursor)
        for frame in self._replay(cursor):
            connection.waiting.put_nowait(frame)
        self._connections.add(connection)  # no await since the replay: nothing can come between
        feeding = asyncio.create_task(_feed(socket, connection))
        try:
            await changed()
            async for _ in socket:  # reading answers pings, and sees the end
                pass
        finally:
            self._connections.discard(connection)
            feeding.cancel()
            await changed()
        return socket

    def _replay(self, cursor: int | None) -> list[bytes | None]:
        if cursor is None:
            return []
        if cursor > self.seq:
            return [frames.error("FutureCursor", "Cursor in the future."), None]
        after = cursor - 1 if self._inclusive else cursor
        info = frames.info("OutdatedCursor", "Requested cursor exceeded limit. Possibly missing events")
        replay: list[bytes | None] = [event.frame for event in self.backlog if event.seq > after]
        return [info, *replay] if after < self.trimmed_to else replay


async def _feed(socket: web.WebSocketResponse, connection: _Connection) -> None:
    while (frame := await connection.waiting.get()) is not None:
        await connection.flowing.wait()
        try:
            await socket.send_bytes(frame)
        except ConnectionError:
            return
    await socket.close(code=WSCloseCode.OK)
