"""What comes about because time passes: each is cheap while there is nothing to do, and none comes at the same moment for all."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from chalicelib import metrics, telemetry
from chalicelib.atproto.syntax import Did, Origin, parse_origin
from chalicelib.crawl import host_job
from chalicelib.crawl.context import Context
from chalicelib.crawl.host_job import crawl_host
from chalicelib.crawl.repo_job import Deadline, Outcome, sync_repo
from chalicelib.crawl.survey import survey
from chalicelib.crawl.sweep import sweep
from chalicelib.index import hosts
from chalicelib.index.hosts import STATUSES, Hosts
from chalicelib.index.tables import HostRow, Tables
from simulator.host import Host
from simulator.thread import SimulatorThread
from tests.conftest import Stack

MakeContext = Callable[..., Context]
HOUR = 3600 * 1000
START = 1_800_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def context(make_context: MakeContext, clock: Clock) -> Context:
    made = make_context()
    made.clock = clock
    return made


def admitted(context: Context, name: str) -> Origin:
    origin = parse_origin(name, allow_private=True)
    context.hosts.admit(origin, confirmed=True)
    return origin


def messages(stack: Stack) -> list[str]:
    """The bodies of what waits in the queue, which is empty afterwards."""
    bodies: list[str] = []
    while found := stack.sqs.receive_message(QueueUrl=stack.queue_url, MaxNumberOfMessages=10).get("Messages"):
        for message in found:
            bodies.append(message["Body"])
            stack.sqs.delete_message(QueueUrl=stack.queue_url, ReceiptHandle=message["ReceiptHandle"])
    return sorted(bodies)


# -- the sweep


def test_a_sweep_sends_a_message_for_all_that_is_due_and_for_nothing_else(
    context: Context, clock: Clock, stack_env: Stack
) -> None:
    for name in ("hold01.example.com", "hold02.example.com"):
        admitted(context, name)
    context.writer.ask(Did("did:plc:due"))
    assert sweep(context) == 0, "messages were sent for them when they were asked for"
    clock.now += HOUR
    assert sweep(context) == 3
    assert [json.loads(body) for body in messages(stack_env)] == [
        {"host": "hold01.example.com"},
        {"host": "hold02.example.com"},
        {"repo": "did:plc:due"},
    ]
    assert sweep(context) == 0


# -- crawled again


def test_hosts_are_crawled_again_after_twelve_hours_each_at_its_own_moment(stack_env: Stack, clock: Clock) -> None:
    hosts = Hosts(Tables(stack_env.prefix), clock=clock, jitter=random.Random(1))
    due: list[float] = []
    for number in range(20):
        origin = parse_origin(f"hold{number}.example.com", allow_private=False)
        hosts.admit(origin, confirmed=True)
        crawl = hosts.claim_crawl(origin)
        assert crawl is not None
        assert not hosts.finish(crawl, repo_count=1)
        row = hosts.load(origin)
        assert row is not None
        due.append((int(row.due_at) - clock.now) / HOUR)
    assert 0.9 * 12 <= min(due) < 11.4 < 12.6 < max(due) <= 1.1 * 12
    assert len(set(due)) == len(due)


# -- what its host does not list any more


@pytest.fixture
def pds(sim: SimulatorThread) -> Host:
    """A host of several pages' worth of accounts; all have something that is indexed."""
    host: Host = sim.call(sim.net.add_pds(accounts=30, sailors=30))
    return host


def walked(context: Context, host: Host) -> int:
    """Crawl a host from the first page to the last. Returns in how many jobs."""
    origin = admitted(context, host.hostname)
    before = context.hosts.load(origin)
    for jobs in range(1, 10):
        crawl_host(context, origin)
        row = context.hosts.load(origin)
        if row is not None and before is not None and row.crawled_at != before.crawled_at:
            return jobs
    raise AssertionError("it does not come to an end")


def synced(context: Context, host: Host) -> None:
    admitted(context, host.hostname)
    admitted(context, host.hostname)
    for did in host.accounts:
        context.writer.ask(Did(did))
        assert sync_repo(context, Did(did), deadline=Deadline(60)) is Outcome.LANDED


def test_a_repo_that_a_complete_walk_did_not_show_is_asked_for(pds: Host, make_context: MakeContext) -> None:
    context = make_context()
    synced(context, pds)
    gone = sorted(pds.accounts)[7]
    del pds.accounts[gone]
    assert walked(context, pds) == 1
    claims = {did: context.writer.load(Did(did)).claim for did in (*pds.accounts, gone)}
    assert {did for did, claim in claims.items() if claim} == {gone}
    assert context.writer.load(Did(gone)).listed, "that is no reason yet to think it gone"


