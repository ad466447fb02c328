"""Three subscribers share thirty hosts: each host has one of them, whatever becomes of the others."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from chalicelib.index.subscribers import ENDED
from chalicelib.index.tables import NOBODY
from simulator.thread import SimulatorThread
from tests.processes.children import CONSUMER, SUBSCRIBER, Child, Installation, eventually

HOSTS = 30
TAKEOVER = 10.0
"""Seconds until the hosts of a dead subscriber are followed again, with a lease of three, on a busy machine. (With the
lease of twenty that is the default: less than thirty.)"""


@pytest.fixture
def holds(installation: Installation, sim: SimulatorThread) -> list[Any]:
    """Thirty holds that have been let in."""
    made = [sim.call(sim.net.add_hold(layers=1)) for _ in range(HOSTS)]
    for hold in made:
        installation.request_crawl(hold)
    return made


def owners(installation: Installation) -> Counter[str]:
    """How many hosts each owner has."""
    return Counter(str(row.owner) for row in installation.context.tables.hosts.scan(consistent_read=True))


def name_of(installation: Installation, child: Child) -> str:
    """The name of a living subscriber that runs in that process."""
    rows = installation.context.subscribers.all()
    return next((row.id for row in rows if f"-{child.pid}-" in row.id and row.number > ENDED), "")


def shares(installation: Installation, children: Sequence[Child], *, least: int = 0) -> Callable[[], bool]:
    """Whether these alone have all hosts, each at least so many."""

    def check() -> bool:
        found = owners(installation)
        names = {name_of(installation, child) for child in children}
        return "" not in names and found.keys() == names and min(found.values()) >= least

    return check


def followed_once(sim: SimulatorThread, holds: list[Any]) -> Callable[[], bool]:
    """Whether each host has exactly one connection."""
    return lambda: sim.call(lambda: all(hold.stream.connections == 1 for hold in holds))


def test_three_share_thirty_hosts_and_one_that_dies_and_one_that_sleeps_are_replaced(
    installation: Installation, sim: SimulatorThread, holds: list[Any]
) -> None:
    installation.start(CONSUMER)
    one, two, three = children = [installation.start(SUBSCRIBER) for _ in range(3)]
    seen = lambda: (owners(installation), [hold.stream.connections for hold in holds])  # noqa: E731
    eventually(shares(installation, children, least=8), seen)
    eventually(followed_once(sim, holds), seen)

    one.kill()
    eventually(shares(installation, (two, three), least=13), seen, within=TAKEOVER)
    eventually(followed_once(sim, holds), seen)

    former = name_of(installation, two)
    two.signal(signal.SIGSTOP)
    eventually(shares(installation, (three,)), seen, within=TAKEOVER)
    for hold in holds:  # while the one that sleeps still has its connections
        sim.call(hold.put, hold.did, *hold.author(hold.did).captain(public=False))
    two.signal(signal.SIGCONT)
    eventually(lambda: two.says("leases-lost") and name_of(installation, two) not in ("", former))
    eventually(followed_once(sim, holds), seen)
    eventually(shares(installation, (two, three), least=13), seen)  # under its new name it gets its share
    eventually(followed_once(sim, holds), seen)
    assert former not in owners(installation)
    eventually(lambda: not installation.differences(sim), lambda: installation.differences(sim))


def test_a_rolling_deployment_loses_nothing(installation: Installation, sim: SimulatorThread, holds: list[Any]) -> None:
    installation.start(CONSUMER)
    old = installation.start(SUBSCRIBER)
    eventually(shares(installation, [old]), lambda: owners(installation))
    eventually(followed_once(sim, holds))
    eventually(lambda: not installation.differences(sim), lambda: installation.differences(sim))
    for hold in holds:  # the first event gives each stream its cursor
        sim.call(hold.put, hold.did, *hold.author(hold.did).captain(public=False))
    eventually(lambda: all(installation.host(hold).cursor == hold.stream.seq for hold in holds))
    eventually(installation.is_idle)
    before = sim.call(lambda: [hold.requests["com.atproto.sync.getRepo"] for hold in holds])

    ended = threading.Event()

    def write() -> None:
        number = 0
        while not ended.wait(0.05):
            hold = holds[number % HOSTS]
            sim.call(hold.put, hold.did, *hold.author(hold.did).stats(0, number))
            number += 1

    writing = threading.Thread(target=write, daemon=True)
    writing.start()
    try:
        new = installation.start(SUBSCRIBER)
        eventually(shares(installation, [old, new], least=10), lambda: owners(installation))
        old.terminate(within=20)
        assert owners(installation).keys() <= {NOBODY, name_of(installation, new)}
        eventually(shares(installation, [new]), lambda: owners(installation), within=TAKEOVER)
    finally:
        ended.set()
        writing.join()
    eventually(followed_once(sim, holds))
    eventually(lambda: not installation.differences(sim), lambda: installation.differences(sim))
    assert (
        sim.call(lambda: [hold.requests["com.atproto.sync.getRepo"] for hold in holds]) == before
    )  # no crawl was needed
    assert not new.says("new-epoch")
    eventually(lambda: [row.id for row in installation.context.subscribers.all()] == [name_of(installation, new)])
