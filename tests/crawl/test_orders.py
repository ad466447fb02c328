"""What an operator orders: it holds whatever jobs are under way, it is undone whole, and it is kept in the audit log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from chalicelib.atproto.errors import InvalidSyntax
from chalicelib.atproto.syntax import Did, Origin, parse_origin
from chalicelib.crawl import jobs, orders
from chalicelib.crawl.admission import HostBanned, request_crawl
from chalicelib.crawl.bans import covers
from chalicelib.crawl.context import Context
from chalicelib.crawl.orders import Busy, Refused, carry_out, new_order
from chalicelib.crawl.queue import RepoJob, to_body
from chalicelib.crawl.sweep import sweep
from chalicelib.index.reader import Reader
from simulator.host import Host
from simulator.thread import SimulatorThread
from tests.conftest import Stack

CAPTAIN = "io.atcr.hold.captain"


class World:
    """An index of one hold, and an operator."""

    def __init__(self, context: Context, stack: Stack, hold: Host) -> None:
        self.context = context
        self.hold = hold
        self.did = Did(hold.did)
        self.origin: Origin = parse_origin(hold.hostname, allow_private=True)
        self.now = context.clock()
        context.clock = lambda: self.now
        context.hosts._clock = context.writer._clock = context.clock
        self._stack = stack
        self._reader = Reader(stack.dynamodb, stack.prefix)

    def order(self, action: str, target: str, why: str = "a reason") -> str:
        return carry_out(self.context, new_order(self.context, action, target, who="alice", why=why))

    def work(self) -> None:
        """All that is in the queue, and what the sweep finds."""
        sqs, url = self._stack.sqs, self._stack.queue_url
        while True:
            found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=0).get("Messages", [])
            for message in found:
                jobs.work(self.context, message["Body"])
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            if not found and not sweep(self.context):
                return

    def before(self, step: str, act: Callable[[], Any]) -> None:
        """Let this happen once, before the writer's next step of that name."""
        writer, done = self.context.writer, getattr(self.context.writer, step)

        def first(*arguments: Any, **named: Any) -> Any:
            setattr(writer, step, done)
            act()
            return done(*arguments, **named)

        setattr(writer, step, first)

    def ban_now(self) -> None:
        self.order("ban", self.hold.hostname)
        self.work()

    def listed(self) -> list[str]:
        return list(self._reader.page([CAPTAIN], limit=100, after={}).dids)

    def status(self) -> str:
        return str(self.context.hosts.load(self.origin).status)

    def audit(self) -> list[dict[str, Any]]:
        return [row.content for row in self.context.state.all(orders.AUDIT)]


@pytest.fixture
def world(make_context: Callable[..., Context], stack_env: Stack, sim: SimulatorThread) -> World:
    world = World(make_context(), stack_env, sim.call(sim.net.add_hold(method="plc")))
    request_crawl(world.context, world.hold.hostname)
    world.work()
    assert world.listed() == [world.did]
    return world


def test_a_banned_host_is_refused_and_its_repos_are_not_listed_until_it_is_let_in(world: World) -> None:
    assert world.order("ban", world.hold.hostname) == "banned"
    world.work()
    assert world.listed() == []
    with pytest.raises(HostBanned):
        request_crawl(world.context, world.hold.hostname)
    asked = world.hold.requests.total()
    world.order("resync", world.did)
    world.now += 13 * 3600 * 1000
    world.work()
    assert world.hold.requests.total() == asked, "a banned host was asked"
    assert (world.listed(), world.status()) == ([], "banned")
    assert world.context.hosts.load(world.origin).due_at is None
    assert world.order("ban", world.hold.hostname) == "was banned already"

    assert world.order("unban", world.hold.hostname) == "let in again"
    world.work()
    assert (world.listed(), world.status()) == ([world.did], "active")
    assert world.context.hosts.load(world.origin).withheld_at is None
    assert world.order("unban", world.hold.hostname) == "was not banned"


def test_a_repo_that_lands_while_its_host_is_banned_is_not_listed(world: World) -> None:
    world.before("land", world.ban_now)
    world.order("resync", world.did)
    world.work()
    assert (world.listed(), world.status()) == ([], "banned")


def test_a_repo_that_was_unknown_when_its_host_was_banned_leaves_the_listings_soon(
    make_context: Callable[..., Context], stack_env: Stack, sim: SimulatorThread
) -> None:
    world = World(make_context(), stack_env, sim.call(sim.net.add_hold(method="plc")))
    world.before("land", world.ban_now)  # nothing of the host is indexed yet, so nothing is asked for
    request_crawl(world.context, world.hold.hostname)
    world.work()
    assert world.status() == "banned"
    settings = world.context.settings
    world.now += int(1000 * (settings.job_seconds + settings.job_lease_seconds)) + 1
    world.work()
    assert world.listed() == []