def one_page_a_job(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a job passes when a page is done."""
    pages: list[Any] = []

    class OnePage(Deadline):
        def __init__(self, seconds: float) -> None:
            super().__init__(seconds)
            self._pages = len(pages)

        @property
        def left(self) -> float:
            return -1 if len(pages) > self._pages else super().left

    progress = context.hosts.progress
    monkeypatch.setattr(host_job, "PAGE", 10)
    monkeypatch.setattr(host_job, "Deadline", OnePage)
    monkeypatch.setattr(
        context.hosts, "progress", lambda *given, **more: (progress(*given, **more), pages.append(more))
    )


def test_a_walk_of_several_jobs_finds_what_none_of_them_was_shown(
    pds: Host, make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context(CRAWL_CONCURRENCY="1")
    synced(context, pds)
    gone = sorted(pds.accounts)[7]
    del pds.accounts[gone]
    one_page_a_job(context, monkeypatch)
    assert walked(context, pds) > 1
    claims = {did: context.writer.load(Did(did)).claim for did in (*pds.accounts, gone)}
    assert {did for did, claim in claims.items() if claim} == {gone}
    assert context.hosts.load(parse_origin(pds.hostname, allow_private=True)).crawl_unlisted is None


def test_where_too_many_are_in_scope_to_remember_it_finds_that_once_the_audit_is_due(
    pds: Host, make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "UNLISTED_KEPT", 0)
    context = make_context(CRAWL_CONCURRENCY="1")
    synced(context, pds)
    gone = sorted(pds.accounts)[7]
    del pds.accounts[gone]
    one_page_a_job(context, monkeypatch)
    assert walked(context, pds) > 1
    assert context.writer.load(Did(gone)).claim is None
    later = Clock()
    later.now = context.clock() + 169 * HOUR
    context.clock = context.writer._clock = context.hosts._clock = later
    assert walked(context, pds) > 1
    claims = {did: context.writer.load(Did(did)).claim for did in (*pds.accounts, gone)}
    assert {did for did, claim in claims.items() if claim} == {gone}
    assert all(context.writer.load(Did(did)).audit for did in pds.accounts)


# -- DID documents


def test_the_document_of_a_repo_in_scope_is_fetched_again_with_its_audit_though_nothing_happens(
    pds: Host, context: Context, clock: Clock, stack_env: Stack
) -> None:
    synced(context, pds)
    clock.now += 169 * HOUR
    assert walked(context, pds) == 1
    did = Did(next(iter(pds.accounts)))
    assert json.dumps({"repo": did}) in messages(stack_env)
    assert context.identities.known(did, newer_than=clock.now) is None
    assert sync_repo(context, did, deadline=Deadline(60)) is Outcome.LANDED
    assert context.identities.known(did, newer_than=clock.now) is not None


# -- the survey


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """The lines of what is measured."""
    lines: list[dict[str, object]] = []
    monkeypatch.setattr(metrics, "_metrics", metrics.Metrics("t", write=lambda line: lines.append(json.loads(line))))
    return lines


def test_a_survey_counts_the_hosts_of_each_status(
    context: Context, stack_env: Stack, measured: list[dict[str, object]]
) -> None:
    for number, status in enumerate(["active", "active", "offline", "banned"]):
        row: HostRow = context.tables.hosts(f"hold{number}.example.com", status=status, first_seen_at=START)
        row.save()
    survey(context)
    metrics.flush()
    found = {line["Status"]: line["HostsByStatus"] for line in measured}
    assert found == dict.fromkeys(STATUSES, 0) | {"active": 2, "offline": 1, "banned": 1}


def test_a_survey_says_what_the_dead_letters_are_about_and_leaves_them_where_they_are(
    make_context: MakeContext,
    stack_env: Stack,
    measured: list[dict[str, object]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    telemetry.configure("json")
    context = make_context()
    for body in ('{"repo": "did:plc:a"}', '{"host": "hold01.example.com"}', "not ours"):
        stack_env.sqs.send_message(QueueUrl=stack_env.dead_letter_url, MessageBody=body)
    for _ in range(2):
        survey(context)
    metrics.flush()
    (line,) = [line for line in measured if "DeadLetters" in line]
    assert line["DeadLetters"] == [3, 3]
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if "dead-letters" in line]
    assert [line["messages"] for line in lines] == [3, 3]
    for line in lines:
        assert 0 <= line["oldest_seconds"] < 60
        malformed, host, repo = sorted(line["sample"], key=lambda about: "mhr".index(about[0]))
        assert malformed.startswith("malformed ")
        assert "not ours" in malformed
        assert (host, repo) == ("host hold01.example.com", "repo did:plc:a")


def test_a_survey_says_nothing_where_no_letter_is_dead(
    context: Context, measured: list[dict[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    survey(context)
    metrics.flush()
    assert not any("DeadLetters" in line for line in measured)
    assert "dead-letters" not in capsys.readouterr().err
