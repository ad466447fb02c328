"""The whole service beside the reference PDS and PLC directory: whatever happens there, the index comes to equal the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chalicelib.atproto.events import AccountEvent, CommitEvent, IdentityEvent, SyncEvent, decode_frame
from chalicelib.atproto.syntax import parse_did, parse_origin
from chalicelib.crawl import host_job
from chalicelib.index.tables import HostRow
from tests.reference.reference_network import Account, ReferenceNetwork
from tests.service import Service, eventually

pytestmark = pytest.mark.reference

CAPTAIN = "io.atcr.hold.captain"
LAYER = "io.atcr.hold.layer"
MANIFEST = "io.atcr.manifest"
PROFILE = "io.atcr.sailor.profile"
TAG = "io.atcr.tag"
COLLECTIONS = (CAPTAIN, LAYER, MANIFEST, PROFILE, TAG)
POST = "app.bsky.feed.post"


@pytest.fixture
def pds(reference_network: ReferenceNetwork) -> ReferenceNetwork:
    """The reference network with a PDS that is as new, so that the truth is what the test made."""
    reference_network.clear()
    return reference_network


@pytest.fixture
def service(start_service: Callable[..., Service], pds: ReferenceNetwork) -> Service:
    """The service with a subscriber; it knows no host yet."""
    made = start_service(PLC_URL=pds.plc_url)
    made.follow()
    return made


# What the PDS has, and what the service has of it


@dataclass(frozen=True)
class Content:
    """What there is of the wanted collections: the DIDs of each, and the records by path of each of these DIDs."""

    listings: dict[str, set[str]]
    records: dict[str, dict[str, Any]]


def truth(pds: ReferenceNetwork) -> Content:
    listings = {collection: pds.dids_with(collection) for collection in COLLECTIONS}
    return Content(
        listings,
        {
            did: {path: record.value for path, record in pds.records(did).items() if path.startswith("io.atcr.")}
            for did in set().union(*listings.values())
        },
    )


def index(service: Service) -> Content:
    listings = {collection: set(service.listing(collection)) for collection in COLLECTIONS}
    return Content(
        listings,
        {
            did: {path: value for path, (_, value) in service.records(did).items()}
            for did in set().union(*listings.values())
        },
    )


def index_becomes_the_truth(service: Service, pds: ReferenceNetwork) -> None:
    """Wait until the stream was read, nothing is left to do, and the index is what the PDS has, to the values of records."""
    expected, newest = truth(pds), pds.latest_seq()

    def has_come_about() -> bool:
        cursor = host(service, pds).cursor  # none: nothing came over the stream yet, and maybe nothing will
        return (cursor is None or cursor >= newest) and service.is_idle() and index(service) == expected

    eventually(has_come_about, lambda: (index(service), expected))


def host(service: Service, pds: ReferenceNetwork) -> HostRow:
    row = service.context.hosts.load(parse_origin(pds.pds_host, allow_private=True))
    assert row is not None
    return row


def follow(service: Service, pds: ReferenceNetwork, *accounts: Account) -> None:
    """Ask for a crawl; wait until the PDS was crawled behind its open stream, and these accounts' repos are followed."""
    assert service.request_crawl(pds.pds_host) == (200, "")
    eventually(lambda: (row := host(service, pds)).crawled_epoch == row.epoch == 1 and service.is_idle())
    eventually(lambda: all(service.follows(account.did) for account in accounts))


def requests(service: Service, account: Account) -> int:
    """How often it was asked that a job look at the repo: as long as this stays, the stream alone wrote the index."""
    return int(service.row(account.did).asked)


def streamed(service: Service, pds: ReferenceNetwork) -> None:
    """Wait until the stream was read, with effect, to its newest event."""
    newest = pds.latest_seq()
    eventually(lambda: (host(service, pds).cursor or 0) >= newest)


def seq_of(frame: bytes) -> int:
    event = decode_frame(frame)
    assert isinstance(event, CommitEvent | SyncEvent | IdentityEvent | AccountEvent)
    return event.seq


# Backfill


