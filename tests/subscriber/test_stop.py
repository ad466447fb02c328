"""A subscriber of many hosts stops: it lets go of a few streams at a time, and of all that they held."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from bench.connections import HostsInMemory, NoOthers
from chalicelib.settings import read
from subscriber.supervisor import LEAVING, Supervisor

HOSTS = [f"hold{number}.example" for number in range(5 * LEAVING + 1)]


class Turns:
    """Counts the turns of the event loop."""

    def __init__(self) -> None:
        self.number = 0
        self._loop = asyncio.get_running_loop()
        self._next()

    def _next(self) -> None:
        self.number += 1
        self._handle = self._loop.call_soon(self._next)

    def close(self) -> None:
        self._handle.cancel()


async def nothing_comes() -> AsyncIterator[list[bytes]]:
    await asyncio.Event().wait()
    yield []


class Stopped(NamedTuple):
    ended: Counter[int]
    """Streams by the turn of the event loop in which they ended."""
    given_up: list[str]
    alive: int
    """Connections that are still there."""


async def stopped() -> Stopped:
    opened, all_open = 0, asyncio.Event()
    ended: Counter[int] = Counter()

    @asynccontextmanager
    async def websocket(url: str, **_: Any) -> AsyncIterator[AsyncIterator[list[bytes]]]:
        nonlocal opened
        opened += 1
        if opened == len(HOSTS):
            all_open.set()
        try:
            yield nothing_comes()
        finally:
            ended[turns.number] += 1

    hosts = HostsInMemory(HOSTS)
    context: Any = SimpleNamespace(
        settings=read({}),
        clock=lambda: int(time.time() * 1000),
        door=SimpleNamespace(websocket=websocket),
        hosts=hosts,
        subscribers=NoOthers(),
        tables=SimpleNamespace(repos=SimpleNamespace(by_host=SimpleNamespace(query=lambda _: []))),
        writer=SimpleNamespace(load_many=lambda _: {}),
    )
    supervisor = Supervisor(context)
    running = asyncio.create_task(supervisor.run())
    await all_open.wait()
    connections = [weakref.ref(connection) for connection, _ in supervisor._connections.values()]
    turns = Turns()
    supervisor.stop()
    await running
    turns.close()
    return Stopped(ended, hosts.given_up, sum(connection() is not None for connection in connections))


@pytest.fixture
def without_garbage_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("without_garbage_collection")
def test_at_its_end_a_subscriber_lets_go_of_a_few_streams_at_a_time_and_of_all() -> None:
    """No garbage collector comes by in a subscriber, but for what is young."""
    ended, given_up, alive = asyncio.run(stopped())
    assert max(ended.values()) <= LEAVING
    assert sum(ended.values()) == len(HOSTS)
    assert sorted(given_up) == sorted(HOSTS)
    assert not alive
