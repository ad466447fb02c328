"""Histories that once went wrong, each by its name, and the plain ones that must not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from simulator.host import Status
from tests.oracle.world import World

CAPTAIN, CREW, TAG = "io.atcr.hold.captain/self", "io.atcr.hold.crew/a", "io.atcr.tag/a"


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def started(world: World) -> None:
    for host in world.net.hosts:
        world.request_crawl(host)
    world.subscribe()
    world.come_to_rest()


def test_a_quiet_history_comes_to_rest_at_the_truth(world: World) -> None:
    host = world.net.hosts[0]
    did = world.add_account(host, CAPTAIN, CREW, "app.bsky.feed.post/a")
    started(world)
    host.put(did, TAG, {"$type": "io.atcr.tag"})
    host.put(did, "app.bsky.feed.post/b", {"$type": "app.bsky.feed.post"})
    host.delete(did, CAPTAIN)
    world.come_to_rest()


def test_a_repo_that_moved_while_nobody_listened_follows_its_document(world: World) -> None:
    host, other = world.net.hosts
    did = world.add_account(host, CAPTAIN, CREW)
    world.add_account(other, CAPTAIN)
    started(world)
    world.stop_subscriber()
    world.net.migrate(did, other, farewell="deactivated")
    world.come_to_rest()


def test_a_repo_that_moved_between_two_large_hosts_follows_its_document() -> None:
    with World(in_place=1, page=1) as world:
        host, other = world.net.hosts
        did = world.add_account(host, CAPTAIN, CREW)
        for _ in range(2):
            world.add_account(host, TAG)
            world.add_account(other, TAG)
        started(world)
        world.stop_subscriber()
        world.net.migrate(did, other, farewell="deactivated")
        world.come_to_rest()


@pytest.mark.parametrize("farewell", ["deactivated", None])
def test_a_repo_that_moved_without_its_old_host_saying_so_is_found_by_a_crawl_of_the_new(
    world: World, farewell: Status | None
) -> None:
    host, other = world.net.hosts
    did = world.add_account(host, CAPTAIN, CREW)
    world.add_account(other, CAPTAIN)
    started(world)
    world.stop_subscriber()
    world.net.migrate(did, other, farewell=farewell, curve="p256")
    other.set_status(did, "suspended", announce=False)
    other.stream.trim()
    world.unseen |= {host, other}
    world.come_to_rest()
