"""Thousands of idle holds: the product's own supervisor, with tables in memory, and TLS servers in another process.

All are connected, then all connections break at once, and in the end the subscriber stops. A stall is the longest time that
the event loop's thread worked without a pause: its CPU time, for on a busy machine the clock on the wall also counts the work
of others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from bench.firehose import connect_to
from bench.harness import Bench, Contender, Run, Target, sized
from bench.holds import allow_many_files
from bench.worker import peak_mb
from chalicelib.atproto.net import Door
from chalicelib.index.tables import NOBODY, HostRow
from chalicelib.settings import read

_NAMES = "holds.atcr.io"


def ours(count: int) -> Run:
    import uvloop

    from subscriber import memory
    from subscriber.supervisor import Supervisor

    allow_many_files()
    process, port, context = connect_to("bench.holds", f"*.{_NAMES}")
    assert process.stdin
    drop = process.stdin

    async def follow() -> tuple[Any, dict[str, float]]:
        hosts = HostsInMemory([f"h{number}.{_NAMES}" for number in range(count)])
        surroundings: Any = SimpleNamespace(
            settings=read({}),
            clock=lambda: int(time.time() * 1000),
            door=Door(
                ssl_context=context,
                resolve=lambda _, __: ["93.184.216.34"],  # public, so that the door lets it pass
                route=lambda _, __: ("127.0.0.1", port),
            ),
            hosts=hosts,
            subscribers=NoOthers(),
            tables=SimpleNamespace(repos=SimpleNamespace(by_host=SimpleNamespace(query=lambda _: []))),
            writer=SimpleNamespace(load_many=lambda _: {}),
        )
        supervisor = Supervisor(surroundings)
        memory.prepare()
        running = asyncio.create_task(supervisor.run())
        watch = _Watch()
        watching = asyncio.create_task(watch.run())
        connections: Any = supervisor._connections

        def opened() -> int:
            return sum(connection.is_open for connection, _ in connections.values())

        more: dict[str, float] = {}
        await _until(lambda: opened() == count)
        more["seconds to open all"], more["stall ms, opening"] = watch.lap()
        more["RSS MB"] = peak_mb()
        again = hosts.opened
        print("all of them", file=drop, flush=True)
        await _until(lambda: hosts.opened >= again + count and opened() == count)
        more["seconds to reopen all"], more["stall ms, storm"] = watch.lap()
        more["RSS MB, storm"] = peak_mb()
        begin = time.process_time()
        await asyncio.sleep(sized(1, 20))
        more["% of a core, idle"] = 100 * (time.process_time() - begin) / sized(1, 20)
        _, more["stall ms, idle"] = watch.lap()
        result = opened()
        supervisor.stop()
        await running
        more["seconds to stop"], more["stall ms, stop"] = watch.lap()
        more["RSS MB, at most"] = peak_mb()
        watching.cancel()
        return result, more

    return lambda: uvloop.run(follow())


class _Watch:
    """The longest time that the loop's thread worked between two looks."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._longest = 0.0

    async def run(self) -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            self._longest = max(self._longest, now - before)
            await asyncio.sleep(0.001)
            before = time.thread_time()

    def lap(self) -> tuple[float, float]:
        """Seconds since the last lap, and the longest stall in it, ms."""
        begin, longest = self._begin, self._longest
        self._begin, self._longest = time.monotonic(), 0.0
        return self._begin - begin, longest * 1000


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(600):
        while not condition():  # noqa: ASYNC110  it is the product that is watched
            await asyncio.sleep(0.05)


class HostsInMemory:
    """The hosts' table, of which one subscriber takes all."""

    def __init__(self, names: Sequence[str]) -> None:
        self._free = dict.fromkeys(names)
        self._taken: dict[str, None] = {}
        self.opened = 0
        self.given_up: list[str] = []

    def owned_by(self, owner: str, *, since: int = 0) -> list[tuple[str, int]]:
        return [(key, 0) for key in (self._free if owner == NOBODY else self._taken)]

    def take(self, keys: Sequence[str], owner: str, *, from_owner: str = NOBODY) -> list[HostRow]:
        for key in keys:
            del self._free[key]
            self._taken[key] = None
        return [HostRow(key, cursor=1, epoch=1, attention_at=0) for key in keys]

    def note_stream(self, key: str, owner: str, *, error: str | None) -> bool:
        self.opened += error is None
        return True

    def save_cursor(self, *_: Any) -> bool:
        return True

    def give_up(self, key: str, owner: str) -> None:
        self.given_up.append(key)


class NoOthers:
    """The subscribers' table of one who is alone."""

    def begin(self, name: str) -> None:
        pass

    def beat(self, name: str, content: dict[str, Any]) -> bool:
        return True

    def all(self) -> list[Any]:
        return []

    def end(self, name: str, **_: Any) -> bool:
        return True


def benches() -> list[Bench]:
    """One row."""
    count = sized(20, 5_000)

    def check(name: str, result: Any) -> None:
        assert result == count, f"{result} connections of {count} are open"

    def more(name: str) -> Callable[[Any], float]:
        return lambda figures: float(figures["ours"].more[name])

    return [
        Bench(
            "connections",
            f"{count:,} idle TLS connections, all broken at once, then the stop",
            [Contender("ours", "bench.connections:ours", (count,))],
            check,
            [
                Target("MB of the whole process", more("RSS MB, at most"), at_most=400),
                Target("ms of stall while opening", more("stall ms, opening"), at_most=100),
                Target("ms of stall in the storm", more("stall ms, storm"), at_most=100),
                Target("ms of stall at the stop", more("stall ms, stop"), at_most=100),
            ],
            repeats=1,
        )
    ]
