"""Real frames: recorded from the production firehose, and the scenarios that relays are tested with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chalicelib.atproto.car import CarReader
from chalicelib.atproto.cid import cid_to_text
from chalicelib.atproto.crypto import PublicKey, parse_multibase
from chalicelib.atproto.drisl import encode, from_json
from chalicelib.atproto.errors import BadSignature, VerificationFailed
from chalicelib.atproto.events import CommitEvent, MalformedEvent, SyncEvent, decode_frame, peek
from chalicelib.atproto.mst import invert
from chalicelib.atproto.repo import verify_commit, verify_sync
from chalicelib.atproto.scope import Scope

SCENARIOS = [
    "account_lifecycle",
    "deactivation",
    "legacy",
    "post_lifecycle",
    "post_lifecycle_legacy",
    "rev_ordering",
    "seq_ordering",
]


@pytest.fixture(scope="module")
def frames(fixtures_dir: Path) -> list[bytes]:
    data = (fixtures_dir / "firehose/frames.bin").read_bytes()
    found = []
    at = 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        found.append(data[at + 4 : end])
        at = end
    assert len(found) == 75
    return found


@pytest.fixture(scope="module")
def commits(frames: list[bytes]) -> list[CommitEvent]:
    events = [decode_frame(frame) for frame in frames]
    found = [event for event in events if isinstance(event, CommitEvent)]
    assert len(found) == len(frames)
    return found


@pytest.fixture(scope="module")
def keys(fixtures_dir: Path) -> dict[str, PublicKey]:
    documents = json.loads((fixtures_dir / "firehose/did_docs.json").read_text())
    return {
        did: parse_multibase(method["publicKeyMultibase"])
        for did, document in documents.items()
        for method in document["verificationMethod"]
        if method["id"].endswith("#atproto")
    }


@pytest.fixture(scope="module")
def everything(commits: list[CommitEvent]) -> Scope:
    return Scope.parse(",".join(sorted({op.path.partition("/")[0] for event in commits for op in event.ops})))


def test_the_ops_are_those_that_another_implementation_reported(fixtures_dir: Path, commits: list[CommitEvent]) -> None:
    lines = (fixtures_dir / "firehose/expected_ops.jsonl").read_text().splitlines()
    expected = [json.loads(line) for line in lines]
    found = [
        {
            "did": event.did,
            "rev": event.rev,
            "operation": op.action,
            "collection": op.path.partition("/")[0],
            "rkey": op.path.partition("/")[2],
        }
        | ({"cid": cid_to_text(op.cid)} if op.cid else {})
        for event in commits
        for op in event.ops
    ]
    assert found == [{name: value for name, value in each.items() if value} for each in expected]


def test_every_commit_is_signed_and_leads_back_to_the_one_before(
    commits: list[CommitEvent], keys: dict[str, PublicKey], everything: Scope
) -> None:
    for event in commits:
        found = verify_commit(event, keys[event.did], everything)
        assert found.inverted
        assert (found.did, found.rev, found.prev_data) == (event.did, event.rev, event.prev_data)
        assert [(change.path, change.cid) for change in found.changes] == [(op.path, op.cid) for op in event.ops]
        for change in found.changes:
            assert change.record is None if change.cid is None else change.record and change.record.value


def test_without_prev_data_the_same_changes_are_proven(
    commits: list[CommitEvent], keys: dict[str, PublicKey], everything: Scope
) -> None:
    for event in commits:
        whole = verify_commit(event, keys[event.did], everything)
        found = verify_commit(event._replace(prev_data=None), keys[event.did], everything)
        assert (found.inverted, found.changes) == (False, whole.changes)


def test_no_commit_fits_the_key_of_another_repo(commits: list[CommitEvent], keys: dict[str, PublicKey]) -> None:
    scope = Scope.parse("io.atcr.*")
    for event, other in zip(commits, [*commits[1:], commits[0]], strict=True):
        if event.did != other.did:
            with pytest.raises(BadSignature):
                verify_commit(event, keys[other.did], scope)


def test_a_glance_tells_of_each_frame_what_decoding_does(frames: list[bytes], commits: list[CommitEvent]) -> None:
    for frame, event in zip(frames, commits, strict=True):
        glance = peek(frame)
        assert glance
        seq, did, ops = glance
        assert (seq, did) == (event.seq, event.did)
        assert all(op.path.encode() in ops for op in event.ops)


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_is_sound_in_the_scenarios_of_relays_is_verified(fixtures_dir: Path, name: str) -> None:
    scenario = json.loads((fixtures_dir / f"relay-scenarios/{name}.json").read_text())
    identities = [account["identity"] for account in scenario["accounts"]]
    keys = {each["did"]: parse_multibase(each["keys"]["atproto"]["publicKeyMultibase"]) for each in identities}
    scope = Scope.parse("app.bsky.*")
    for message in scenario["messages"]:
        frame = b"".join(encode(from_json(message["frame"][part])) for part in ("header", "body"))
        try:
            event = decode_frame(frame)
            if isinstance(event, CommitEvent):
                found = verify_commit(event, keys[event.did], scope)
                assert found.inverted == (not scenario["lenient"])
                assert found.changes
            elif isinstance(event, SyncEvent):
                assert verify_sync(event, keys[event.did]).rev == event.rev
        except (VerificationFailed, MalformedEvent):
            # What relays are to drop is either false in itself, or true and in the wrong place.
            assert message["drop"]
        else:
            assert not message["invalid"]


def test_ops_of_a_real_commit_can_be_undone_in_any_order(
    commits: list[CommitEvent], keys: dict[str, PublicKey], everything: Scope
) -> None:
    several = [event for event in commits if len(event.ops) > 1]
    assert several
    for event in several:
        found = verify_commit(event, keys[event.did], everything)
        blocks = dict(CarReader([event.blocks]))
        for ops in (event.ops, event.ops[::-1]):
            assert invert(found.data, blocks, ops) == event.prev_data
