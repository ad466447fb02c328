"""Bringing one repo up to date: who may ask for it, and what an answer settles."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chalicelib.atproto.syntax import Did, Origin, parse_origin
from chalicelib.crawl.context import Context
from chalicelib.crawl.repo_job import Deadline, Outcome, sync_repo
from simulator.host import Host
from simulator.thread import SimulatorThread

MakeContext = Callable[..., Context]


@pytest.fixture
def hold(sim: SimulatorThread) -> Host:
    host: Host = sim.call(sim.net.add_hold(method="plc"))
    return host


@pytest.fixture
def stranger(sim: SimulatorThread) -> Origin:
    """A host that lists the hold's repo, which is none of its own."""
    return parse_origin(sim.call(sim.net.add_pds(accounts=1, sailors=0)).hostname, allow_private=True)


def sync(context: Context, hold: Host, listed_by: Origin | None = None) -> Outcome:
    return sync_repo(context, Did(hold.did), deadline=Deadline(60), listed_by=listed_by, ask=listed_by is not None)


def test_a_repo_that_only_another_host_lists_is_refused(
    make_context: MakeContext, hold: Host, stranger: Origin
) -> None:
    context = make_context()
    assert sync(context, hold, stranger) is Outcome.REFUSED
    assert context.writer.load(Did(hold.did)).sync == "refused"


def test_a_repo_that_its_own_host_showed_is_not_refused_for_another_that_lists_it(
    make_context: MakeContext, hold: Host, stranger: Origin
) -> None:
    context = make_context()
    context.writer.ask(Did(hold.did))  # by its own host's crawl, whose job has not come yet
    assert sync(context, hold, stranger) is Outcome.LANDED
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
    assert sync(context, hold, stranger) is Outcome.LANDED
