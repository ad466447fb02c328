"""One story that meets most of the writes of the service, told again and again: each time something else goes wrong at
another write. Every telling must end at the truth. ``ORACLE_FAULTS=all`` tells it for every single write,
``some`` for the first and the last of each place."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from simulator import frames
from tests.oracle.faults import KINDS, Fault
from tests.oracle.world import LEASE_SECONDS, World

CAPTAIN, CREW, TAG = "io.atcr.hold.captain/self", "io.atcr.hold.crew", "io.atcr.tag/a"


def story(world: World, fault: Fault | None = None) -> list[str]:
    """Two hosts, from the first announcement to rest. Returns the places of all writes up to the end of what may go wrong."""
    world.gate.armed = fault
    host, other = world.net.hosts
    did = world.add_account(host, CAPTAIN, *(f"{CREW}/{name}" for name in "abcdefgh"))
    moving = world.add_account(host, CAPTAIN, TAG)
    leaving = world.add_account(other, TAG, *(f"{CREW}/{name}" for name in "abcdefgh"))
    for each in (host, other):
        world.request_crawl(each)
    world.subscribe()
    _live(world, 3)
    for number in range(2):
        host.put(did, TAG, {"$type": "io.atcr.tag", "number": number})
        host.put(did, "app.bsky.feed.post/a", {"$type": "app.bsky.feed.post", "number": number})
    host.delete(did, CAPTAIN)
    other.emit_sync(leaving)
    host.put(moving, TAG, {"$type": "io.atcr.tag", "number": 5}, telling=frames.too_big_commit)
    _live(world, 3)
    world.net.migrate(moving, other, curve="p256")
    other.delete_account(leaving)
    host.set_status(did, "deactivated")
    _live(world, 3)
    host.set_status(did, None)
    host.stream.disconnect()
    host.stream.trim()
    if world.subscribers:
        world.kill_subscriber()
    world.subscribe()
    _live(world, 4)
    while world.parked:
        world.advance(LEASE_SECONDS + 5)
        world.resume(world.parked[0])
    for each in (host, other):
        world.request_crawl(each)
    writes = list(world.gate.writes)
    world.come_to_rest()
    return writes


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


def _tellings() -> Iterator[tuple[str, str, int]]:
    with World() as world:
        writes = story(world)
    for place in sorted(set(writes)):
        count = writes.count(place)
        numbers = range(count) if os.environ.get("ORACLE_FAULTS") == "all" else sorted({0, count - 1})
        for number in numbers:
            for kind in KINDS:
                yield place, kind, number


@pytest.mark.skipif("ORACLE_FAULTS" not in os.environ, reason="takes minutes: ORACLE_FAULTS=some or all")
def test_whatever_goes_wrong_at_whatever_write_the_story_ends_at_the_truth() -> None:
    faults: list[str] = []
    tellings = struck = 0
    for place, kind, number in _tellings():
        tellings += 1
        with World() as world:
            try:
                story(world, Fault(kind, place, number))
            except AssertionError as error:
                faults.append(f"{kind} at {place} {number}: {str(error)[:300]}")
            struck += sum(world.gate.struck.values())
    print(f"{tellings} tellings, {struck} of them disturbed")
    assert struck > 0.8 * tellings
    assert not faults, "\n".join(faults)


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
            fault = world.gate.armed = Fault(kind, after=number, by="subscriber")
            host.put(did, TAG, {"$type": "io.atcr.tag"})
            host.put(did, "app.bsky.feed.post/a", {"$type": "app.bsky.feed.post"})
            host.delete(did, CAPTAIN)
            world.deliver()
            world.advance(12)
            struck = world.gate.armed is not fault
            world.come_to_rest()
        if not struck:
            break
        number += 1
    assert number >= 4, "the subscriber wrote next to nothing"