def test_a_host_that_is_let_in_while_a_job_sees_it_banned_is_listed_again(world: World) -> None:
    def let_in_now() -> None:
        world.order("unban", world.hold.hostname)
        world.work()

    world.before("withhold", let_in_now)
    world.ban_now()
    assert (world.listed(), world.status()) == ([world.did], "active")


def test_a_banned_domain_takes_all_hosts_below_it(world: World) -> None:
    context = world.context
    known, other = (parse_origin(name, allow_private=False) for name in ("hold01.evil.example.net", "hold01.atcr.io"))
    for origin in (known, other):
        context.hosts.admit(origin, confirmed=True)
    assert world.order("ban", "*.evil.example.net") == "banned, and 1 known hosts with it"
    assert (context.hosts.load(known).status, context.hosts.load(other).status) == ("banned", "active")
    for name in ("evil.example.net", "new.evil.example.net", "hold01.evil.example.net"):
        with pytest.raises(HostBanned):
            request_crawl(context, name)
    with pytest.raises(Refused, match=r"unban \*\.evil"):
        world.order("unban", "hold01.evil.example.net")
    assert world.order("unban", "*.evil.example.net") == "let in again, and 1 known hosts with it"
    assert context.hosts.load(known).status == "unconfirmed"
    assert context.bans.all() == {}


@pytest.mark.parametrize(
    ("domain", "name", "covered"),
    [
        ("example.net", "example.net", True),
        ("example.net", "a.b.example.net", True),
        ("example.net", "notexample.net", False),
        ("example.net", "example.net.io", False),
    ],
)
def test_a_domain_is_itself_and_what_is_below_it(domain: str, name: str, covered: bool) -> None:
    assert covers(domain, Origin(name, 443, secure=True)) is covered


def test_a_repo_that_was_taken_down_is_not_listed_whatever_its_host_says(world: World) -> None:
    assert world.order("takedown", world.did, "spam") == "taken down"
    assert world.listed() == []
    world.order("resync", world.did)
    world.work()
    assert world.listed() == []
    assert world.order("restore", world.did) == "restored"
    assert world.listed() == [world.did]
    assert world.order("restore", world.did) == "was not taken down"


def test_a_repo_can_be_taken_down_before_it_is_known(
    make_context: Callable[..., Context], stack_env: Stack, sim: SimulatorThread
) -> None:
    world = World(make_context(), stack_env, sim.call(sim.net.add_hold(method="plc")))
    world.order("takedown", world.did)
    request_crawl(world.context, world.hold.hostname)
    world.work()
    assert world.listed() == []
    world.order("restore", world.did)
    assert world.listed() == [world.did]


def test_a_paused_host_is_left_alone_and_its_repos_stay(world: World) -> None:
    assert world.order("pause", world.hold.hostname) == "paused"
    asked = world.hold.requests.total()
    request_crawl(world.context, world.hold.hostname)
    world.order("resync", world.did)
    world.now += 13 * 3600 * 1000
    world.work()
    assert world.hold.requests.total() == asked
    assert world.listed() == [world.did]
    with pytest.raises(Refused, match="paused"):
        world.order("crawl", world.hold.hostname)
    assert world.order("resume", world.hold.hostname) == "resumed"
    world.work()
    row = world.context.hosts.load(world.origin)
    assert (row.status, row.owner) == ("active", "-")
    assert world.hold.requests.total() > asked


def test_what_is_purged_is_indexed_anew_unless_it_is_withheld(world: World) -> None:
    indexed_at = next(iter(world.context.tables.records.query(world.did))).indexed_at
    world.now += 1000
    world.order("purge", world.hold.hostname)
    world.work()
    assert world.listed() == [world.did]
    assert next(iter(world.context.tables.records.query(world.did))).indexed_at == indexed_at + 1000
    world.order("takedown", world.did)
    assert world.order("purge", world.did) == "purged"
    world.work()
    assert list(world.context.tables.records.query(world.did)) == []
    world.order("restore", world.did)
    world.work()
    assert world.listed() == [world.did]


def test_a_repo_at_which_a_job_is_is_purged_later(world: World, stack_env: Stack) -> None:
    job = world.context.writer.claim(world.did, ask=True)
    purge = new_order(world.context, "purge", world.did, who="alice", why="x")
    with pytest.raises(Busy):
        carry_out(world.context, purge)
    jobs.work(world.context, to_body(purge))
    world.context.writer.release(job)
    assert carry_out(world.context, purge) == "purged"
    assert int(_attributes(stack_env)["ApproximateNumberOfMessagesDelayed"]) == 1


def _attributes(stack: Stack) -> dict[str, str]:
    found: dict[str, str] = stack.sqs.get_queue_attributes(QueueUrl=stack.queue_url, AttributeNames=["All"])[
        "Attributes"
    ]
    return found


