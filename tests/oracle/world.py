"""The whole service around a simulated neighbourhood, in one thread, under the oracle's hand.

What is real: the supervisor, its connections and pipeline, the jobs, the sweep, the writer, verification, the tables of the
engine. What is not: sockets (the hosts' answers and frames are handed over as they are), time (the simulator's clock),
SQS (a list), and threads (work is done where it is asked for, unless it is to pause).
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any
from unittest import mock
from uuid import UUID

import simulator.server
import subscriber.connection
import subscriber.leases
import subscriber.pipeline
import subscriber.supervisor
from chalicelib import settings as service_settings
from chalicelib.atproto.syntax import parse_origin
from chalicelib.crawl import admission, directories, host_job, jobs, orders, repo_job, turns
from chalicelib.crawl.context import Context
from chalicelib.crawl.orders import new_order
from chalicelib.crawl.queue import HostJob, Queue, to_body
from chalicelib.crawl.sweep import sweep
from chalicelib.index import hosts as host_rows
from chalicelib.index import listings
from chalicelib.index import writer as writing
from chalicelib.index.tables import Tables
from simulator.clock import Clock
from simulator.host import PDS, Backup, Host, Shape
from simulator.keys import Curve
from simulator.neighbourhood import Neighbourhood
from simulator.relay import Relay
from simulator.server import Server
from subscriber.leases import Leases
from subscriber.supervisor import Supervisor
from tests.oracle import engine, network
from tests.oracle.engine import PREFIX, InProcess
from tests.oracle.faults import Gate
from tests.oracle.network import InProcessDoor, Wire
from tests.oracle.processes import Inline, InTurn, Killed, Loop, Paused, Process, as_nobody
from tests.oracle.truth import Follower, ListingOrder, differences, inconsistencies

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
SETTINGS = {
    "TABLE_PREFIX": PREFIX,
    "ALLOW_PRIVATE_HOSTS": "true",
    "ANNOUNCE_SECONDS": "0",
    "JOB_SECONDS": "840",
    "JOB_LEASE_SECONDS": "30",
    "CRAWL_CONCURRENCY": "1",
    "FAILURE_CAP_SECONDS": "30",
    "GONE_HOURS": "0.02",
    "CURSOR_SECONDS": "5",
    "HEARTBEAT_SECONDS": "10",
    "LEASE_SECONDS": "40",
    "DISCOVER_SECONDS": "5",
    "RECONNECT_CAP_SECONDS": "8",
    "QUEUED_COMMITS": "3",
    "CHANGES": "io.atcr.hold.captain,io.atcr.hold.crew",
}
LEASE_SECONDS = 40
RECENT_SECONDS = 150
"""A rev younger than about that is left to the stream by a crawl."""
AT_ONCE = 200
"""Jobs at one moment after which there will be no end of them."""
PATIENCE = 80
"""Rounds of five seconds after which what is not quiet will never be."""

_tables: list[Tables] = []


class Container:
    """A Lambda: one process that does one job at a time."""

    def __init__(self, world: World, number: int) -> None:
        self.process = Process(f"lambda {number}")
        self.context = world.make_context(self.process)
        self.busy: Paused | None = None


class Subscriber:
    """A subscriber with an event loop of its own."""

    def __init__(self, world: World, number: int) -> None:
        self.process = Process(f"subscriber {number}")
        self.context = world.make_context(self.process)
        self.loop = Loop(world.net.clock)
        self.is_frozen = False
        network.belongs_to(self.loop, self.process)

        world.starting = self.process
        self.supervisor = Supervisor(self.context)
        self.task = self.loop.create_task(self.supervisor.run())

    def bury(self) -> None:
        """Throw everything away that it had in memory."""
        self.process.kill()
        for _ in range(5):
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.turn()
        network.forget(self.loop)
        self.loop.close()


class _Port:
    """What stands for a port where nothing listens: the same in every run."""

    def __init__(self, number: int) -> None:
        self._number = number

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", self._number

    def close(self) -> None:
        pass


class World:
    """One history. Use as a context manager."""

    def __init__(
        self,
        seed: int = 0,
        *,
        shapes: tuple[Shape, ...] = (PDS, PDS),
        in_place: int = 20,
        page: int = 500,
        changes: int = 3,
        slow: float = 0,
        upstream: bool = False,
        **settings: str,
    ) -> None:
        """``slow``: seconds that each request and each write takes. ``upstream``: there is a relay that follows the hosts, and
        that serves as directory too."""
        self._slow = slow
        self.random = random.Random(seed)
        ports = count(2001)
        with mock.patch.object(simulator.server, "_bind", side_effect=lambda _: _Port(next(ports))):
            self.net = Neighbourhood(seed, Clock())
            self.net.hosts += [Host(self.net.identities, self.net.clock, random.Random(seed), shape=s) for s in shapes]
            if upstream:
                self.net.relays.append(Relay(self.net.identities, self.net.clock, random.Random(seed)))
                self.net.relays[0].follow(*self.net.hosts)
        self.down: set[Server] = set()
        self.wires: list[Wire] = []
        self.messages: list[str] = []
        self.delayed: list[tuple[float, str]] = []
        """Messages that are visible from a time on."""
        self.parked: list[Paused] = []
        self.unseen: set[Host] = set()
        """Hosts on which something happened that no event tells."""
        self.highest: dict[str, str] = {}
        self.gate = Gate(self._meddle, self._spend)
        self.told: list[str] = []
        self._order = ListingOrder()
        self._follower = Follower()
        upstreams = ",".join(relay.hostname for relay in self.net.relays)
        variables = SETTINGS | {"PLC_URL": self.net.plc.url, "RELAYS": upstreams, "DIRECTORIES": upstreams} | settings
        self._settings = service_settings.read({f"DISCOVERY_{name}": value for name, value in variables.items()})
        self._entered = ExitStack()
        self._patches = (
            mock.patch.dict(os.environ, ENVIRONMENT),
            InProcess(self.gate.pass_),
            mock.patch.object(host_job, "ThreadPoolExecutor", InTurn),
            mock.patch.object(subscriber.supervisor, "ThreadPoolExecutor", self._executor),
            mock.patch.object(subscriber.pipeline, "ThreadPoolExecutor", self._executor),
            mock.patch.object(host_job, "IN_PLACE", in_place),
            mock.patch.object(host_job, "PAGE", page),
            mock.patch.object(writing, "MAX_CHANGES", changes),
            mock.patch.object(listings, "MAX_CHANGES", 1),
            *(
                mock.patch.object(module, "time", SimpleNamespace(monotonic=self.seconds))
                for module in (subscriber.connection, subscriber.supervisor, subscriber.pipeline, repo_job)
            ),
            *(
                patch
                for module in (host_job, directories)
                for patch in (
                    mock.patch.object(module, "time", SimpleNamespace(monotonic=self.seconds, sleep=self._pass)),
                    mock.patch.object(module, "Pace", partial(host_job.Pace, clock=self.seconds)),
                )
            ),
            *(
                mock.patch.object(module, "random", SimpleNamespace(Random=lambda: random.Random(self.random.random())))
                for module in (subscriber.supervisor, subscriber.leases, directories)
            ),
            *(
                mock.patch.object(module, "uuid", SimpleNamespace(uuid4=lambda: UUID(int=self.random.getrandbits(128))))
                for module in (writing, host_rows, subscriber.leases, orders, turns)
            ),
            mock.patch.object(subscriber.supervisor, "Leases", partial(Leases, clock=self.seconds)),
        )
        self._number = 0
        self.starting: Process | None = None

    def __enter__(self) -> World:
        for patch in self._patches:
            self._entered.enter_context(patch)
        engine.empty_tables()
        if not _tables:
            _tables.append(Tables(PREFIX))
        self.containers = [self._container(), self._container()]
        self.operator = self.make_context(Process("operator"))
        self.subscribers: list[Subscriber] = []
        return self

    def __exit__(self, *_: object) -> None:
        for paused in self.parked:
            paused.process.kill()
            while not paused.is_done:
                paused.resume()
        for running in self.subscribers:
            running.bury()
        self._entered.close()

    # -- parts

    def make_context(self, process: Process) -> Context:
        context = Context(self._settings, clock=lambda: self.net.clock.now // 1000)
        context.tables = _tables[0]
        context.door = InProcessDoor(self.net, self.down, self.wires, self._spend)  # type: ignore[assignment]
        context.queue = Queue(SimpleNamespace(send_message=self._send), "queue")
        context.writer._jitter = random.Random(self.random.random())
        context.hosts._jitter = random.Random(self.random.random())
        context.turns._jitter = random.Random(self.random.random())
        context.writer._pause = lambda seconds: None
        return context

    def _executor(self, *_: Any, **__: Any) -> Inline:
        """The threads of a subscriber."""
        try:
            process = network.process_of(asyncio.get_running_loop())
        except RuntimeError:
            assert self.starting is not None
            process = self.starting
        return Inline(process, self.start)

    def _container(self) -> Container:
        self._number += 1
        return Container(self, self._number)

    def _send(self, *, QueueUrl: str, MessageBody: str, DelaySeconds: int = 0) -> None:
        if DelaySeconds:
            self.delayed.append((self.seconds() + DelaySeconds, MessageBody))
        elif MessageBody not in self.messages:
            self.messages.append(MessageBody)

    def _meddle(self, parameters: dict[str, Any]) -> None:
        """Somebody else writes the row that is about to be written."""
        for item in parameters.get("TransactItems", [parameters]):
            for request in (item, *item.values()):
                if isinstance(request, dict) and str(request.get("TableName", "")).endswith("-repos"):
                    key = request.get("Key") or request.get("Item") or {}
                    as_nobody(partial(self.operator.writer.ask, key["did"]["S"], create=False))
                    return

    def _spend(self) -> None:
        """Something was done that takes time."""
        self._pass(self._slow)

    def _pass(self, seconds: float) -> None:
        self.net.clock.now += int(seconds * 1_000_000)

    def seconds(self) -> float:
        return self.net.clock.now / 1_000_000

    def start(self, process: Process, work: Callable[[], Any]) -> Future[Any]:
        """Do the work, up to its end or to where it pauses."""
        if self.gate.may_pause(process):
            paused = Paused(process, work)
            paused.resume()
            if not paused.is_done:
                self.parked.append(paused)
            return paused.outcome
        outcome: Future[Any] = Future()
        try:
            outcome.set_result(process.run(work))
        except BaseException as error:
            outcome.set_exception(error)
        return outcome

    def resume(self, paused: Paused) -> None:
        """What was paused goes on."""
        paused.resume()
        if paused.is_done:
            self.parked.remove(paused)
            for container in self.containers:
                if container.busy is paused:
                    container.busy = None
                    self._after_job(container, paused.outcome, body=None)
        self.turn()

    # -- time

    def turn(self) -> None:
        """Let all subscribers do what they can do now."""
        ran = True
        while ran:
            ran = False
            for running in list(self.subscribers):
                if not running.is_frozen:
                    ran |= running.loop.turn()
                if running.process.dead or running.task.done():
                    running.bury()
                    self.subscribers.remove(running)

    def advance(self, seconds: float) -> None:
        """Let time pass, and whatever happens in it."""
        until = self.seconds() + seconds
        self.turn()
        while True:
            timers = [running.loop.next_timer for running in self.subscribers if not running.is_frozen]
            at = min((timer for timer in timers if timer is not None), default=None)
            if at is None or at > until:
                break
            self.net.clock.now = max(self.net.clock.now, int(at * 1_000_000) + 1)
            self.turn()
        self.net.clock.now = max(self.net.clock.now, int(until * 1_000_000))
        visible = [body for at, body in self.delayed if at <= until]
        self.delayed = [(at, body) for at, body in self.delayed if at > until]
        self.messages += [body for body in visible if body not in self.messages]

    # -- the service

    def subscribe(self) -> Subscriber:
        """Start a subscriber."""
        self._number += 1
        self.subscribers.append(Subscriber(self, self._number))
        self.turn()
        return self.subscribers[-1] if self.subscribers else self.subscribe()

    def kill_subscriber(self, number: int = 0) -> None:
        running = self.subscribers.pop(number)
        running.bury()

    def stop_subscriber(self, number: int = 0) -> None:
        """In good order: drained, saved, given back."""
        running = self.subscribers[number]
        running.supervisor.stop()
        for _ in range(4):
            self.advance(5)
        assert running not in self.subscribers, "it does not stop"

    def deliver(self, host: Host | None = None, count: int | None = None) -> int:
        """Let frames of a host (None: of all) arrive."""
        wires = [wire for wire in self.wires if host in (None, wire.host)]
        arrived = sum(wire.deliver(count) for wire in wires)
        self.turn()
        return arrived

    def work(self, number: int = 0, *, keep: bool = False) -> bool:
        """Do the job of a waiting message; ``keep``: it comes once more later. Returns whether there was one."""
        free = next((container for container in self.containers if container.busy is None), None)
        if not self.messages or free is None:
            return False
        body = self.messages[number % len(self.messages)]
        if not keep:
            self.messages.remove(body)
        outcome = self.start(free.process, lambda: jobs.work(free.context, body))
        if outcome.done():
            self._after_job(free, outcome, body)
        else:
            free.busy = self.parked[-1]
        self.turn()
        return True

    def _after_job(self, container: Container, outcome: Future[Any], body: str | None) -> None:
        error = outcome.exception()
        if container.process.dead:
            self.containers[self.containers.index(container)] = self._container()
        if error is None:
            return
        if not isinstance(error, Killed):
            self.told.append(f"{body}: {type(error).__name__}: {error}")
        if body is not None and body not in self.messages:
            self.messages.append(body)  # it is visible again after a while

    def request_crawl(self, host: Host) -> None:
        """The host announces itself."""
        free = Process("api")
        context = self.make_context(free)

        def announce() -> None:
            with suppress(admission.HostNotFound):
                admission.request_crawl(context, host.hostname, address="192.0.2.7")

        outcome = self.start(free, announce)
        if outcome.done() and outcome.exception() is not None:
            self.told.append(f"requestCrawl: {outcome.exception()}")
        self.turn()

    def crawl(self, host: Host) -> None:
        """Put a job for a host into the queue."""
        self.messages.append(to_body(HostJob(parse_origin(host.hostname, allow_private=True))))

    def order(self, action: str, target: str) -> None:
        """An operator wants this done."""
        self.messages.append(to_body(new_order(self.operator, action, target, who="operator", why="a reason")))

    def sweep(self) -> None:
        process = Process("sweep")
        context = self.make_context(process)
        outcome = self.start(process, lambda: sweep(context))
        if outcome.done() and outcome.exception() is not None:
            self.told.append(f"sweep: {outcome.exception()}")

    def follow_relays(self, *relays: Relay) -> None:
        """From now on the settings name these; the subscribers start anew with them."""
        origins = tuple(parse_origin(relay.hostname, allow_private=True) for relay in relays)
        self._settings = replace(self._settings, relays=origins)
        for container in self.containers:
            container.context.settings = self._settings
        while self.subscribers:
            self.kill_subscriber()

    # -- the neighbourhood

    def add_account(self, host: Host, *paths: str, curve: Curve = "k256") -> str:
        """A new account with records."""
        records = [(path, {"$type": path.partition("/")[0], "number": 0}) for path in paths]
        return self.net.add_account(host, records=records, curve=curve).did

    def restore(self, host: Host, backup: Backup) -> None:
        """The host as it was. Statuses that changed are told by nobody."""
        host.restore(backup)
        for did, account in host.accounts.items():
            if (
                self.net.homes[did] is host
            ):  # a key that was rotated meanwhile is not in the backup: who restores sees to that
                self.net.identities.update(did, key=account.repo.key)
        self.unseen.add(host)

    def rise(self) -> None:
        """Every repo that was put back gets a commit, since nothing is believed of it before."""
        for did, host in self.net.homes.items():
            account = self.net.account(did)
            if account is not None and account.repo.rev < self.highest.get(did, ""):
                host.write(did, [])
            if account is not None:
                self.highest[did] = account.repo.rev

    def note_revs(self) -> None:
        for did in self.net.homes:
            account = self.net.account(did)
            if account is not None:
                self.highest[did] = max(self.highest.get(did, ""), account.repo.rev)

    # -- the end

    def come_to_rest(self) -> None:
        """Nothing goes wrong any more, and everything that is due is done. Then the index must be the truth."""
        self.gate.armed.clear()
        while self.parked:
            self.resume(self.parked[0])
        self.down.clear()
        for server in (self.net.plc, *self.net.hosts):
            server.heal()
        for running in self.subscribers:
            running.is_frozen = False
        self.turn()
        if not self.subscribers:
            self.subscribe()
        self.note_revs()
        self._rest()
        for host in self.net.hosts:
            if (
                not host.shape.lists_active
            ):  # a status that nobody heard of shows in no list, but only in the next audit
                for did in host.accounts:
                    host.emit_account(did)
        self.rise()
        self._rest()
        if self.unseen:
            self.advance(RECENT_SECONDS)
            for host in self.net.hosts:
                if host in self.unseen:
                    self.crawl(host)
            self.unseen.clear()
            self._rest()
        found = differences(self.net) + self._order.look() + self._follower.misses(self._settings.changes)
        assert not found, "\n".join(found)

    def _rest(self) -> None:
        errors = len(self.told)
        for _ in range(PATIENCE):
            busy = self.deliver() > 0
            for _ in range(AT_ONCE):
                if not self.work():
                    break
                busy = True
                self.deliver()
            else:
                raise AssertionError(
                    f"a job makes a job, and so on without end: {self.messages}, told {self.told[-3:]}"
                )
            if not busy and self._is_idle():
                break
            self.advance(5)
            self.sweep()
        else:
            names = ("did", "origin", "owner", "due_at", "last_error", "stream_error", "cursor", "reason")
            rows = [row for table in ("repos", "hosts") for row in engine.rows(table) if "due_at" in row]
            due = [{name: row[name] for name in names if name in row} for row in rows]
            raise AssertionError(f"it does not come to rest: {due}, {len(self.wires)} streams, told {self.told[-3:]}")
        assert self.told[errors:] == [], "our own fault, though nothing went wrong"

    def _is_idle(self) -> bool:
        if self.delayed or any("due_at" in row for row in engine.rows("repos")):
            return False
        soon = self.net.clock.now // 1000 + 10 * 60 * 1000
        hosts = engine.rows("hosts")
        if any(row["due_at"] < soon for row in hosts if "due_at" in row):
            return False
        open_ = {wire.host for wire in self.wires}
        followed = [row["origin"] for row in hosts if "owner" in row]
        servers = (*self.net.hosts, *self.net.relays)
        if any(server not in open_ for server in servers if f"http://{server.hostname}" in followed):
            return False
        stored = {row["origin"]: row.get("cursor") for row in hosts}
        return all(stored.get(f"http://{server.hostname}") in (None, server.stream.seq) for server in servers)

    def check(self) -> None:
        """What must be so at any moment."""
        self._follower.look()
        found = list(inconsistencies()) + self._order.look()
        assert not found, "\n".join(found)
