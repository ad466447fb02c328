"""The feeds of changes: who follows one knows, after each look, what is there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chalicelib.atproto.syntax import Did
from chalicelib.index import listings
from chalicelib.index import writer as writing
from chalicelib.index.state import feed_of
from chalicelib.settings import InvalidSetting, read
from tests.conftest import Stack
from tests.index.world import CAPTAIN, DID, HOST, World

CREW, LAYER = "io.atcr.hold.crew", "io.atcr.hold.layer"
FEEDS = {CAPTAIN, LAYER}


@pytest.fixture
def worlds(stack_env: Stack) -> Callable[[str], World]:
    return lambda letter: World(stack_env, Did(f"did:plc:{letter * 24}"), feeds=FEEDS)


@pytest.fixture
def world(worlds: Callable[[str], World]) -> World:
    return worlds("a")


def changed(world: World, collection: str = CAPTAIN, after: int = 0) -> tuple[str, ...]:
    entries, _ = world.reader.entries(feed_of(collection), limit=100, after=after)
    return tuple(entry.did for entry in entries)


def crawled(world: World, *paths: str, number: int = 0) -> int:
    """Put records, have them indexed, and tell where the feed is then."""
    world.put(*paths, number=number)
    world.crawl()
    return world.reader.head(CAPTAIN)


def test_a_feed_tells_who_came_changed_and_went_each_once_in_the_order_of_the_last_change(
    worlds: Callable[[str], World],
) -> None:
    first, second = worlds("a"), worlds("b")
    beginning = crawled(first, f"{CAPTAIN}/self")
    then = crawled(second, f"{CAPTAIN}/self")
    assert changed(first) == (first.did, second.did)
    assert changed(first, after=beginning) == (second.did,)
    assert changed(first, after=then) == ()
    now = crawled(first, f"{CAPTAIN}/self", number=2)
    assert changed(first, after=then) == (first.did,)
    second.delete(f"{CAPTAIN}/self")
    second.crawl()
    assert (second.listing(), changed(first, after=now)) == ((first.did,), (second.did,))
    assert changed(first) == (first.did, second.did)


def test_a_commit_moves_the_repo_to_the_end_of_the_feeds_that_it_concerns(world: World) -> None:
    now = crawled(world, f"{CAPTAIN}/self", f"{CREW}/a")
    applied = world.writer.apply(world.row, world.verified(world.put(f"{CREW}/b")))
    assert changed(world, after=now) == ()
    world.writer.apply(applied, world.verified(world.put(f"{CAPTAIN}/self", number=3)))
    assert changed(world, after=now) == (DID,)
    assert world.listing() == (DID,)


def test_what_changed_nothing_is_not_told(world: World) -> None:
    now = crawled(world, f"{CAPTAIN}/self")
    world.put("app.bsky.feed.post/x")
    world.crawl()
    world.crawl()
    assert changed(world, after=now) == ()


def test_a_repo_that_is_not_listed_is_told_of_when_it_leaves_and_when_it_is_back(world: World) -> None:
    now = crawled(world, f"{CAPTAIN}/self")
    world.writer.take_down(DID, "spam", at=1)
    (then,) = [world.reader.head(CAPTAIN)]
    assert changed(world, after=now) == (DID,)
    world.put(f"{CAPTAIN}/self", number=5)
    world.crawl()
    assert changed(world, after=then) == ()  # there is nothing of it to be seen
    world.writer.take_down(DID, None, at=2)
    assert changed(world, after=then) == (DID,)


def test_the_row_of_one_who_left_expires_and_that_of_one_who_is_back_does_not(world: World) -> None:
    crawled(world, f"{CAPTAIN}/self")

    def expires_at() -> float | None:
        (row,) = world.tables.listings.query(feed_of(CAPTAIN))
        return None if row.expires_at is None else float(row.expires_at)

    assert expires_at() is None
    world.writer.take_down(DID, "spam", at=1)
    assert expires_at() == world.clock.now // 1000 + listings.GONE_DAYS * 86_400
    world.writer.take_down(DID, None, at=2)
    assert expires_at() is None


def test_a_landing_that_broke_off_is_told_of_by_the_one_that_goes_on_with_it(world: World) -> None:
    class Enough(Exception):
        pass

    def stop(_: int) -> None:
        if len(world.records()) > writing.MAX_CHANGES:
            raise Enough

    paths = [f"{LAYER}/{number:05d}" for number in range(3 * writing.MAX_CHANGES)]
    now = crawled(world, f"{CAPTAIN}/self", *paths[:1])
    world.put(*paths, number=1)
    job = world.writer.claim(DID, ask=True)
    assert job is not None
    with world.snapshot() as snapshot, pytest.raises(Enough):
        world.writer.land(job, snapshot, host=HOST, epoch=1, keep_on=stop)
    assert world.row.half_landed
    assert changed(world, LAYER, after=now) == ()
    world.writer.release(job)
    # What the second job writes is of another collection: of the first one's records it sees no difference.
    for path in paths:
        if path not in world.records():
            world.delete(path)
    world.crawl()
    assert changed(world, LAYER, after=now) == (DID,)
    assert world.row.half_landed is None


def test_an_audit_puts_a_lost_row_of_a_feed_back(world: World) -> None:
    now = crawled(world, f"{CAPTAIN}/self")
    for row in world.tables.listings.query(feed_of(CAPTAIN)):
        row.delete()
    job = world.writer.claim(DID, ask=True, audit=True)
    assert job is not None
    with world.snapshot() as snapshot:
        world.writer.land(job, snapshot, host=HOST, epoch=1)
    assert (world.listing(), changed(world, after=now)) == ((DID,), (DID,))


def test_a_feed_and_a_transaction_fit_together(world: World) -> None:
    assert writing.MAX_CHANGES + 1 + listings.MAX_ITEMS == writing.MAX_ITEMS
    most = [f"io.atcr.c{letter}" for letter in "abcde"]
    assert read({"DISCOVERY_CHANGES": ",".join(most)}).changes == set(most)
    assert len(most) == listings.MAX_FEEDS
    with pytest.raises(InvalidSetting, match="5 collections at most"):
        read({"DISCOVERY_CHANGES": ",".join([*most, "io.atcr.cf"])})
    assert read({"DISCOVERY_CHANGES": "none"}).changes == frozenset()
