"""Subscriber and consumer are killed at any moment, and nothing is lost: what must be done stands in the tables."""

from __future__ import annotations

import os
import random
import signal
import threading

import pytest

from chalicelib.index.tables import NOBODY
from simulator.thread import SimulatorThread
from tests.processes.children import CONSUMER, SUBSCRIBER, Child, Installation, eventually

SEED = int(os.environ.get("SEED", "20260"))
LAYER = "io.atcr.hold.layer"


class Commotion(threading.Thread):
    """Writes to a neighbourhood, at random, until ``end``: records come, change and go, whole collections too."""

    def __init__(self, sim: SimulatorThread, rng: random.Random) -> None:
        super().__init__(daemon=True)
        self._sim, self._rng = sim, rng
        self._ended = threading.Event()
        self.commits = 0

    def end(self) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while not self._ended.wait(self._rng.uniform(0, 0.15)):
            self._sim.call(self._write)
            self.commits += 1

    def _write(self) -> None:
        rng, net = self._rng, self._sim.net
        did = rng.choice(list(net.homes))
        host = net.homes[did]
        author, repo = host.author(did), host.accounts[did].repo
        ours = [path for path in repo.paths() if path.startswith("io.atcr.")]
        match rng.randrange(8):
            case 0 if ours:
                host.delete(did, *rng.sample(ours, rng.randrange(1, min(4, len(ours)) + 1)))
            case 1 if ours:
                host.delete_collection(did, rng.choice(ours).partition("/")[0])
            case 2:
                host.put(did, *author.post())
            case 3:
                host.add(did, [author.manifest(), author.sailor_profile()])
            case 4:
                host.emit_account(did)
            case _:
                host.add(
                    did, [author.captain(public=rng.random() < 0.5), author.stats(rng.randrange(3)), author.layer()]
                )


def test_killed_at_any_moment_subscriber_and_consumer_lose_nothing(
    installation: Installation, sim: SimulatorThread
) -> None:
    print(f"SEED={SEED}")
    rng = random.Random(SEED)
    hosts = [sim.call(sim.net.add_hold(crew=2, layers=10)) for _ in range(3)]
    hosts.append(sim.call(sim.net.add_pds(accounts=6, sailors=3, noise=3)))
    running: dict[tuple[str, ...], Child] = {part: installation.start(part) for part in (SUBSCRIBER, CONSUMER)}
    for host in hosts:
        installation.request_crawl(host)
    eventually(lambda: not installation.differences(sim), lambda: installation.differences(sim))
    commotion = Commotion(sim, random.Random(SEED + 1))
    commotion.start()
    try:
        for _ in range(5):
            threading.Event().wait(rng.uniform(0.1, 2.5))  # the moment of the next death
            for part in rng.choice(([SUBSCRIBER], [CONSUMER], [SUBSCRIBER, CONSUMER])):
                running[part].kill()
                running[part] = installation.start(part)
    finally:
        commotion.end()
    print(f"{commotion.commits} commits")
    eventually(
        lambda: not installation.differences(sim) and installation.is_idle(), lambda: installation.differences(sim)
    )


def test_a_consumer_killed_in_the_middle_of_a_large_landing_is_followed_by_one_that_ends_it(
    installation: Installation, sim: SimulatorThread
) -> None:
    hold = sim.call(sim.net.add_hold(layers=5000))
    consumer = installation.start(CONSUMER)
    installation.request_crawl(hold)

    def landed() -> int:
        return int(installation.context.tables.records.count(hold.did, consistent_read=True))

    eventually(lambda: landed() >= 1000, landed)
    consumer.kill()
    assert 1000 <= landed() < 5000
    assert installation.repo(hold.did).reason == "landing"
    assert installation.listing(LAYER) == set()
    installation.start(CONSUMER)
    eventually(lambda: installation.listing(LAYER) == {hold.did}, landed)
    assert installation.differences(sim) == []


def test_the_subscriber_ends_in_good_order_within_twenty_seconds_whatever_hangs(
    installation: Installation, sim: SimulatorThread
) -> None:
    holds = [sim.call(sim.net.add_hold()) for _ in range(2)]
    pds = sim.call(sim.net.add_pds(accounts=1, sailors=1, noise=1))
    town = sim.call(sim.net.add_pds(accounts=1, sailors=1, noise=1))
    everyone = (*holds, pds, town)
    installation.start(CONSUMER, JOB_LEASE_SECONDS="60")  # longer than anything here
    subscriber = installation.start(SUBSCRIBER, LEASE_SECONDS="20")
    for host in everyone:
        installation.request_crawl(host)
    eventually(lambda: not installation.differences(sim), lambda: installation.differences(sim))
    eventually(lambda: all(installation.host(host).epoch == 1 for host in everyone))
    eventually(installation.is_idle)

    # A commit waits for a crawl that does not end.
    author = pds.author(pds.did)
    sim.call(pds.fail, "com.atproto.sync.getRepo", hang=True)
    before = pds.requests["com.atproto.sync.getRepo"]
    sim.call(pds.write, pds.did, [], silent=True)  # the chain breaks
    sim.call(pds.put, pds.did, *author.sailor_profile())
    eventually(lambda: pds.requests["com.atproto.sync.getRepo"] > before)
    sim.call(pds.add, pds.did, [author.manifest()])
    # Strangers write, more than there are threads, and the directory does not say who they are.
    sim.call(sim.net.plc.fail, "*", hang=True)
    for _ in range(20):
        did = sim.call(sim.net.add_account, town).did
        sim.call(town.put, did, *town.author(did).sailor_profile())
    # All others go on as ever.
    for hold in holds:
        sim.call(hold.put, hold.did, *hold.author(hold.did).captain(public=False))

    took = subscriber.terminate(within=25)
    print(f"ended after {took:.1f} s")
    assert took < 20
    assert all(installation.host(host).owner == NOBODY for host in everyone)
    assert all(installation.host(hold).cursor == hold.stream.seq for hold in holds)
    assert (installation.host(pds).cursor or 0) < pds.stream.seq  # what waited comes again

    sim.call(pds.heal)
    sim.call(sim.net.plc.heal)
    installation.start(SUBSCRIBER)
    eventually(lambda: not installation.differences(sim), lambda: installation.differences(sim))


def test_a_paused_subscriber_ends_at_once_when_it_is_killed(installation: Installation) -> None:
    """What the tests rely on at their end."""
    child = installation.start(SUBSCRIBER)
    child.signal(signal.SIGSTOP)
    child.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
