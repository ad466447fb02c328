"""A subscriber lets go of streams: of a few at a time, and of all that they held. Nobody else would: it does without the
garbage collector, but for what is young."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from bench.connections import HostsInMemory, NoOthers
from chalicelib.settings import read
from subscriber.supervisor import LEAVING, Supervisor

HOSTS = [f"hold{number}.example" for number in range(5 * LEAVING + 1)]


class Hosts(HostsInMemory):
    """The table, which may be told that it fails, or that the hosts are others'."""

    def __init__(self) -> None:
        super().__init__(HOSTS)
        self.is_there = True
        self.is_ours = True
        self.failed = 0

    def note_stream(self, key: str, owner: str, *, error: str | None) -> bool:
        if not self.is_there:
            self.failed += 1
            raise ConnectionError("the table is away")
        return self.is_ours and super().note_stream(key, owner, error=error)


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


class Subscriber:
    """A supervisor whose streams are all open, and say nothing until they are closed."""

    def __init__(self) -> None:
        self.hosts = Hosts()
        self.ended: Counter[int] = Counter()
        """Streams by the turn of the event loop in which they ended."""
        self.turns = Turns()
        self.closed = asyncio.Event()
        context: Any = SimpleNamespace(
            settings=read({}),
            clock=lambda: int(time.time() * 1000),
            door=SimpleNamespace(websocket=self._websocket),
            hosts=self.hosts,
            subscribers=NoOthers(),
            tables=SimpleNamespace(repos=SimpleNamespace(by_host=SimpleNamespace(query=lambda _: []))),
            writer=SimpleNamespace(load_many=lambda _: {}),
        )
        self.supervisor = Supervisor(context)
        self._running = asyncio.create_task(self.supervisor.run())

    @asynccontextmanager
    async def _websocket(self, url: str, **_: Any) -> AsyncIterator[AsyncIterator[list[bytes]]]:
        try:
            yield self._messages()
        finally:
            self.ended[self.turns.number] += 1

    async def _messages(self) -> AsyncIterator[list[bytes]]:
        await self.closed.wait()
        return
        yield []

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not holds():  # noqa: ASYNC110  it is the product that is watched
                await asyncio.sleep(0)

    async def stop(self) -> None:
        self.supervisor.stop()
        await self._running
        self.turns.close()


@pytest.fixture
def without_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@asynccontextmanager
async def following() -> AsyncIterator[Subscriber]:
    subscriber = Subscriber()
    await subscriber.until(lambda: subscriber.hosts.opened == len(HOSTS))
    yield subscriber


def garbage() -> int:
    """Objects that went by nobody's count."""
    return gc.collect()


@pytest.mark.usefixtures("without_garbage_collection")
def test_at_its_end_a_subscriber_lets_go_of_a_few_streams_at_a_time_and_of_all() -> None:
    async def stops() -> Subscriber:
        async with following() as subscriber:
            await subscriber.stop()
            return subscriber

    subscriber = asyncio.run(stops())
    assert max(subscriber.ended.values()) <= LEAVING
    assert sum(subscriber.ended.values()) == len(HOSTS)
    assert sorted(subscriber.hosts.given_up) == sorted(HOSTS)
    assert garbage() < len(HOSTS)


@pytest.mark.usefixtures("without_garbage_collection")
def test_of_leases_that_were_lost_nothing_is_left() -> None:
    async def loses_all() -> int:
        async with following() as subscriber:
            subscriber.hosts.is_ours = False
            subscriber.closed.set()
            await subscriber.until(lambda: sum(subscriber.ended.values()) == len(HOSTS))
            await subscriber.until(lambda: not subscriber.supervisor._connections)
            found = garbage()
            await subscriber.stop()
            return found

    assert asyncio.run(loses_all()) < len(HOSTS)


@pytest.mark.usefixtures("without_garbage_collection")
def test_of_faults_of_the_tables_nothing_is_left() -> None:
    async def fails() -> int:
        async with following() as subscriber:
            subscriber.hosts.is_there = False
            subscriber.closed.set()
            await subscriber.until(lambda: subscriber.hosts.failed == 2 * len(HOSTS))  # and so each the first time
            found = garbage()
            await subscriber.stop()
            return found

    assert asyncio.run(fails()) < len(HOSTS)
