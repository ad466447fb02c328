"""What is cut out of a websocket's bytes before the library sees them: the same messages in the same order, whatever comes."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import OPEN
from websockets.uri import parse_uri
from websockets.utils import accept_key

from chalicelib.atproto import websocket
from chalicelib.atproto.websocket import GATHER_SECONDS, MAX_SMALL, READ_BYTES, Connection, Pace

LIMIT = 300


@dataclass
class Transport(asyncio.Transport):
    """Hands over what it is given as a transport does: as long as its reading is not paused."""

    protocol: Any = None
    written: list[bytes] = field(default_factory=list)
    is_paused: bool = False
    is_aborted: bool = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def abort(self) -> None:
        self.is_aborted = True

    def receive(self, data: bytes) -> None:
        self.protocol.get_buffer(-1)[: len(data)] = data
        self.protocol.buffer_updated(len(data))


def open_protocol() -> tuple[ClientProtocol, bytes]:
    """A protocol that has asked for a websocket, and the answer that opens it."""
    protocol = ClientProtocol(parse_uri("ws://hold.test/"), max_size=LIMIT)
    protocol.send_request(protocol.connect())
    protocol.data_to_send()
    answer = f"Sec-WebSocket-Accept: {accept_key(protocol.key)}\r\n\r\n"
    return (
        protocol,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + answer.encode(),
    )


def opened(pace: Pace = lambda frames, size: 0) -> tuple[Connection, Transport, bytes]:
    protocol, answer = open_protocol()
    connection, transport = Connection(protocol, ping_interval=None, close_timeout=0.01, pace=pace), Transport()
    connection.connection_made(transport)
    return connection, transport, answer


def frame(first: int, data: bytes = b"", *, wide: int = 0, masked: bool = False) -> bytes:
    """``wide``: bytes of a longer form of the size, where a shorter one would do."""
    wide = max(wide, 0 if len(data) < 126 else 2)
    size = {0: len(data), 2: 126, 8: 127}[wide]
    return bytes((first, size | 128 * masked)) + (len(data).to_bytes(wide, "big") if wide else b"") + data


def messages_of(events: Sequence[Any]) -> tuple[list[bytes], bool]:
    """What the library's frames make up, and whether a text ended it."""
    found, begun = [], b""
    for event in events:
        if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
            return found, True
        if isinstance(event, Frame) and event.opcode in (Opcode.BINARY, Opcode.CONT):
            begun += event.data
            if event.fin:
                found.append(begun)
                begun = b""
    return found, False


payloads = st.sampled_from([0, 1, 5, 125, 126, 127, LIMIT - 1, LIMIT]).map(
    lambda size: bytes(range(256))[:size].ljust(size)
)
plain = st.builds(frame, st.just(0x82), payloads, wide=st.sampled_from([0, 2, 8]))
control = st.one_of(
    st.builds(frame, st.sampled_from([0x89, 0x8A]), st.binary(max_size=125)),
    st.sampled_from([frame(0x88, b"\x03\xe8"), frame(0x88, b"\x03\xf3gone"), frame(0x88)]),
)
fragments = st.builds(
    lambda parts, ping: (
        frame(0x02, parts[0])
        + b"".join(frame(0x00, part) + frame(0x89, b"now") * ping for part in parts[1:-1])
        + frame(0x80, parts[-1])
    ),
    st.lists(st.binary(max_size=120), min_size=2, max_size=5),
    st.booleans(),
)
wrong = st.sampled_from(
    [
        frame(0x82, bytes(LIMIT + 1)),
        frame(0x82, bytes(LIMIT + 1))[:4],
        b"\x82\x7f\x80" + bytes(7),
        frame(0x82, bytes(5), masked=True),
        frame(0xC2, b"compressed"),
        frame(0x83),
        frame(0x80, b"of what?"),
        frame(0x02, b"begun"),
        frame(0x09, b"half a ping"),
        frame(0x89, bytes(126)),
        frame(0x88, b"\x03"),
        frame(0x81, b"a text"),
        frame(0x01, b"half a text"),
        b"\xff" * 4,
    ]
)
streams = st.lists(st.one_of(plain, plain, plain, fragments, control, wrong), max_size=12)


