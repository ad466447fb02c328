"""What the reference PDS and PLC directory serve is read, and verified, by the protocol layer."""

from __future__ import annotations

from itertools import pairwise

import pytest

from chalicelib.atproto.cid import cid_to_text
from chalicelib.atproto.errors import BadSignature
from chalicelib.atproto.events import AccountEvent, CommitEvent, Event, IdentityEvent, SyncEvent, decode_frame
from chalicelib.atproto.identity import Identity, parse_did_document
from chalicelib.atproto.repo import SnapshotLimits, VerifiedCommit, read_snapshot, verify_commit
from chalicelib.atproto.scope import Scope
from chalicelib.atproto.syntax import parse_did
from tests.reference.reference_network import Account, ReferenceNetwork

pytestmark = pytest.mark.reference

MANIFEST = "io.atcr.manifest"
LAYER = "io.atcr.hold.layer"
POST = "com.example.post"
SCOPE = Scope.parse("io.atcr.*")


def test_the_document_of_the_directory_names_key_handle_and_pds(reference_network: ReferenceNetwork) -> None:
    account = reference_network.create_account()
    identity = identity_of(reference_network, account)
    assert identity.did == account.did
    assert identity.handle == account.handle
    assert identity.key is not None
    assert identity.pds is not None
    assert identity.pds.url == reference_network.pds_url


def test_a_snapshot_has_the_wanted_records_and_is_signed_by_the_documents_key(
    reference_network: ReferenceNetwork,
) -> None:
    account = reference_network.create_account()
    published = reference_network.import_records(account, LAYER, ({"size": size} for size in range(300)))
    published.append(reference_network.put_record(account, MANIFEST, "latest", {"digest": "sha256:00"}))
    reference_network.import_records(account, POST, ({"text": str(number)} for number in range(300)))
    with read_snapshot(
        [reference_network.repo_car(account.did)], did=parse_did(account.did), scope=SCOPE, limits=SnapshotLimits()
    ) as snapshot:
        key = identity_of(reference_network, account).key
        assert key is not None
        snapshot.commit.check_signature(key)
        assert snapshot.commit.rev == reference_network.repos()[account.did]["rev"]
        assert cid_to_text(snapshot.commit.cid) == reference_network.repos()[account.did]["head"]
        read = [(record.path, cid_to_text(record.cid), record.value) for record in snapshot.records()]
    assert read == sorted((record.path, record.cid, record.value) for record in published)


def test_a_snapshot_of_a_new_account_is_empty(reference_network: ReferenceNetwork) -> None:
    account = reference_network.create_account()
    with read_snapshot(
        [reference_network.repo_car(account.did)], did=parse_did(account.did), scope=SCOPE, limits=SnapshotLimits()
    ) as snapshot:
        assert list(snapshot.records()) == []


def test_each_commit_is_verified_by_inverting_it(reference_network: ReferenceNetwork) -> None:
    account = reference_network.create_account()
    before = reference_network.latest_seq()
    created = reference_network.put_record(account, MANIFEST, "latest", {"size": 1})
    updated = reference_network.put_record(account, MANIFEST, "latest", {"size": 2})
    reference_network.put_record(account, POST, "unwanted")
    reference_network.delete_record(account, MANIFEST, "latest")
    batch = reference_network.import_records(account, LAYER, ({"size": size} for size in range(200)))
    commits = [verified(reference_network, account, event) for event in events(reference_network, before, 5)]
    assert all(commit.inverted for commit in commits)
    assert [
        [(change.path, change.cid and cid_to_text(change.cid)) for change in commit.changes] for commit in commits[:4]
    ] == [
        [(created.path, created.cid)],
        [(updated.path, updated.cid)],
        [],
        [(created.path, None)],
    ]
    assert {change.path: change.record.value for change in commits[4].changes if change.record is not None} == {
        record.path: record.value for record in batch
    }


def test_each_commit_continues_the_one_before(reference_network: ReferenceNetwork) -> None:
    account = reference_network.create_account()
    before = reference_network.latest_seq()
    for number in range(20):
        reference_network.put_record(account, MANIFEST, str(number % 7), {"number": number})
    commits = [verified(reference_network, account, event) for event in events(reference_network, before, 20)]
    for earlier, later in pairwise(commits):
        assert (later.since, later.prev_data) == (earlier.rev, earlier.data)
        assert later.rev > earlier.rev
    assert commits[-1].rev == reference_network.repos()[account.did]["rev"]


def test_a_commit_is_refused_under_another_accounts_key(reference_network: ReferenceNetwork) -> None:
    account, other = reference_network.create_account(), reference_network.create_account()
    before = reference_network.latest_seq()
    reference_network.put_record(account, MANIFEST, "latest")
    [event] = events(reference_network, before, 1)
    assert isinstance(event, CommitEvent)
    key = identity_of(reference_network, other).key
    assert key is not None
    with pytest.raises(BadSignature):
        verify_commit(event, key, SCOPE)


def test_a_new_account_is_told_by_identity_account_commit_and_sync(reference_network: ReferenceNetwork) -> None:
    before = reference_network.latest_seq()
    account = reference_network.create_account()
    identity, active, commit, sync = events(reference_network, before, 4)
    assert isinstance(identity, IdentityEvent)
    assert isinstance(active, AccountEvent)
    assert isinstance(commit, CommitEvent)
    assert isinstance(sync, SyncEvent)
    assert {identity.did, active.did, commit.did, sync.did} == {account.did}
    assert (sync.rev, sync.seq) == (commit.rev, reference_network.latest_seq())


def test_the_first_commit_of_a_repo_has_nothing_to_be_inverted_to(reference_network: ReferenceNetwork) -> None:
    before = reference_network.latest_seq()
    account = reference_network.create_account()
    first = verified(reference_network, account, events(reference_network, before, 3)[2])
    assert (first.since, first.prev_data, first.inverted, first.changes) == (None, None, False, ())


def test_the_state_of_an_account_is_told_on_the_stream(reference_network: ReferenceNetwork) -> None:
    account = reference_network.create_account()
    before = reference_network.latest_seq()
    reference_network.deactivate_account(account)
    reference_network.activate_account(account)
    reference_network.take_down_account(account)
    reference_network.restore_account(account)
    told = events(reference_network, before, reference_network.latest_seq() - before)
    assert [(event.active, event.status) for event in told if isinstance(event, AccountEvent)] == [
        (False, "deactivated"),
        (True, None),
        (False, "takendown"),
        (True, None),
    ]


def test_of_a_deleted_account_only_the_deletion_is_left_on_the_stream(reference_network: ReferenceNetwork) -> None:
    before = reference_network.latest_seq()
    account = reference_network.create_account()
    reference_network.put_record(account, MANIFEST, "latest")
    reference_network.delete_account(account)
    [event] = events(reference_network, before, 1)
    assert isinstance(event, AccountEvent)
    assert (event.did, event.active, event.status) == (account.did, False, "deleted")
    assert event.seq == reference_network.latest_seq()


def events(network: ReferenceNetwork, cursor: int, count: int) -> list[Event]:
    """The next events after the cursor, which are there already."""
    with network.frames(cursor) as frames:
        return [decode_frame(next(frames)) for _ in range(count)]


def identity_of(network: ReferenceNetwork, account: Account) -> Identity:
    return parse_did_document(parse_did(account.did), network.did_document(account.did), allow_private=True)


def verified(network: ReferenceNetwork, account: Account, event: Event) -> VerifiedCommit:
    assert isinstance(event, CommitEvent)
    key = identity_of(network, account).key
    assert key is not None
    return verify_commit(event, key, SCOPE)
