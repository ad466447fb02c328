"""A domain's long jobs get its turns and no more; quick ones need none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from itertools import islice
from typing import Any

import pytest

from app import MAX_CRAWLS
from chalicelib import settings
from chalicelib.atproto import transport
from chalicelib.atproto.syntax import Did, Origin, parse_origin
from chalicelib.crawl.context import Context
from chalicelib.crawl.jobs import work
from chalicelib.crawl.queue import HostJob, Job, RepoJob, to_body
from chalicelib.crawl.turns import CROWDED_SECONDS, HOST, REPO, TURN, WAIT_SECONDS, NoTurn, Turn, Turns
from chalicelib.index.state import State
from chalicelib.index.tables import Tables
from simulator.scripted import ScriptedServer
from simulator.thread import SimulatorThread
from tests.conftest import Stack

MakeContext = Callable[..., Context]
PATIENCE = 30


class Clock:
    now = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += round(1000 * seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def process(stack_env: Stack, clock: Clock) -> Callable[..., Turns]:
    """A process that hands out turns."""

    def make(**variables: str) -> Turns:
        given = {"TURN_SECONDS": "5", "JOB_LEASE_SECONDS": "60"} | variables
        read = settings.read({f"DISCOVERY_{name}": value for name, value in given.items()})
        return Turns(State(Tables(stack_env.prefix), clock=clock), read, clock=clock)

    return make


def host(name: str) -> Origin:
    return Origin(name, 443, secure=True)


def job(turns: Turns, name: str = "a.example.com", kind: str = REPO) -> Turn:
    """A job that has just begun."""
    turn = turns.begin(kind)
    turn.of(host(name))
    return turn


def end(turn: Turn) -> None:
    turn.__exit__(None, None, None)


def held(turns: Turns) -> list[str]:
    """The turns that somebody has."""
    return [row.id for row in turns.state.all(TURN) if row.number > turns.clock()]


# -- who gets one


def test_a_quick_job_takes_none(process: Callable[..., Turns], clock: Clock) -> None:
    turns = process()
    quick = job(turns)
    clock.pass_(4.999)
    quick.keep()
    end(quick)
    assert turns.state.all(TURN) == []
    long = job(turns)
    clock.pass_(5)
    long.keep()
    assert held(turns) == ["example.com#3"]
    end(long)
    assert held(turns) == []


def test_a_domain_has_so_many_and_another_domain_its_own(process: Callable[..., Turns], clock: Clock) -> None:
    turns = process(JOBS_PER_DOMAIN="3")
    long = [job(turns, f"{number}.example.com") for number in range(4)]
    other = job(turns, "a.example.net")
    clock.pass_(5)
    for turn in long[:3]:
        turn.keep()
    with pytest.raises(NoTurn) as refused:
        long[3].keep()
    assert WAIT_SECONDS[0] <= refused.value.retry_after <= WAIT_SECONDS[1]
    other.keep()
    assert held(turns) == [*(f"example.com#{number}" for number in range(3)), "example.net#2"]
    end(long[1])
    with pytest.raises(NoTurn):
        long[3].keep()  # its other threads hear the same
    end(long[3])
    later = job(process(JOBS_PER_DOMAIN="3"))
    clock.pass_(5)
    later.keep()


@pytest.mark.parametrize(("most", "of_hosts"), [("1", 1), ("2", 1), ("4", 2), ("5", 2)])
def test_crawls_of_hosts_leave_half_to_the_repos(
    process: Callable[..., Turns], clock: Clock, most: str, of_hosts: int
) -> None:
    turns = process(JOBS_PER_DOMAIN=most)
    crawls = [job(turns, kind=HOST) for _ in range(of_hosts + 1)]
    repos = [job(turns) for _ in range(int(most) - of_hosts)]
    clock.pass_(5)
    for turn in crawls[:of_hosts]:
        turn.keep()
    with pytest.raises(NoTurn):
        crawls[of_hosts].keep()
    for turn in repos:
        turn.keep()
    assert len(held(turns)) == int(most)


def test_a_wait_is_no_longer_than_any_other_back_off(process: Callable[..., Turns], clock: Clock) -> None:
    turns = process(JOBS_PER_DOMAIN="1", FAILURE_CAP_SECONDS="7")
    first, second = job(turns), job(turns)
    clock.pass_(5)
    first.keep()
    with pytest.raises(NoTurn) as refused:
        second.keep()
    assert refused.value.retry_after == 7


def test_no_bound_is_no_bound(process: Callable[..., Turns], clock: Clock) -> None:
    turns = process(JOBS_PER_DOMAIN="0")
    turn = job(turns)
    clock.pass_(10_000)
    turn.keep()
    assert turns.state.all(TURN) == []


def test_the_threads_of_a_job_share_one_turn(process: Callable[..., Turns], clock: Clock) -> None:
    turns = process()
    turn = job(turns)
    clock.pass_(5)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: turn.keep(), range(50)))
    assert len(held(turns)) == 1


# -- how long


def test_a_job_that_shows_life_keeps_its_turn_and_one_that_crashed_loses_it(
    process: Callable[..., Turns], clock: Clock
) -> None:
    turns, another = process(JOBS_PER_DOMAIN="1"), process(JOBS_PER_DOMAIN="1")
    first = job(turns)
    clock.pass_(5)
    for _ in range(10):
        first.keep()
        clock.pass_(20)
    first.keep()  # and then never again
    clock.pass_(59.999)
    with pytest.raises(NoTurn):
        another.take(REPO, host("a.example.com"), "another")
    clock.pass_(0.001)
    another.take(REPO, host("a.example.com"), "another")
    with pytest.raises(NoTurn):
        first.keep()  # it wakes up
    end(first)
    assert held(turns) == ["example.com#0"], "which is not its own any more"


def test_a_job_that_slept_takes_another_turn_if_there_is_one(process: Callable[..., Turns], clock: Clock) -> None:
    turns = process(JOBS_PER_DOMAIN="2")
    slept = job(turns)
    clock.pass_(5)
    slept.keep()
    clock.pass_(60)
    turns.take(REPO, host("a.example.com"), "another")
    slept.keep()
    assert held(turns) == ["example.com#0", "example.com#1"]


# -- where it is crowded


def test_where_none_was_free_jobs_need_one_from_their_beginning_for_a_while(
    process: Callable[..., Turns], clock: Clock
) -> None:
    turns = process(JOBS_PER_DOMAIN="1")
    first, second = job(turns), job(turns)
    clock.pass_(5)
    first.keep()
    with pytest.raises(NoTurn):
        second.keep()
    with pytest.raises(NoTurn):
        job(turns, "b.example.com")
    end(job(turns, kind=HOST))  # jobs of that kind have found theirs so far
    end(job(turns, "a.example.net"))
    end(first)
    third = job(turns)
    assert held(turns) == ["example.com#0"], "it has only just begun"
    end(third)
    clock.pass_(CROWDED_SECONDS)
    unhurried = job(turns)
    assert held(turns) == []
    end(unhurried)


def test_what_is_known_of_crowds_is_bounded(process: Callable[..., Turns], monkeypatch: pytest.MonkeyPatch) -> None:
    turns = process()
    monkeypatch.setattr(turns.state, "hold", lambda *_, **__: False)
    for number in range(2500):
        with pytest.raises(NoTurn):
            turns.take(REPO, host(f"{number}.test"), "somebody")
    assert len(turns._crowded) <= 1000


# -- a well-behaved hold beside slow ones


class Slow:
    """Hosts that never come to the end of an answer. Use as a context manager."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self._waiting = 0
        self._changed = threading.Condition()
        self._servers = ExitStack()

    def __enter__(self) -> Slow:
        return self

    def __exit__(self, *_: object) -> None:
        self.may_end.set()
        self._servers.close()

    def add_host(self) -> Origin:
        server = self._servers.enter_context(ScriptedServer(lambda _: self._answer()))
        return Origin("127.0.0.1", server.port, secure=False)

    def _answer(self) -> Iterator[bytes]:
        with self._changed:
            self._waiting += 1
            self._changed.notify_all()
        yield b"HTTP/1.1 200 OK\r\n\r\n\xe8\x07"  # the head of a CAR is going to have 1,000 bytes
        while not self.may_end.wait(0.1):
            yield b" "

    def until_waiting(self, count: int) -> None:
        """So many requests wait for the end of their answer."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._waiting >= count, PATIENCE)


def slow_hosts(context: Context, sim: SimulatorThread, slow: Slow) -> list[Job]:
    """As many slow hosts at one address as there may be crawls."""
    origins = [slow.add_host() for _ in range(MAX_CRAWLS)]
    for origin in origins:
        context.hosts.admit(origin, confirmed=True)
    return [HostJob(origin) for origin in origins]


def slow_repos(context: Context, sim: SimulatorThread, slow: Slow) -> list[Job]:
    """As many repos of one slow host."""
    pds, origin = sim.call(sim.net.add_pds(accounts=MAX_CRAWLS, sailors=0, noise=0)), slow.add_host()
    context.hosts.admit(origin, confirmed=True)
    for did in pds.accounts:
        sim.net.identities.update(did, pds=origin.url)
        context.writer.ask(Did(did))
    return [RepoJob(Did(did)) for did in pds.accounts]


def row_of(context: Context, job: Job) -> Any:
    return context.hosts.load(job.origin) if isinstance(job, HostJob) else context.writer.load(job.did)


@pytest.mark.parametrize("turns", ["4", "0"])
@pytest.mark.parametrize(("make_slow", "may_go_on"), [(slow_hosts, 2), (slow_repos, 4)])
def test_a_well_behaved_hold_is_served_while_very_many_jobs_of_one_domain_are_slow(
    make_context: MakeContext,
    sim: SimulatorThread,
    monkeypatch: pytest.MonkeyPatch,
    make_slow: Callable[..., list[Job]],
    may_go_on: int,
    turns: str,
) -> None:
    """Without turns (0) it is not."""
    monkeypatch.setattr(transport, "_WATCH", 0.02)
    context = make_context(TURN_SECONDS="0.2", JOBS_PER_DOMAIN=turns)
    hold = sim.call(sim.net.add_hold(method="plc"))
    origin = parse_origin(hold.hostname, allow_private=True)
    context.hosts.admit(origin, confirmed=True)
    with Slow() as slow, ThreadPoolExecutor(MAX_CRAWLS) as crawls:
        jobs = make_slow(context, sim, slow)
        slow_ones = [crawls.submit(work, context, to_body(each)) for each in jobs]
        if turns == "0":
            slow.until_waiting(MAX_CRAWLS)  # each crawl that there may be is one of these
            served = crawls.submit(work, context, to_body(HostJob(origin)))
            assert not served.running()
            slow.may_end.set()
            return
        crawls.submit(work, context, to_body(HostJob(origin))).result(PATIENCE)
        assert context.writer.load(Did(hold.did)).sync == "synced"
        for one in islice(as_completed(slow_ones, PATIENCE), len(jobs) - may_go_on):
            one.result()
        put_off = [each for each, one in zip(jobs, slow_ones, strict=True) if one.done()]
        assert len(jobs) - len(put_off) == may_go_on
        slow.may_end.set()
        for one in slow_ones:
            one.result(PATIENCE)
    assert held(context.turns) == []
    rows = [row_of(context, each) for each in put_off]
    assert all((row.failures, row.last_error) == (0, None) for row in rows)
    assert all(row.due_at > context.clock() + 1000 * (WAIT_SECONDS[0] - PATIENCE) for row in rows)