@given(streams, st.lists(st.integers(1, 400), max_size=60))
@example([frame(0x82, b"before"), frame(0x88, b"\x03\xe8"), frame(0x82, b"after")], [])
@example([frame(0x82, b"1"), frame(0x02, b"2"), frame(0x80, b"."), frame(0x82, b"3")], [1] * 60)
def test_however_bytes_are_cut_it_is_what_the_library_makes_of_them(stream: list[bytes], cuts: list[int]) -> None:
    async def test() -> None:
        oracle, answer = open_protocol()
        for each in (answer, *stream):  # one frame at a time, since nothing that follows a text counts
            oracle.receive_data(each)
            events = oracle.events
            expected, refused = messages_of(events)
            if refused:
                break

        connection, transport, answer = opened()
        data, found = answer + b"".join(stream), list[bytes]()
        while data:
            size = cuts.pop() if cuts else READ_BYTES
            transport.receive(data[:size])
            data = data[size:]
            if connection.waiting:
                found += connection.waiting if connection.protocol.state is not OPEN else await connection.messages()
                connection.waiting = []

        assert found == expected
        protocol = connection.protocol
        if refused:
            assert protocol.close_sent
            assert protocol.close_sent.code == CloseCode.UNSUPPORTED_DATA
        else:
            assert (protocol.state, protocol.close_sent, protocol.close_rcvd) == (
                oracle.state,
                oracle.close_sent,
                oracle.close_rcvd,
            )
            assert len(transport.written) == len(oracle.data_to_send())

    asyncio.run(test())


def run(test: Callable[[Connection, Transport], Any], pace: Pace = lambda frames, size: 0) -> None:
    async def opening() -> None:
        connection, transport, answer = opened(pace)
        transport.receive(answer)
        assert connection.protocol.state is OPEN
        await test(connection, transport)

    asyncio.run(asyncio.wait_for(opening(), 10))


