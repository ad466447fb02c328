"""Stories that between them meet every write of the service, told again and again: each time something else goes wrong at
another write. Every telling must end at the truth. ``ORACLE_FAULTS=all`` (``make soak``) tells them for every single write,
otherwise each kind of fault happens at one write of each place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

from simulator import frames
from simulator.faults import status
from tests.oracle.faults import KINDS, Fault
from tests.oracle.places import places
from tests.oracle.world import LEASE_SECONDS, World

CAPTAIN, CREW, TAG, POST = "io.atcr.hold.captain/self", "io.atcr.hold.crew", "io.atcr.tag/a", "app.bsky.feed.post/a"
MANY = (CAPTAIN, TAG, *(f"{CREW}/{name}" for name in "abcdefgh"))


def follow_streams(world: World) -> None:
    """Two small hosts, from the first announcement on: commits, moves, statuses, subscribers that come and go."""
    host, other = world.net.hosts
    did = world.add_account(host, *MANY)
    moving = world.add_account(host, CAPTAIN, TAG)
    leaving = world.add_account(other, *MANY)
    stranger = world.add_account(host, POST)
    world.net.migrate(stranger, other, farewell=None)
    _announce(world)
    _live(world, 3)
    host.put(did, TAG, {"$type": "io.atcr.tag", "number": 1})
    host.delete(did, CAPTAIN)
    other.emit_sync(leaving)
    host.put(moving, TAG, {"$type": "io.atcr.tag", "number": 5}, telling=frames.too_big_commit)
    host.delete(did, TAG, *(f"{CREW}/{name}" for name in "abcdefgh"))
    _live(world, 3)
    host.add(did, [(CAPTAIN, {"$type": "io.atcr.hold.captain"}), (TAG, {"$type": "io.atcr.tag"})])
    _live(world, 1)
    host.add(moving, [(f"{CREW}/{name}", {"$type": CREW}) for name in "ab"] + [("io.atcr.b/a", {"$type": "io.atcr.b"})])
    host.put(did, POST, {"$type": "app.bsky.feed.post", "number": 1})
    _live(world, 2)
    world.net.migrate(moving, other, curve="p256")
    other.delete_account(leaving)
    host.set_status(did, "deactivated")
    _live(world, 3)
    host.set_status(did, None)
    host.stream.disconnect()
    host.stream.trim()
    if world.subscribers:
        world.kill_subscriber()
    _live(world, 4)
    world.advance(2 * LEASE_SECONDS + 15)
    if world.subscribers and not world.parked:
        world.subscribers[0].supervisor.stop()
        world.advance(20)
    _live(world, 1)


def backfill(world: World) -> None:
    """Large hosts, slow ones, that cannot be reached at first and fail later: jobs that are cut short and handed over."""
    host, other = world.net.hosts
    many = world.add_account(host, *MANY)
    world.add_account(host, POST)
    host.set_status(world.add_account(host, CAPTAIN), "deactivated")
    going = world.add_account(other, *MANY)
    world.down |= {host, other}
    _announce(world)
    world.advance(6)
    world.down.discard(host)
    _live(world, 1)
    world.advance(40)
    _live(world, 1)  # the other host is forgotten
    world.down.clear()
    host.fail("com.atproto.sync.getRepo", status(500), times=3)
    other.fail("com.atproto.sync.listRepos", status(500), times=1)
    _announce(world)
    world.messages.clear()
    world.advance(16)
    _live(world, 8)
    host.set_status(many, "deactivated")
    _live(world, 2)
    host.rotate_key(many, "p256")
    host.set_status(many, None)
    _live(world, 2)
    world.gate.armed.append(Fault("paused before", "hosts.finish", by="lambda"))
    world.crawl(host)
    _live(world, 1)
    host.stream.disconnect()
    host.stream.trim()
    host.put(many, TAG, {"$type": "io.atcr.tag", "number": 2})
    other.delete_account(going)
    _live(world, 4)


def operate(world: World) -> None:
    """An operator bans, pauses, takes down and purges, and undoes it all."""
    host, other = world.net.hosts
    did = world.add_account(host, *MANY)
    withdrawn = world.add_account(other, *MANY)
    _announce(world)
    _live(world, 4)

    def ordered(action: str, target: str, rounds: int = 2) -> None:
        world.order(action, target)
        _live(world, rounds)

    ordered("ban", host.hostname, rounds=8)
    ordered("takedown", withdrawn)
    ordered("purge", withdrawn)
    ordered("pause", other.hostname)
    ordered("unban", host.hostname, rounds=4)
    ordered("crawl", host.hostname)
    ordered("resume", other.hostname, rounds=3)
    ordered("resync", withdrawn)
    ordered("restore", withdrawn)
    ordered("ban", "*.elsewhere.net")
    ordered("unban", "*.elsewhere.net")
    ordered("purge", host.hostname)
    ordered("resync", did)


def hear_of_others(world: World) -> None:
    """A large host and a small one that do not announce themselves: found through a directory, and followed through a relay,
    which has a gap; then the relay is given up, and taken up again."""
    large, small = world.net.hosts
    [relay] = world.net.relays
    did = world.add_account(large, CAPTAIN, TAG)
    other = world.add_account(large, TAG)
    world.add_account(small, TAG)
    _live(world, 4)
    large.put(did, TAG, {"$type": "io.atcr.tag", "number": 1})
    large.put(did, POST, {"$type": "app.bsky.feed.post"})
    _live(world, 2)
    relay.edit = lambda body: None
    large.put(other, TAG, {"$type": "io.atcr.tag", "number": 2})
    relay.edit = lambda body: body
    relay.stream.rewind(relay.stream.seq + 10, [], relay.stream.seq + 10)
    relay.stream.disconnect()
    _live(world, 5)
    world.follow_relays()
    world.crawl(large)
    _live(world, 8)
    large.put(other, TAG, {"$type": "io.atcr.tag", "number": 3})
    world.follow_relays(relay)
    world.crawl(large)
    _live(world, 14)
    large.delete(did, CAPTAIN)
    large.set_status(other, "deactivated")
    _live(world, 2)


STORIES: dict[Callable[[World], None], dict[str, Any]] = {
    follow_streams: {},
    backfill: {
        "in_place": 1,
        "page": 1,
        "changes": 1,
        "slow": 0.4,
        "JOB_SECONDS": "3",
        "JOB_LEASE_SECONDS": "3",
        "TURN_SECONDS": "1",
        "CONFIRM_HOURS": "0.01",
    },
    operate: {"JOB_SECONDS": "20"},
    hear_of_others: {"upstream": True, "page": 1, "in_place": 1},
}


def tell(story: Callable[[World], None], fault: Fault | None = None) -> World:
    """Tell a story to its end. Returns its world; ``world.gate.writes`` are those up to the end of what may go wrong."""
    with World(**STORIES[story]) as world:
        if fault is not None:
            world.gate.armed.append(fault)
        story(world)
        while world.parked:
            world.advance(LEASE_SECONDS + 5)
            world.resume(world.parked[0])
        writes = list(world.gate.writes)
        world.gate.armed.clear()
        for host in world.net.hosts:
            world.request_crawl(host)
        world.come_to_rest()
    world.gate.writes = writes
    return world


def _announce(world: World) -> None:
    for host in world.net.hosts:
        world.request_crawl(host)


def _live(world: World, rounds: int) -> None:
    for _ in range(rounds):
        if not world.subscribers:
            world.subscribe()
        world.deliver()
        for _ in range(len(world.messages)):
            world.work()
        world.advance(6)
        world.sweep()
        world.check()


@cache
def _writes() -> dict[Callable[[World], None], list[str]]:
    """The places of all writes of each story, in their order."""
    return {story: tell(story).gate.writes for story in STORIES}


def _faults(*, every: bool) -> Iterator[tuple[Callable[[World], None], Fault]]:
    for place in sorted(places()):
        for story, writes in _writes().items():
            count = writes.count(place)
            for kind_number, kind in enumerate(KINDS):
                if every:
                    yield from ((story, Fault(kind, place, number)) for number in range(count))
                elif count and (story is follow_streams or place not in _writes()[follow_streams]):
                    yield story, Fault(kind, place, (0, count - 1, count // 2)[kind_number % 3])


def go_wrong(half: int) -> None:
    """Every second of the faults."""
    wrong: list[str] = []
    told, struck = 0, set[str]()
    every = os.environ.get("ORACLE_FAULTS") == "all"
    for story, fault in list(_faults(every=every))[half::2]:
        told += 1
        name = f"{fault.kind} at {fault.place} {fault.after} of {story.__name__}"
        try:
            world = tell(story, fault)
        except AssertionError as error:
            wrong.append(f"{name}: {str(error)[:300]}")
        else:
            struck |= {name} if (fault.place, fault.kind) in world.gate.struck else set()
    print(f"{told} tellings, {len(struck)} of them disturbed, {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong)
    assert len(struck) > 0.95 * told


def test_the_stories_meet_every_write() -> None:
    met = {place for writes in _writes().values() for place in writes}
    assert met == places()


class TestWhateverGoesWrongAtWhateverWriteTheStoriesEndAtTheTruth:
    def test_one_half(self) -> None:
        go_wrong(0)


class TestAndTheOtherHalfOfThatToo:
    def test_other_half(self) -> None:
        go_wrong(1)


@pytest.mark.parametrize("kind", ["killed before", "killed after", "answer lost", "throttled"])
def test_a_cursor_is_never_ahead_of_the_data(kind: str) -> None:
    """At every write of the subscriber: what was not yet done is done by the next one, from the stored cursor alone."""
    number = 0
    while True:
        with World() as world:
            host = world.net.hosts[0]
            did = world.add_account(host, CAPTAIN)
            world.request_crawl(host)
            world.subscribe()
            world.come_to_rest()
            world.gate.armed.append(Fault(kind, after=number, by="subscriber"))
            host.put(did, TAG, {"$type": "io.atcr.tag"})
            host.put(did, "app.bsky.feed.post/a", {"$type": "app.bsky.feed.post"})
            host.delete(did, CAPTAIN)
            world.deliver()
            world.advance(12)
            struck = not world.gate.armed
            world.come_to_rest()
        if not struck:
            break
        number += 1
    assert number >= 4, "the subscriber wrote next to nothing"
