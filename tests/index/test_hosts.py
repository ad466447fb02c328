"""A host's row: three parties write it, and none undoes what another did."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from chalicelib.atproto.syntax import Origin, parse_origin
from chalicelib.index.errors import JobLost
from chalicelib.index.hosts import OFFLINE_AFTER, Hosts
from chalicelib.index.subscribers import Subscribers
from chalicelib.index.tables import NOBODY, HostRow, Tables

HOLD = parse_origin("hold01.atcr.io", allow_private=False)
MINUTE = 60_000


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hosts(stack_env, clock: Callable[[], int]) -> Hosts:
    return Hosts(Tables(stack_env.prefix), clock=clock, jitter=random.Random(1))


def take(hosts: Hosts, owner: str, *, origin: Origin = HOLD, from_owner: str = NOBODY) -> HostRow | None:
    """A living subscriber takes one host."""
    if owner not in {row.id for row in Subscribers(hosts._tables).all()}:
        Subscribers(hosts._tables).begin(owner)
    return next(iter(hosts.take([str(origin)], owner, from_owner=from_owner)), None)


def unowned(hosts: Hosts) -> list[str]:
    return [key for key, _ in hosts.owned_by(NOBODY)]


def admitted(hosts: Hosts, origin: Origin = HOLD) -> None:
    hosts.admit(origin, confirmed=True)


def test_a_confirmed_host_waits_for_a_subscriber_and_is_due(hosts: Hosts, clock: Clock) -> None:
    admitted(hosts)
    row = hosts.load(HOLD)
    assert (row.status, row.owner, row.epoch) == ("active", NOBODY, 0)
    assert unowned(hosts) == [str(HOLD)]
    assert not hosts.postpone(HOLD)  # a message was sent for it
    clock.now += MINUTE
    assert hosts.postpone(HOLD)
    assert not hosts.postpone(HOLD)


def test_an_unreachable_host_is_tried_for_a_day_and_then_forgotten(hosts: Hosts, clock: Clock) -> None:
    hosts.admit(HOLD, confirmed=False, error="refused")
    assert unowned(hosts) == []
    clock.now += 23 * 60 * MINUTE
    assert not hosts.forget_unconfirmed(hosts.load(HOLD))
    clock.now += 61 * MINUTE
    assert hosts.forget_unconfirmed(hosts.load(HOLD))
    assert hosts.load(HOLD) is None


def test_an_unreachable_host_that_answers_later_is_followed(hosts: Hosts) -> None:
    hosts.admit(HOLD, confirmed=False, error="refused")
    hosts.confirm(hosts.claim_crawl(HOLD))
    assert hosts.load(HOLD).status == "active"
    assert unowned(hosts) == [str(HOLD)]


def test_admitting_a_host_again_takes_it_from_nobody(hosts: Hosts) -> None:
    admitted(hosts)
    take(hosts, "one")
    admitted(hosts)
    hosts.admit(HOLD, confirmed=False, error="down for a moment")
    row = hosts.load(HOLD)
    assert (row.owner, row.status) == ("one", "active")


def test_announcing_has_an_effect_once_in_five_minutes(hosts: Hosts, clock: Clock) -> None:
    admitted(hosts)
    assert not hosts.announce(hosts.load(HOLD), crawl=True)
    clock.now += 5 * MINUTE
    row = hosts.load(HOLD)
    assert hosts.announce(row, crawl=True)
    assert not hosts.announce(row, crawl=True)  # two at once: one has an effect
    assert not hosts.announce(hosts.load(HOLD), crawl=True)


def test_only_one_job_crawls_a_host(hosts: Hosts, clock: Clock) -> None:
    admitted(hosts)
    first = hosts.claim_crawl(HOLD)
    assert first is not None
    assert hosts.claim_crawl(HOLD) is None
    clock.now += 2 * MINUTE  # the first shows no life
    second = hosts.claim_crawl(HOLD)
    assert second is not None
    for late in (
        lambda: hosts.progress(first, page="p", seen=1, pages=1),
        lambda: hosts.finish(first, repo_count=1),
        lambda: hosts.fail(first, "x"),
        lambda: hosts.hand_over(first),
    ):
        with pytest.raises(JobLost):
            late()
    assert hosts.load(HOLD).crawl_job == second.token


def test_a_crawl_goes_on_at_the_page_where_the_last_job_stopped(hosts: Hosts) -> None:
    admitted(hosts)
    first = hosts.claim_crawl(HOLD)
    hosts.progress(first, page="page 7", seen=3500, pages=7)
    hosts.hand_over(first)
    second = hosts.claim_crawl(HOLD)
    assert (second.row.crawl_page, second.row.crawl_seen) == ("page 7", 3500)
    hosts.finish(second, repo_count=4000)
    row = hosts.load(HOLD)
    assert (row.crawl_page, row.crawl_job, row.repo_count, row.crawled_epoch) == (None, None, 4000, 0)


def test_a_crawl_that_began_before_the_stream_was_opened_anew_begins_again(hosts: Hosts, clock: Clock) -> None:
    admitted(hosts)
    row = take(hosts, "one")
    crawl = hosts.claim_crawl(HOLD)
    hosts.progress(crawl, page="page 7", seen=3500, pages=7)
    assert hosts.new_epoch(row, "one", reason="no cursor").epoch == 1
    assert hosts.finish(crawl, repo_count=4000)
    clock.now += MINUTE
    assert hosts.postpone(HOLD)
    again = hosts.claim_crawl(HOLD)
    assert (again.epoch, again.row.crawl_page) == (1, None)
    assert not hosts.finish(again, repo_count=4000)
    assert not hosts.postpone(HOLD)


def test_a_failing_host_is_tried_less_and_less_often_and_never_given_up(hosts: Hosts, clock: Clock) -> None:
    admitted(hosts)
    waits = []
    for attempt in range(40):
        crawl = hosts.claim_crawl(HOLD)
        hosts.fail(crawl, "503")
        row = hosts.load(HOLD)
        assert row.status == ("offline" if attempt + 1 >= OFFLINE_AFTER else "active")
        assert row.last_error == "503"
        waits.append(row.due_at - clock.now)
        clock.now = int(row.due_at)
        assert hosts.postpone(HOLD)
    assert waits[0] <= 5_000
    assert all(3 * 3600_000 <= wait <= 6 * 3600_000 for wait in waits[-5:])
    hosts.finish(hosts.claim_crawl(HOLD), repo_count=1)
    assert (hosts.load(HOLD).status, hosts.load(HOLD).failures, hosts.load(HOLD).last_error) == ("active", 0, None)


def test_a_host_whose_crawl_gets_on_between_failures_is_not_called_offline(hosts: Hosts, clock: Clock) -> None:
    admitted(hosts)
    for _ in range(2 * OFFLINE_AFTER):
        clock.now += 10 * MINUTE
        hosts.fail(hosts.claim_crawl(HOLD), "429", retry_after=300, got_on=True)
        row = hosts.load(HOLD)
        assert (row.status, row.due_at) == ("active", clock.now + 5 * MINUTE)


def test_a_remote_that_says_when_to_come_back_is_obeyed(hosts: Hosts, clock: Clock) -> None:
    admitted(hosts)
    hosts.fail(hosts.claim_crawl(HOLD), "429", retry_after=3600)
    assert hosts.load(HOLD).due_at - clock.now == 3600_000


def test_a_host_has_one_owner_and_only_the_owner_saves_its_cursor(hosts: Hosts) -> None:
    admitted(hosts)
    row = take(hosts, "one")
    assert take(hosts, "two") is None
    assert hosts.save_cursor(row, "one", 7)
    taken = take(hosts, "two", from_owner="one")
    assert taken.cursor == 7
    assert not hosts.save_cursor(row, "one", 8)
    assert not hosts.note_stream(str(HOLD), "one", error=None)
    assert hosts.new_epoch(row, "one", reason="x") is None
    hosts.give_up(str(HOLD), "one")
    assert hosts.load(HOLD).owner == "two"
    hosts.give_up(str(HOLD), "two")
    assert unowned(hosts) == [str(HOLD)]


def test_a_cursor_of_an_old_epoch_is_not_saved(hosts: Hosts) -> None:
    admitted(hosts)
    old = take(hosts, "one")
    new = hosts.new_epoch(old, "one", reason="FutureCursor")
    assert not hosts.save_cursor(old, "one", 1_000_000)
    assert hosts.save_cursor(new, "one", 3)
    assert hosts.load(HOLD).cursor == 3


def test_two_ports_of_one_name_are_two_hosts(hosts: Hosts) -> None:
    one, two = (parse_origin(f"localhost:{port}", allow_private=True) for port in (2583, 2584))
    admitted(hosts, one)
    admitted(hosts, two)
    hosts.save_cursor(take(hosts, "me", origin=one), "me", 5)
    assert hosts.load(two).cursor is None


def test_the_owner_sees_which_of_its_hosts_ask_for_attention(hosts: Hosts, clock: Clock) -> None:
    admitted(hosts)
    take(hosts, "one")
    clock.now += MINUTE
    assert hosts.owned_by("one", since=clock.now) == []
    hosts.attend(HOLD)
    assert hosts.owned_by("one", since=clock.now) == [(str(HOLD), clock.now)]


def test_a_subscriber_that_was_declared_dead_takes_nothing_and_shows_no_life(hosts: Hosts, clock: Clock) -> None:
    subscribers = Subscribers(hosts._tables, clock=clock)
    others = [parse_origin(f"hold{number}.atcr.io", allow_private=False) for number in range(2, 120)]
    for origin in (HOLD, *others):
        admitted(hosts, origin)
    assert take(hosts, "one") is not None
    last = int(subscribers.all()[0].number)
    clock.now += MINUTE
    assert subscribers.beat("one", {})
    assert not subscribers.end("one", number=last)  # it has beaten since
    assert subscribers.end("one", number=clock.now)
    assert not subscribers.beat("one", {})
    assert hosts.take(unowned(hosts), "one") == []
    assert hosts.take(unowned(hosts), "never begun") == []
    subscribers.begin("two")
    assert len(hosts.take([str(HOLD), *unowned(hosts)], "two")) == len(others)  # all that were free, and no others
    assert hosts.load(HOLD).owner == "one"


def test_a_new_epoch_whose_answer_was_lost_is_one_new_epoch(hosts: Hosts) -> None:
    admitted(hosts)
    row = take(hosts, "a")
    first = hosts.new_epoch(row, "a", reason="no cursor")
    again = hosts.new_epoch(row, "a", reason="no cursor")  # as the client repeats what it has no answer to
    assert first.epoch == again.epoch == 1
    take(hosts, "b", from_owner="a")
    assert hosts.new_epoch(row, "a", reason="no cursor") is None