def test_dead_letters_are_sent_again(world: World, stack_env: Stack) -> None:
    for number in range(12):
        body = to_body(RepoJob(Did(f"did:web:hold{number}.atcr.io")))
        stack_env.sqs.send_message(QueueUrl=stack_env.dead_letter_url, MessageBody=body)
    assert world.order("redrive", "") == "12 messages sent again"
    assert world.context.queue.dead_letters() == (0, [])
    assert int(_attributes(stack_env)["ApproximateNumberOfMessages"]) == 12


def test_the_last_order_counts_whenever_an_older_one_is_carried_out(world: World) -> None:
    older = [
        new_order(world.context, action, target, who="alice", why="x")
        for action, target in (("ban", world.hold.hostname), ("ban", "*.atcr.io"), ("takedown", world.did))
    ]
    world.now += 1000
    for action, target in (("ban", world.hold.hostname), ("unban", world.hold.hostname), ("unban", "*.atcr.io")):
        world.order(action, target)
    world.order("takedown", world.did)
    world.order("restore", world.did)
    for order in older:
        carry_out(world.context, order)
    world.work()
    assert (world.listed(), world.status(), world.context.bans.all()) == ([world.did], "active", {})


def test_every_order_is_in_the_audit_log_with_who_and_why_refused_or_not(world: World) -> None:
    world.order("pause", world.hold.hostname, "too loud")
    world.now += 1
    with pytest.raises(Refused, match="paused"):
        world.order("crawl", world.hold.hostname)
    first, second = world.audit()
    assert (
        first.items()
        >= {
            "action": "pause",
            "target": world.hold.hostname,
            "who": "alice",
            "why": "too loud",
            "outcome": "paused",
            "at": world.now - 1,
        }.items()
    )
    assert (second["action"], second["status"], second["outcome"]) == ("crawl", "refused", f"{world.origin} is paused")


def test_an_order_that_breaks_off_is_in_the_audit_log(world: World) -> None:
    def break_off() -> None:
        raise ConnectionError

    world.before("take_down", break_off)
    with pytest.raises(ConnectionError):
        world.order("takedown", world.did, "spam")
    (entry,) = world.audit()
    assert (entry["target"], entry["why"], entry["status"]) == (world.did, "spam", "begun")


def test_an_order_that_was_carried_out_is_not_entered_as_begun_again(world: World) -> None:
    takedown = new_order(world.context, "takedown", world.did, who="alice", why="x")
    carry_out(world.context, takedown)
    orders._enter(world.context, takedown, orders.BEGUN)
    (entry,) = world.audit()
    assert (entry["status"], entry["outcome"]) == ("done", "taken down")


def test_what_comes_of_an_order_at_a_host_that_may_not_be_asked_is_entered(world: World) -> None:
    context = world.context
    message = "hold01.evil.example.net is at 10.0.0.1, which is not a public address"
    with (
        mock.patch.object(orders, "request_crawl", side_effect=InvalidSyntax(message)),
        pytest.raises(Refused, match="not a public address"),
    ):
        carry_out(context, new_order(context, "crawl", "hold01.evil.example.net", who="alice", why="x"))
    (entry,) = world.audit()
    assert (entry["status"], entry["outcome"]) == ("refused", message)


def test_an_order_that_comes_twice_is_carried_out_once(world: World) -> None:
    ban = new_order(world.context, "ban", world.hold.hostname, who="alice", why="x")
    body = to_body(ban)
    jobs.work(world.context, body)
    world.order("unban", world.hold.hostname)
    jobs.work(world.context, body)
    world.work()
    assert (world.listed(), world.status()) == ([world.did], "active")
    assert carry_out(world.context, ban) == "banned"


@pytest.mark.parametrize(
    ("action", "target", "why"),
    [
        ("explode", "hold01.atcr.io", "x"),
        ("ban", "hold01.atcr.io", " "),
        ("ban", "hold01.atcr.io", "x" * 1001),
        ("ban", "hold01.atcr.io", "\ud800"),
        ("ban", "hold01.atcr.io", "two\nlines"),
        ("ban", "\ud800", "x"),
        ("ban", "did:web:hold01.atcr.io", "x"),
        ("ban", "*.io", "x"),
        ("ban", "*.*.atcr.io", "x"),
        ("ban", f"*.{'a.' * 600}io", "x"),
        ("ban", "", "x"),
        ("takedown", "hold01.atcr.io", "x"),
        ("takedown", "did:nonsense", "x"),
        ("redrive", "hold01.atcr.io", "x"),
        ("pause", "*.atcr.io", "x"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(world: World, action: str, target: str, why: str) -> None:
    with pytest.raises(Refused):
        world.order(action, target, why)
