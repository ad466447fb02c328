"""The simulator and the protocol layer, written apart, agree on every CAR and every frame."""

from __future__ import annotations

import random

import pytest

from chalicelib.atproto import events
from chalicelib.atproto.crypto import parse_did_key, parse_legacy, parse_multibase
from chalicelib.atproto.errors import MalformedCar, VerificationFailed
from chalicelib.atproto.identity import parse_did_document
from chalicelib.atproto.mst import find
from chalicelib.atproto.repo import Snapshot, VerifiedCommit, read_snapshot, verify_commit, verify_sync
from chalicelib.atproto.scope import Scope
from chalicelib.atproto.syntax import Did, parse_did, tid_from_microseconds
from simulator import (
    HOLD,
    OLD_PDS,
    PDS,
    Clock,
    Commit,
    Repo,
    SigningKey,
    SimulatorThread,
    Write,
    clock,
    export,
    forgeries,
    frames,
)
from simulator.atcr import Author
from simulator.car import Car
from simulator.identity import did_document
from simulator.keys import Curve

DID = "did:plc:abcdefghijklmnopqrstuvwx"
ORDERS = (export.reference, export.carstore, export.preorder, export.shuffled(1), export.shuffled(2))
SCOPES = ("io.atcr.*", "io.atcr.hold.captain", "app.bsky.*,io.atcr.tag", "com.example.none")


def lived_repo(seed: int, curve: Curve = "k256") -> Repo:
    """A repo of a user and a hold in one, with some history."""
    rng, time = random.Random(seed), Clock()
    author = Author(DID, time, rng)
    records = [*author.hold(layers=rng.choice((0, 3, 200))), *author.sailor(manifests=5), *author.noise(60)]
    repo = Repo(DID, SigningKey.generate(rng, curve), time, records)
    for _ in range(30):
        paths = rng.sample(list(repo.paths()), min(3, len(repo)))
        repo.apply([Write("delete", paths[0]), *(repo.put(*entry) for entry in (author.layer(), author.post()))])
        repo.apply([repo.put(*author.stats(0, pulls=rng.randrange(100)))])
    return repo


def read(repo: Repo, car: Car, scope: str = "io.atcr.*") -> Snapshot:
    chunks = (chunk[at : at + 1000] for chunk in car.chunks() for at in range(0, len(chunk), 1000))
    return read_snapshot(chunks, did=parse_did(repo.did), scope=Scope.parse(scope))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("order", ORDERS)
def test_a_snapshot_of_any_order_has_the_true_records(order: export.Order, scope: str) -> None:
    for seed in range(3):
        repo = lived_repo(seed, "k256" if seed else "p256")
        wants = Scope.parse(scope).wants_key
        truth = [(r.path, r.cid, r.value) for r in repo.records().values() if wants(r.path.encode())]
        with read(repo, export.car(repo, order), scope) as snapshot:
            snapshot.commit.check_signature(parse_multibase(repo.key.multibase))
            assert (snapshot.commit.rev, snapshot.commit.data) == (repo.rev, repo.tree.cid)
            assert [(r.path, r.cid, r.value) for r in snapshot.records()] == truth


def test_an_empty_repo_is_read() -> None:
    repo = Repo(DID, SigningKey.generate(random.Random(0)), Clock())
    with read(repo, export.car(repo)) as snapshot:
        assert list(snapshot.records()) == []


def test_a_record_of_raw_bytes_is_kept_without_a_value() -> None:
    repo = lived_repo(0)
    repo.apply([Write("create", "io.atcr.tag/bad", b"\xa1\x61a\xfb\x7f\xf8\0\0\0\0\0\0")])
    with read(repo, export.car(repo), "io.atcr.tag") as snapshot:
        records = {record.path: record for record in snapshot.records()}
    assert {path: record.value for path, record in records.items()} == {
        path: record.value for path, record in repo.records().items() if path.startswith("io.atcr.tag/")
    }
    assert records["io.atcr.tag/bad"].problem


