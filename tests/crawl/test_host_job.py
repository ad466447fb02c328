"""A crawl of a large host: polite, a piece at a time, and never all over again."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from chalicelib.atproto.syntax import Origin, parse_origin
from chalicelib.crawl import host_job
from chalicelib.crawl.context import Context
from chalicelib.crawl.host_job import crawl_host
from chalicelib.crawl.pace import Pace
from chalicelib.index.hosts import HostCrawl
from simulator.faults import rate_limited
from simulator.host import Host
from simulator.thread import SimulatorThread

REPO = "com.atproto.sync.getRepo"
ACCOUNTS = 30
MakeContext = Callable[..., Context]


@pytest.fixture
def pds(sim: SimulatorThread) -> Host:
    """A host that is too large to be done in place."""
    host: Host = sim.call(sim.net.add_pds(accounts=ACCOUNTS, sailors=2, noise=2))
    return host


def admitted(context: Context, host: Host) -> Origin:
    origin = parse_origin(host.hostname, allow_private=True)
    context.hosts.admit(origin, confirmed=True)
    return origin


def crawled(context: Context, origin: Origin) -> bool:
    row = context.hosts.load(origin)
    return row is not None and row.crawled_at is not None


def test_a_host_that_limits_our_rate_is_crawled_bit_by_bit(
    sim: SimulatorThread, pds: Host, make_context: MakeContext
) -> None:
    context = make_context(CRAWL_CONCURRENCY="1")
    origin = admitted(context, pds)
    jobs = 0
    while not crawled(context, origin):
        sim.call(pds.heal)
        asked = pds.requests[REPO]
        sim.call(pds.fail, REPO, rate_limited(1), after=7)
        crawl_host(context, origin)
        assert pds.requests[REPO] - asked <= 8, "it went on after a 429"
        row = context.hosts.load(origin)
        assert row.status == "active"
        jobs += 1
    assert jobs == ACCOUNTS // 7 + 1
    assert pds.requests[REPO] == ACCOUNTS + jobs - 1, "a repo was asked for again"


def test_a_job_without_time_hands_over_amid_a_page_and_the_next_goes_on_from_there(
    sim: SimulatorThread, pds: Host, make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Impatient(host_job.Deadline):
        """It passes when it is looked at for the twentieth time."""

        looks = 0

        @property
        def left(self) -> float:
            self.looks += 1
            return 60 if self.looks < 20 else -1

    monkeypatch.setattr(host_job, "Deadline", Impatient)
    context = make_context(CRAWL_CONCURRENCY="1")
    origin = admitted(context, pds)
    jobs = 0
    while not crawled(context, origin):
        crawl_host(context, origin)
        row = context.hosts.load(origin)
        assert row.crawl_job is None
        assert pds.requests[REPO] <= 10 * (jobs + 1)
        jobs += 1
    assert jobs > 2
    assert pds.requests[REPO] == ACCOUNTS
    assert row.failures == 0


def test_a_job_amid_a_long_page_keeps_its_right(
    sim: SimulatorThread, pds: Host, make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context(CRAWL_CONCURRENCY="1")
    origin = admitted(context, pds)
    untils: list[int] = []
    progress = context.hosts.progress

    def noted(crawl: HostCrawl, **more: Any) -> None:
        progress(crawl, **more)
        untils.append(int(context.hosts.load(origin).crawl_until))

    seconds = count(step=25)  # what each probe takes, it seems
    monkeypatch.setattr(context.hosts, "progress", noted)
    monkeypatch.setattr(host_job, "time", SimpleNamespace(monotonic=lambda: next(seconds), sleep=lambda _: None))
    crawl_host(context, origin)
    assert crawled(context, origin)
    assert len(untils) >= ACCOUNTS // 2
    assert untils == sorted(untils)


def test_after_a_burst_a_host_is_asked_at_its_rate(
    sim: SimulatorThread, pds: Host, make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(host_job, "BURST", 5)
    monkeypatch.setattr(host_job, "Pace", partial(Pace, clock=lambda: 0.0))  # nobody sleeps, and no time passes
    monkeypatch.setattr(host_job, "time", SimpleNamespace(monotonic=time.monotonic, sleep=pauses.append))
    context = make_context(CRAWL_RATE="2", CRAWL_CONCURRENCY="1")
    origin = admitted(context, pds)
    crawl_host(context, origin)
    assert crawled(context, origin)
    assert pauses == pytest.approx([0] * 5 + [number / 2 for number in range(1, len(pauses) - 4)])
    assert len(pauses) > ACCOUNTS


@pytest.mark.parametrize("accounts", [host_job.STRANGERS - 1, host_job.STRANGERS])
def test_a_host_that_shows_other_peoples_repos_is_given_up_with_the_reason(
    sim: SimulatorThread, make_context: MakeContext, accounts: int
) -> None:
    """They are signed as they should be, and their documents name another host."""
    pds = sim.call(sim.net.add_pds(accounts=accounts, sailors=accounts, manifests=1, noise=0))
    for did in pds.accounts:
        sim.net.identities.update(did, pds="https://elsewhere.example.com")
    context = make_context()
    origin = admitted(context, pds)
    crawl_host(context, origin)
    row = context.hosts.load(origin)
    if accounts < host_job.STRANGERS:
        assert (row.last_error, row.failures) == (None, 0)
    else:
        assert "names this host as its PDS" in row.last_error
        assert row.failures == 1
    assert list(context.tables.repos.scan()) == []
