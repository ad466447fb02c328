"""Who a DID is, through two caches: the newest document that is known, and never a worse one because of a failure."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from chalicelib.atproto.errors import DidNotFound, DidTombstoned, RemoteError
from chalicelib.atproto.identity import Resolver
from chalicelib.atproto.net import Door
from chalicelib.atproto.syntax import Did
from chalicelib.crawl.identities import RETRY_MS, Identities
from chalicelib.index.state import IDENTITY, State
from chalicelib.index.tables import Tables
from simulator.faults import status
from simulator.keys import SigningKey
from simulator.neighbourhood import Neighbourhood
from simulator.thread import SimulatorThread

DID = Did("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
TTL_MS = 3600 * 1000


class Clock:
    now = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def net(sim: SimulatorThread) -> Neighbourhood:
    key = SigningKey.generate(random.Random(1))
    sim.net.identities.publish(DID, key=key, pds="https://one.example.com", handle="a.test")
    return sim.net


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def door() -> Iterator[Door]:
    with Door(allow_private=True) as door:
        yield door


@pytest.fixture
def identities(stack_env, net: Neighbourhood, door: Door, clock: Clock) -> Identities:
    return another(stack_env, net, door, clock)


def another(stack, net: Neighbourhood, door: Door, clock: Clock) -> Identities:
    """Those of another process."""
    resolver = Resolver(door, net.plc.url, allow_private=True)
    return Identities(resolver, State(Tables(stack.prefix), clock=clock), ttl_seconds=TTL_MS / 1000, clock=clock)


def move(net: Neighbourhood, to: str) -> None:
    net.identities.update(DID, pds=f"https://{to}.example.com")


def pds(identities: Identities, **options) -> str:
    found = identities.get(DID, **options).pds
    assert found is not None
    return found.hostname.partition(".")[0]


def test_a_document_is_asked_for_once_in_its_time(identities: Identities, net: Neighbourhood, clock: Clock) -> None:
    for _ in range(3):
        assert pds(identities) == "one"
    clock.now += TTL_MS
    assert (pds(identities), len(net.plc.asked)) == ("one", 1)
    clock.now += 1
    assert (pds(identities), len(net.plc.asked)) == ("one", 2)


def test_another_process_has_it_from_the_table(identities, stack_env, net, door, clock) -> None:
    pds(identities)
    move(net, "two")
    assert pds(another(stack_env, net, door, clock)) == "one"
    assert len(net.plc.asked) == 1


def test_a_refresh_asks_again_and_tells_those_who_ask_for_what_is_shared(
    identities, stack_env, net, door, clock
) -> None:
    other = another(stack_env, net, door, clock)
    assert pds(other) == "one"
    move(net, "two")
    clock.now += 5
    assert identities.refresh(DID).pds.hostname == "two.example.com"
    assert (pds(other), pds(other, shared=True)) == ("one", "two")


def test_what_cannot_be_fetched_now_keeps_the_last_good_one(identities: Identities, sim, net, clock: Clock) -> None:
    pds(identities)
    move(net, "two")
    sim.call(net.plc.fail, "did", answer=status(500))
    clock.now += TTL_MS + 1
    assert pds(identities) == "one"
    assert identities.known(DID) is None  # it is known to be old


def test_while_it_cannot_be_fetched_it_is_not_tried_for_at_each_question(
    identities: Identities, sim, net, clock
) -> None:
    pds(identities)
    sim.call(net.plc.fail, "did", answer=status(500))
    for _ in range(5):
        clock.now += 1
        identities.refresh(DID)
    assert len(net.plc.asked) == 1
    assert net.plc.requests["did"] == 2
    clock.now += RETRY_MS
    sim.call(net.plc.heal)
    move(net, "two")
    assert identities.refresh(DID).pds.hostname == "two.example.com"


def test_without_a_good_one_a_failure_is_told(identities: Identities, sim, net: Neighbourhood) -> None:
    sim.call(net.plc.fail, "did", answer=status(500))
    with pytest.raises(RemoteError):
        identities.get(DID)


@pytest.mark.parametrize(("tombstoned", "error"), [(True, DidTombstoned), (False, DidNotFound)])
def test_a_directory_that_knows_no_such_did_is_believed(identities, net, clock, tombstoned, error) -> None:
    pds(identities)
    net.identities.tombstone(DID)
    if not tombstoned:
        net.identities.tombstones.clear()
    with pytest.raises(error):
        identities.refresh(DID)


def test_who_wakes_up_late_does_not_undo_what_is_newer(identities: Identities, stack_env, clock: Clock) -> None:
    state = State(Tables(stack_env.prefix), clock=clock)
    state.write(IDENTITY, DID, {"pds": "https://new.example.com", "key": None, "handle": None}, number=clock.now + 2)
    state.write(IDENTITY, DID, {"pds": "https://old.example.com", "key": None, "handle": None}, number=clock.now + 1)
    assert state.read(IDENTITY, DID).content["pds"] == "https://new.example.com"


@pytest.mark.parametrize(
    "did", ["did:web:" + "a" * 2040, "did:web:" + "a." * 600 + "example.net", "did:plc:" + "a" * 2040]
)
def test_a_did_that_is_longer_than_a_key_is_of_nobody(identities: Identities, did: str) -> None:
    with pytest.raises(DidNotFound):
        identities.get(Did(did))
