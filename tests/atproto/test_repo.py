"""Commits and syncs from the stream: what is taken as proven, and what is refused with which reason."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.atproto import commit as commits
from chalicelib.atproto.commit import parse_commit
from chalicelib.atproto.crypto import parse_did_key
from chalicelib.atproto.errors import BadSignature, VerificationFailed
from chalicelib.atproto.events import CommitEvent, RepoOp, SyncEvent, decode_frame
from chalicelib.atproto.repo import Change, Record, VerifiedCommit, verify_commit, verify_sync
from chalicelib.atproto.scope import Scope
from chalicelib.atproto.syntax import Did, Tid, tid_to_microseconds
from simulator import frames
from simulator.car import Block, Car
from simulator.cbor import Link, cid_of, decode, encode
from simulator.keys import SigningKey
from simulator.repo import Commit, Repo, Write
from tests.atproto.builders import DID, KEY, REV, SCOPE, Blocks, record, repo, write

TIME = "2026-01-01T00:00:00.000Z"
CREW = "io.atcr.hold.crew/a"
LIKE = "app.bsky.feed.like/a"


def told(commit: Commit, telling: frames.Telling = frames.commit, **fields: Any) -> CommitEvent:
    event = decode_frame(telling(commit, 7, TIME))
    assert isinstance(event, CommitEvent)
    return event._replace(**fields)


def verified(
    commit: Commit, telling: frames.Telling = frames.commit, scope: Scope = SCOPE, **fields: Any
) -> VerifiedCommit:
    return verify_commit(told(commit, telling, **fields), KEY, scope)


def refused(reason: str, event: CommitEvent) -> None:
    with pytest.raises(VerificationFailed) as error:
        verify_commit(event, KEY, SCOPE)
    assert error.value.reason == reason, error.value


def history(*, others: int = 200) -> Repo:
    """A repo of many records that nobody wants, and a few that are."""
    return repo(CREW, "io.atcr.hold.crew/b", *(f"app.bsky.feed.like/{n:04}" for n in range(others)))


def without(commit: Commit, *cids: bytes | None) -> bytes:
    return Car((commit.cid,), [block for block in commit.blocks if block[0] not in cids]).encode()


def altered(commit: Commit, cid: bytes | None) -> bytes:
    blocks: list[Block] = [(each, block + b"\x00" * (each == cid)) for each, block in commit.blocks]
    return Car((commit.cid,), blocks).encode()


# --- what is proven


def test_a_commit_tells_its_wanted_changes() -> None:
    made = history()
    before = made.head
    commit = made.apply(
        [
            write(made, "io.atcr.hold.crew/new", n=1),
            write(made, CREW, n=2),
            Write("delete", "io.atcr.hold.crew/b"),
            write(made, LIKE),
            Write("delete", "app.bsky.feed.like/0001"),
        ]
    )
    new, changed = (made.get(path) or b"" for path in ("io.atcr.hold.crew/new", CREW))
    assert verified(commit) == VerifiedCommit(
        did=DID,
        rev=Tid(commit.rev),
        since=before.rev,
        cid=made.head.cid,
        data=commit.data,
        prev_data=before.data,
        changes=(
            Change("io.atcr.hold.crew/new", new, Record("io.atcr.hold.crew/new", new, record(n=1))),
            Change(CREW, changed, Record(CREW, changed, record(n=2))),
            Change("io.atcr.hold.crew/b", None, None),
        ),
        inverted=True,
    )


def test_a_commit_without_wanted_changes_is_verified_all_the_same() -> None:
    made = history()
    result = verified(made.apply([write(made, LIKE)]))
    assert (result.changes, result.inverted, result.data) == ((), True, made.head.data)


def test_blocks_of_records_that_nobody_wants_are_not_needed() -> None:
    made = history()
    commit = made.apply([write(made, LIKE), write(made, "io.atcr.hold.crew/new")])
    assert len(verified(commit, blocks=without(commit, made.get(LIKE))).changes) == 1


def test_a_commit_of_no_ops_leaves_the_tree_as_it_was() -> None:
    made = history()
    commit = made.apply([])
    result = verified(commit)
    assert (result.changes, result.inverted, result.prev_data) == ((), True, commit.data)


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 300))
def test_every_commit_of_a_history_leads_back_to_the_one_before(rng: random.Random, others: int) -> None:
    made = history(others=others)
    paths = [f"{c}/{n:03}" for c in ("io.atcr.tag", "app.bsky.feed.like", "sh.tangled.star") for n in range(40)]
    for _ in range(8):
        before = made.head
        writes = []
        for path in rng.sample(paths, rng.randrange(1, 9)):
            gone = made.get(path) is not None and rng.random() < 0.5
            writes.append(Write("delete", path) if gone else write(made, path, n=rng.random() < 0.5))
        result = verified(made.apply(writes))
        assert result.inverted
        assert (result.since, result.prev_data) == (before.rev, before.data)
        expected = {w.path: made.get(w.path) for w in writes if w.path.startswith("io.atcr.")}
        assert {change.path: change.cid for change in result.changes} == expected


def test_the_commit_may_come_after_its_other_blocks() -> None:
    made = history()
    assert verified(made.apply([write(made, "io.atcr.tag/x")]), frames.commit_block_last).inverted


def test_a_signature_of_p256_is_checked() -> None:
    signer = SigningKey.generate(random.Random(4), "p256")
    made = repo(CREW, key=signer)
    event = told(made.apply([write(made, CREW, n=2)]))
    assert verify_commit(event, parse_did_key(signer.did_key), SCOPE).inverted
    with pytest.raises(BadSignature):
        verify_commit(event, KEY, SCOPE)


# --- older hosts


def test_without_prev_data_the_changes_are_proven_but_not_that_they_are_all() -> None:
    made = history()
    commit = made.apply([write(made, CREW, n=2), write(made, LIKE), Write("delete", "io.atcr.hold.crew/b")])
    result = verified(commit, frames.legacy_commit)
    assert (result.inverted, result.prev_data) == (False, None)
    assert result.changes == verified(commit).changes


def test_without_prev_on_its_ops_a_commit_is_not_undone() -> None:
    made = history()
    commit = made.apply([write(made, CREW, n=2), Write("delete", "io.atcr.hold.crew/b")])
    ops = tuple(op._replace(prev=None) for op in told(commit).ops)
    result = verified(commit, ops=ops)
    assert not result.inverted
    assert result.changes == verified(commit).changes


def test_the_first_commit_of_a_repo_has_nothing_to_lead_back_to() -> None:
    made = repo()
    result = verified(made.head)
    assert (result.since, result.prev_data, result.inverted) == (None, None, False)


LEGACY_LIES: dict[str, Callable[[RepoOp], RepoOp]] = {
    "another cid": lambda op: op._replace(cid=cid_of(b"x")),
    "a path that is not there": lambda op: op._replace(path="io.atcr.hold.crew/nowhere"),
    "a delete of what is there": lambda op: RepoOp("delete", op.path, None, None),
}


@pytest.mark.parametrize("lie", LEGACY_LIES.values(), ids=LEGACY_LIES)
def test_without_prev_data_a_wanted_op_that_the_tree_contradicts_is_refused(lie: Callable[[RepoOp], RepoOp]) -> None:
    made = history()
    event = told(made.apply([write(made, "io.atcr.hold.crew/new")]), frames.legacy_commit)
    refused("field-mismatch", event._replace(ops=tuple(map(lie, event.ops)), blocks=whole(made)))


def whole(made: Repo) -> bytes:
    """The commit with all the blocks that the repo has."""
    return Car((made.head.cid,), made.blocks.items()).encode()


def test_without_prev_data_the_nodes_that_prove_a_wanted_op_are_needed() -> None:
    made = history()
    commit = made.apply([write(made, "io.atcr.hold.crew/new")])
    refused("missing-block", told(commit, frames.legacy_commit, blocks=without(commit, commit.data)))


# --- what is refused


def test_a_commit_beyond_the_limits_is_refused_as_too_big() -> None:
    made = history()
    commit = made.apply([write(made, CREW, n=2)])
    refused("too-big", told(commit, frames.too_big_commit))


@pytest.mark.parametrize(
    "change", [lambda car: b"", lambda car: car[:-1], lambda car: b"\xff" + car, lambda car: car + b"\x00"]
)
def test_blocks_that_are_no_car_are_refused(change: Callable[[bytes], bytes]) -> None:
    made = history()
    event = told(made.apply([write(made, CREW, n=2)]))
    refused("malformed-car", event._replace(blocks=change(event.blocks)))


def test_blocks_of_another_root_are_refused() -> None:
    made = history()
    commit = made.apply([write(made, CREW, n=2)])
    refused("field-mismatch", told(commit, blocks=Car((commit.data,), commit.blocks).encode()))
    refused("field-mismatch", told(commit)._replace(commit=commit.data))


def test_a_commit_that_is_not_among_the_blocks_is_refused() -> None:
    made = history()
    commit = made.apply([write(made, CREW, n=2)])
    refused("missing-block", told(commit, blocks=without(commit, commit.cid)))
    refused("wrong-hash", told(commit, blocks=altered(commit, commit.cid)))


@pytest.mark.parametrize("fields", [{"did": Did("did:plc:zzzzzzzzzzzzzzzzzzzzzzzz")}, {"rev": Tid(REV)}], ids=str)
def test_a_field_that_is_not_that_of_the_signed_commit_is_refused(fields: dict[str, Any]) -> None:
    made = history()
    refused("field-mismatch", told(made.apply([write(made, CREW, n=2)]), **fields))


def test_a_bad_signature_has_an_error_of_its_own() -> None:
    made = history()
    event = told(made.apply([write(made, CREW, n=2)]), frames.commit_badly_signed)
    with pytest.raises(BadSignature) as error:
        verify_commit(event, KEY, SCOPE)
    assert error.value.reason == "bad-signature"


def test_a_signature_by_another_key_is_refused() -> None:
    made = history()
    event = told(made.apply([write(made, CREW, n=2)]))
    with pytest.raises(BadSignature):
        verify_commit(event, parse_did_key(SigningKey.generate(random.Random(1)).did_key), SCOPE)


def test_a_rev_in_the_future_is_refused() -> None:
    made = history()
    commit = made.apply([write(made, CREW, n=2)])
    moment = tid_to_microseconds(Tid(commit.rev)) / 1e6
    assert verify_commit(told(commit), KEY, SCOPE, now=moment - 299).inverted
    with pytest.raises(VerificationFailed) as error:
        verify_commit(told(commit), KEY, SCOPE, now=moment - 301)
    assert error.value.reason == "future-rev"


def test_a_commit_of_another_version_is_refused() -> None:
    blocks = Blocks()
    root = blocks.commit(blocks.tree([]), version=2)
    event = CommitEvent(1, DID, Tid(REV), None, root, blocks.car(), (), None, False, TIME)
    refused("bad-commit", event)


CID = cid_of(b"x")
BAD_OPS: dict[str, list[RepoOp]] = {
    "the same path twice": [RepoOp("create", CREW, CID, None), RepoOp("delete", CREW, None, CID)],
    "an action that is not known": [RepoOp("move", CREW, CID, None)],
    "a create without a cid": [RepoOp("create", CREW, None, None)],
    "a create with a prev": [RepoOp("create", CREW, CID, CID)],
    "an update without a cid": [RepoOp("update", CREW, None, CID)],
    "a delete with a cid": [RepoOp("delete", CREW, CID, CID)],
    "a path without a slash": [RepoOp("create", "io.atcr.hold.crew", CID, None)],
    "a path with two": [RepoOp("create", "io.atcr.hold.crew/a/b", CID, None)],
    "a path that is not ASCII": [RepoOp("create", "io.atcr.hold.crew/ü", CID, None)],
    "a path that is no NSID": [RepoOp("create", "crew/a", CID, None)],
    "an unwanted path that is none": [RepoOp("create", "app.bsky.feed.like/", CID, None)],
}


@pytest.mark.parametrize("ops", BAD_OPS.values(), ids=BAD_OPS)
def test_an_op_that_can_not_be_is_refused(ops: Sequence[RepoOp]) -> None:
    made = history()
    refused("bad-op", told(made.apply([write(made, "io.atcr.tag/x")]), ops=tuple(ops)))


LIES: dict[str, Callable[[CommitEvent], CommitEvent]] = {
    "an op left out": lambda event: event._replace(ops=event.ops[1:]),
    "all ops left out": lambda event: event._replace(ops=()),
    "an op made up": lambda event: event._replace(ops=(*event.ops, RepoOp("create", LIKE, CID, None))),
    "another cid": lambda event: event._replace(ops=(event.ops[0]._replace(cid=CID), *event.ops[1:])),
    "another prev": lambda event: event._replace(ops=(*event.ops[:-1], event.ops[-1]._replace(prev=CID))),
    "another prev_data": lambda event: event._replace(prev_data=CID),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_ops_that_do_not_lead_back_to_prev_data_are_refused(lie: Callable[[CommitEvent], CommitEvent]) -> None:
    made = history()
    event = told(made.apply([write(made, "io.atcr.tag/x"), write(made, CREW, n=2)]))
    refused("inversion-mismatch", lie(event)._replace(blocks=whole(made)))


def test_the_nodes_that_lead_back_are_needed() -> None:
    made = history()
    commit = made.apply([write(made, "io.atcr.tag/x")])
    refused("missing-block", told(commit, blocks=without(commit, commit.data)))
    refused("wrong-hash", told(commit, blocks=altered(commit, commit.data)))


def test_the_blocks_of_wanted_records_are_needed() -> None:
    made = history()
    commit = made.apply([write(made, "io.atcr.tag/x")])
    refused("missing-block", told(commit, blocks=without(commit, made.get("io.atcr.tag/x"))))
    refused("wrong-hash", told(commit, blocks=altered(commit, made.get("io.atcr.tag/x"))))


@pytest.mark.parametrize(
    "block", [encode({"x": 1}), encode(record("io.atcr.tag")), b"\xff", encode(record()) + b"\x00"]
)
def test_a_wanted_record_that_is_not_what_it_should_be_is_kept_without_its_value(block: bytes) -> None:
    made = history()
    (change,) = verified(made.apply([made.put("io.atcr.hold.crew/bad", block)])).changes
    assert change.record
    assert (change.cid, change.record.cid, change.record.value) == (cid_of(block), cid_of(block), None)
    assert change.record.problem


def test_of_two_blocks_under_one_cid_the_first_counts() -> None:
    made = history()
    commit = made.apply([write(made, "io.atcr.tag/x")])
    forged = [(cid, block + b"\x00") for cid, block in commit.blocks]
    assert verified(commit, blocks=Car((commit.cid,), (*commit.blocks, *forged)).encode()).inverted
    refused("wrong-hash", told(commit, blocks=Car((commit.cid,), (*forged, *commit.blocks)).encode()))


# --- syncs


def sync(commit: Commit, **fields: Any) -> SyncEvent:
    event = decode_frame(frames.sync(commit, 7, TIME))
    assert isinstance(event, SyncEvent)
    return replace(event, **fields)


def test_a_sync_tells_the_commit_that_the_repo_is_at() -> None:
    made = history()
    commit = verify_sync(sync(made.head), KEY)
    assert (commit.did, commit.rev, commit.data, commit.cid) == (DID, made.rev, made.head.data, made.head.cid)


BAD_SYNCS: dict[str, tuple[str, Callable[[Commit], dict[str, Any]]]] = {
    "another DID": ("field-mismatch", lambda head: {"did": Did("did:web:example.com")}),
    "another rev": ("field-mismatch", lambda head: {"rev": Tid(REV)}),
    "no blocks": ("too-big", lambda head: {"blocks": b""}),
    "no CAR": ("malformed-car", lambda head: {"blocks": b"\xff"}),
    "no commit": ("missing-block", lambda head: {"blocks": without(head, head.cid)}),
    "a commit of other bytes": ("wrong-hash", lambda head: {"blocks": altered(head, head.cid)}),
    "a root that is no commit": ("bad-commit", lambda head: {"blocks": Car((head.data,), head.blocks).encode()}),
}


@pytest.mark.parametrize(("reason", "change"), BAD_SYNCS.values(), ids=BAD_SYNCS)
def test_a_sync_that_does_not_hold_is_refused(reason: str, change: Callable[[Commit], dict[str, Any]]) -> None:
    made = repo(CREW)
    with pytest.raises(VerificationFailed) as error:
        verify_sync(sync(made.head, **change(made.head)), KEY)
    assert error.value.reason == reason


def test_a_sync_by_another_key_or_from_the_future_is_refused() -> None:
    made = repo(CREW)
    with pytest.raises(BadSignature):
        verify_sync(sync(made.head), parse_did_key(SigningKey.generate(random.Random(1)).did_key))
    with pytest.raises(VerificationFailed) as error:
        verify_sync(sync(made.head), KEY, now=0)
    assert error.value.reason == "future-rev"


# --- a signed commit by its form, and by the decoder


def parsed(block: bytes) -> Any:
    try:
        return parse_commit(block)
    except VerificationFailed as error:
        return error.reason


@settings(max_examples=200)
@given(
    fields=st.fixed_dictionaries(
        {},
        optional={
            "did": st.sampled_from(["did:web:" + "a" * 15, "did:web:" + "a" * 16, "did:web:" + "a" * 300, "no", 5]),
            "rev": st.sampled_from(["3l", "z" * 13]),
            "prev": st.sampled_from([None, Link(cid_of(b"x")), 5]),
            "sig": st.sampled_from([bytes(63), b"csigX@" * 11, b"csigX@" * 11 + b"1234"]),
            "version": st.sampled_from([2, 4, True]),
            "other": st.just(1),
        },
    ),
    damage=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=2),
)
def test_a_signed_commit_read_by_its_form_is_what_the_decoder_reads(
    fields: dict[str, Any], damage: list[tuple[int, int]]
) -> None:
    block = bytearray(encode(decode(history().head.block) | fields))
    for at, byte in damage:
        block[at % len(block)] = byte
    by_form = parsed(bytes(block))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commits, "_PLAIN", re.compile(b"(?!)"))
        assert by_form == parsed(bytes(block))