@pytest.mark.parametrize(
    ("forgery", "error"),
    [
        (forgeries.bad_signature, VerificationFailed),
        (forgeries.high_s, VerificationFailed),
        (forgeries.signature(b"\1" * 63), VerificationFailed),
        (forgeries.commit_with(did="did:plc:zzzzzzzzzzzzzzzzzzzzzzzz"), VerificationFailed),
        (forgeries.commit_with(version=2), VerificationFailed),
        (forgeries.wrong_root, VerificationFailed),
        (forgeries.missing_root, VerificationFailed),
        (forgeries.missing_block("io.atcr.hold.captain/self"), VerificationFailed),
        (forgeries.altered_block("io.atcr.hold.captain/self"), VerificationFailed),
    ],
)
def test_a_forgery_is_refused(forgery: forgeries.Forgery, error: type[Exception]) -> None:
    repo = lived_repo(0)
    with pytest.raises(error), read(repo, forgery(repo, export.carstore)) as snapshot:
        snapshot.commit.check_signature(parse_multibase(repo.key.multibase))


def test_a_car_that_was_cut_is_refused_wherever_it_was_cut() -> None:
    repo = Repo(DID, SigningKey.generate(random.Random(0)), Clock(), Author(DID, Clock(), random.Random(1)).hold())
    whole = export.car(repo).encode()
    for size in range(len(whole)):
        with pytest.raises((MalformedCar, VerificationFailed)):
            read_snapshot([whole[:size]], did=Did(DID), scope=Scope.parse("io.atcr.*"))


@pytest.mark.parametrize("curve", ["k256", "p256"])
def test_keys_have_the_same_forms_and_signatures_verify(curve: Curve) -> None:
    key = SigningKey.generate(random.Random(5), curve)
    forms = (parse_multibase(key.multibase), parse_did_key(key.did_key), parse_legacy(*key.legacy))
    for parsed in forms:
        assert parsed.curve == curve
        parsed.verify(b"message", key.sign(b"message"))
        with pytest.raises(VerificationFailed):
            parsed.verify(b"message", key.sign_high_s(b"message"))


def test_tids_are_the_same() -> None:
    for microseconds in (0, 1, clock.START, 2**53 - 1):
        assert clock.tid(microseconds, 7) == tid_from_microseconds(microseconds, 7)


EVERYTHING = Scope.parse("io.atcr.*,app.bsky.*")
WRITTEN = "2026-01-01T00:00:00.000Z"


def verified(repo: Repo, frame: bytes, scope: Scope = EVERYTHING) -> VerifiedCommit:
    event = events.decode_frame(frame)
    assert isinstance(event, events.CommitEvent)
    return verify_commit(event, parse_multibase(repo.key.multibase), scope)


def assert_same(repo: Repo, commit: Commit, proven: VerifiedCommit) -> None:
    """What was proven is what was done. ``repo`` is as the commit left it."""
    assert (proven.did, proven.rev, proven.since) == (commit.did, commit.rev, commit.since)
    assert proven.data == commit.data
    assert [(change.path, change.cid) for change in proven.changes] == [(op.path, op.cid) for op in commit.ops]
    for change in proven.changes:
        record = repo.record(change.path)
        assert (change.record and change.record.value) == (record and record.value)


@pytest.mark.parametrize("curve", ["k256", "p256"])
@pytest.mark.parametrize("size", [1, 12, 400])
def test_every_commit_is_proven_by_its_frame(curve: Curve, size: int) -> None:
    rng, time = random.Random(size), Clock()
    author = Author(DID, time, rng)
    repo = Repo(DID, SigningKey.generate(rng, curve), time, author.noise(size))
    for _ in range(60):
        doomed = rng.sample(list(repo.paths()), rng.randrange(min(len(repo), 6) + 1))
        fresh = [repo.put(*author.layer()) for _ in range(rng.randrange(6))]
        writes = [Write("delete", path) for path in doomed] + fresh
        rng.shuffle(writes)
        commit = repo.apply(writes)
        proven = verified(repo, frames.commit(commit, 1, WRITTEN))
        assert proven.inverted
        assert proven.prev_data == commit.prev_data
        assert_same(repo, commit, proven)
        assert_same(repo, commit, verified(repo, frames.commit_block_last(commit, 1, WRITTEN)))
        legacy = verified(repo, frames.legacy_commit(commit, 1, WRITTEN))
        assert not legacy.inverted
        assert_same(repo, commit, legacy)


def test_an_update_and_a_record_of_raw_bytes_are_proven() -> None:
    repo, author = lived_repo(1), Author(DID, Clock(), random.Random(9))
    commit = repo.apply([repo.put("io.atcr.hold.captain/self", b"\xff"), repo.put(*author.sailor_profile())])
    proven = verified(repo, frames.commit(commit, 1, WRITTEN))
    assert_same(repo, commit, proven)
    assert [bool(change.record and change.record.problem) for change in proven.changes] == [True, False]


