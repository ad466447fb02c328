"""Relays: the source of repos on large hosts that nobody follows, hints for all others, and believed only where it is signed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chalicelib.crawl import host_job
from chalicelib.crawl.admission import HostNotFound, request_crawl
from simulator import frames
from simulator.clock import Clock
from simulator.host import Host
from simulator.relay import Relay
from simulator.thread import SimulatorThread
from subscriber import connection, sources
from tests.service import Service, eventually

TAG = "io.atcr.tag"
REPO, STATUS = "com.atproto.sync.getRepo", "com.atproto.sync.getRepoStatus"


@pytest.fixture
def sim() -> Iterator[SimulatorThread]:
    with SimulatorThread(seed=1, clock=Clock.wall()) as running:
        yield running


class Places:
    """A large host that never announced itself, a hold that did, a relay that follows both, and the service."""

    def __init__(self, sim: SimulatorThread, start_service: Callable[..., Service]) -> None:
        self.sim = sim
        self.pds: Host = sim.call(sim.net.add_pds(accounts=25, sailors=2, noise=1))
        self.hold: Host = sim.call(sim.net.add_hold())
        self.relay: Relay = sim.call(sim.net.add_relay(self.pds, self.hold))
        self.service = start_service(
            PLC_URL=sim.net.plc.url,
            DIRECTORIES=self.relay.hostname,
            RELAYS=self.relay.hostname,
            DIRECTORY_NSIDS=TAG,
            RECRAWL_HOURS="24",
        )
        self.service.follow()
        sim.call(self.relay.subscribed(within=60))
        assert self.service.request_crawl(self.hold.hostname) == (200, "")
        sim.call(self.hold.subscribed(within=60))
        eventually(lambda: len(self.service.listing(TAG)) == 2)
        self.users = self.service.listing(TAG)
        self.rest()
        eventually(lambda: all(self.service.follows(did) for did in self.users))

    def rest(self) -> None:
        """Wait until nothing is due and nothing under way."""
        service = self.service
        eventually(lambda: service.is_quiet() and service.is_idle() and service.has_no_jobs())

    def tag(self, did: str, name: str, **telling: Any) -> None:
        self.sim.call(
            lambda: self.sim.net.homes[did].put(did, f"{TAG}/{name}", {"$type": TAG, "name": name}, **telling)
        )

    def knows(self, did: str, name: str) -> bool:
        return f"{TAG}/{name}" in self.service.records(did)


@pytest.fixture
def places(sim: SimulatorThread, start_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.setattr(host_job, "PAGE", 10)
    monkeypatch.setattr(sources, "HINT_SECONDS", 2.0)  # on a busy machine too, the host itself comes first
    monkeypatch.setattr(sources, "ASK_SECONDS", 0.0)
    monkeypatch.setattr(connection, "FOLLOW_SECONDS", 0.3)
    return Places(sim, start_service)


def test_repos_of_a_large_host_are_followed_through_the_relay_alone(places: Places) -> None:
    did, pds = places.users[0], places.pds
    fetched = pds.requests[REPO]
    for name in "abc":
        places.sim.call(pds.put, did, *pds.author(did).post())
        places.tag(did, name)
    eventually(lambda: places.knows(did, "c"))
    assert places.knows(did, "a")
    assert pds.requests[REPO] == fetched, "the relay told it all"
    assert pds.stream.cursors == [], "nobody follows its stream"
    assert places.service.host(pds).kind == "named"
    assert places.service.host(places.relay).kind == "relay"
    # one that nobody has heard of
    new = next(did for did in pds.accounts if did not in places.users)
    places.tag(new, "first")
    eventually(lambda: new in places.service.listing(TAG))
    with pytest.raises(HostNotFound):
        request_crawl(places.service.context, places.relay.hostname)


def test_of_a_host_that_is_followed_a_relay_shows_hints_only(places: Places) -> None:
    service, hold, did = places.service, places.hold, places.hold.did
    before = service.outcomes().copy()
    places.tag(did, "a")
    eventually(lambda: places.knows(did, "a"))
    eventually(lambda: service.outcomes()["hint"] == before["hint"] + 1)
    assert service.outcomes()["applied"] == before["applied"] + 1
    fetched, asked = hold.requests[REPO], hold.requests[STATUS]
    places.sim.call(hold.stream.hold_back)
    places.tag(did, "b")
    places.sim.call(lambda: [places.relay.hear(event.frame) for event in hold.stream._held or ()])
    eventually(lambda: places.knows(did, "b"))
    assert (hold.requests[REPO], hold.requests[STATUS]) == (fetched + 1, asked + 1)
    places.sim.call(hold.stream.release)
    places.tag(did, "c")
    eventually(lambda: places.knows(did, "c"))
    assert hold.requests[REPO] == fetched + 1


def test_what_a_lying_relay_makes_up_changes_nothing(places: Places) -> None:
    sim, service, relay, did = places.sim, places.service, places.relay, places.users[0]
    known = {row.did: row.version for row in service.context.tables.repos.scan()}
    listed, records = service.listing(TAG), service.records(did)
    stranger = next(did for did in places.pds.accounts if did not in known)
    relay.edit = lambda body: None  # from now on all that it says is its own
    places.tag(did, "true", telling=frames.commit)
    head = sim.call(lambda: places.pds.accounts[did].repo.head)
    before = service.events()

    def lie() -> None:
        relay.stream.emit(lambda seq, time: frames.commit_badly_signed(head, seq, time))
        for victim in (stranger, "did:plc:" + "a" * 24):
            telling = frames.commit_with(repo=victim)
            relay.stream.emit(lambda seq, time, telling=telling: telling(head, seq, time))
            relay.stream.emit(lambda seq, time, victim=victim: frames.account(victim, seq, time, False, "deleted"))
            relay.stream.emit(lambda seq, time, victim=victim: frames.identity(victim, seq, time))

    sim.call(lie)
    eventually(lambda: service.events() == before + 7 and service.is_quiet())
    assert service.outcomes()["unverified"] == 1
    assert service.outcomes()["unknown-did"] == 1
    assert {row.did for row in service.context.tables.repos.scan()} == known.keys()
    assert service.listing(TAG) == listed
    # what the forged commit hinted at is asked about, and found out at the PDS
    eventually(lambda: places.knows(did, "true"))
    assert service.records(did).keys() - records.keys() == {f"{TAG}/true"}


def test_a_gap_in_the_relays_stream_is_closed_by_asking_the_hosts_behind_it(places: Places) -> None:
    sim, service, relay, did = places.sim, places.service, places.relay, places.users[0]
    epoch = service.host(places.pds).epoch
    relay.edit = lambda body: None
    places.tag(did, "unheard")
    relay.edit = lambda body: body
    sim.call(lambda: relay.stream.emit(lambda seq, time: frames.identity("did:plc:" + "b" * 24, seq, time)))
    sim.call(lambda: relay.stream.rewind(relay.stream.seq + 10, [], relay.stream.seq + 10))
    sim.call(relay.stream.disconnect)
    eventually(lambda: places.knows(did, "unheard"))
    assert service.host(places.pds).epoch == epoch + 1
    places.tag(did, "heard")
    eventually(lambda: places.knows(did, "heard"))


def test_a_relays_word_on_an_account_is_a_reason_to_ask_its_pds(places: Places) -> None:
    service, did, pds = places.service, places.users[0], places.pds
    places.sim.call(pds.set_status, did, "deactivated")
    eventually(lambda: did not in service.listing(TAG))
    places.sim.call(pds.set_status, did, None)
    eventually(lambda: did in service.listing(TAG))
    places.rest()
    asked = pds.requests[STATUS]
    places.sim.call(
        lambda: places.relay.stream.emit(lambda seq, time: frames.account(did, seq, time, False, "takendown"))
    )
    eventually(lambda: pds.requests[STATUS] > asked)
    places.rest()
    assert did in service.listing(TAG)
