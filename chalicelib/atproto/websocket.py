"""A websocket that a Door opened: binary messages in, and errors in our own hierarchy.

``websockets`` makes the connection, answers pings, closes, and fails what breaks the protocol. But its parser, its queue and
a task's step for each message cost more than all else that happens to a message of a busy stream. So whole messages in one
frame are cut out of what arrives before the library sees it; all other frames it gets, each whole, one at a time:

    TLS -> Frames -> 82 7e .. ..  a message in one frame -------------> messages, as many as came together
                  `-> ping, pong, close, fragment, text -> the library ----^ (fragments, put together)
                  `-> what no server may send, or over the limit, and all that follows -> the library, which fails it
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, ClassVar, Final, cast
from weakref import WeakKeyDictionary

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus, WebSocketException
from websockets.frames import DATA_OPCODES, CloseCode, Frame, Opcode
from websockets.protocol import CONNECTING, OPEN, Event

from chalicelib.atproto.errors import BadResponse, BudgetExceeded, RemoteError, Unreachable, forget
from chalicelib.atproto.net import Door, Target, asked_to_wait, printable, resolving

READ_BYTES: Final = 256 * 1024
"""Bytes that are read at once, at most. The messages in them are what may wait for a reader; then the sender has to wait."""
LITTLE_BYTES: Final = 240 * 1024
"""Messages of less than that come singly: then waiting for more saves more than it costs."""
GATHER_SECONDS: Final = 0.1
"""How long what comes singly is gathered, after a first message that is given at once. To be woken costs as much as to skip
dozens of frames, for caches have gone cold: at 2,000 frames a second a tenth of a second takes half of what a fiftieth does."""
MAX_SMALL: Final = 1_000
"""Pings, pongs and fragments in what is read at once: the library is slow with them. Nobody needs so many."""

ENDINGS_AT_ONCE: Final = 20
"""Connections whose end is dealt with before the event loop does other work: some 50 us each."""

Pace = Callable[[int, int], float]
"""Told that so many frames and bytes were read, says for how many seconds nothing more is to be read."""

_SCHEMES: Final = ("wss", "ws")
_MESSAGE: Final = 0x82
_FRAMES: Final = frozenset({0x00, 0x01, 0x02, 0x80, 0x81, _MESSAGE, 0x88, 0x89, 0x8A})
_WIDE_SIZES: Final = {126: 2, 127: 8}
_USUAL_START: Final = struct.Struct(">HH")
_USUAL: Final = 0x827E
"""The start of a message whose size has two bytes, and follows."""
_MAX_HEAD: Final = 64 * 1024
_END_OF_HEAD: Final = b"\r\n\r\n"


class Websocket:
    """An open websocket, for one reader. Iterating gives messages until the other side closes in good order: in lists of
    those that came together."""

    def __init__(self, connection: Connection, origin: str) -> None:
        self._connection = connection
        self._origin = origin

    async def recv(self) -> list[bytes]:
        """The next messages, or none after an orderly close. Can be cancelled without losing a message.

        Raises Unreachable when the connection breaks or a ping stays unanswered, BudgetExceeded for a message over the
        limit, BadResponse for a text message or a violation of the websocket protocol.
        """
        try:
            return await self._connection.messages()
        except ConnectionClosedOK:
            return []
        except ConnectionClosed as closed:
            raise self._reason(closed) from closed

    async def __aiter__(self) -> AsyncIterator[list[bytes]]:
        while messages := await self.recv():
            yield messages

    def _reason(self, closed: ConnectionClosed) -> RemoteError:
        ours = closed.sent.code if closed.sent and not closed.rcvd_then_sent else None
        if ours == CloseCode.MESSAGE_TOO_BIG:
            return BudgetExceeded(f"{self._origin} sent a message that is too large")
        if ours == CloseCode.UNSUPPORTED_DATA:
            return BadResponse(f"{self._origin} sent a text message")
        if ours in (CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_DATA):
            return BadResponse(f"{self._origin} broke the websocket protocol")
        if ours == CloseCode.POLICY_VIOLATION:
            return BadResponse(f"{self._origin} sent more pings and fragments than messages can need")
        return Unreachable(f"the websocket of {self._origin} closed: {printable(str(closed))}")


class Connection(ClientConnection):
    """The library's connection, except for messages: they come in lists, and while some wait nothing is read. Nor is while
    ``pace`` says so."""

    # Beside the library's own attributes they would be too many for a dictionary that shares its keys.
    __slots__ = ("_arrived", "_fragments", "_is_paused", "_on_time", "_pace", "waiting")

    def __init__(self, *arguments: Any, pace: Pace, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._pace = pace
        self.waiting: list[bytes] = []
        """Messages that came since the last were given."""
        self._fragments = bytearray()
        self._arrived: asyncio.Future[None] | None = None
        self._is_paused = False
        self._on_time = 0.0
        """Until then nothing is read (the loop's time), once it is paused."""

    async def messages(self) -> list[bytes]:
        """All that wait, at least one. Raises ConnectionClosed where no more can come."""
        while not self.waiting:
            if self._is_paused:
                if (wait := self._on_time - self.loop.time()) > 0:
                    await asyncio.sleep(wait)
                self._resume()
            if self.protocol.state is not OPEN:
                await self.close()  # in good order where that is possible, and soon
                raise self.close_exc
            self._arrived = self.loop.create_future()
            await self._arrived
        messages, self.waiting = self.waiting, []
        return messages

    def hand_over(self, frames: int, size: int) -> None:
        """So many frames and bytes were read: wake the reader, which asks for more when it has dealt with them and they are
        not too many."""
        wait = self._pace(frames, size)
        is_open = self.protocol.state is OPEN
        if is_open and (self.waiting or wait > 0) and not self._is_paused:
            self.transport.pause_reading()
            self._is_paused = True
            self._on_time = self.loop.time() + max(wait, GATHER_SECONDS if size < LITTLE_BYTES else 0)
        if self._arrived and not self._arrived.done() and (self._is_paused or not is_open):
            self._arrived.set_result(None)

    def _resume(self) -> None:
        self._is_paused = False
        self.transport.resume_reading()

    async def close(self, code: CloseCode | int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """As the library does it; what it waits for must be read."""
        if self._is_paused:
            self._resume()
        await super().close(code, reason)

    # What the transport and the library call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_protocol(Frames(self))
        if limit := getattr(transport, "set_read_buffer_limits", None):  # TLS
            limit(1)  # while it is paused, the socket is not read either

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.protocol.parser.close()  # it refers to itself, and would keep all until the garbage is collected
        for error in (self.protocol.parser_exc, self.protocol.handshake_exc):
            if error is not None:
                forget(error)
        self.hand_over(0, 0)

    def pause_writing(self) -> None:
        """Only pings and pongs are written. Who reads none of them would have us keep them."""
        super().pause_writing()
        self.transport.abort()

    def process_event(self, event: Event) -> None:
        if not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            super().process_event(event)
        elif self.protocol.state is not OPEN:
            pass  # it is being closed
        elif event.opcode is Opcode.TEXT:
            self.protocol.fail(CloseCode.UNSUPPORTED_DATA, "text")
            self.send_data()
        else:
            self._fragments += event.data
            if event.fin:
                self.waiting.append(bytes(self._fragments))
                self._fragments.clear()


class Frames(asyncio.BufferedProtocol):
    """What is between the transport and the library: it takes out messages that are one frame, and passes on the rest."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._received = bytearray()
        """What does not make up a frame yet. The library always stands at the beginning of a frame."""
        self._missing = 0
        """Bytes without which it certainly does not."""
        self._small = 0
        """Pings, pongs and fragments in what was read last."""
        self._by_library = False

    def get_buffer(self, sizehint: int) -> memoryview:
        return _shared.buffer

    def buffer_updated(self, nbytes: int) -> None:
        came = _shared.buffer[:nbytes]
        if self._connection.protocol.state is CONNECTING and not self._by_library:
            rest = self._pass_on_head(came)
            if rest is None:
                return
            came = rest
        frames = self._take(came)
        if not self._is_cutting:
            self._pass_on(len(self._received))
        self._connection.hand_over(frames, nbytes)

    @property
    def _is_cutting(self) -> bool:
        return self._connection.protocol.state is OPEN and not self._by_library

    def _pass_on_head(self, came: memoryview) -> memoryview | None:
        """Give the library the head of the answer, once it is there. Returns what follows it, and before that None."""
        received = self._received
        received += came
        end = received.find(_END_OF_HEAD)
        if end < 0 and len(received) < _MAX_HEAD:
            return None
        self._by_library = end < 0
        self._pass_on(end + len(_END_OF_HEAD))
        rest = memoryview(bytes(received))
        received.clear()
        return rest

    def _take(self, came: memoryview) -> int:
        """Cut up what came, behind what was there of a frame; what is left is ``_received``. Returns how many frames it was."""
        received = self._received
        self._small = frames = at = 0
        while received and at < len(came) and self._is_cutting:
            step = came[at : at + self._missing]
            received += step
            at += len(step)
            self._missing -= len(step)
            if not self._missing:
                with memoryview(received) as view:
                    end, found = self._cut(view)
                del received[:end]
                frames += found
        if not received and self._is_cutting:
            end, found = self._cut(came[at:])
            at += end
            frames += found
        received += came[at:]
        return frames

    def _cut(self, view: memoryview) -> tuple[int, int]:
        """Take the frames that are whole, up to one that the library has to refuse. Returns how many bytes and frames."""
        connection = self._connection
        protocol, waiting = connection.protocol, connection.waiting
        limit = cast(int, protocol.max_message_size)
        is_fragmented = protocol.current_size is not None
        at, end = 0, len(view)
        before = len(waiting) + self._small
        while end - at >= 2:
            if end - at >= 4:  # nearly all of them
                start, size = _USUAL_START.unpack_from(view, at)
                stop = at + 4 + size
                if start == _USUAL and stop <= end and size <= limit and not is_fragmented:
                    waiting.append(bytes(view[at + 4 : stop]))
                    at = stop
                    continue
            first, second = view[at], view[at + 1]
            wide = _WIDE_SIZES.get(second, 0)
            begin = at + 2 + wide
            if begin > end:
                self._missing = begin - end
                break
            size = int.from_bytes(view[at + 2 : begin], "big") if wide else second
            if first not in _FRAMES or second > 127 or size > limit:
                self._by_library = True
                break
            stop = begin + size
            if stop > end:
                self._missing = stop - end
                break
            if first == _MESSAGE and not is_fragmented:
                waiting.append(bytes(view[begin:stop]))
                at = stop
                continue
            self._small += 1
            frame, at = view[at:stop], stop
            if self._small > MAX_SMALL:
                protocol.fail(CloseCode.POLICY_VIOLATION)
                connection.send_data()
                break
            connection.data_received(bytes(frame))
            if protocol.state is not OPEN:
                break
            is_fragmented = protocol.current_size is not None
        else:
            self._missing = 2 - (end - at)
        return at, len(waiting) + self._small - before

    def _pass_on(self, size: int) -> None:
        """Give the library the first bytes of what is here, whatever they are."""
        data = bytes(self._received[:size])
        del self._received[:size]
        if data:
            self._connection.data_received(data)

    # What else the transport calls

    def eof_received(self) -> None:
        self._pass_on(len(self._received))
        self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        connection = self._connection
        del self._connection  # uvloop's TLS keeps our methods, and the connection its transport: a cycle
        _Endings.of(connection.loop).add(partial(connection.connection_lost, exc))

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()


class _Endings:
    """The ends of connections, dealt with some at a time: when thousands break at once, the event loop looks after the
    others in between."""

    _all: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, _Endings]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> _Endings:
        """Those of an event loop."""
        return cls._all.setdefault(loop, cls())

    def add(self, ending: Callable[[], None]) -> None:
        self._waiting.append(ending)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._begin_some)

    def _begin_some(self) -> None:
        begin = asyncio.get_running_loop().call_soon
        for _ in range(min(ENDINGS_AT_ONCE, len(self._waiting))):
            begin(self._waiting.popleft())
        if self._waiting:
            begin(self._begin_some)


class _Shared(threading.local):
    """What was read is cut up before anything else is read by the same thread."""

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(READ_BYTES))


_shared: Final = _Shared()


@asynccontextmanager
async def open_websocket(
    door: Door,
    url: str,
    *,
    max_message: int,
    open_timeout: float,
    close_timeout: float,
    ping_interval: float,
    ping_timeout: float,
    pace: Pace,
    opening: AbstractAsyncContextManager[object],
) -> AsyncIterator[Websocket]:
    """See Door.websocket."""
    target = door.vet(url, _SCHEMES)
    options: dict[str, Any] = {
        "max_size": max_message,
        "close_timeout": close_timeout,
        "ping_interval": ping_interval,
        "ping_timeout": ping_timeout,
        "compression": None,
        "create_connection": partial(Connection, pace=pace),
        "proxy": None,
        "user_agent_header": door.user_agent,
    }
    if target.origin.secure:
        options |= {"ssl": door.ssl_context, "server_hostname": target.origin.hostname}
    async with opening:
        connection = await _connect(door, target, open_timeout, options)
    for told in (connection.request, connection.response):
        if told:
            told.headers.clear()  # nobody asks for them any more, and they are large
    socket = Websocket(connection, str(target.origin))
    del target, options  # they would stay as long as the connection
    try:
        yield socket
    finally:
        await connection.close()


async def _connect(door: Door, target: Target, open_timeout: float, options: dict[str, Any]) -> Connection:
    clock = asyncio.get_running_loop().time
    until = clock() + open_timeout
    with resolving(target.origin):
        found = await asyncio.wait_for(asyncio.wrap_future(door.look_up(target.origin)), open_timeout)
    places = door.places(target.origin, found)
    failure: OSError = TimeoutError("no time was left to connect")
    for untried, (address, port) in zip(range(len(places), 0, -1), places, strict=True):
        left = max(0.0, until - clock()) / untried
        try:
            return cast(
                Connection,
                await _WithoutRedirects(target.url, host=address, port=port, open_timeout=left, **options),
            )
        except OSError as error:
            failure = error
        except InvalidStatus as error:
            response = error.response
            wait = asked_to_wait(response.status_code, cast(Mapping[str, str], response.headers))
            raise BadResponse(f"{target.origin} answered {response.status_code}", retry_after=wait) from error
        except (WebSocketException, EOFError) as error:
            raise BadResponse(f"{target.origin} opens no websocket: {printable(str(error))}") from error
    raise Unreachable(f"{target.origin} can't be reached: {printable(str(failure))}") from failure


class _WithoutRedirects(connect):
    """The library would follow redirects to where nobody has looked. Here one is an answer like any other."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc
