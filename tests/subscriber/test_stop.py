"""A subscriber of many hosts stops: it lets go of a few streams at a time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from bench.connections import HostsInMemory, NoOthers
from chalicelib.settings import read
from subscriber.supervisor import LEAVING, Supervisor

HOSTS = 5 * LEAVING + 1


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


async def streams_by_the_turn_they_end_in() -> tuple[Counter[int], HostsInMemory]:
    opened, all_open = 0, asyncio.Event()
    ended: Counter[int] = Counter()

    @asynccontextmanager
    async def websocket(url: str, **_: Any) -> AsyncIterator[AsyncIterator[list[bytes]]]:
        nonlocal opened
        opened += 1
        if opened == HOSTS:
            all_open.set()
        try:
            yield nothing_comes()
        finally:
            ended[turns.number] += 1

    hosts = HostsInMemory([f"hold{number}.example" for number in range(HOSTS)])
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
    turns = Turns()
    supervisor.stop()
    await running
    turns.close()
    return ended, hosts


def test_at_its_end_a_subscriber_lets_go_of_a_few_streams_at_a_time_and_of_all() -> None:
    ended, hosts = asyncio.run(streams_by_the_turn_they_end_in())
    assert max(ended.values()) <= LEAVING
    assert sum(ended.values()) == HOSTS
    assert sorted(hosts.given_up) == sorted(f"hold{number}.example" for number in range(HOSTS))
