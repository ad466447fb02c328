"""The writer: a change takes effect whole, on the row that it was decided on, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from chalicelib import telemetry
from chalicelib.atproto.syntax import Did
from chalicelib.index import writer as writing
from chalicelib.index.errors import JobLost, Superseded, TooLarge
from tests.index.world import CAPTAIN, DID, HOST, World


@pytest.fixture
def world(stack_env) -> World:
    return World(stack_env)


@pytest.fixture
def worlds(stack_env) -> Callable[[int], World]:
    return lambda number: World(stack_env, Did(f"did:plc:{number:024d}".replace("0", "a").replace("1", "b")))


def test_a_snapshot_lands_with_records_and_listings(world: World) -> None:
    world.put(f"{CAPTAIN}/self", "io.atcr.hold.crew/one", "io.atcr.hold.crew/two")
    world.crawl()
    assert set(world.records()) == {f"{CAPTAIN}/self", "io.atcr.hold.crew/one", "io.atcr.hold.crew/two"}
    assert world.listing() == world.listing("io.atcr.hold.crew") == (DID,)
    row = world.row
    assert row.collections == {CAPTAIN: 1, "io.atcr.hold.crew": 2}
    assert (row.sync, row.host, row.scope_host, row.job, row.due_at) == ("synced", HOST, HOST, None, None)
    assert row.rev == world.repo.rev


def test_a_snapshot_without_anything_wanted_takes_the_repo_out_of_scope(world: World) -> None:
    world.put(f"{CAPTAIN}/self")
    world.crawl()
    world.delete(f"{CAPTAIN}/self")
    world.crawl()
    assert (world.listing(), world.records()) == ((), {})
    assert (world.row.scope_host, world.row.probed_epoch) == (None, 1)


@pytest.mark.parametrize("count", [writing.MAX_CHANGES, writing.MAX_CHANGES + 1, 300])
def test_a_snapshot_of_any_size_lands_whole(world: World, count: int) -> None:
    paths = [f"io.atcr.hold.layer/{number:05d}" for number in range(count)]
    world.put(*paths)
    world.crawl()
    assert sorted(world.records()) == paths
    assert world.row.collections == {"io.atcr.hold.layer": count}
    world.delete(*paths[1::2])
    world.put(*paths[:10], number=7)
    world.crawl()
    assert sorted(world.records()) == sorted(set(paths[::2]) | set(paths[:10]))
    assert {world.records()[path] for path in paths[:10]} == {7}


def test_more_collections_than_a_transaction_holds_are_listed_all_the_same(world: World) -> None:
    collections = [f"io.atcr.c{chr(97 + number)}" for number in range(25)]
    world.put(*(f"{name}/x" for name in collections))
    world.crawl()
    assert all(world.listing(name) == (DID,) for name in collections)
    job = world.writer.claim(DID, ask=True)
    world.writer.land_status(job, active=False, status="suspended")
    assert all(world.listing(name) == () for name in collections)
    assert world.row.due_at is None


def test_two_jobs_cannot_have_one_repo(world: World) -> None:
    first = world.writer.claim(DID, ask=True)
    assert first is not None
    assert world.writer.claim(DID, ask=True) is None
    assert world.row.asked == 2  # the second request is not forgotten
    world.put(f"{CAPTAIN}/self")
    with world.snapshot() as snapshot:
        world.writer.land(first, snapshot, host=HOST, epoch=1)
    assert world.row.due_at is not None
    assert world.writer.claim(DID) is not None


def test_nothing_asked_means_nothing_to_claim(world: World) -> None:
    assert world.writer.claim(DID) is None
    assert world.row is None
    world.put(f"{CAPTAIN}/self")
    world.crawl()
    assert world.writer.claim(DID) is None


def test_a_job_that_slept_past_its_lease_writes_nothing_when_it_wakes(world: World) -> None:
    paths = [f"io.atcr.hold.layer/{number:05d}" for number in range(200)]
    world.put(*paths)
    late = world.writer.claim(DID, ask=True)
    old = world.snapshot()
    world.clock.now += 120_000
    assert world.writer.postpone(DID)
    world.delete(*paths[:150])
    world.put(f"{CAPTAIN}/self")
    world.crawl()
    for attempt in (
        lambda: world.writer.land(late, old, host=HOST, epoch=1),
        lambda: world.writer.land_status(late, active=False, status="takendown"),
        lambda: world.writer.fail(late, "x"),
        lambda: world.writer.release(late),
        lambda: world.writer.renew(late),
        lambda: world.writer.refuse(late, "x"),
    ):
        with pytest.raises(JobLost):
            attempt()
    assert sorted(world.records()) == sorted([*paths[150:], f"{CAPTAIN}/self"])


def test_a_job_that_loses_its_token_between_two_batches_stops_there(world: World) -> None:
    paths = [f"io.atcr.hold.layer/{number:05d}" for number in range(400)]
    world.put(*paths)
    job = world.writer.claim(DID, ask=True)
    calls = 0

    def steal(changed: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            world.clock.now += 120_000
            world.writer.postpone(DID)
            assert world.writer.claim(DID) is not None

    with world.snapshot() as snapshot, pytest.raises(JobLost):
        world.writer.land(job, snapshot, host=HOST, epoch=1, keep_on=steal)
    assert len(world.records()) == writing.MAX_CHANGES
    assert world.row.sync == "desynchronized"  # what is stored is no state that ever was
    world.clock.now += 120_000
    world.writer.postpone(DID)
    world.crawl()
    assert sorted(world.records()) == paths


def test_a_job_that_stops_half_way_is_gone_on_with(world: World) -> None:
    class Enough(Exception):
        pass

    def stop(changed: int) -> None:
        if len(world.records()) >= 2 * writing.MAX_CHANGES:
            raise Enough

    paths = [f"io.atcr.hold.layer/{number:05d}" for number in range(400)]
    world.put(*paths)
    job = world.writer.claim(DID, ask=True)
    with world.snapshot() as snapshot:
        with pytest.raises(Enough):
            world.writer.land(job, snapshot, host=HOST, epoch=1, keep_on=stop)
        world.writer.release(job)
        written = len(world.records())
        assert 0 < written < 400
        again = world.writer.claim(DID)
        batches = []
        world.writer.land(again, snapshot, host=HOST, epoch=1, keep_on=batches.append)
    assert len(batches) == (400 - written - 1) // writing.MAX_CHANGES  # only what was left
    assert sorted(world.records()) == paths


def test_an_older_snapshot_changes_nothing_and_leaves_the_repo_desynchronized(world: World) -> None:
    old = world.snapshot()
    world.put(f"{CAPTAIN}/self")
    world.crawl()
    before = world.row
    job = world.writer.claim(DID, ask=True)
    world.writer.land(job, old, host=HOST, epoch=1)
    after = world.row
    assert world.listing() == (DID,)
    assert (after.rev, after.data, after.sync, after.reason) == (
        before.rev,
        before.data,
        "desynchronized",
        "rev-went-back",
    )
    assert after.due_at is None  # until somebody asks: whatever comes next is a resync


def test_a_commit_applies_its_records_and_listings_at_once(world: World) -> None:
    world.crawl()
    row = world.writer.apply(world.row, world.verified(world.put(f"{CAPTAIN}/self", "io.atcr.hold.crew/a")))
    assert (world.listing(), world.listing("io.atcr.hold.crew")) == ((DID,), (DID,))
    row = world.writer.apply(row, world.verified(world.put(f"{CAPTAIN}/self", number=3)))
    assert world.records() == {f"{CAPTAIN}/self": 3, "io.atcr.hold.crew/a": 0}
    row = world.writer.apply(row, world.verified(world.delete(f"{CAPTAIN}/self")))
    assert (world.listing(), world.listing("io.atcr.hold.crew")) == ((), (DID,))
    assert row.collections == {"io.atcr.hold.crew": 1}
    assert row.rev == world.repo.rev


def test_a_commit_that_was_checked_before_a_snapshot_landed_does_not_apply_after_it(world: World) -> None:
    world.put(f"{CAPTAIN}/self")
    world.crawl()
    row = world.row
    commit = world.verified(world.put(f"{CAPTAIN}/self", number=1))
    world.delete(f"{CAPTAIN}/self")
    world.crawl()
    with pytest.raises(Superseded):
        world.writer.apply(row, commit)
    assert (world.listing(), world.records()) == ((), {})


def test_a_commit_does_not_apply_while_a_job_has_the_repo(world: World) -> None:
    world.crawl()
    row = world.row
    assert world.writer.claim(DID, ask=True) is not None
    with pytest.raises(Superseded):
        world.writer.apply(row, world.verified(world.put(f"{CAPTAIN}/self")))
    assert world.records() == {}


def test_a_replayed_commit_is_superseded(world: World) -> None:
    world.crawl()
    row = world.row
    commit = world.verified(world.put(f"{CAPTAIN}/self"))
    world.writer.apply(row, commit)
    with pytest.raises(Superseded):
        world.writer.apply(row, commit)
    assert world.row.collections == {CAPTAIN: 1}


@pytest.mark.parametrize(("count", "fits"), [(writing.MAX_CHANGES, True), (writing.MAX_CHANGES + 1, False)])
def test_a_commit_is_one_transaction_or_refused(world: World, count: int, fits: bool) -> None:
    world.crawl()
    commit = world.verified(world.put(*(f"io.atcr.hold.layer/{number:05d}" for number in range(count))))
    if fits:
        world.writer.apply(world.row, commit)
        assert len(world.records()) == count
    else:
        with pytest.raises(TooLarge):
            world.writer.apply(world.row, commit)
        assert world.records() == {}


def test_who_is_listed_later_sorts_later_even_if_the_clock_goes_back(worlds) -> None:
    first, second = worlds(0), worlds(1)
    for world in (first, second):
        world.put(f"{CAPTAIN}/self")
    first.crawl()
    second.clock.now -= 3600_000
    second.crawl()
    assert first.listing() == (first.did, second.did)
    first.delete(f"{CAPTAIN}/self")
    first.clock.now -= 7200_000
    first.crawl()
    assert first.listing() == (second.did,)
    first.put(f"{CAPTAIN}/self")
    first.crawl()
    assert first.listing() == (second.did, first.did)


def test_status_takes_a_repo_out_of_the_listing_and_brings_it_back(world: World) -> None:
    world.put(f"{CAPTAIN}/self")
    world.crawl()
    for status, stays in (("deactivated", False), ("suspended", False), ("takendown", False), ("throttled", True),
                          ("desynchronized", True), ("something-new", False)):  # fmt: skip
        world.writer.land_status(world.writer.claim(DID, ask=True), active=False, status=status)
        assert world.listing() == ((DID,) if stays else ())
        assert world.records() != {}
        world.writer.land_status(world.writer.claim(DID, ask=True), active=True, status=None)
        assert world.listing() == (DID,)


def test_a_deleted_account_loses_its_records(world: World) -> None:
    world.put(f"{CAPTAIN}/self", *(f"io.atcr.hold.layer/{number:05d}" for number in range(200)))
    world.crawl()
    world.writer.land_status(world.writer.claim(DID, ask=True), active=False, status="deleted")
    assert (world.listing(), world.records(), world.row.collections) == ((), {}, {})
    world.crawl()  # it is there again, at the same rev
    assert world.listing() == (DID,)
    assert len(world.records()) == 201


def test_a_failure_keeps_what_is_known_and_backs_off(world: World) -> None:
    world.put(f"{CAPTAIN}/self")
    world.crawl()
    waits = []
    for _ in range(12):
        world.writer.fail(world.writer.claim(DID, ask=True), "Unreachable: no answer")
        row = world.row
        waits.append(row.due_at - world.clock.now)
        assert row.last_error == "Unreachable: no answer"
        assert not world.writer.postpone(DID)
        world.clock.now = int(row.due_at)
        assert world.writer.postpone(DID)
    assert waits[0] <= 5_000
    assert max(waits) <= 6 * 3600_000
    assert world.listing() == (DID,)
    world.crawl()
    assert (world.row.failures, world.row.last_error, world.row.due_at) == (0, None, None)


def test_asking_tells_once_until_it_is_answered(world: World) -> None:
    assert world.writer.ask(DID)
    assert not world.writer.ask(DID)  # a message is on its way
    world.clock.now += 20_000
    assert world.writer.ask(DID)
    world.crawl()
    assert world.row.due_at is None
    assert not world.writer.ask(Did("did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"), create=False)
    assert world.writer.load(Did("did:plc:bbbbbbbbbbbbbbbbbbbbbbbb")) is None


def test_an_unchanged_repo_is_landed_without_touching_its_records(world: World) -> None:
    world.put(f"{CAPTAIN}/self")
    world.crawl()
    [before] = world.tables.records.query(DID)
    world.clock.now += 1000
    world.crawl()
    [after] = world.tables.records.query(DID)
    assert after.indexed_at == before.indexed_at


def test_a_probed_repo_is_remembered_once_and_gives_way_to_what_was_asked(world: World) -> None:
    world.writer.out_of_scope(DID, host=HOST, rev="3jzfcijpj2z2a", epoch=1)
    version = world.row.version
    world.writer.out_of_scope(DID, host=HOST, rev="3jzfcijpj2z2a", epoch=1)
    assert world.row.version == version
    world.put(f"{CAPTAIN}/self")
    world.crawl()
    world.writer.out_of_scope(DID, host=HOST, rev="3zzzzzzzzzzzz", epoch=1)
    assert world.row.rev == world.repo.rev  # an unverified probe says nothing about a repo in scope


def test_the_rev_of_a_probe_is_not_believed(world: World) -> None:
    world.writer.out_of_scope(DID, host=HOST, rev="7zzzzzzzzzzzz", epoch=1)
    world.put(f"{CAPTAIN}/self")
    world.crawl()
    assert world.listing() == (DID,)


def test_a_repo_that_was_new_a_moment_ago_and_has_a_row_by_now_keeps_it(world: World) -> None:
    world.put(f"{CAPTAIN}/self")
    world.crawl()
    world.writer.out_of_scope(DID, host=HOST, rev="7zzzzzzzzzzzz", epoch=1, is_new=True)
    assert world.row.collections
    assert world.row.rev == world.repo.rev


def test_a_value_over_the_item_limit_is_kept_without_its_value(world: World) -> None:
    big = {"$type": CAPTAIN, "text": "x" * writing.MAX_VALUE_BYTES}
    world.repo.apply([world.repo.put(f"{CAPTAIN}/self", big)])
    world.crawl()
    [row] = world.tables.records.query(DID)
    assert row.value is None
    assert "bytes" in row.problem
    assert world.listing() == (DID,)


def test_a_did_too_long_for_a_key_is_refused(world: World) -> None:
    with pytest.raises(TooLarge):
        world.writer.ask(Did("did:web:" + "a" * writing.MAX_DID_BYTES))


def test_both_spellings_of_a_did_are_one_row_and_the_signed_one_is_shown(stack_env) -> None:
    world = World(stack_env, Did("did:web:localhost%3A8080"))
    world.put(f"{CAPTAIN}/self")
    world.writer.ask(Did("did:web:localhost:8080"))
    world.crawl()
    assert world.listing() == ("did:web:localhost%3A8080",)


def test_an_audit_finds_and_mends_what_was_damaged_by_hand(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.put(f"{CAPTAIN}/self", *(f"io.atcr.hold.crew/{number}" for number in range(5)))
    world.crawl()
    truth = world.records()

    def audit() -> int:
        telemetry.configure("json")
        job = world.writer.claim(DID, ask=True, audit=True)
        with world.snapshot() as snapshot:
            world.writer.land(job, snapshot, host=HOST, epoch=1)
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        [drift] = [line["drift"] for line in lines if line["event"] == "audited"]
        assert (world.records(), world.listing(), world.listing("io.atcr.hold.crew")) == (truth, (DID,), (DID,))
        return drift

    assert audit() == 0
    world.tables.records(DID, "io.atcr.hold.crew/1").delete()
    assert audit() == 1
    world.tables.records(DID, "io.atcr.hold.crew/9", cid="x", rev="x", indexed_at=1).save()
    assert audit() == 1
    for row in world.tables.records.query(DID, world.tables.records.path == "io.atcr.hold.crew/2"):
        row.value = '{"number":99}'
        row.save()
    assert audit() == 1
    for row in world.tables.listings.query(CAPTAIN):
        row.delete()
    assert audit() == 1
    row = world.row
    row.collections = {CAPTAIN: 4}
    row.save()
    assert audit() == 1
    assert world.row.collections == {CAPTAIN: 1, "io.atcr.hold.crew": 5}
    assert audit() == 0


@pytest.mark.parametrize("asked", [{"claim": "deleted"}, {"refresh": True}, {"audit": True}])
def test_what_is_asked_for_during_a_job_is_for_the_next_one(world: World, asked: dict) -> None:
    world.put(f"{CAPTAIN}/self")
    world.crawl()
    job = world.writer.claim(world.did, ask=True)
    world.writer.ask(world.did, **asked)
    with world.snapshot() as snapshot:
        world.writer.land(job, snapshot, host=HOST, epoch=1)
    row = world.row
    assert row.due_at is not None
    assert (row.claim, bool(row.resolve_again), bool(row.audit)) == (
        asked.get("claim"),
        asked.get("refresh", False),
        asked.get("audit", False),
    )
    job = world.writer.claim(world.did)
    world.writer.land_status(job, active=True, status=None, host=HOST)
    row = world.row
    assert (row.claim, row.resolve_again, row.audit, row.due_at) == (None, None, None, None)


def test_a_document_that_could_not_be_fetched_again_remains_to_be_fetched(world: World) -> None:
    world.put(f"{CAPTAIN}/self")
    waits = []
    for _ in range(3):
        job = world.writer.claim(world.did, ask=True, refresh=True)
        with world.snapshot() as snapshot:
            world.writer.land(replace(job, unresolved=True), snapshot, host=HOST, epoch=1)
        row = world.row
        assert (world.listing(), row.sync, row.resolve_again) == ((DID,), "synced", True)
        waits.append(row.due_at - world.clock.now)
    assert 0 < waits[0] < waits[1] < waits[2]
    world.crawl()
    assert (world.row.resolve_again, world.row.due_at, world.row.failures) == (None, None, 0)


def test_a_status_is_that_of_the_host_that_was_asked(world: World) -> None:
    world.put(f"{CAPTAIN}/self")
    world.crawl()
    job = world.writer.claim(world.did, ask=True)
    world.writer.land_status(job, active=False, status="deactivated", host="other.example.com")
    assert (world.row.host, world.row.scope_host) == ("other.example.com", "other.example.com")
    assert world.listing() == ()
