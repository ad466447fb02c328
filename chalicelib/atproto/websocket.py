"""A websocket that a Door opened: binary messages in, and errors in our own hierarchy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus, WebSocketException
from websockets.frames import CloseCode

from chalicelib.atproto.errors import BadResponse, BudgetExceeded, RemoteError, Unreachable
from chalicelib.atproto.net import Door, Target, asked_to_wait, printable, resolving

_SCHEMES: Final = ("wss", "ws")


class Websocket:
    """An open websocket, for one reader. Iterating gives messages until the other side closes in good order."""

    def __init__(self, connection: ClientConnection, origin: str) -> None:
        self._connection = connection
        self._origin = origin

    async def recv(self) -> bytes | None:
        """The next message, or None after an orderly close. Can be cancelled without losing a message.

        Raises Unreachable when the connection breaks or a ping stays unanswered, BudgetExceeded for a message over the
        limit, BadResponse for a text message or a violation of the websocket protocol.
        """
        try:
            message = await self._connection.recv()
        except ConnectionClosedOK:
            return None
        except ConnectionClosed as closed:
            raise self._reason(closed) from closed
        if isinstance(message, str):
            raise BadResponse(f"{self._origin} sent a text message")
        return message

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self.recv()) is not None:
            yield message

    def _reason(self, closed: ConnectionClosed) -> RemoteError:
        ours = closed.sent.code if closed.sent and not closed.rcvd_then_sent else None
        if ours == CloseCode.MESSAGE_TOO_BIG:
            return BudgetExceeded(f"{self._origin} sent a message that is too large")
        if ours in (CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_DATA):
            return BadResponse(f"{self._origin} broke the websocket protocol")
        return Unreachable(f"the websocket of {self._origin} closed: {printable(str(closed))}")


@asynccontextmanager
async def open_websocket(
    door: Door,
    url: str,
    *,
    max_message: int,
    max_queue: int,
    open_timeout: float,
    close_timeout: float,
    ping_interval: float,
    ping_timeout: float,
) -> AsyncIterator[Websocket]:
    """See Door.websocket."""
    target = door.vet(url, _SCHEMES)
    options: dict[str, Any] = {
        "max_size": max_message,
        "max_queue": max_queue,
        "close_timeout": close_timeout,
        "ping_interval": ping_interval,
        "ping_timeout": ping_timeout,
        "compression": None,
        "proxy": None,
        "user_agent_header": door.user_agent,
    }
    if target.origin.secure:
        options |= {"ssl": door.ssl_context, "server_hostname": target.origin.hostname}
    connection = await _connect(door, target, open_timeout, options)
    try:
        yield Websocket(connection, str(target.origin))
    finally:
        await connection.close()


async def _connect(door: Door, target: Target, open_timeout: float, options: dict[str, Any]) -> ClientConnection:
    clock = asyncio.get_running_loop().time
    until = clock() + open_timeout
    with resolving(target.origin):
        found = await asyncio.wait_for(asyncio.wrap_future(door.look_up(target.origin)), open_timeout)
    places = door.places(target.origin, found)
    failure: OSError = TimeoutError("no time was left to connect")
    for untried, (address, port) in zip(range(len(places), 0, -1), places, strict=True):
        left = max(0.0, until - clock()) / untried
        try:
            return await _WithoutRedirects(target.url, host=address, port=port, open_timeout=left, **options)
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