def test_the_first_commit_and_one_without_ops_are_proven() -> None:
    repo = Repo(DID, SigningKey.generate(random.Random(0)), Clock())
    assert_same(repo, repo.head, verified(repo, frames.commit(repo.head, 1, WRITTEN)))
    commit = repo.apply([])
    proven = verified(repo, frames.commit(commit, 2, WRITTEN))
    assert proven.inverted
    assert_same(repo, commit, proven)


@pytest.mark.parametrize(
    ("telling", "reason"),
    [
        (frames.too_big_commit, "too-big"),
        (frames.commit_badly_signed, "bad-signature"),
        (frames.commit_with(rev="3mbdgiqqt2k2a"), "field-mismatch"),
        (frames.commit_with(repo="did:plc:zzzzzzzzzzzzzzzzzzzzzzzz"), "field-mismatch"),
        (frames.commit_with(blocks=b"junk"), "malformed-car"),
        (frames.commit_with(ops=[]), "inversion-mismatch"),
        (frames.commit_with(blocks=bytes(2_000_001)), "too-big"),
    ],
)
def test_a_commit_told_falsely_is_refused(telling: frames.Telling, reason: str) -> None:
    repo = lived_repo(2)
    commit = repo.apply([repo.put("io.atcr.tag/web_latest", {"$type": "io.atcr.tag"})])
    with pytest.raises(VerificationFailed) as refused:
        verified(repo, telling(commit, 1, WRITTEN))
    assert refused.value.reason == reason


def test_every_other_event_is_decoded_as_it_was_told() -> None:
    repo = lived_repo(3)
    sync = events.decode_frame(frames.sync(repo.head, 4, WRITTEN))
    assert isinstance(sync, events.SyncEvent)
    assert verify_sync(sync, parse_multibase(repo.key.multibase)).data == repo.tree.cid
    did = Did(DID)
    assert [
        events.decode_frame(frame)
        for frame in (
            frames.identity(DID, 5, WRITTEN, "user.test"),
            frames.identity(DID, 6, WRITTEN),
            frames.account(DID, 7, WRITTEN, True),
            frames.account(DID, 8, WRITTEN, False, "takendown"),
            frames.info("OutdatedCursor", "old"),
            frames.error("FutureCursor"),
        )
    ] == [
        events.IdentityEvent(5, did, WRITTEN, "user.test"),
        events.IdentityEvent(6, did, WRITTEN, None),
        events.AccountEvent(7, did, True, None, WRITTEN),
        events.AccountEvent(8, did, False, "takendown", WRITTEN),
        events.InfoEvent("OutdatedCursor", "old"),
        events.ErrorEvent("FutureCursor", None),
    ]
    assert isinstance(events.decode_frame(frames.message("#new", {"seq": 1})), events.UnknownEvent)


def test_whatever_a_host_emits_is_accepted(sim: SimulatorThread) -> None:
    for shape in (HOLD, PDS, OLD_PDS):
        hold = sim.call(sim.net.add_hold(layers=30, shape=shape))
        author = hold.author(hold.did)
        sim.call(hold.add, hold.did, [author.layer() for _ in range(20)])
        sim.call(hold.delete_collection, hold.did, "io.atcr.hold.scan")
        sim.call(hold.set_status, hold.did, "deactivated")
        key = parse_multibase(hold.accounts[hold.did].repo.key.multibase)
        for event in map(events.decode_frame, (event.frame for event in hold.stream.backlog)):
            assert not isinstance(event, events.UnknownEvent | events.InfoEvent | events.ErrorEvent)
            assert event.did == hold.did
            if isinstance(event, events.CommitEvent):
                assert len(verify_commit(event, key, EVERYTHING).changes) == len(event.ops) > 0


def test_get_record_proves_presence_and_absence() -> None:
    repo = lived_repo(4)
    for path in ("io.atcr.hold.captain/self", "io.atcr.hold.captain/none", "zz.zz.zz/none"):
        assert find(repo.tree.cid, dict(repo.proof(path).blocks), [path]) == [repo.get(path)]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("curve", ["k256", "p256"])
def test_did_documents_say_what_they_should(curve: Curve, legacy: bool) -> None:
    key = SigningKey.generate(random.Random(1), curve)
    document = did_document(DID, key=key, pds="http://localhost:2583", handle="user.test", legacy=legacy)
    identity = parse_did_document(Did(DID), document, allow_private=True)
    assert identity.key == parse_multibase(key.multibase)
    assert str(identity.pds) == "http://localhost:2583"
    assert identity.handle == "user.test"
