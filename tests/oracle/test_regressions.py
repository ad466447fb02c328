"""Histories that once went wrong, each by its name, and the plain ones that must not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

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
