"""Websockets through the door: the same guard, bounds on messages and time, errors of our own."""

from __future__ import annotations

import asyncio
import gc
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest
import trustme
import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from chalicelib.atproto.errors import AddressRefused, BadResponse, BudgetExceeded, Unreachable, forget
from chalicelib.atproto.net import Door
from chalicelib.atproto.websocket import Websocket
from simulator.scripted import Reply, ScriptedServer, http

PUBLIC = "93.184.215.14"
Handler = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler, **options: Any) -> AsyncIterator[int]:
    """A websocket server; its port."""
    async with serve(handler, "127.0.0.1", 0, close_timeout=0.1, **options) as server:
        yield server.sockets[0].getsockname()[1]


async def every(socket: Websocket) -> list[bytes]:
    return [message async for messages in socket for message in messages]


def run(test: Coroutine[Any, Any, object]) -> None:
    asyncio.run(asyncio.wait_for(test, 20))


@pytest.fixture
def door() -> Any:
    with Door(allow_private=True, user_agent="atcr-discovery/0") as door:
        yield door


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


async def three(connection: ServerConnection) -> None:
    for message in (b"one", b"two", b"three"):
        await connection.send(message)


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_messages_come_in_order_until_an_orderly_close(runner: Callable[..., None], door: Door) -> None:
    async def test() -> None:
        async with (
            serving(three) as port,
            door.websocket(f"ws://localhost:{port}/xrpc/x?cursor=1", max_message=100) as socket,
        ):
            assert await every(socket) == [b"one", b"two", b"three"]

    runner(test())


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_messages_of_all_sizes_come_whole_over_tls(runner: Callable[..., None], ca: trustme.CA) -> None:
    sent = [bytes((number % 251,)) * (number * number % 90_001) for number in range(300)] + [b"large" * 200_000]

    async def handler(connection: ServerConnection) -> None:
        for number, message in enumerate(sent):
            if number % 50 == 7:
                await connection.send([message[:10], message[10:]])
                await (await connection.ping())
            else:
                await connection.send(message)

    async def test() -> None:
        server_context, context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
        ca.issue_cert("hold01.atcr.io").configure_cert(server_context)
        ca.configure_trust(context)
        async with serving(handler, ssl=server_context) as real_port:
            with Door(
                ssl_context=context, resolve=lambda *_: [PUBLIC], route=lambda *_: ("127.0.0.1", real_port)
            ) as door:
                async with door.websocket("wss://hold01.atcr.io/", max_message=1_000_000) as socket:
                    assert await every(socket) == sent

    runner(test())


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_who_leaves_while_messages_wait_says_good_bye(runner: Callable[..., None], door: Door) -> None:
    async def test() -> None:
        code: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

        async def handler(connection: ServerConnection) -> None:
            try:
                while True:
                    await connection.send(bytes(50_000))
            except ConnectionClosed:
                code.set_result(connection.close_code)

        async with serving(handler) as port:
            async with door.websocket(f"ws://127.0.0.1:{port}/", max_message=100_000) as socket:
                assert await socket.recv()
            assert await code == 1000

    runner(asyncio.wait_for(test(), 20))


def test_the_request_says_who_asks_and_offers_no_compression(door: Door) -> None:
    async def test() -> None:
        seen: list[Request] = []
        async with (
            serving(three, process_request=lambda _, request: seen.append(request)) as port,
            door.websocket(f"ws://127.0.0.1:{port}/xrpc/x?cursor=1", max_message=100),
        ):
            assert seen[0].path == "/xrpc/x?cursor=1"
            assert seen[0].headers["user-agent"] == "atcr-discovery/0"
            assert "sec-websocket-extensions" not in seen[0].headers

    run(test())


async def read(door: Door, handler: Handler, **options: Any) -> list[bytes]:
    async with (
        serving(handler) as port,
        door.websocket(f"ws://127.0.0.1:{port}/", **({"max_message": 100} | options)) as socket,
    ):
        return await every(socket)


def test_a_message_over_the_limit_ends_the_connection(door: Door) -> None:
    with pytest.raises(BudgetExceeded, match="too large"):
        run(read(door, lambda connection: connection.send(b"x" * 101)))


def test_a_message_in_fragments_is_counted_whole(door: Door) -> None:
    with pytest.raises(BudgetExceeded, match="too large"):
        run(read(door, lambda connection: connection.send([b"x" * 60, b"x" * 60])))


def test_a_text_message_is_a_bad_response(door: Door) -> None:
    with pytest.raises(BadResponse, match="text message"):
        run(read(door, lambda connection: connection.send("hello")))


def test_a_close_with_an_error_says_why(door: Door) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.close(1011, "gone\x1b[2J")

    with pytest.raises(Unreachable, match=r"1011.*gone\?"):
        run(read(door, handler))


