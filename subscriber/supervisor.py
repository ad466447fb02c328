"""Shares the hosts among subscribers: takes those that nobody follows, keeps a connection for each, gives all back at the end.

A subscriber shows that it lives by a heartbeat row in the tables. Each of the others watches that row by its own clock: one
that has not changed for a lease's length belongs to a dead subscriber, and its hosts may be taken, one conditional write each.
A subscriber that could not write its heartbeat for so long must assume that it has lost its hosts. Cursors are saved only by
the owner, and records are written by compare-and-set, so one that wakes up late can do no harm before it notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from chalicelib.crawl.context import Context
from chalicelib.index.state import SUBSCRIBER
from chalicelib.index.tables import HostRow
from chalicelib.telemetry import log
from subscriber.connection import Connection, LeaseLost
from subscriber.pipeline import Pipeline

DRAIN_SECONDS = 12.0
"""Time that events in the pipeline have to end at shutdown, before cursors are saved where they are."""
ATTENTION_OVERLAP_MS = 60_000
"""Clocks may differ by so much before an announcement goes unseen until the next one."""

T = TypeVar("T")


class Supervisor:
    """One subscriber. ``run`` goes on until ``stop`` is called, then drains, saves and gives its hosts back."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._executor = ThreadPoolExecutor(context.settings.stream_workers, thread_name_prefix="tables")
        self._pipeline = Pipeline(context, self._executor)
        self._name = ""
        self._connections: dict[str, tuple[Connection, asyncio.Task[None]]] = {}
        self._attention: dict[str, int] = {}
        self._seen_alive: dict[str, tuple[int, float]] = {}
        self._alive_at = time.monotonic()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End ``run``."""
        self._stopping.set()

    async def run(self) -> None:
        """Follow hosts until ``stop``."""
        self._begin()
        settings = self._context.settings
        beat = 0.0
        try:
            while not self._stopping.is_set():
                if time.monotonic() - self._alive_at > settings.lease_seconds:
                    self._start_over()
                try:
                    if time.monotonic() >= beat:
                        await self._heartbeat()
                        await self._inherit()
                        beat = time.monotonic() + settings.heartbeat_seconds
                    await self._discover()
                except (
                    Exception
                ) as error:  # the table's fault: what is followed goes on, and the next round tries again
                    log("supervisor-failed", exception=error)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), settings.discover_seconds)
        finally:
            await self._drain()

    def _begin(self) -> None:
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._alive_at = time.monotonic()
        log("subscriber-ready", name=self._name)

    # -- hosts

    async def _discover(self) -> None:
        """Take hosts that nobody follows; look again at those that ask for it."""
        hosts = self._context.hosts
        for key in await self._run(hosts.unowned):
            row = await self._run(hosts.take, key, self._name)
            if row is not None:
                self._follow(row)
        since = self._context.clock() - ATTENTION_OVERLAP_MS
        for key, at in await self._run(hosts.owned_by, self._name, since=since):
            if self._attention.get(key, 0) < at:
                self._attention[key] = at
                if key in self._connections:
                    await self._connections[key][0].attend()

    async def _inherit(self) -> None:
        """Take the hosts of subscribers that have died."""
        now = time.monotonic()
        hosts, state = self._context.hosts, self._context.state
        for row in await self._run(state.all, SUBSCRIBER):
            if row.id == self._name:
                continue
            number, since = self._seen_alive.get(row.id, (-1, now))
            if number != row.number:
                self._seen_alive[row.id] = (int(row.number), now)
                continue
            if now - since < self._context.settings.lease_seconds:
                continue
            left = await self._run(hosts.owned_by, row.id)
            for key, _ in left:
                taken = await self._run(hosts.take, key, self._name, from_owner=row.id)
                if taken is not None:
                    self._follow(taken)
            if not left:
                await self._run(state.delete, SUBSCRIBER, row.id)
                self._seen_alive.pop(row.id)
            log("inherited", name=row.id, hosts=len(left))

    def _follow(self, row: HostRow) -> None:
        connection = Connection(self._context, self._pipeline, self._executor, row=row, owner=self._name)
        task = asyncio.get_running_loop().create_task(self._keep(row.origin, connection))
        self._connections[row.origin] = (connection, task)
        self._attention[row.origin] = int(row.attention_at)
        log("host-taken", host=row.origin)

    async def _keep(self, key: str, connection: Connection) -> None:
        lost = False
        while not lost:
            try:
                await connection.run()
            except* LeaseLost:
                log("lease-lost", host=key)
                self._connections.pop(key, None)
                lost = True
            except* Exception as errors:  # our own fault or the table's: the host is not given up for it
                log("connection-failed", exception=errors, host=key)
                await asyncio.sleep(1)

    # -- life and death

    async def _heartbeat(self) -> None:
        began = time.monotonic()
        connections = [connection for connection, _ in self._connections.values()]
        now = self._context.clock()
        content = {
            "at": now,
            "hosts": len(connections),
            "open": sum(connection.is_open for connection in connections),
            "events": sum(connection.events for connection in connections),
            "outcomes": dict(self._pipeline.counts),
        }
        await self._run(self._context.state.write, SUBSCRIBER, self._name, content, number=now)
        self._alive_at = began

    def _start_over(self) -> None:
        """The heartbeat failed for longer than a lease: others may have the hosts by now."""
        log("leases-lost", name=self._name, hosts=len(self._connections))
        for _, task in self._connections.values():
            task.cancel()
        self._connections.clear()
        self._pipeline.abandon()
        self._pipeline = Pipeline(self._context, self._executor)
        self._begin()

    async def _drain(self) -> None:
        """End reading, let what was read become durable, save the cursors, give the hosts back."""
        log("draining", hosts=len(self._connections))
        connections = [connection for connection, _ in self._connections.values()]
        for _, task in self._connections.values():
            task.cancel()
        try:
            await asyncio.wait_for(self._pipeline.settle(), DRAIN_SECONDS)
        except TimeoutError:
            self._pipeline.abandon()
        await asyncio.gather(*(self._give_back(connection) for connection in connections))
        await self._run(self._context.state.delete, SUBSCRIBER, self._name)
        self._executor.shutdown(wait=False, cancel_futures=True)
        log("subscriber-stopped", name=self._name)

    async def _give_back(self, connection: Connection) -> None:
        try:
            await connection.save()
            await self._run(self._context.hosts.give_up, str(connection.origin), self._name)
        except Exception as error:  # whoever inherits the host repeats some work
            log("not-given-back", exception=error, host=str(connection.origin))

    async def _run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: function(*args, **kwargs))
