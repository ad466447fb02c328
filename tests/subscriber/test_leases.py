"""Subscribers share hosts, and one may end between any two of its steps: no host stays without one that follows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from pynamodb.connection import Connection

from chalicelib.atproto.syntax import Origin
from chalicelib.index import hosts as index_hosts
from chalicelib.index.hosts import Hosts
from chalicelib.index.subscribers import Subscribers
from chalicelib.index.tables import NOBODY, Tables
from subscriber.leases import Leases

LEASE = 20.0
WRITES = ("PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems")


class Crash(BaseException):
    """The process is gone: nothing of it catches this."""


class Neighbours:
    """Four hosts and some subscribers, beside a clock that is moved by hand."""

    def __init__(self, prefix: str) -> None:
        self.tables = Tables(prefix)
        self.now = 0.0
        self._wall = count(1_800_000_000_000)
        self.hosts = Hosts(self.tables)
        self.subscribers = Subscribers(self.tables, clock=lambda: next(self._wall))
        self.keys = [f"hold{number}.atcr.io" for number in range(4)]

    def clear(self) -> None:
        """All hosts are nobody's, and there is no subscriber."""
        for row in self.subscribers.all():
            self.subscribers.forget(row.id)
        for key in self.keys:
            self.tables.hosts(key).delete()
            self.hosts.admit(Origin.parse_key(key), confirmed=True)

    def lease(self) -> Leases:
        leases = Leases(self.hosts, self.subscribers, lease_seconds=LEASE, clock=lambda: self.now)
        leases.begin()
        return leases

    def owners(self) -> set[str | None]:
        return {row.owner for row in self.tables.hosts.scan(consistent_read=True)}

    def names(self) -> set[str]:
        return {row.id for row in self.subscribers.all()}

    def sees_to_it(self, leases: Leases, rounds: int = 4) -> int:
        """What a subscriber does, a lease apart each time. Returns how many hosts it took."""
        taken = 0
        for _ in range(rounds):
            assert leases.beat({"hosts": taken})
            leases.watch()
            taken += len(leases.take(taken))
            self.now += LEASE
        return taken


@pytest.fixture
def neighbours(stack_env: Any, monkeypatch: pytest.MonkeyPatch) -> Neighbours:
    monkeypatch.setattr(index_hosts, "TAKEN_AT_ONCE", 2)
    return Neighbours(stack_env.prefix)


@pytest.fixture
def crash_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int | None, bool], None]]:
    """``crash_at(3, after=True)``: the third write from now on is the last thing that happens."""
    dispatch = Connection.dispatch
    left: int | None = None
    after = False

    def counted(self: Connection, operation: str, arguments: dict[str, Any]) -> Any:
        nonlocal left
        if operation in WRITES and left is not None:
            left -= 1
            if left == 0 and not after:
                raise Crash
            answer = dispatch(self, operation, arguments)
            if left == 0:
                raise Crash
            return answer
        return dispatch(self, operation, arguments)

    def set_(write: int | None, after_: bool = False) -> None:
        nonlocal left, after
        left, after = write, after_

    monkeypatch.setattr(Connection, "dispatch", counted)
    yield set_
    set_(None)


def life(neighbours: Neighbours) -> None:
    """All that one subscriber writes from its beginning to its end."""
    leases = neighbours.lease()
    held = neighbours.sees_to_it(leases)
    assert held == 4
    assert leases.beat({"hosts": held, "draining": True})
    for key in neighbours.keys:
        neighbours.hosts.give_up(key, leases.name)
    leases.end()


@pytest.mark.parametrize("after", [False, True])
def test_whoever_ends_between_any_two_writes_leaves_no_orphan(
    neighbours: Neighbours, crash_at: Callable[[int | None, bool], None], after: bool
) -> None:
    for write in count(1):
        neighbours.clear()
        dead = neighbours.lease()
        neighbours.hosts.take(neighbours.keys[:2], dead.name)
        crash_at(write, after)
        try:
            life(neighbours)
            break
        except Crash:
            crash_at(None, False)
        survivor = neighbours.lease()
        neighbours.sees_to_it(survivor)
        assert neighbours.owners() == {survivor.name}, f"write {write}"
        assert neighbours.names() == {survivor.name}, f"write {write}"
    crash_at(None, False)
    assert write > 15  # it went through all of it
    assert neighbours.owners() == {NOBODY}


def test_one_that_wakes_up_late_takes_nothing_even_if_it_is_forgotten(neighbours: Neighbours) -> None:
    neighbours.clear()
    late = neighbours.lease()
    other = neighbours.lease()
    assert neighbours.sees_to_it(other) == 4
    assert late.name not in neighbours.names()
    for key in neighbours.keys:
        neighbours.hosts.give_up(key, other.name)
    assert late.take(0) == []
    assert not late.beat({})
    assert neighbours.owners() == {NOBODY}


def test_one_that_lives_is_not_declared_dead_by_one_that_slept(neighbours: Neighbours) -> None:
    neighbours.clear()
    one, other = neighbours.lease(), neighbours.lease()
    one.watch()
    neighbours.now += 10 * LEASE
    assert other.beat({})
    one.watch()
    assert other.beat({})


def test_hosts_are_shared_evenly_and_a_newcomer_gets_its_share_bit_by_bit(neighbours: Neighbours) -> None:
    neighbours.clear()
    one = neighbours.lease()
    assert neighbours.sees_to_it(one) == 4
    assert one.surplus(4) == 0  # alone
    other = neighbours.lease()
    one.watch()
    assert one.surplus(4) == 1
    neighbours.hosts.give_up(neighbours.keys[0], one.name)
    assert one.take(3) == []  # who has enough takes nothing
    assert one.beat({"hosts": 3})
    other.watch()
    assert [row.origin for row in other.take(0)] == [neighbours.keys[0]]
    assert other.beat({"hosts": 1})
    one.watch()
    assert one.surplus(3) == 0  # one too many is not worth a move


def test_a_host_that_is_ours_without_our_knowledge_is_found(neighbours: Neighbours) -> None:
    neighbours.clear()
    one = neighbours.lease()
    neighbours.hosts.take(neighbours.keys[:2], one.name)  # the answer was lost
    assert one.reconcile({neighbours.keys[0]}, ()) == ([], set())
    taken, lost = one.reconcile({neighbours.keys[0]}, ())
    assert ([row.origin for row in taken], lost) == ([neighbours.keys[1]], set())


def test_a_host_that_is_not_its_own_any_more_is_lost_at_the_second_look(neighbours: Neighbours) -> None:
    neighbours.clear()
    one = neighbours.lease()
    neighbours.hosts.take(neighbours.keys[:2], one.name)
    neighbours.hosts.ban(Origin.parse_key(neighbours.keys[0]), by=neighbours.keys[0], at=0)
    assert one.reconcile(neighbours.keys[:2], ()) == ([], set())
    assert one.reconcile(neighbours.keys[:2], ()) == ([], {neighbours.keys[0]})
