"""One host floods its stream beside a hundred quiet ones: each of their commits is applied promptly.

All is here but the network and the tables: connections, lanes, verification. Time is counted in calls of the tables: in one step
as many are answered as the subscriber has threads. DID documents that are slow to fetch never come.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from chalicelib import settings
from chalicelib.atproto.cid import cid_to_text
from chalicelib.atproto.crypto import parse_did_key
from chalicelib.atproto.events import IdentityEvent
from chalicelib.atproto.identity import Identity
from chalicelib.atproto.repo import VerifiedCommit
from chalicelib.atproto.syntax import Did, Origin
from chalicelib.index.tables import HostRow, RepoRow
from simulator import Clock, Repo, SigningKey, frames
from simulator.identity import new_did_plc
from subscriber import pipeline as pipelines
from subscriber.connection import Connection
from subscriber.memory import Endings
from subscriber.pipeline import Pipeline

QUIET = 100
PROMPT = 60
"""Steps in which the commits of a hundred quiet hosts are applied: two and a half times as many as they would need alone."""
PATH = "io.atcr.hold.layer/{}"
FLOOD = Origin("flood.example.com", 443, secure=True)


class Stuck(Exception):
    """A call that does not end."""


class Threads(Executor):
    """Each call waits for a ``step``, in which all threads end one, but those that are stuck."""

    def __init__(self, size: int, **_: Any) -> None:
        self.calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self.free = size

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.calls.append((lambda: function(*args, **kwargs), future))
        return future

    def step(self) -> None:
        for _ in range(min(self.free, len(self.calls))):
            function, future = self.calls.popleft()
            try:
                future.set_result(function())
            except Stuck:
                self.free -= 1
            except Exception as error:
                future.set_exception(error)


class Network:
    """What the subscriber knows of the world: its tables, the documents, and what comes over the streams."""

    def __init__(self) -> None:
        self.rng, self.clock, self.threads = random.Random(1), Clock(), list[Threads]()
        self.rows: dict[str, RepoRow] = {}
        self.identities: dict[str, Identity] = {}
        """Documents that can be had at once."""
        self.cached: set[str] = set()
        self.streams: dict[Origin, list[bytes]] = {}
        self.applied: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.context: Any = SimpleNamespace(
            settings=settings.read({}),
            clock=lambda: self.clock.now // 1000,
            door=SimpleNamespace(websocket=self._websocket),
            tables=SimpleNamespace(repos=SimpleNamespace(by_host=SimpleNamespace(query=self._of))),
            writer=SimpleNamespace(load=self.rows.get, load_many=self._load_many, apply=self._apply, ask=self._ask),
            hosts=SimpleNamespace(note_stream=lambda *_, **__: True, save_cursor=lambda *_: True),
            queue=SimpleNamespace(send=lambda job: None),
            identities=SimpleNamespace(known=self._known, get=self._get, refresh=self._get),
        )

    def executor(self, size: int, **_: Any) -> Threads:
        self.threads.append(Threads(size))
        return self.threads[-1]

    # Growing

    def host(self, number: int) -> Origin:
        return Origin(f"quiet{number}.example.com", 443, secure=True)

    def repo(self, host: Origin, *, known: bool = True, cached: bool = True) -> Repo:
        """A repo of a host; ``known``: indexed, ``cached``: its document need not be fetched."""
        key = SigningKey.generate(self.rng, "k256")
        repo = Repo(new_did_plc(self.rng), key, self.clock, [(PATH.format("first"), {"$type": "io.atcr.hold.layer"})])
        self.identities[repo.did] = Identity(Did(repo.did), parse_did_key(key.did_key), host, None)
        if cached:
            self.cached.add(repo.did)
        if known:
            self.rows[repo.did] = RepoRow(
                repo.did,
                host=str(host),
                scope_host=str(host),
                rev=repo.rev,
                data=cid_to_text(repo.head.data),
                sync="synced",
                active=True,
                collections={"io.atcr.hold.layer": 1},
                version=1,
            )
        return repo

    def tell(self, host: Origin, repo: Repo, number: int = 0) -> bytes:
        """A commit of the repo over the stream of a host."""
        commit = repo.apply([repo.put(PATH.format(f"r{number}"), {"$type": "io.atcr.hold.layer", "n": number})])
        return self.say(host, lambda seq: frames.commit(commit, seq, self.clock.timestamp()))

    def say(self, host: Origin, frame: Callable[[int], bytes]) -> bytes:
        stream = self.streams.setdefault(host, [])
        stream.append(frame(len(stream) + 1))
        return stream[-1]

    # What the subscriber calls

    def _of(self, host: str) -> list[RepoRow]:
        return [row for row in self.rows.values() if row.host == host]

    def _load_many(self, dids: Sequence[Did]) -> dict[str, RepoRow]:
        return {did: self.rows[did] for did in dids}

    def _apply(self, row: RepoRow, commit: VerifiedCommit) -> RepoRow:
        self.applied[str(row.host)] += 1
        self.rows[row.did] = new = RepoRow(
            **{**row.attribute_values, "rev": commit.rev, "data": cid_to_text(commit.data)}
        )
        return new

    def _ask(self, did: Did, **_: Any) -> bool:
        self.asked[did] += 1
        return False

    def _known(self, did: Did, *, newer_than: int | None = None) -> Identity | None:
        return self.identities[did] if did in self.cached else None

    def _get(self, did: Did, *, newer_than: int | None = None) -> Identity:
        if did not in self.identities:
            raise Stuck
        self.cached.add(did)
        return self.identities[did]

    @asynccontextmanager
    async def _websocket(self, url: str, **_: Any) -> AsyncIterator[AsyncIterator[list[bytes]]]:
        host = next(host for host in self.streams if url.startswith(f"{host.websocket_url}/"))

        async def batches() -> AsyncIterator[list[bytes]]:
            for at in range(0, len(self.streams[host]), 50):
                yield self.streams[host][at : at + 50]
            await asyncio.Event().wait()

        yield batches()

    # Running

    async def run(self, until: Callable[[Pipeline], bool], at_most: int) -> int:
        """Follow all streams until that is so; how many steps that took. The flood comes first."""
        executor = self.executor(self.context.settings.stream_workers)
        pipeline = Pipeline(self.context, executor)
        shared: Any = {
            "owner": "test",
            "opening": asyncio.Semaphore(1000),
            "endings": Endings(),
            "jitter": random.Random(1),
        }
        tasks = []
        for host in sorted(self.streams, key=lambda host: host != FLOOD):
            row = HostRow(str(host), cursor=0, epoch=1)
            connection = Connection(self.context, pipeline, executor, row=row, **shared)
            tasks.append(asyncio.create_task(connection.run()))
            if host == FLOOD:
                while not connection.events:  # the first that it may have open are all read at once
                    assert not tasks[0].done(), tasks[0].result()
                    await self._step()
        steps = 0
        while not until(pipeline) and steps < at_most:
            await self._step()
            steps += 1
        for task in tasks:
            task.cancel()
        pipeline.abandon()
        await asyncio.gather(*tasks, return_exceptions=True)
        return steps

    async def _step(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        for threads in self.threads:
            threads.step()


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Network:
    net = Network()
    monkeypatch.setattr(pipelines, "ThreadPoolExecutor", net.executor)
    return net


def quiet_hosts(net: Network) -> list[Repo]:
    """Each has one repo and says one commit; the documents of half of them have to be fetched."""
    repos = [net.repo(net.host(number), cached=number % 2 == 0) for number in range(QUIET)]
    for number, repo in enumerate(repos):
        net.tell(net.host(number), repo)
    return repos


def test_a_flood_of_valid_commits_keeps_no_quiet_host_waiting(net: Network) -> None:
    flooding = [net.repo(FLOOD) for _ in range(400)]
    for number in range(1_600):
        net.tell(FLOOD, flooding[number % 400], number)
    quiet_hosts(net)
    steps = asyncio.run(net.run(lambda _: all(net.applied[str(net.host(n))] for n in range(QUIET)), 1_000))
    assert steps <= PROMPT
    assert net.applied[str(FLOOD)] < 1_600


def test_a_flood_of_dids_that_are_slow_to_resolve_keeps_no_quiet_host_waiting(net: Network) -> None:
    for number in range(400):
        repo = net.repo(FLOOD, known=False, cached=False)
        net.tell(FLOOD, repo, number)
        del net.identities[repo.did]
    quiet_hosts(net)
    steps = asyncio.run(net.run(lambda _: all(net.applied[str(net.host(n))] for n in range(QUIET)), 1_000))
    assert steps <= PROMPT


@pytest.mark.parametrize("kind", ["commit", "account", "identity", "sync"])
def test_a_flood_of_events_about_the_repos_of_quiet_hosts_keeps_none_of_them_waiting(net: Network, kind: str) -> None:
    """And none of them has an effect: who is no PDS of a repo has no say."""
    repos = [net.repo(net.host(number)) for number in range(QUIET)]
    said: dict[str, Callable[[Repo, int], bytes]] = {
        "commit": lambda repo, seq: frames.commit(repo.head, seq, net.clock.timestamp()),
        "account": lambda repo, seq: frames.account(repo.did, seq, net.clock.timestamp(), False, "deleted"),
        "identity": lambda repo, seq: frames.identity(repo.did, seq, net.clock.timestamp()),
        "sync": lambda repo, seq: frames.sync(repo.head, seq, net.clock.timestamp()),
    }
    for number in range(1_000):
        repo = repos[number % QUIET]
        net.say(FLOOD, lambda seq, repo=repo: said[kind](repo, seq))  # type: ignore[misc]
    for number, repo in enumerate(repos):
        net.tell(net.host(number), repo)
    pipelines_seen: list[Pipeline] = []

    def quiet_are_done(pipeline: Pipeline) -> bool:
        pipelines_seen[:] = [pipeline]
        return all(net.applied[str(net.host(n))] for n in range(QUIET))

    assert asyncio.run(net.run(quiet_are_done, 1_000)) <= PROMPT
    assert not net.asked
    assert set(pipelines_seen[0].counts) == {"applied", "no-authority"}


def test_a_host_that_is_alone_has_all_the_threads(net: Network) -> None:
    repos = [net.repo(FLOOD) for _ in range(400)]
    for repo in repos:
        net.tell(FLOOD, repo)
    workers = net.context.settings.stream_workers
    steps = asyncio.run(net.run(lambda _: net.applied[str(FLOOD)] == 400, 1_000))
    assert steps <= 2 * 400 / workers + 1  # a commit takes two calls: its document from the table, and the writing


def test_an_event_that_comes_too_soon_after_its_document_was_fetched_waits_until_it_may_be_fetched_again(
    net: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever has a document fetched at the right moment could have a move go unheard."""
    monkeypatch.setattr(pipelines, "REFRESH_SECONDS", 0.05)
    old, new = net.host(1), net.host(2)
    repo = net.repo(old)

    async def test() -> None:
        threads = net.executor(16)
        pipeline, done = Pipeline(net.context, threads), list[str]()

        def say(source: Origin, name: str) -> None:
            pipeline.submit(source, IdentityEvent(1, Did(repo.did), "", None), 1, lambda: done.append(name))

        async def until(*names: str) -> None:
            while done != list(names):
                await net._step()

        say(FLOOD, "flood")
        await until("flood")
        assert not net.asked
        net.identities[repo.did] = replace(net.identities[repo.did], pds=new)
        net.context.identities.known = lambda did, **_: Identity(did, None, old, None)  # what is remembered
        say(new, "new host")
        await until("flood", "new host")
        assert net.asked[repo.did] == 1
        pipeline.abandon()

    asyncio.run(asyncio.wait_for(test(), 10))
