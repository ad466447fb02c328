"""One subscriber: keeps a connection for each host that it has a lease on, and gives all back at the end.

``subscriber/leases.py`` says which hosts these are. Cursors are saved only by a host's owner, and records are written by
compare-and-set, so one that was declared dead and wakes up late can do no harm before it notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from chalicelib.atproto.errors import forget
from chalicelib.crawl.context import Context
from chalicelib.index.hosts import RELAY
from chalicelib.index.tables import HostRow
from chalicelib.telemetry import log
from subscriber.connection import OPENING, Connection, LeaseLost
from subscriber.leases import Leases
from subscriber.measures import Measures
from subscriber.memory import Endings
from subscriber.pipeline import Pipeline

DRAIN_SECONDS = 12.0
"""Time that a host's events have to end before the host is given back with its cursor where it is."""
LEAVING = 20
"""Hosts that a subscriber at its end begins to give back in one turn of the event loop."""
MEASURE_SECONDS = 60.0
"""Measurements are written so often."""
ATTENTION_OVERLAP_MS = 60_000
"""Clocks may differ by so much before an announcement goes unseen until the next one."""

T = TypeVar("T")


class Supervisor:
    """``run`` follows hosts until ``stop`` is called, then drains, saves and gives its hosts back."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._executor = ThreadPoolExecutor(context.settings.stream_workers, thread_name_prefix="tables")
        self._beating = ThreadPoolExecutor(2, thread_name_prefix="leases")
        """What keeps the leases waits for no commits."""
        self._pipeline = Pipeline(context, self._executor)
        self._leases: Leases | None = None
        self._connections: dict[str, tuple[Connection, asyncio.Task[None]]] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._attention: dict[str, int] = {}
        self._measures = Measures()
        self._looking: set[asyncio.Task[None]] = set()
        self._opening = asyncio.Semaphore(OPENING)
        self._endings = Endings()
        self._jitter = random.Random()  # noqa: S311 - spreads reconnects, guards nothing
        self._stopping = asyncio.Event()
        self.last_round = time.monotonic()
        """When it last looked after all that it has to (monotonic seconds), with whatever success."""

    def stop(self) -> None:
        """End ``run``."""
        self._stopping.set()

    async def run(self) -> None:
        """Follow hosts until ``stop``."""
        settings = self._context.settings
        beat = reconcile = measure = 0.0
        try:
            while not self._stopping.is_set():
                try:
                    leases = self._leases or await self._begin()
                    if time.monotonic() >= beat:
                        beat = time.monotonic() + settings.heartbeat_seconds
                        if not await self._run(leases.beat, self._content()):
                            self._start_over()
                            continue
                        self._spread(leases)
                    if time.monotonic() >= measure:
                        measure = time.monotonic() + MEASURE_SECONDS
                        self._measure()
                    if time.monotonic() >= reconcile:
                        reconcile = time.monotonic() + settings.lease_seconds
                        await self._follow_relays()
                        taken, lost = await self._run(leases.reconcile, [*self._connections], [*self._leaving])
                        await self._begin_with(taken)
                        for key in lost & self._connections.keys():
                            log("lease-lost", host=key)
                            self._drop(key)
                    await self._run(leases.watch)
                    await self._begin_with(await self._run(leases.take, len(self._connections)))
                    await self._attend(leases)
                except (
                    Exception
                ) as error:  # the table's fault: what is followed goes on, and the next round tries again
                    log("supervisor-failed", exception=error)
                self.last_round = time.monotonic()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), settings.discover_seconds)
        finally:
            await self._drain()

    # -- hosts

    async def _follow_relays(self) -> None:
        """Have each relay of the settings followed, by whomever."""
        for relay in self._context.settings.relays:
            if str(relay) not in self._connections:
                await self._run(self._context.hosts.follow_relay, relay)

    async def _begin_with(self, rows: list[HostRow]) -> None:
        """Follow hosts that were taken, but for relays that the settings do not name any more."""
        relays = {str(relay) for relay in self._context.settings.relays}
        for row in rows:
            if row.kind == RELAY and row.origin not in relays:
                await self._run(self._context.hosts.leave_relay, row)
        self._follow(row for row in rows if row.kind != RELAY or row.origin in relays)

    def _follow(self, rows: Iterable[HostRow]) -> None:
        for row in rows:
            if row.origin in self._connections:  # lost without notice, and taken again
                self._drop(row.origin)
            connection = Connection(
                self._context,
                self._pipeline,
                self._executor,
                row=row,
                owner=self._name,
                opening=self._opening,
                endings=self._endings,
                jitter=self._jitter,
            )
            task = asyncio.get_running_loop().create_task(self._keep(row.origin, connection))
            task.add_done_callback(_forget_cancellation)
            self._connections[row.origin] = (connection, task)
            self._attention[row.origin] = int(row.attention_at)
            log("host-taken", host=row.origin)

    async def _attend(self, leases: Leases) -> None:
        """Look again at hosts that ask for it."""
        since = self._context.clock() - ATTENTION_OVERLAP_MS
        for key, at in await self._run(self._context.hosts.owned_by, leases.name, since=since):
            if key in self._connections and self._attention.get(key, 0) < at:
                self._attention[key] = at
                task = asyncio.get_running_loop().create_task(self._look_again(key, self._connections[key][0]))
                self._looking.add(task)
                task.add_done_callback(self._looking.discard)

    async def _look_again(self, key: str, connection: Connection) -> None:
        try:
            await connection.attend()
        except Exception as error:  # the table's fault: in the next round
            log("supervisor-failed", exception=error, host=key)
            self._attention.pop(key, None)

    async def _keep(self, key: str, connection: Connection) -> None:
        lost = False
        while not lost:
            try:
                await connection.run()
            except* LeaseLost as errors:
                lost = True
                _forget_group(errors)
            except* Exception as errors:  # our own fault or the table's: the host is not given up for it
                log("connection-failed", exception=errors, host=key)
                _forget_group(errors)
                await asyncio.sleep(1)
        log("lease-lost", host=key)
        if key in self._connections and self._connections[key][0] is connection:
            self._drop(key)

    def _drop(self, key: str) -> None:
        """Stop reading a host's stream."""
        connection, task = self._connections.pop(key)
        task.cancel()
        self._pipeline.forget(connection.origin)

    def _spread(self, leases: Leases) -> None:
        """Give some hosts back if others have far fewer; those that were taken last."""
        for key in list(self._connections)[::-1][: leases.surplus(len(self._connections))]:
            self._leave(key)

    def _leave(self, key: str) -> None:
        """Begin to give a host back."""
        connection, reading = self._connections.pop(key)
        reading.cancel()
        self._endings.add()
        task = asyncio.get_running_loop().create_task(self._give_back(connection, self._name))
        self._leaving[key] = task
        task.add_done_callback(lambda done: self._leaving.pop(key, None))

    async def _give_back(self, connection: Connection, owner: str) -> None:
        """Let what was read become durable, save the cursor, leave the host to whoever takes it."""
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(connection.settle(), DRAIN_SECONDS)
            await connection.save()
            self._pipeline.forget(connection.origin)
            give_up = self._context.hosts.give_up
            await asyncio.get_running_loop().run_in_executor(self._executor, give_up, str(connection.origin), owner)
            log("host-given-back", host=str(connection.origin))
        except LeaseLost:
            log("lease-lost", host=str(connection.origin))
        except Exception as error:  # it stays ours in the tables: a stray, or inherited, and some work is repeated
            log("not-given-back", exception=error, host=str(connection.origin))

    # -- life and death

    @property
    def _name(self) -> str:
        assert self._leases is not None  # noqa: S101 - hosts are followed by a subscriber that has begun
        return self._leases.name

    async def _begin(self) -> Leases:
        context = self._context
        leases = Leases(context.hosts, context.subscribers, lease_seconds=context.settings.lease_seconds)
        await self._run(leases.begin)
        self._leases = leases
        log("subscriber-ready", name=leases.name)
        return leases

    def _content(self, **more: Any) -> dict[str, Any]:
        """What the row says of this subscriber."""
        connections = [connection for connection, _ in self._connections.values()]
        return {
            "hosts": len(connections),
            "open": sum(connection.is_open for connection in connections),
            "events": sum(connection.events for connection in connections),
            "outcomes": dict(self._pipeline.counts),
            **more,
        }

    def _measure(self) -> None:
        connections = [connection for connection, _ in self._connections.values()]
        self._measures.measure(
            outcomes=self._pipeline.counts,
            events=sum(connection.events for connection in connections),
            hosts=len(connections),
            open_=sum(connection.is_open for connection in connections),
            oldest=self._pipeline.oldest,
        )

    def _start_over(self) -> None:
        """Declared dead, after a pause or a time without the tables: the hosts may be others' by now."""
        log("leases-lost", name=self._name, hosts=len(self._connections))
        for key in list(self._connections):
            self._drop(key)
        self._pipeline.abandon()
        self._pipeline = Pipeline(self._context, self._executor)
        self._leases = None

    async def _drain(self) -> None:
        """Give all hosts back, each as soon as what was read of it is durable."""
        log("draining", hosts=len(self._connections))
        if self._leases is not None:
            try:
                await self._run(self._leases.beat, self._content(draining=True))
            except Exception as error:
                log("supervisor-failed", exception=error)
            for number, key in enumerate(list(self._connections), start=1):
                self._leave(key)
                if number % LEAVING == 0:
                    await asyncio.sleep(0.001)  # their streams close, and memory is free for the next
            await asyncio.gather(*self._leaving.values())
            self._pipeline.abandon()
            try:
                await self._run(self._leases.end)
            except Exception as error:  # after a lease the others see it themselves
                log("supervisor-failed", exception=error)
            log("subscriber-stopped", name=self._name)
        for executor in (self._executor, self._beating):
            executor.shutdown(wait=False, cancel_futures=True)

    async def _run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._beating, lambda: function(*args, **kwargs))


def _forget_cancellation(task: asyncio.Task[None]) -> None:
    """A task that was cancelled keeps the exception, whose traceback leads back to the task, and to all of the connection."""
    try:
        task.exception()
    except asyncio.CancelledError as error:
        forget(error)


def _forget_group(errors: ExceptionGroup[Exception]) -> None:
    """What ``except*`` gives is a part of the group that was raised, and that one is in a variable of the task group's frames."""
    traceback.clear_frames(errors.__traceback__)
    forget(errors)
