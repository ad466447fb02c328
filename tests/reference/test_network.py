"""The harness itself: what the other tests take for granted about the reference PDS and PLC directory."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from tests.reference.reference_network import ReferenceNetwork, RefusedByPds

pytestmark = pytest.mark.reference

MANIFEST = "io.atcr.manifest"
LAYER = "io.atcr.hold.layer"


def test_a_new_account_is_listed_and_its_document_names_the_pds(reference_network: ReferenceNetwork) -> None:
    account = reference_network.create_account()
    assert reference_network.repos()[account.did]["active"] is True
    document = reference_network.did_document(account.did)
    assert document["alsoKnownAs"] == [f"at://{account.handle}"]
    assert [service["serviceEndpoint"] for service in document["service"]] == [reference_network.pds_url]


def test_the_truth_follows_a_record_through_its_life(reference_network: ReferenceNetwork) -> None:
    account = reference_network.create_account()
    created = reference_network.put_record(account, MANIFEST, "one", {"size": 1})
    assert reference_network.records(account.did) == {f"{MANIFEST}/one": created}
    assert account.did in reference_network.dids_with(MANIFEST)
    updated = reference_network.put_record(account, MANIFEST, "one", {"size": 2})
    assert updated.cid != created.cid
    assert reference_network.records(account.did) == {f"{MANIFEST}/one": updated}
    reference_network.delete_record(account, MANIFEST, "one")
    assert reference_network.records(account.did) == {}
    assert account.did not in reference_network.dids_with(MANIFEST)


def test_an_import_makes_a_commit_of_each_batch(reference_network: ReferenceNetwork) -> None:
    account = reference_network.create_account()
    before = reference_network.latest_seq()
    published = reference_network.import_records(account, LAYER, ({"size": size} for size in range(250)))
    assert reference_network.latest_seq() == before + 2
    assert reference_network.records(account.did) == {record.path: record for record in published}


def test_the_stream_sends_every_event_after_the_cursor(reference_network: ReferenceNetwork) -> None:
    account = reference_network.create_account()
    before = reference_network.latest_seq()
    for size in range(3):
        reference_network.put_record(account, MANIFEST, "one", {"size": size})
    assert reference_network.latest_seq() == before + 3
    with reference_network.frames(cursor=before) as frames:
        assert all(account.did.encode() in frame for frame in islice(frames, 3))


def test_a_deactivated_account_says_so_until_it_is_activated(reference_network: ReferenceNetwork) -> None:
    account = reference_network.create_account()
    reference_network.put_record(account, MANIFEST, "one")
    reference_network.deactivate_account(account)
    assert reference_network.repo_status(account.did) == {
        "did": account.did,
        "active": False,
        "status": "deactivated",
    }
    assert account.did not in reference_network.dids_with(MANIFEST)
    with pytest.raises(RefusedByPds) as refused:
        reference_network.repo_car(account.did)
    assert refused.value.name == "RepoDeactivated"
    reference_network.activate_account(account)
    assert reference_network.repo_status(account.did)["active"] is True
    assert account.did in reference_network.dids_with(MANIFEST)


def test_an_account_that_was_taken_down_says_so_until_it_is_restored(reference_network: ReferenceNetwork) -> None:
    account = reference_network.create_account()
    reference_network.take_down_account(account)
    assert reference_network.repo_status(account.did)["status"] == "takendown"
    reference_network.restore_account(account)
    assert reference_network.repo_status(account.did)["active"] is True
    reference_network.put_record(account, MANIFEST, "one")


def test_a_deleted_account_is_gone(reference_network: ReferenceNetwork) -> None:
    account = reference_network.create_account()
    reference_network.delete_account(account)
    assert account.did not in reference_network.repos()
    with pytest.raises(RefusedByPds) as refused:
        reference_network.repo_status(account.did)
    assert refused.value.name == "RepoNotFound"


def test_a_changed_handle_is_in_the_directory(reference_network: ReferenceNetwork) -> None:
    account = reference_network.create_account()
    renamed = reference_network.change_handle(account, f"new-{account.handle.removesuffix('.test')}")
    assert reference_network.did_document(account.did)["alsoKnownAs"] == [f"at://{renamed.handle}"]


def test_a_stopped_pds_refuses_and_comes_back_the_same(reference_network: ReferenceNetwork) -> None:
    account = reference_network.create_account()
    kept = reference_network.put_record(account, MANIFEST, "one")
    seq = reference_network.latest_seq()
    address = reference_network.pds_url
    with reference_network.pds_stopped():
        with pytest.raises(httpx.ConnectError):
            reference_network.repos()
        assert reference_network.did_document(account.did)["id"] == account.did
    assert reference_network.pds_url == address
    assert reference_network.latest_seq() == seq
    assert reference_network.records(account.did) == {kept.path: kept}
    reference_network.put_record(account, MANIFEST, "two")
    assert reference_network.latest_seq() == seq + 1
    assert reference_network.change_handle(account, f"re-{account.handle.removesuffix('.test')}").did == account.did


def test_stopping_the_pds_closes_its_streams(reference_network: ReferenceNetwork) -> None:
    with reference_network.frames(cursor=None) as frames:
        reference_network.restart_pds()
        with pytest.raises(ConnectionClosed):
            list(frames)


def test_a_pds_that_was_put_back_has_forgotten(reference_network: ReferenceNetwork, tmp_path: Path) -> None:
    account = reference_network.create_account()
    old = reference_network.put_record(account, MANIFEST, "old")
    seq = reference_network.latest_seq()
    reference_network.backup(tmp_path / "backup")
    reference_network.put_record(account, MANIFEST, "new")
    reference_network.put_back(tmp_path / "backup")
    assert reference_network.latest_seq() == seq
    assert reference_network.records(account.did) == {old.path: old}
    with reference_network.frames(cursor=seq + 1) as frames:
        assert b"FutureCursor" in next(frames)