@pytest.mark.parametrize("message", [b"", b"xy", bytes(LIMIT)])
def test_while_messages_wait_nothing_more_is_read(message: bytes) -> None:
    async def test(connection: Connection, transport: Transport) -> None:
        many = frame(0x82, message) * (READ_BYTES // len(frame(0x82, message)))
        sent = 0
        while not transport.is_paused:
            transport.receive(many)
            sent += len(many)
        assert sent <= READ_BYTES
        assert await connection.messages() == [message] * (len(many) // len(frame(0x82, message)))
        assert transport.is_paused  # until the reader comes back
        again = asyncio.ensure_future(connection.messages())
        while transport.is_paused:  # noqa: ASYNC110
            await asyncio.sleep(0)
        transport.receive(many)
        assert len(await again) > 1

    run(test)


@pytest.mark.parametrize(
    ("sent", "frames"), [(frame(0x82, b"xy") * 3, 3), (frame(0x89) * 3, 3), (frame(0x02, b"xy"), 1)]
)
def test_while_the_pace_says_so_nothing_more_is_read(sent: bytes, frames: int) -> None:
    told: list[tuple[int, int]] = []

    def pace(frames: int, size: int) -> float:
        told.append((frames, size))
        return 3600 if frames else 0

    async def test(connection: Connection, transport: Transport) -> None:
        transport.receive(sent)
        assert told[-1] == (frames, len(sent))
        assert transport.is_paused
        if connection.waiting:
            await connection.messages()
        reader = asyncio.ensure_future(connection.messages())
        await asyncio.sleep(2 * GATHER_SECONDS)
        assert transport.is_paused
        reader.cancel()

    run(test, pace)


def test_a_host_over_its_pace_can_still_open_a_websocket() -> None:
    async def test() -> None:
        connection, transport, answer = opened(lambda frames, size: 3600)
        transport.receive(answer[:50])
        assert not transport.is_paused
        transport.receive(answer[50:])
        assert connection.protocol.state is OPEN
        assert transport.is_paused

    asyncio.run(test())


@pytest.mark.parametrize("small", [frame(0x89), frame(0x8A), frame(0x00)])
def test_a_flood_of_pings_or_fragments_is_given_up(small: bytes) -> None:
    async def test(connection: Connection, transport: Transport) -> None:
        transport.receive(frame(0x82, b"before") + frame(0x02) + small * (MAX_SMALL - 1))
        assert not connection.protocol.close_sent
        transport.receive(small * (READ_BYTES // len(small)))
        assert connection.protocol.close_sent
        assert connection.protocol.close_sent.code == CloseCode.POLICY_VIOLATION
        assert len(transport.written) <= 2 * MAX_SMALL + 1
        assert await connection.messages() == [b"before"]

    run(test)


def test_a_message_without_an_end_is_kept_up_to_the_limit() -> None:
    async def test(connection: Connection, transport: Transport) -> None:
        transport.receive(frame(0x02))
        for _ in range(10_000):
            transport.receive(frame(0x00))
        transport.receive(frame(0x80, b"end"))
        assert await connection.messages() == [b"end"]
        transport.receive(frame(0x02, bytes(200)) + frame(0x00, bytes(101)))
        assert connection.protocol.close_sent
        assert connection.protocol.close_sent.code == CloseCode.MESSAGE_TOO_BIG

    run(test)


def test_what_came_before_the_connection_broke_is_given() -> None:
    async def test(connection: Connection, transport: Transport) -> None:
        transport.receive(frame(0x82, b"last") + frame(0x82, b"half")[:4])
        transport.protocol.connection_lost(ConnectionResetError())
        assert await connection.messages() == [b"last"]
        with pytest.raises(Exception, match="no close frame"):
            await connection.messages()

    run(test)


def test_who_reads_no_pongs_is_cut_off() -> None:
    async def test(connection: Connection, transport: Transport) -> None:
        transport.protocol.pause_writing()
        assert transport.is_aborted

    run(test)


def test_an_answer_without_an_end_is_left_to_the_library() -> None:
    async def test() -> None:
        connection, transport, _ = opened()
        for _ in range(20):
            transport.receive(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1000)
        assert cast(ClientProtocol, connection.protocol).handshake_exc is not None

    asyncio.run(test())


def test_a_connection_that_is_over_is_freed_at_once() -> None:
    gone: list[weakref.ref[Connection]] = []

    async def over() -> None:
        connection, transport, answer = opened()
        transport.receive(answer + frame(0x82, b"last"))
        transport.protocol.connection_lost(ConnectionResetError())
        transport.protocol = None
        gone.append(weakref.ref(connection))

    gc.disable()
    try:
        asyncio.run(over())
        assert gone[0]() is None
    finally:
        gc.enable()


def test_the_ends_of_thousands_of_connections_leave_the_loop_to_others_in_between() -> None:
    ended: list[int] = []

    def end(number: int) -> None:
        ended.append(number)
        if number == 7:
            raise ConnectionError("of one connection")

    async def breaking() -> list[int]:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        endings = websocket._Endings.of(loop)
        assert endings is websocket._Endings.of(loop)
        for number in range(5_000):
            endings.add(partial(end, number))
        seen = [0]
        while len(ended) < 5_000:
            await asyncio.sleep(0)
            seen.append(len(ended))
        return [after - before for before, after in itertools.pairwise(seen)]

    steps = asyncio.run(asyncio.wait_for(breaking(), 60))
    assert max(steps) <= websocket.ENDINGS_AT_ONCE
    assert ended == list(range(5_000))