@pytest.mark.parametrize("in_place", [host_job.IN_PLACE, 0], ids=["few", "many"])
def test_what_was_written_before_the_request_is_backfilled(
    service: Service, pds: ReferenceNetwork, monkeypatch: pytest.MonkeyPatch, in_place: int
) -> None:
    monkeypatch.setattr(host_job, "IN_PLACE", in_place)
    hold, sailor, without, other = (pds.create_account() for _ in range(4))
    pds.put_record(hold, CAPTAIN, "self", {"owner": sailor.did, "public": True})
    pds.import_records(hold, LAYER, ({"size": size} for size in range(30)))
    pds.put_record(sailor, PROFILE, "self", {"defaultHold": hold.did})
    pds.put_record(sailor, MANIFEST, "latest", {"layers": [{"size": 2**40}], "note": "Größe ✓ \U0001f6a2"})
    for account in (sailor, other):
        pds.import_records(account, POST, ({"text": str(number)} for number in range(5)))
    pds.delete_record(sailor, MANIFEST, "none")
    pds.put_record(sailor, TAG, "gone")
    pds.delete_record(sailor, TAG, "gone")
    follow(service, pds)
    index_becomes_the_truth(service, pds)
    assert set(service.listing(*COLLECTIONS)) == {hold.did, sailor.did}
    assert service.records(without.did) == service.records(other.did) == {}


def test_accounts_that_are_not_active_are_not_backfilled(service: Service, pds: ReferenceNetwork) -> None:
    accounts = [pds.create_account() for _ in range(4)]
    for account in accounts:
        pds.put_record(account, MANIFEST, "latest")
    active, deactivated, taken_down, deleted = accounts
    pds.deactivate_account(deactivated)
    pds.take_down_account(taken_down)
    pds.delete_account(deleted)
    follow(service, pds, active)
    index_becomes_the_truth(service, pds)
    assert service.listing(MANIFEST) == [active.did]
    pds.activate_account(deactivated)
    pds.restore_account(taken_down)
    index_becomes_the_truth(service, pds)
    assert set(service.listing(MANIFEST)) == {active.did, deactivated.did, taken_down.did}


def test_what_another_host_showed_of_a_repo_does_not_hide_it(service: Service, pds: ReferenceNetwork) -> None:
    sailor = pds.create_account()
    pds.put_record(sailor, MANIFEST, "latest")
    rev = pds.repos()[sailor.did]["rev"]
    service.context.writer.out_of_scope(parse_did(sailor.did), host="http://localhost:1", rev=rev, epoch=1)
    follow(service, pds, sailor)
    index_becomes_the_truth(service, pds)
    assert service.listing(MANIFEST) == [sailor.did]


def test_a_small_pds_that_announces_itself_again_has_each_repo_looked_at(
    service: Service, pds: ReferenceNetwork
) -> None:
    sailor = pds.create_account()
    pds.put_record(sailor, MANIFEST, "latest")
    follow(service, pds, sailor)
    before = requests(service, sailor)
    service.request_crawl(pds.pds_host)
    eventually(lambda: requests(service, sailor) > before)
    index_becomes_the_truth(service, pds)


# The stream


def test_records_put_updated_and_deleted_are_followed_by_the_stream_alone(
    service: Service, pds: ReferenceNetwork
) -> None:
    sailor = pds.create_account()
    pds.put_record(sailor, MANIFEST, "latest", {"digest": "sha256:00"})
    follow(service, pds, sailor)
    before = requests(service, sailor)
    pds.put_record(sailor, MANIFEST, "next", {"digest": "sha256:01"})
    index_becomes_the_truth(service, pds)
    pds.put_record(sailor, MANIFEST, "latest", {"digest": "sha256:02"})
    index_becomes_the_truth(service, pds)
    pds.delete_record(sailor, MANIFEST, "next")
    pds.import_records(sailor, LAYER, ({"size": size} for size in range(60)))
    index_becomes_the_truth(service, pds)
    assert service.outcomes()["applied"] == 4
    assert requests(service, sailor) == before


def test_records_of_other_collections_are_followed_and_not_indexed(service: Service, pds: ReferenceNetwork) -> None:
    sailor = pds.create_account()
    pds.put_record(sailor, MANIFEST, "latest")
    follow(service, pds, sailor)
    before = requests(service, sailor)
    pds.import_records(sailor, POST, ({"text": str(number)} for number in range(20)), in_a_commit=2)
    pds.put_record(sailor, TAG, "latest")
    index_becomes_the_truth(service, pds)
    assert service.outcomes()["followed"] == 10
    assert requests(service, sailor) == before


def test_the_last_record_of_a_collection_takes_the_account_out_of_its_listing_alone(
    service: Service, pds: ReferenceNetwork
) -> None:
    first, second = (pds.create_account() for _ in range(2))
    for account in (first, second):
        pds.put_record(account, MANIFEST, "latest")
        pds.put_record(account, TAG, "latest")
    follow(service, pds, first, second)
    before = requests(service, first)
    pds.delete_record(first, TAG, "latest")
    index_becomes_the_truth(service, pds)
    assert service.listing(TAG) == [second.did]
    pds.put_record(first, TAG, "latest")
    index_becomes_the_truth(service, pds)
    assert service.listing(TAG) == [second.did, first.did]
    pds.delete_record(first, TAG, "latest")
    pds.delete_record(first, MANIFEST, "latest")
    index_becomes_the_truth(service, pds)
    assert service.records(first.did) == {}
    assert requests(service, first) == before


