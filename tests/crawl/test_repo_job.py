"""Bringing one repo up to date: who may ask for it, and what an answer settles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chalicelib.atproto.syntax import Did, Origin, parse_origin
from chalicelib.crawl.context import Context
from chalicelib.crawl.repo_job import Deadline, Outcome, sync_repo
from simulator import faults
from simulator.host import Host
from simulator.thread import SimulatorThread

MakeContext = Callable[..., Context]
HOUR = 3600 * 1000


class Clock:
    now = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def hold(sim: SimulatorThread) -> Host:
    host: Host = sim.call(sim.net.add_hold(method="plc"))
    return host


@pytest.fixture
def stranger(sim: SimulatorThread) -> Origin:
    """A host that lists the hold's repo, which is none of its own."""
    return parse_origin(sim.call(sim.net.add_pds(accounts=1, sailors=0)).hostname, allow_private=True)


def sync(context: Context, did: str, listed_by: Origin | None = None) -> Outcome:
    return sync_repo(context, Did(did), deadline=Deadline(60), listed_by=listed_by, ask=listed_by is not None)


def landed_with_a_clock(make_context: MakeContext, did: Did) -> tuple[Context, Clock]:
    """A repo that is indexed, and is deleted an hour after it was first said to be gone."""
    context, clock = make_context(GONE_HOURS="1", FAILURE_CAP_SECONDS="1"), Clock()
    context.clock = context.writer._clock = clock
    context.writer.ask(did)
    assert sync(context, did) is Outcome.LANDED
    return context, clock


def test_a_repo_that_only_another_host_lists_is_refused(
    make_context: MakeContext, hold: Host, stranger: Origin
) -> None:
    context = make_context()
    assert sync(context, hold.did, stranger) is Outcome.REFUSED
    assert context.writer.load(Did(hold.did)).sync == "refused"


def test_a_repo_that_its_own_host_showed_is_not_refused_for_another_that_lists_it(
    make_context: MakeContext, hold: Host, stranger: Origin
) -> None:
    context = make_context()
    context.writer.ask(Did(hold.did))  # by its own host's crawl, whose job has not come yet
    assert sync(context, hold.did, stranger) is Outcome.LANDED
    assert context.writer.load(Did(hold.did)).sync == "synced"


def test_what_its_own_host_asks_for_during_a_refusal_is_done(
    make_context: MakeContext, hold: Host, stranger: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context()
    refuse = context.writer.refuse

    def ask_and_refuse(*arguments):
        context.writer.ask(Did(hold.did))
        return refuse(*arguments)

    monkeypatch.setattr(context.writer, "refuse", ask_and_refuse)
    assert sync(context, hold.did, stranger) is Outcome.LANDED


def test_a_repo_that_its_host_says_it_does_not_have_is_deleted_after_a_while(
    make_context: MakeContext, sim: SimulatorThread, hold: Host
) -> None:
    context, clock = landed_with_a_clock(make_context, did := Did(hold.did))
    account = hold.accounts.pop(did)

    def look(after: float) -> str:
        clock.now += round(after * HOUR)
        context.writer.ask(did, claim="unlisted")
        return sync(context, did).value

    assert look(1) == "failed"
    assert look(0.9) == "failed"
    hold.accounts[did] = account  # it was put back
    assert look(0.05) == "unchanged"
    del hold.accounts[did]
    assert look(1) == "failed"
    assert look(1 - 1 / HOUR) == "failed"
    assert context.writer.load(did).active
    assert look(1 / HOUR) == "status"
    row = context.writer.load(did)
    assert (row.active, row.status, row.collections, row.due_at) == (False, "deleted", {}, None)
    hold.accounts[did] = account
    context.writer.ask(did)
    assert sync(context, did) is Outcome.LANDED


def test_a_host_that_cannot_be_reached_deletes_nothing(
    make_context: MakeContext, sim: SimulatorThread, hold: Host
) -> None:
    context = make_context(GONE_HOURS="0", FAILURE_CAP_SECONDS="1")
    did = Did(hold.did)
    context.writer.ask(did)
    assert sync(context, did) is Outcome.LANDED
    for answer in (faults.status(404), faults.status(502), faults.status(400, "InvalidRequest")):
        sim.call(hold.fail, "com.atproto.sync.getRepoStatus", answer)
        sim.call(hold.fail, "com.atproto.sync.getRepo", answer)
        context.writer.ask(did, desynchronized="x")
        assert sync(context, did) is Outcome.FAILED
        sim.call(hold.heal)
    assert context.writer.load(did).collections


def test_a_did_that_the_directory_does_not_know_any_more_is_deleted_after_a_while(
    make_context: MakeContext, sim: SimulatorThread, hold: Host
) -> None:
    context, clock = landed_with_a_clock(make_context, did := Did(hold.did))
    del sim.net.identities.documents[did]
    for after, outcome in ((0, Outcome.FAILED), (HOUR - 1, Outcome.FAILED), (1, Outcome.STATUS)):
        clock.now += after
        context.writer.ask(did, refresh=True)
        assert sync(context, did) is outcome
    assert context.writer.load(did).status == "deleted"


def test_a_record_without_a_type_among_many_of_others_costs_a_second_reading(
    sim: SimulatorThread, make_context: MakeContext, hold: Host
) -> None:
    def others(first: int) -> list[tuple[str, Any]]:
        return [(f"app.bsky.feed.like/{n:04}", {"$type": "app.bsky.feed.like", "a": "x" * 500, "b": n})
                for n in range(first, first + 1_000)]  # fmt: skip

    sim.call(hold.put, hold.did, "io.atcr.hold.crew/bad", {"text": "x"})
    for first in (0, 1_000):  # a megabyte, which comes before it
        sim.call(hold.add, hold.did, others(first))
    context = make_context()
    context.writer.ask(Did(hold.did))
    assert sync(context, hold.did) is Outcome.LANDED
    assert hold.requests["com.atproto.sync.getRepo"] == 2
    row = context.tables.records.get(hold.did, "io.atcr.hold.crew/bad")
    assert row.value is None
    assert row.problem == "its $type is missing"
