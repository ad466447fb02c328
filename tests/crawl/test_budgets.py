"""What callers, domains and all of them together may have us do: up to each bound, and no further."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import pytest
from pynamodb.exceptions import UpdateError

from chalicelib import settings
from chalicelib.atproto.syntax import Did, Origin, parse_origin
from chalicelib.crawl import admission, budgets
from chalicelib.crawl.admission import HostNotFound, RateLimitExceeded, request_crawl
from chalicelib.crawl.budgets import BUDGET, BURST, Budgets, OverBudget, caller_of
from chalicelib.crawl.context import Context
from chalicelib.crawl.domain import registrable_domain
from chalicelib.crawl.host_job import crawl_host
from chalicelib.crawl.repo_job import Deadline, Outcome, sync_repo
from chalicelib.index.state import THROTTLED_SECONDS, State
from chalicelib.index.tables import Tables
from simulator import faults
from simulator.host import Host
from simulator.scripted import ScriptedServer
from simulator.thread import SimulatorThread
from tests.conftest import Stack

MakeContext = Callable[..., Context]
HERE, THERE = "192.0.2.7", "198.51.100.9"
HOUR, DAY = 3600, 86_400
DESCRIBE = "com.atproto.server.describeServer"


class Clock:
    """UTC ms, from the middle of a day on; and monotonic seconds."""

    now = 1_800_000_000_000 // (1000 * DAY) * 1000 * DAY + 1000 * DAY // 2

    def __call__(self) -> int:
        return self.now

    def seconds(self) -> float:
        return self.now / 1000

    def pass_(self, seconds: float) -> None:
        self.now += int(1000 * seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(stack_env: Stack, clock: Clock) -> State:
    return State(Tables(stack_env.prefix), clock=clock)


@pytest.fixture
def make(make_context: MakeContext, clock: Clock) -> MakeContext:
    def make_with_clock(**variables: str) -> Context:
        context = make_context(**variables)
        context.clock = clock
        return context

    return make_with_clock


def holds(sim: SimulatorThread, count: int) -> list[Host]:
    return [sim.call(sim.net.add_hold(method="plc")) for _ in range(count)]


def asked(context: Context, host: Host, address: str | None = HERE) -> str:
    """What a requestCrawl is answered."""
    try:
        request_crawl(context, host.hostname, address=address)
    except admission.AdmissionRefused as refused:
        return refused.error
    return "let in"


def row_of(context: Context, host: Host) -> Any:
    return context.hosts.load(parse_origin(host.hostname, allow_private=True))


# -- the counter


def test_a_counter_allows_as_many_as_it_may_and_says_how_long_it_is_until_the_next_window(
    state: State, clock: Clock
) -> None:
    def count() -> float | None:
        return state.count(BUDGET, "x", most=3, window=HOUR)

    clock.pass_(600)
    assert [count() for _ in range(3)] == [None] * 3
    assert count() == pytest.approx(HOUR - 600)
    clock.pass_(HOUR - 600 - 0.001)
    assert count() == pytest.approx(0.001, abs=1e-6)
    clock.pass_(0.001)
    assert [count() for _ in range(4)] == [None, None, None, HOUR]


def test_a_counters_rows_are_deleted_after_their_window(state: State, clock: Clock) -> None:
    state.count(BUDGET, "x", most=3, window=HOUR)
    (row,) = state.all(BUDGET)
    assert clock.seconds() + HOUR <= row.expires_at <= clock.seconds() + 2 * HOUR


def test_counters_of_other_ids_kinds_and_windows_are_others(state: State) -> None:
    for kind, id, window in ((BUDGET, "x", HOUR), (BUDGET, "y", HOUR), ("other", "x", HOUR)):
        assert state.count(kind, id, most=1, window=window) is None
        assert state.count(kind, id, most=1, window=window) is not None


def test_of_many_callers_at_once_no_more_than_may_are_counted(state: State) -> None:
    threads, most = 8, 20
    together = Barrier(threads)

    def count(_: int) -> int:
        together.wait(30)
        return sum(state.count(BUDGET, "x", most=most, window=HOUR) is None for _ in range(5))

    with ThreadPoolExecutor(threads) as pool:
        assert sum(pool.map(count, range(threads))) == most


@pytest.mark.parametrize("code", ["ThrottlingException", "ProvisionedThroughputExceededException"])
def test_a_counter_that_dynamodb_has_no_room_for_is_used_up_for_a_moment(
    state: State, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise UpdateError("no", cause=SimpleNamespace(response={"Error": {"Code": code}}))  # type: ignore[arg-type]

    monkeypatch.setattr(state._rows, "update", refuse)
    assert state.count(BUDGET, "x", most=3, window=HOUR) == THROTTLED_SECONDS


# -- who is one caller, and whose a host is


@pytest.mark.parametrize(
    ("address", "caller"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "an unknown address"),
        ("x" * 5000, "an unknown address"),
        ("192.0.2.7, 10.0.0.1", "an unknown address"),
    ],
)
def test_one_caller_is_an_address_or_a_network_of_ipv6(address: str, caller: str) -> None:
    assert caller_of(address) == caller


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("hold01.atcr.io", "atcr.io"),
        ("a.b.example.co.uk", "example.co.uk"),
        ("example.co.uk", "example.co.uk"),
        ("co.uk", "co.uk"),
        ("alice.github.io", "alice.github.io"),
        ("a.alice.github.io", "alice.github.io"),
        ("github.io", "github.io"),
        ("x.xn--55qx5d.cn", "x.xn--55qx5d.cn"),
        ("localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("a.b.nosuchtld", "b.nosuchtld"),
    ],
)
def test_a_domain_is_what_somebody_registered(name: str, domain: str) -> None:
    assert registrable_domain(Origin(name, 443, secure=True)) == domain


# -- every request


def bare(clock: Clock, **variables: str) -> Budgets:
    """Budgets without a table."""
    given = {f"DISCOVERY_{name}": value for name, value in variables.items()}
    return Budgets(None, settings.read(given), clock=clock.seconds)  # type: ignore[arg-type]


def test_one_caller_may_ask_in_a_burst_and_then_at_its_rate(clock: Clock) -> None:
    limits = bare(clock, REQUEST_RATE="10")
    for number in range(BURST):
        limits.asked(f"2001:db8::{number:x}")  # one customer's
    for _ in range(3):
        with pytest.raises(OverBudget) as refused:
            limits.asked("2001:db8::1")
        assert refused.value.retry_after == pytest.approx(0.1, abs=1e-4), "a refused request is counted"
    limits.asked("2001:db8:0:1::1")
    clock.pass_(0.1)
    limits.asked("2001:db8::1")
    with pytest.raises(OverBudget):
        limits.asked("2001:db8::1")


def test_no_bound_is_no_bound(clock: Clock) -> None:
    limits = bare(
        clock,
        **dict.fromkeys(
            ["REQUEST_RATE", "MAX_ADDRESS_REQUESTS", "MAX_DOMAIN_HOSTS", "MAX_NEW_HOSTS", "MAX_UNREACHED_HOSTS"], "0"
        ),
    )
    for _ in range(10 * BURST):
        limits.asked(HERE)
        limits.asked_of_unknown(HERE)
        limits.let_in(Origin("hold01.atcr.io", 443, secure=True))
        assert limits.is_remembered()


def test_the_memory_of_callers_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "CALLERS", 3)
    limits = bare(clock)
    for number in range(10):
        limits.asked("192.0.2.200")
        limits.asked(f"192.0.2.{number}")
    assert list(limits._callers) == ["192.0.2.8", "192.0.2.200", "192.0.2.9"]


def test_a_host_that_asks_for_itself_every_twenty_minutes_is_never_refused(
    make: MakeContext, sim: SimulatorThread, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make(REQUEST_RATE="0.1", MAX_ADDRESS_REQUESTS="3", MAX_DOMAIN_HOSTS="1", MAX_NEW_HOSTS="1")
    monkeypatch.setattr(context, "budgets", Budgets(context.state, context.settings, clock=clock.seconds))
    (hold,) = holds(sim, 1)
    sim.call(hold.fail, DESCRIBE, faults.status(503))
    for number in range(200):
        if number == 6:  # its proxy is up at last
            sim.call(hold.heal)
        assert asked(context, hold) == ("HostNotFound" if number < 6 else "let in")
        clock.pass_(20 * 60)
    assert len(context.state.all(BUDGET)) <= 6


def test_a_known_hosts_request_costs_no_count_whoever_sends_it(
    make: MakeContext, sim: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make(MAX_ADDRESS_REQUESTS="1", MAX_NEW_HOSTS="1")
    (hold,) = holds(sim, 1)
    assert asked(context, hold) == "let in"
    monkeypatch.setattr(context.state, "count", lambda *_, **__: pytest.fail("it is counted"))
    for _ in range(BURST - 1):
        assert asked(context, hold) == "let in"
    for _ in range(1000):
        if asked(context, hold) == "RateLimitExceeded":
            break
    else:
        pytest.fail("it may ask without end")


# -- hosts that are not known


def test_who_names_many_unknown_hosts_is_told_to_wait_and_none_of_them_is_connected_to(
    make: MakeContext, sim: SimulatorThread, clock: Clock
) -> None:
    context = make(MAX_ADDRESS_REQUESTS="2")
    found = holds(sim, 4)
    assert [asked(context, hold, "2001:db8::1") for hold in found[:2]] == ["let in"] * 2
    with pytest.raises(RateLimitExceeded) as refused:
        request_crawl(context, found[2].hostname, address="2001:db8::2")
    assert refused.value.status == 429
    assert refused.value.retry_after == pytest.approx(HOUR)
    assert "2001:db8::/64" in refused.value.message
    assert found[2].requests.total() == 0
    assert row_of(context, found[2]) is None
    assert asked(context, found[0], "2001:db8::2") == "let in", "it is known"
    assert asked(context, found[2], THERE) == "let in"
    clock.pass_(HOUR)
    assert asked(context, found[3], "2001:db8::1") == "let in"


def test_a_domain_has_so_many_new_hosts_a_day_and_others_have_theirs(
    make: MakeContext, sim: SimulatorThread, clock: Clock
) -> None:
    context = make(MAX_DOMAIN_HOSTS="2")
    found = holds(sim, 4)
    assert [asked(context, hold) for hold in found[:2]] == ["let in"] * 2
    with pytest.raises(RateLimitExceeded, match="2 new hosts of localhost") as refused:
        request_crawl(context, found[2].hostname, address=THERE)
    assert refused.value.retry_after == pytest.approx(DAY / 2), "until midnight, UTC"
    assert row_of(context, found[2]) is None
    by_address = found[3].hostname.replace("localhost", "127.0.0.1")
    request_crawl(context, by_address, address=HERE)
    assert asked(context, found[0]) == "let in"
    clock.pass_(DAY / 2)
    assert asked(context, found[2]) == "let in"


def test_there_are_so_many_new_hosts_a_day_in_all(make: MakeContext, sim: SimulatorThread, clock: Clock) -> None:
    context = make(MAX_NEW_HOSTS="2")
    found = holds(sim, 3)
    for hold in found[:2]:
        request_crawl(context, hold.hostname.replace("localhost", "127.0.0.1"), address=HERE)
    assert asked(context, found[2]) == "RateLimitExceeded"
    clock.pass_(DAY / 2)
    assert asked(context, found[2]) == "let in"


def test_hosts_that_are_not_there_use_up_nobodys_domain_and_are_not_all_remembered(
    make: MakeContext, sim: SimulatorThread, clock: Clock
) -> None:
    context = make(MAX_DOMAIN_HOSTS="1", MAX_NEW_HOSTS="1", MAX_UNREACHED_HOSTS="2")
    *made_up, hold = holds(sim, 4)
    for host in made_up:
        sim.call(host.stop())
    assert [asked(context, host) for host in made_up] == ["HostNotFound"] * 3
    assert [row_of(context, host) is not None for host in made_up] == [True, True, False]
    with pytest.raises(HostNotFound) as refused:
        request_crawl(context, made_up[2].hostname, address=HERE)
    assert "will be tried" not in refused.value.message
    assert asked(context, made_up[0]) == "HostNotFound"
    assert asked(context, hold) == "let in"


def test_a_host_that_was_down_when_it_was_named_counts_when_it_comes_up(
    make: MakeContext, sim: SimulatorThread, clock: Clock
) -> None:
    """Else that would be the way around the budget."""
    context = make(MAX_DOMAIN_HOSTS="1", CONFIRM_HOURS="1", FAILURE_CAP_SECONDS="60")
    first, second = holds(sim, 2)
    sim.call(second.fail, DESCRIBE, faults.status(503))
    assert asked(context, second) == "HostNotFound"
    sim.call(second.heal)
    assert asked(context, first) == "let in"
    assert asked(context, second) == "RateLimitExceeded"
    origin = parse_origin(second.hostname, allow_private=True)
    clock.pass_(2 * HOUR)
    crawl_host(context, origin)
    row = row_of(context, second)
    assert (row.status, row.owner, row.crawl_job) == ("unconfirmed", None, None), "neither followed nor forgotten"
    assert "1 new hosts of localhost" in row.last_error
    assert clock.now < row.due_at <= clock.now + 60_000
    clock.pass_(DAY)
    crawl_host(context, origin)
    assert row_of(context, second).status == "active"


def test_a_host_that_a_document_names_over_the_budget_is_not_lost(
    make: MakeContext, sim: SimulatorThread, clock: Clock
) -> None:
    context = make(MAX_DOMAIN_HOSTS="1")
    first, second = holds(sim, 2)
    assert asked(context, first) == "let in"
    did = Did(second.did)
    context.writer.ask(did)
    assert sync_repo(context, did, deadline=Deadline(60)) is Outcome.FAILED
    row = context.writer.load(did)
    assert "1 new hosts of localhost" in row.last_error
    assert row.due_at > clock.now
    assert row_of(context, second) is None
    assert second.requests.total() == 0
    clock.pass_(DAY)
    assert sync_repo(context, did, deadline=Deadline(60)) is Outcome.LANDED
    assert row_of(context, second).status == "active"


def test_the_operator_has_no_budget(make: MakeContext, sim: SimulatorThread) -> None:
    context = make(MAX_ADDRESS_REQUESTS="1", MAX_DOMAIN_HOSTS="1", MAX_NEW_HOSTS="1", MAX_UNREACHED_HOSTS="1")
    for hold in holds(sim, 3):
        assert asked(context, hold, address=None) == "let in"
    assert context.state.all(BUDGET) == []


def test_a_host_that_never_answers_is_given_its_time_and_no_more(make: MakeContext, sim: SimulatorThread) -> None:
    context = make(DESCRIBE_SECONDS="0.2")
    (hold,) = holds(sim, 1)
    sim.call(hold.fail, DESCRIBE, hang=True)
    assert asked(context, hold) == "HostNotFound"
    assert "in time" in row_of(context, hold).last_error


def test_a_host_that_answers_one_byte_at_a_time_is_given_no_more_either(make: MakeContext) -> None:
    """Each byte comes before the limit for idleness."""

    def dribble() -> Any:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while not server.hung_up.wait(0.05):
            yield b" "

    context = make(DESCRIBE_SECONDS="0.3")
    with ScriptedServer(lambda _: dribble()) as server, pytest.raises(HostNotFound, match="takes too long"):
        request_crawl(context, server.url, address=HERE)