def test_an_account_of_later_is_found_when_it_writes_its_first_record(service: Service, pds: ReferenceNetwork) -> None:
    follow(service, pds)
    sailor = pds.create_account()
    pds.put_record(sailor, POST, "one")
    streamed(service, pds)
    index_becomes_the_truth(service, pds)
    assert service.listing(*COLLECTIONS) == []
    pds.put_record(sailor, MANIFEST, "latest")
    index_becomes_the_truth(service, pds)
    assert service.listing(MANIFEST) == [sailor.did]
    eventually(lambda: service.follows(sailor.did))
    before = requests(service, sailor)
    pds.put_record(sailor, MANIFEST, "next")
    index_becomes_the_truth(service, pds)
    assert requests(service, sailor) == before


def test_a_big_import_is_indexed_whole(service: Service, pds: ReferenceNetwork) -> None:
    hold = pds.create_account()
    pds.put_record(hold, CAPTAIN, "self")
    follow(service, pds, hold)
    pds.import_records(hold, LAYER, ({"size": size} for size in range(600)))
    index_becomes_the_truth(service, pds)
    assert len(service.records(hold.did)) == 601
    before = requests(service, hold)
    pds.put_record(hold, CAPTAIN, "self", {"public": True})
    index_becomes_the_truth(service, pds)
    assert requests(service, hold) == before


# Accounts


def test_a_deactivated_account_is_not_listed_until_it_is_activated(service: Service, pds: ReferenceNetwork) -> None:
    sailor, other = (pds.create_account() for _ in range(2))
    for account in (sailor, other):
        pds.put_record(account, MANIFEST, "latest")
    follow(service, pds, sailor, other)
    pds.deactivate_account(sailor)
    index_becomes_the_truth(service, pds)
    assert service.listing(MANIFEST) == [other.did]
    assert service.row(sailor.did).status == "deactivated"
    pds.activate_account(sailor)
    index_becomes_the_truth(service, pds)
    pds.put_record(sailor, MANIFEST, "next")
    index_becomes_the_truth(service, pds)
    assert service.listing(MANIFEST) == [other.did, sailor.did]


def test_an_account_that_was_taken_down_is_not_listed_until_it_is_restored(
    service: Service, pds: ReferenceNetwork
) -> None:
    sailor, other = (pds.create_account() for _ in range(2))
    for account in (sailor, other):
        pds.put_record(account, MANIFEST, "latest")
    follow(service, pds, sailor, other)
    pds.take_down_account(sailor)
    index_becomes_the_truth(service, pds)
    assert service.listing(MANIFEST) == [other.did]
    assert service.row(sailor.did).status == "takendown"
    pds.restore_account(sailor)
    index_becomes_the_truth(service, pds)
    pds.put_record(sailor, MANIFEST, "next")
    index_becomes_the_truth(service, pds)
    assert service.listing(MANIFEST) == [other.did, sailor.did]


def test_a_deleted_account_leaves_nothing(service: Service, pds: ReferenceNetwork) -> None:
    sailor, other = (pds.create_account() for _ in range(2))
    for account in (sailor, other):
        pds.put_record(account, MANIFEST, "latest")
        pds.put_record(account, TAG, "latest")
    follow(service, pds, sailor, other)
    pds.delete_account(sailor)
    index_becomes_the_truth(service, pds)
    assert service.listing(*COLLECTIONS) == [other.did]
    assert service.records(sailor.did) == {}


def test_a_new_handle_changes_nothing(service: Service, pds: ReferenceNetwork) -> None:
    sailor = pds.create_account()
    pds.put_record(sailor, MANIFEST, "latest")
    follow(service, pds, sailor)

    def rows() -> Any:
        records = service.context.tables.records.query(sailor.did, consistent_read=True)
        return service.row(sailor.did).listed, [record.attribute_values for record in records]

    before = rows()
    pds.change_handle(sailor, f"renamed-{sailor.handle.removesuffix('.test')}")
    streamed(service, pds)
    index_becomes_the_truth(service, pds)
    assert rows() == before
    asked = requests(service, sailor)
    pds.put_record(sailor, MANIFEST, "next")
    index_becomes_the_truth(service, pds)
    assert requests(service, sailor) == asked