def test_a_connection_that_breaks_is_unreachable(door: Door) -> None:
    async def handler(connection: ServerConnection) -> None:
        connection.transport.abort()

    with pytest.raises(Unreachable):
        run(read(door, handler))


def test_a_host_that_answers_no_ping_is_cut_off(door: Door) -> None:
    async def handler(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        await connection.wait_closed()

    with pytest.raises(Unreachable, match="ping"):
        run(read(door, handler, ping_interval=0.05, ping_timeout=0.05, close_timeout=0.05))


def test_bytes_that_are_no_frames_are_a_bad_response(door: Door) -> None:
    async def handler(connection: ServerConnection) -> None:
        connection.transport.write(b"\xff\xff\xff\xff")
        await connection.wait_closed()

    with pytest.raises(BadResponse, match="broke the websocket protocol"):
        run(read(door, handler))


def test_a_reader_that_is_cancelled_loses_no_message(door: Door) -> None:
    async def test() -> None:
        go = asyncio.Event()

        async def handler(connection: ServerConnection) -> None:
            await go.wait()
            await connection.send(b"late")

        async with serving(handler) as port, door.websocket(f"ws://127.0.0.1:{port}", max_message=100) as socket:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(socket.recv(), 0.01)
            go.set()
            assert await socket.recv() == [b"late"]
            assert await socket.recv() == []

    run(test())


def test_a_refused_handshake_says_how_long_to_wait(door: Door) -> None:
    async def test() -> None:
        def refuse(connection: ServerConnection, request: Request) -> Response:
            response = connection.respond(429, "slow down")
            response.headers["Retry-After"] = "30"
            return response

        async with serving(three, process_request=refuse) as port:
            with pytest.raises(BadResponse, match="429") as refused:
                async with door.websocket(f"ws://127.0.0.1:{port}", max_message=100):
                    pass
        assert refused.value.retry_after == 30

    run(test())


@pytest.mark.parametrize("relative", [True, False])
def test_a_redirect_is_refused(relative: bool, door: Door) -> None:
    with ScriptedServer(lambda request: http(200)) as canary:
        location = "/elsewhere" if relative else canary.url.replace("http", "ws")
        with ScriptedServer(lambda request: http(302, location=location)) as server:
            with pytest.raises(BadResponse, match="302"):
                run(enter(door, f"ws://127.0.0.1:{server.port}"))
            assert (len(server.requests), canary.connections) == (1, 0)


async def enter(door: Door, url: str, **options: Any) -> None:
    async with door.websocket(url, **({"max_message": 100} | options)):
        pass


def test_a_server_without_websockets_is_a_bad_response(door: Door) -> None:
    for reply in (http(200, b"<html>"), b"SSH-2.0-x\r\n\r\n", b""):
        with ScriptedServer(lambda request, reply=reply: [reply]) as server, pytest.raises(BadResponse):
            run(enter(door, f"ws://127.0.0.1:{server.port}"))


def test_a_server_that_says_nothing_is_unreachable(door: Door) -> None:
    with ScriptedServer(lambda request: None) as server:
        for scheme in ("ws", "wss"):
            with pytest.raises(Unreachable):
                run(enter(door, f"{scheme}://127.0.0.1:{server.port}", open_timeout=0.2))


def test_a_closed_port_is_unreachable(door: Door) -> None:
    with ScriptedServer(lambda request: None) as server:
        pass
    with pytest.raises(Unreachable, match="can't be reached"):
        run(enter(door, f"ws://127.0.0.1:{server.port}"))


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "SOCKS_PROXY", "WS_PROXY"])
def test_proxies_of_the_environment_are_ignored(variable: str, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(lambda request: http(200)) as proxy:
        monkeypatch.setenv(variable, proxy.url)
        run(read(door, three))
        assert proxy.connections == 0


# The guard


@pytest.mark.parametrize(
    "url",
    [
        "ws://hold01.atcr.io/",
        "wss://hold01.atcr.io:8443/",
        "wss://user@hold01.atcr.io/",
        "wss://127.0.0.1/",
        "wss://[::1]/",
        "wss://0x7f.1/",
        "wss://2130706433/",
        "wss://localhost/",
        "wss://hold.internal/",
        "https://hold01.atcr.io/",
        "wss://",
    ],
)
def test_a_url_that_cannot_be_public_is_refused_before_anything_is_asked(url: str) -> None:
    asked: list[str] = []

    def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return [PUBLIC]

    with Door(resolve=resolve) as door, pytest.raises(AddressRefused):
        run(enter(door, url))
    assert asked == []


@pytest.mark.parametrize("addresses", [["127.0.0.1"], [PUBLIC, "10.0.0.1"], ["::ffff:8.8.8.8"], ["169.254.169.254"]])
def test_one_address_that_is_not_public_refuses_the_whole_name(addresses: list[str]) -> None:
    with ScriptedServer(lambda request: http()) as canary:
        with (
            Door(resolve=lambda host, port: addresses, route=lambda address, port: ("127.0.0.1", canary.port)) as door,
            pytest.raises(AddressRefused, match="not public"),
        ):
            run(enter(door, "wss://hold01.atcr.io/"))
        assert canary.connections == 0


def test_the_connection_goes_to_the_checked_address_under_the_name_and_each_reconnect_is_checked(
    ca: trustme.CA,
) -> None:
    async def test() -> None:
        server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert("hold01.atcr.io").configure_cert(server_context)
        names: list[str | None] = []
        server_context.sni_callback = lambda _, name, __: names.append(name)
        context = ssl.create_default_context()
        ca.configure_trust(context)
        answers = [[PUBLIC], ["127.0.0.1"]]
        dialed: list[tuple[str, int]] = []
        hosts: list[str] = []

        async with serving(
            three, ssl=server_context, process_request=lambda _, request: hosts.append(request.headers["host"])
        ) as real_port:

            def route(address: str, port: int) -> tuple[str, int]:
                dialed.append((address, port))
                return "127.0.0.1", real_port

            with Door(ssl_context=context, resolve=lambda host, port: answers.pop(0), route=route) as door:
                async with door.websocket("wss://HOLD01.atcr.io/x", max_message=100) as socket:
                    assert (await socket.recv())[0] == b"one"
                assert (dialed, names, hosts) == ([(PUBLIC, 443)], ["hold01.atcr.io"], ["hold01.atcr.io"])
                with pytest.raises(AddressRefused):
                    await enter(door, "wss://hold01.atcr.io/x")
                assert dialed == [(PUBLIC, 443)]

    run(test())


def test_a_certificate_for_another_name_is_refused(ca: trustme.CA) -> None:
    async def test() -> None:
        server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert("hold01.atcr.io").configure_cert(server_context)
        context = ssl.create_default_context()
        ca.configure_trust(context)
        async with serving(three, ssl=server_context) as real_port:
            with (
                Door(
                    ssl_context=context,
                    resolve=lambda host, port: [PUBLIC],
                    route=lambda address, port: ("127.0.0.1", real_port),
                ) as door,
                pytest.raises(Unreachable, match="certificate"),
            ):
                await enter(door, "wss://evil.atcr.io/")

    run(test())


def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    async def test() -> None:
        with ScriptedServer(lambda request: None) as closed:
            pass
        async with serving(three) as real_port:
            with Door(
                allow_private=True,
                resolve=lambda host, port: ["127.0.0.2", "127.0.0.1"],
                route=lambda address, port: ("127.0.0.1", real_port if address == "127.0.0.1" else closed.port),
            ) as door:
                async with door.websocket("ws://hold.test:1234/", max_message=100) as socket:
                    assert (await socket.recv())[0] == b"one"

    run(test())


def test_a_resolver_that_hangs_costs_no_more_than_the_time_to_open() -> None:
    with ExitStack() as opened:
        hung = threading.Event()
        opened.callback(hung.set)

        def resolve(host: str, port: int) -> Sequence[str]:
            hung.wait(10)
            return []

        with Door(resolve=resolve) as door, pytest.raises(Unreachable, match="not resolved in time"):
            run(enter(door, "wss://hold01.atcr.io/", open_timeout=0.1))


@pytest.mark.parametrize("failure", [OSError("no such name"), UnicodeError("too long")])
def test_a_name_that_does_not_resolve_is_unreachable(failure: Exception) -> None:
    def resolve(host: str, port: int) -> Sequence[str]:
        raise failure

    with Door(resolve=resolve) as door, pytest.raises(Unreachable, match="does not resolve"):
        run(enter(door, "wss://hold01.atcr.io/"))


ATTEMPTS = 10


@pytest.mark.parametrize("answer", [None, [b""], b"no HTTP\r\n\r\n"], ids=["silence", "hung up", "junk"])
def test_of_a_websocket_that_does_not_open_nothing_stays(answer: Reply, door: Door) -> None:
    """A process may do without the garbage collector, on uvloop."""

    async def fail(port: int) -> None:
        try:
            async with door.websocket(f"ws://127.0.0.1:{port}/", max_message=100, open_timeout=0.1):
                raise AssertionError("it is open")
        except (BadResponse, Unreachable) as error:
            forget(error)

    async def test() -> None:
        with ScriptedServer(lambda _: answer) as server:
            await fail(server.port)
            gc.collect()
            gc.disable()
            try:
                for _ in range(ATTEMPTS):
                    await fail(server.port)
                await asyncio.sleep(0)  # what the last one left for the next turn of the event loop
                assert gc.collect() < ATTEMPTS
            finally:
                gc.enable()

    uvloop.run(test())
