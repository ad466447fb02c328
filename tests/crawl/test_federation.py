"""Services that have each other as directories know the same in the end, and each has verified it by itself."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from chalicelib import settings
from chalicelib.crawl import directories
from chalicelib.crawl.admission import request_crawl
from chalicelib.crawl.context import Context
from infra import provision
from simulator.host import Host
from simulator.scripted import Reply, Request, ScriptedServer, http
from simulator.thread import SimulatorThread
from tests.conftest import Stack
from tests.crawl.instance import Instance

HOLDS = "io.atcr.hold.captain"


class Neighbours:
    """Services with tables and queues of their own, each of which has the others as directories."""

    def __init__(self, number: int, stack: Stack, plc_url: str, running: ExitStack) -> None:
        self.answers: list[Callable[[Request], Reply]] = [lambda request: http(503)] * number
        """What each says when it is asked as a directory."""
        self.servers = [
            running.enter_context(ScriptedServer(lambda request, number=number: self.answers[number](request)))
            for number in range(number)
        ]
        self.services: list[Instance] = []
        for number, _ in enumerate(self.servers):
            made = provision.create(f"t-{uuid.uuid4().hex[:12]}", stack.dynamodb, stack.sqs)
            others = [server.url for server in self.servers if server is not self.servers[number]]
            environment = stack.environment | {
                "DISCOVERY_TABLE_PREFIX": made.prefix,
                "DISCOVERY_QUEUE_URL": made.queue_url,
                "DISCOVERY_PLC_URL": plc_url,
                "DISCOVERY_DIRECTORIES": ",".join(others),
                "DISCOVERY_DIRECTORY_NSIDS": HOLDS,
            }
            service = Instance(Context(settings.read(environment)), stack.sqs, made.queue_url)
            self.services.append(service)
            self.answers[number] = service.answers(stack.dynamodb)

    def announce(self, number: int, *holds: Host) -> None:
        for hold in holds:
            request_crawl(self.services[number].context, hold.hostname)

    def live(self, hours: float) -> None:
        """Each does what is due, after so many hours."""
        for service in self.services:
            service.pass_hours(hours)
            service.work()


@pytest.fixture
def neighbours(
    stack_env: Stack, sim: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[int], Neighbours]]:
    monkeypatch.setattr(directories, "BURST", 1000)  # nobody waits
    with ExitStack() as running:
        yield lambda number: Neighbours(number, stack_env, sim.net.plc.url, running)


def test_two_services_that_were_told_of_different_hosts_list_the_same(
    sim: SimulatorThread, neighbours: Callable[[int], Neighbours]
) -> None:
    both = neighbours(2)
    holds = [sim.call(sim.net.add_hold()) for _ in range(5)]
    both.announce(0, *holds[:3])
    both.announce(1, *holds[3:])
    for _ in range(2):
        both.live(1)
    for service in both.services:
        assert service.listed(HOLDS) == set(sim.call(sim.net.truth, HOLDS))
    # each asked the holds themselves, and what one hears of first, the other hears of next
    assert all(hold.requests["com.atproto.sync.getRepo"] == 2 for hold in holds)
    late = sim.call(sim.net.add_hold())
    both.announce(0, late)
    both.live(1)
    assert late.did in both.services[1].listed(HOLDS)
    sim.call(holds[0].delete_collection, holds[0].did, HOLDS)
    both.live(14)
    both.live(14)
    for service in both.services:
        assert service.listed(HOLDS) == set(sim.call(sim.net.truth, HOLDS)), "one that is gone does not come back"


def test_of_three_services_one_lies_and_one_is_down_and_that_changes_nothing_of_what_is_true(
    sim: SimulatorThread, neighbours: Callable[[int], Neighbours]
) -> None:
    three = neighbours(3)
    honest, other = three.services[:2]
    holds = [sim.call(sim.net.add_hold()) for _ in range(2)]
    nobody = sim.call(sim.net.add_pds(accounts=2, sailors=0))
    made_up = [*nobody.accounts, "did:plc:" + "a" * 24, "did:web:nowhere.invalid"]
    three.answers[2] = lambda request: http(200, json.dumps({"repos": [{"did": did} for did in made_up]}).encode())
    three.announce(0, holds[0])
    three.announce(1, holds[1])
    for _ in range(2):
        honest.pass_hours(1)
        honest.work()
        other.pass_hours(1)
        other.work()
    for service in (honest, other):
        assert service.listed(HOLDS) == set(sim.call(sim.net.truth, HOLDS)) == {hold.did for hold in holds}
        assert service.progress(three.servers[2])["waiting"].keys() >= set(made_up)
        assert service.host(nobody) is None
    true = three.answers[1]
    three.answers[1] = lambda request: http(500)
    honest.pass_hours(30)
    honest.work()
    assert honest.listed(HOLDS) == {hold.did for hold in holds}
    assert "500" in honest.progress(three.servers[1])["error"]
    three.answers[1] = true
    honest.pass_hours(30)
    honest.work()
    assert honest.progress(three.servers[1])["error"] is None
    assert honest.progress(three.servers[2])["unverified"] >= len(made_up)