def test_a_new_signing_key_is_taken_from_the_directory(service: Service, pds: ReferenceNetwork) -> None:
    sailor = pds.create_account()
    pds.put_record(sailor, MANIFEST, "latest")
    follow(service, pds, sailor)
    pds.rotate_key(sailor)
    pds.put_record(sailor, MANIFEST, "latest", {"digest": "sha256:01"})
    index_becomes_the_truth(service, pds)
    streamed(service, pds)
    before = requests(service, sailor)
    pds.delete_record(sailor, MANIFEST, "latest")
    pds.put_record(sailor, TAG, "latest")
    index_becomes_the_truth(service, pds)
    assert requests(service, sailor) == before


# Breaks


def test_a_stream_goes_on_where_it_was_after_the_port_was_dead_for_a_while(
    service: Service, pds: ReferenceNetwork
) -> None:
    sailor, later = (pds.create_account() for _ in range(2))
    pds.put_record(sailor, MANIFEST, "one")
    follow(service, pds, sailor)
    before = requests(service, sailor)
    pds.put_record(sailor, MANIFEST, "two")
    streamed(service, pds)
    pds.put_record(sailor, MANIFEST, "three")  # maybe told before the stop, and maybe after
    with pds.pds_stopped():
        eventually(lambda: "Unreachable" in (host(service, pds).stream_error or ""))
        assert service.listing(MANIFEST) == [sailor.did]
    pds.delete_record(sailor, MANIFEST, "one")
    pds.put_record(later, MANIFEST, "one")
    index_becomes_the_truth(service, pds)
    pds.put_record(sailor, MANIFEST, "four")
    index_becomes_the_truth(service, pds)
    assert host(service, pds).epoch == 1
    assert requests(service, sailor) == before


def test_what_happened_while_nobody_followed_is_had_from_the_stream(service: Service, pds: ReferenceNetwork) -> None:
    sailor, leaving, deleted = accounts = [pds.create_account() for _ in range(3)]
    for account in accounts:
        pds.put_record(account, MANIFEST, "one")
    follow(service, pds, *accounts)
    pds.put_record(sailor, MANIFEST, "two")
    index_becomes_the_truth(service, pds)
    service.unfollow()
    before = requests(service, sailor)
    pds.delete_record(sailor, MANIFEST, "one")
    pds.deactivate_account(leaving)
    pds.delete_account(deleted)
    pds.put_record(pds.create_account(), MANIFEST, "three")
    service.follow()
    index_becomes_the_truth(service, pds)
    assert host(service, pds).epoch == 1
    assert requests(service, sailor) == before


def test_what_happened_between_two_streams_without_a_cursor_is_crawled(service: Service, pds: ReferenceNetwork) -> None:
    sailor, leaving, deleted, erased = accounts = [pds.create_account() for _ in range(4)]
    for account in accounts:
        pds.put_record(account, MANIFEST, "one")
    follow(service, pds, *accounts)
    assert host(service, pds).cursor is None
    service.unfollow()
    with pds.frames(cursor=None) as frames:
        pds.delete_record(sailor, MANIFEST, "one")
        pds.deactivate_account(leaving)
        pds.delete_account(deleted)
        pds.delete_account(erased)
        pds.tombstone(erased)
        pds.put_record(pds.create_account(), MANIFEST, "two")
        newest = pds.latest_seq()
        while seq_of(next(frames)) < newest:
            pass  # once it was told to one at the tip, nobody who comes to the tip later is told
    service.follow()
    index_becomes_the_truth(service, pds)
    assert host(service, pds).epoch == 2


def test_a_pds_that_was_put_back_from_a_backup_is_crawled_and_followed_again(
    service: Service, pds: ReferenceNetwork, tmp_path: Path
) -> None:
    sailor, idle = accounts = [pds.create_account() for _ in range(2)]
    for account in accounts:
        pds.put_record(account, MANIFEST, "old")
    pds.backup(tmp_path / "backup")
    follow(service, pds, *accounts)
    pds.put_record(sailor, MANIFEST, "new")
    pds.put_record(sailor, TAG, "new")
    lost = pds.create_account()
    pds.put_record(lost, MANIFEST, "new")
    index_becomes_the_truth(service, pds)
    streamed(service, pds)
    pds.put_back(tmp_path / "backup")
    eventually(lambda: (row := host(service, pds)).crawled_epoch == row.epoch == 2)
    # What is indexed of a repo whose rev went back stays until its rev is higher again: the older one could be a replay.
    pds.put_record(sailor, MANIFEST, "after")
    index_becomes_the_truth(service, pds)
    assert service.records(lost.did) == {}
    pds.put_record(idle, TAG, "after")
    index_becomes_the_truth(service, pds)
