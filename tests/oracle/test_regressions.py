"""Histories that once went wrong, each by its name, and the plain ones that must not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from simulator import frames
from simulator.host import Status
from tests.oracle import engine
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


def test_a_slow_host_of_few_repos_is_walked_to_its_end_when_it_announces_itself() -> None:
    with World(slow=0.3, changes=1, JOB_SECONDS="2", JOB_LEASE_SECONDS="3") as world:
        for _ in range(4):
            world.add_account(world.net.hosts[0], CAPTAIN, CREW, TAG)
        started(world)
        world.request_crawl(world.net.hosts[0])
        world.come_to_rest()


def test_a_slow_host_that_lists_repos_which_have_moved_away_is_walked_to_its_end() -> None:
    with World(slow=0.3, changes=1, JOB_SECONDS="2", JOB_LEASE_SECONDS="3") as world:
        host, other = world.net.hosts
        moving = [world.add_account(host, CAPTAIN) for _ in range(4)]
        started(world)
        for did in moving:
            world.net.migrate(did, other, farewell=None)
        world.come_to_rest()
        world.crawl(host)
        world.come_to_rest()


def test_a_late_event_of_a_deleted_repo_does_not_have_it_asked_for_without_end(world: World) -> None:
    host = world.net.hosts[0]
    did = world.add_account(host, CAPTAIN, CREW)
    started(world)
    commit = host.put(did, TAG, {"$type": "io.atcr.tag"})
    host.delete_account(did)
    world.come_to_rest()
    host.stream.emit(lambda seq, time: frames.commit(commit, seq, time))
    world.come_to_rest()
    assert engine.rows("repos")[0]["status"] == "deleted"
    assert "due_at" not in engine.rows("repos")[0]
