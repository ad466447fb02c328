"""Frames of subscribeRepos: what they say, what is wrong with them, and what a glance at them tells."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.atproto import drisl, events
from chalicelib.atproto.errors import MalformedFrame
from chalicelib.atproto.events import (
    MAX_COMMIT_BLOCKS,
    MAX_FRAME,
    MAX_OPS,
    MAX_SEQ,
    MAX_SYNC_BLOCKS,
    AccountEvent,
    CommitEvent,
    ErrorEvent,
    Event,
    IdentityEvent,
    InfoEvent,
    MalformedEvent,
    RepoOp,
    SyncEvent,
    UnknownEvent,
    decode_frame,
    peek,
)
from simulator import frames
from simulator.cbor import Link, cid_of, encode
from simulator.repo import Write
from tests.atproto.builders import DID, REV, repo, write

TIME = "2026-01-01T00:00:00.000Z"
CID = cid_of(b"x")
OP = {"action": "create", "path": "io.atcr.hold.crew/a", "cid": Link(CID)}
COMMIT: dict[str, Any] = {
    "seq": 5,
    "rebase": False,
    "tooBig": False,
    "repo": DID,
    "commit": Link(CID),
    "rev": REV,
    "since": None,
    "blocks": b"a CAR",
    "ops": [OP],
    "blobs": [],
    "time": TIME,
    "prevData": Link(CID),
}
SYNC = {"seq": 5, "did": DID, "blocks": b"a CAR", "rev": REV, "time": TIME}
IDENTITY = {"seq": 5, "did": DID, "time": TIME, "handle": "a.example.com"}
ACCOUNT = {"seq": 5, "did": DID, "time": TIME, "active": False, "status": "takendown"}
BODIES: dict[str, dict[str, Any]] = {"#commit": COMMIT, "#sync": SYNC, "#identity": IDENTITY, "#account": ACCOUNT}


def told(kind: str, **fields: Any) -> bytes:
    """A message with fields replaced, and those that are ``...`` left out."""
    body = BODIES.get(kind, {}) | fields
    return frames.message(kind, {name: value for name, value in body.items() if value is not ...})


def commit(**fields: Any) -> CommitEvent:
    event = decode_frame(told("#commit", **fields))
    assert isinstance(event, CommitEvent)
    return event


# --- what they say


def test_a_commit_says_what_changed() -> None:
    delete = {"action": "delete", "path": "io.atcr.hold.crew/b", "cid": None, "prev": Link(CID)}
    ops = (RepoOp("create", "io.atcr.hold.crew/a", CID, None), RepoOp("delete", "io.atcr.hold.crew/b", None, CID))
    expected = CommitEvent(5, DID, REV, "3l", CID, b"a CAR", ops, CID, False, TIME)  # type: ignore[arg-type]
    assert commit(ops=[OP, delete], since="3l") == expected


def test_a_commit_of_an_older_host_has_no_prev_data() -> None:
    assert commit(prevData=...).prev_data is None
    assert commit(prevData=None).prev_data is None
    assert commit(since=...).since is None


def test_the_other_messages_say_what_they_say() -> None:
    assert decode_frame(told("#sync")) == SyncEvent(5, DID, REV, b"a CAR", TIME)  # type: ignore[arg-type]
    assert decode_frame(told("#identity")) == IdentityEvent(5, DID, TIME, "a.example.com")
    assert decode_frame(told("#identity", handle=...)) == IdentityEvent(5, DID, TIME, None)
    assert decode_frame(told("#account")) == AccountEvent(5, DID, False, "takendown", TIME)
    assert decode_frame(frames.info("OutdatedCursor", "old")) == InfoEvent("OutdatedCursor", "old")
    assert decode_frame(frames.info("OutdatedCursor")) == InfoEvent("OutdatedCursor", None)
    assert decode_frame(frames.error("FutureCursor", "x")) == ErrorEvent("FutureCursor", "x")
    assert decode_frame(frames.error("ConsumerTooSlow")) == ErrorEvent("ConsumerTooSlow", None)


def test_an_absent_active_means_true() -> None:
    for fields in ({"active": ...}, {"active": None}, {"active": True}):
        assert decode_frame(told("#account", status=..., **fields)) == AccountEvent(5, DID, True, None, TIME)


def test_the_frames_of_the_simulator_are_read() -> None:
    made = repo("io.atcr.hold.crew/a")
    done = made.apply([write(made, "io.atcr.hold.crew/b"), Write("delete", "io.atcr.hold.crew/a")])
    event = decode_frame(frames.commit(done, 9, TIME))
    assert isinstance(event, CommitEvent)
    assert [tuple(op) for op in event.ops] == [(op.action, op.path, op.cid, op.prev) for op in done.ops]
    assert (event.seq, event.did, event.rev, event.commit) == (9, DID, done.rev, done.cid)
    assert (event.since, event.prev_data, event.too_big) == (done.since, done.prev_data, False)


# --- what is tolerated


@pytest.mark.parametrize("kind", BODIES)
def test_the_header_may_have_its_fields_in_the_other_order(kind: str) -> None:
    assert decode_frame(b"\xa2bop\x01at" + encode(kind) + encode(BODIES[kind])) == decode_frame(told(kind))


def test_fields_that_are_not_known_are_ignored() -> None:
    assert commit(more="x", zz=[1, {"a": None}]) == commit()
    assert commit(ops=[{**OP, "more": 1}]) == commit()
    assert decode_frame(encode({"op": 1, "t": "#commit", "more": [1]}) + encode(COMMIT)) == commit()
    assert decode_frame(encode({"op": -1, "t": "#info"}) + encode({"error": "x", "seq": 1})) == ErrorEvent("x", None)


def test_kinds_and_ops_that_are_not_known_are_told_as_such() -> None:
    assert decode_frame(told("#handle", seq=8)) == UnknownEvent(1, "#handle", 8)
    assert decode_frame(told("#tombstone", seq="x")) == UnknownEvent(1, "#tombstone", None)
    assert decode_frame(told("commit")) == UnknownEvent(1, "commit", None)
    assert decode_frame(encode({"op": 2, "t": "#commit"}) + encode(COMMIT)) == UnknownEvent(2, "#commit", 5)
    assert decode_frame(encode({"op": 0}) + encode({})) == UnknownEvent(0, None, None)


def test_a_path_or_an_action_is_not_judged_here() -> None:
    assert commit(ops=[{**OP, "path": "x", "action": "move"}]).ops == (RepoOp("move", "x", CID, None),)


# --- limits


def test_seq_is_positive_and_below_2_to_the_53() -> None:
    for seq in (1, 23, 24, 255, 256, 2**32, MAX_SEQ):
        assert commit(seq=seq).seq == seq
    for seq in (0, -1, MAX_SEQ + 1, 2**64 - 1, True, "1", None, ...):
        with pytest.raises(MalformedEvent) as error:
            commit(seq=seq)
        assert (error.value.seq, error.value.did) == (None, DID)


def test_a_commit_beyond_a_limit_is_too_big_and_goes_without_what_may_not_be_whole() -> None:
    ops = [{**OP, "path": f"io.atcr.hold.crew/{n}"} for n in range(MAX_OPS + 1)]
    padding = len(told("#commit", more="x" * 100_000)) - 100_000
    within = [{"ops": ops[1:]}, {"blocks": bytes(MAX_COMMIT_BLOCKS)}, {"more": "x" * (MAX_FRAME - padding)}]
    beyond = [
        {"ops": ops},
        {"blocks": bytes(MAX_COMMIT_BLOCKS + 1)},
        {"more": "x" * (MAX_FRAME - padding + 1)},
        {"tooBig": True},
    ]
    for fields in within:
        event = commit(**fields)
        assert not event.too_big
        assert event.ops
        assert event.blocks
    for fields in beyond:
        event = commit(**fields)
        assert (event.too_big, event.ops, event.blocks) == (True, (), b"")
        assert (event.seq, event.did, event.rev, event.commit) == (5, DID, REV, CID)
    assert (MAX_OPS, MAX_COMMIT_BLOCKS, MAX_FRAME, MAX_SYNC_BLOCKS) == (200, 2_000_000, 5_000_000, 10_000)


def test_a_sync_beyond_the_limit_goes_without_its_blocks() -> None:
    for size, kept in ((MAX_SYNC_BLOCKS, MAX_SYNC_BLOCKS), (MAX_SYNC_BLOCKS + 1, 0)):
        event = decode_frame(told("#sync", blocks=bytes(size)))
        assert isinstance(event, SyncEvent)
        assert len(event.blocks) == kept


# --- what is wrong with them


BODY = encode(COMMIT)
BAD_FRAMES = {
    "nothing": b"",
    "a header alone": encode({"op": 1, "t": "#commit"}),
    "half a header": encode({"op": 1, "t": "#commit"})[:-2],
    "a header of op first, cut": b"\xa2bop\x01at",
    "a header of op first, and no text": b"\xa2bop\x01at\x05" + BODY,
    "a header of op first, and a long text": b"\xa2bop\x01at\x7b" + bytes(8) + BODY,
    "a header that is a list": encode([1, "#commit"]) + BODY,
    "a header that is text": encode("#commit") + BODY,
    "no op": encode({"t": "#commit"}) + BODY,
    "an op that is text": encode({"op": "1", "t": "#commit"}) + BODY,
    "an op that is true": encode({"op": True, "t": "#commit"}) + BODY,
    "no t": encode({"op": 1}) + BODY,
    "a t that is a number": encode({"op": 1, "t": 1}) + BODY,
    "a t that is null": encode({"op": 1, "t": None}) + BODY,
    "a body cut off": told("#commit")[:-1],
    "bytes behind the body": told("#commit") + b"\x00",
    "a third object": told("#commit") + encode({}),
    "a body that is a list": frames.message("#commit", [COMMIT]),  # type: ignore[arg-type]
    "a body that is null": encode({"op": 1, "t": "#commit"}) + b"\xf6",
    "a body that is not strict": encode({"op": 1, "t": "#info"}) + b"\xbfdnamea1\xff",
    "a body with a key twice": encode({"op": 1, "t": "#info"}) + b"\xa2dnamea1dnamea2",
    "an unknown kind, not CBOR": encode({"op": 1, "t": "#new"}) + b"\xff",
    "a million levels": encode({"op": 1, "t": "#new"}) + b"\x81" * 1_000_000 + b"\x00",
    "a million levels of header": b"\x81" * 1_000_000 + b"\x00",
    "text": b'{"op": 1}',
}


@pytest.mark.parametrize("frame", BAD_FRAMES.values(), ids=BAD_FRAMES)
def test_bad_framing_is_malformed(frame: bytes) -> None:
    with pytest.raises(MalformedFrame) as error:
        decode_frame(frame)
    assert not isinstance(error.value, MalformedEvent)


BAD_FIELDS = [
    *(("#commit", name, wrong) for name in ("repo", "rev", "time") for wrong in (..., None, 1, b"x")),
    *(("#commit", name, wrong) for name in ("commit", "ops", "blocks") for wrong in (..., None, 1, "x")),
    *(("#commit", name, wrong) for name in ("since", "prevData", "tooBig") for wrong in (1, b"x", [])),
    ("#commit", "repo", "did:x"),
    ("#commit", "repo", "example.com"),
    ("#commit", "rev", "3l"),
    *(("#commit", "ops", [wrong]) for wrong in (None, 1, [], {})),
    *(("#commit", "ops", [OP | {name: wrong}]) for name in ("action", "path") for wrong in (None, 1, b"x")),
    *(("#commit", "ops", [OP | {name: wrong}]) for name in ("cid", "prev") for wrong in ("x", 1, CID)),
    *((kind, "did", wrong) for kind in ("#sync", "#identity", "#account") for wrong in (..., None, 1, "x")),
    *((kind, "time", wrong) for kind in ("#sync", "#identity", "#account") for wrong in (..., None, 1)),
    ("#sync", "blocks", ...),
    ("#sync", "blocks", "x"),
    ("#sync", "rev", ...),
    ("#sync", "rev", "x"),
    ("#identity", "handle", 1),
    ("#account", "active", "true"),
    ("#account", "active", 1),
    ("#account", "status", True),
    ("#info", "name", ...),
    ("#info", "name", 1),
]


@pytest.mark.parametrize(("kind", "name", "wrong"), BAD_FIELDS)
def test_a_message_with_a_bad_field_is_malformed_without_the_stream_being_so(kind: str, name: str, wrong: Any) -> None:
    with pytest.raises(MalformedEvent) as error:
        decode_frame(told(kind, **{name: wrong}))
    assert error.value.seq == BODIES.get(kind, {}).get("seq")
    assert error.value.did == (None if name in ("repo", "did") or kind == "#info" else DID)


def test_an_error_frame_without_a_name_is_malformed() -> None:
    with pytest.raises(MalformedFrame):
        decode_frame(encode({"op": -1}) + encode({"message": "x"}))


# --- by its form, and by the decoder


def read_in_general(frame: bytes) -> Event | None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "_plain_commit", lambda _: None)
        return read(frame)


def read(frame: bytes) -> Event | None:
    try:
        return decode_frame(frame)
    except MalformedFrame:
        return None


ops = st.fixed_dictionaries(
    {
        "action": st.sampled_from(["create", "update", "delete", "rename"]),
        "path": st.sampled_from(
            ["io.atcr.hold.crew/a", "a" * 23, "b" * 24, "c" * 255, "d" * 256, "", "x/é", "f/factionfcreate"]
        ),
        "cid": st.sampled_from([Link(CID), None]),
    },
    optional={"prev": st.sampled_from([Link(CID), None])},
)


@settings(max_examples=300)
@given(
    fields=st.fixed_dictionaries(
        {},
        optional={
            "seq": st.sampled_from(
                [-1, 0, 1, 23, 24, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, MAX_SEQ, MAX_SEQ + 1]
            ),
            "ops": st.one_of(st.lists(ops, max_size=4), st.just([OP] * 23), st.just([OP] * 24)),
            "blocks": st.integers(250, 260).map(bytes) | st.just(bytes(65_535)) | st.just(bytes(65_536)),
            "since": st.sampled_from([REV, None, ..., "3l", 5]),
            "rev": st.sampled_from([REV, "z" * 13, "3l"]),
            "repo": st.sampled_from([DID, "did:web:a.io", "did:web:" + "a" * 240, "did:x", "no"]),
            "blobs": st.sampled_from([[], [Link(CID)] * 2, ["x"], ...]),
            "time": st.sampled_from([TIME, "", "ü", 1]),
            "rebase": st.sampled_from([True, None, ...]),
            "tooBig": st.sampled_from([True, ...]),
            "prevData": st.sampled_from([None, ..., 5]),
            "other": st.just(1),
        },
    ),
    damage=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=2),
)
def test_a_commit_read_by_its_form_is_what_the_decoder_reads(
    fields: dict[str, Any], damage: list[tuple[int, int]]
) -> None:
    frame = bytearray(told("#commit", **{"blocks": bytes(300), **fields}))
    for at, byte in damage:
        frame[at % len(frame)] = byte
    assert read(bytes(frame)) == read_in_general(bytes(frame))


def test_a_common_commit_needs_no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = told("#commit", blocks=bytes(300), since=REV, ops=[OP, OP | {"action": "update", "prev": Link(CID)}])
    expected = read_in_general(frame)
    monkeypatch.setattr(drisl, "decode_prefix", None)
    assert expected is not None
    assert decode_frame(frame) == expected


# --- a glance


def test_a_glance_tells_seq_did_and_ops_of_a_commit() -> None:
    glance = peek(told("#commit"))
    assert glance
    seq, did, ops = glance
    assert (seq, did) == (5, DID)
    assert b"io.atcr.hold.crew/a" in ops
    for seq in (1, 23, 24, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, MAX_SEQ):
        assert peek(told("#commit", seq=seq)) == (seq, DID, ops)
    assert peek(told("#commit", repo="did:web:a.io")) == (5, "did:web:a.io", ops)
    assert peek(told("#commit", prevData=None)) == (5, DID, ops)
    assert peek(told("#commit", prevData=...)) == (5, DID, ops)


@pytest.mark.parametrize("times", [1, 5, 6, 50])
def test_a_glance_reads_every_kind_of_op(times: int) -> None:
    ops = [
        {"action": action, "path": f"io.atcr.hold.crew/{n}", "cid": cid} | ({"prev": prev} if prev != ... else {})
        for n, (action, cid, prev) in enumerate(
            [
                ("create", Link(CID), ...),
                ("update", Link(CID), Link(CID)),
                ("delete", None, Link(CID)),
                ("delete", None, ...),
            ]
        )
    ]
    found = peek(told("#commit", ops=ops * times))
    assert found
    assert all(found[2].count(op["path"].encode()) == times for op in ops)


@pytest.mark.parametrize(
    "frame",
    [
        told("#handle", seq=1),
        told("#commit", ops=[]),
        told("#commit", tooBig=True),
        told("#commit", tooBig=True, prevData=Link(CID)),
        told("#sync"),
        told("#identity"),
        told("#account"),
        frames.info("x"),
        frames.error("x"),
        told("#commit", seq=0),
        told("#commit", seq=MAX_SEQ + 1),
        told("#commit", seq=-1),
        b"\xa2bop\x01atg#commit" + BODY,
        b"",
        told("#commit")[:60],
        told("#sync")[:30],
    ],
    ids=range(16),
)
def test_what_a_glance_can_not_tell_is_left_to_decoding(frame: bytes) -> None:
    assert peek(frame) is None
