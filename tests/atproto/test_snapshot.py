"""Reading a repo's wanted records from its CAR: in any order, in bounded memory, and of what is wrong, what comes of it."""

from __future__ import annotations

import os
import random
import resource
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chalicelib.atproto import spool
from chalicelib.atproto.car import CarReader
from chalicelib.atproto.cid import RAW
from chalicelib.atproto.commit import parse_commit
from chalicelib.atproto.crypto import parse_did_key
from chalicelib.atproto.errors import (
    BadSignature,
    BudgetExceeded,
    EmptyCar,
    MalformedCar,
    PassedOver,
    Unreachable,
    VerificationFailed,
)
from chalicelib.atproto.node import Node, encode_node
from chalicelib.atproto.repo import Record, Snapshot, SnapshotLimits, read_snapshot
from chalicelib.atproto.scope import Scope
from chalicelib.atproto.syntax import Did, tid_from_microseconds, tid_to_microseconds
from simulator import export, forgeries, mst
from simulator.cbor import Link, cid_of, encode
from simulator.keys import ORDER, SigningKey
from simulator.repo import Repo, Write
from tests.atproto.builders import (
    DID,
    KEY,
    REV,
    SCOPE,
    SIGNER,
    Blocks,
    car,
    header,
    in_chunks,
    key_of_layer,
    keys_of_layer,
    record,
    repo,
    section,
    write,
)

NOW = tid_to_microseconds(REV) / 1e6
EVERYTHING = Scope.parse("io.atcr.*,app.bsky.*,sh.tangled.*")


def read_once(
    data: bytes | Iterable[bytes],
    scope: Scope = SCOPE,
    did: Did = DID,
    now: float | None = None,
    *,
    keep_all: bool = False,
    **limits: int,
) -> Snapshot:
    chunks = in_chunks(data) if isinstance(data, bytes) else data
    return read_snapshot(chunks, did=did, scope=scope, limits=SnapshotLimits(**limits), now=now, keep_all=keep_all)


def read(data: bytes | Iterable[bytes], *arguments: Any, **more: Any) -> Snapshot:
    """As a crawl does: where something was passed over that is needed, a second time."""
    try:
        return read_once(data, *arguments, **more)
    except PassedOver:
        return read_once(data, *arguments, **more, keep_all=True)


def records(data: bytes | Iterable[bytes], scope: Scope = SCOPE, **limits: int) -> list[Record]:
    with read(data, scope, **limits) as snapshot:
        return list(snapshot.records())


def truth(repo: Repo, scope: Scope = SCOPE) -> list[Record]:
    """The oracle's answer."""
    live = repo.records().items()
    return [Record(path, each.cid, each.value) for path, each in live if scope.wants_key(path.encode())]


def class_a(data: bytes | Iterable[bytes], **limits: int) -> None:
    """The file, or what it would cost, is refused: nothing is known."""
    with pytest.raises((MalformedCar, BudgetExceeded)):
        read(data, **limits)


def class_b(reason: str, data: bytes | Iterable[bytes], **limits: int) -> None:
    """What the file says is refused, all of it."""
    with pytest.raises(VerificationFailed) as error:
        read(data, **limits)
    assert error.value.reason == reason, error.value


def class_c(data: bytes, bad: str) -> str:
    """One record has no value, and all others have theirs. Returns what is wrong with it."""
    found = {each.path: each for each in records(data)}
    problem = found.pop(bad)
    assert problem.value is None
    assert found
    assert all(each.value and not each.problem for each in found.values())
    assert problem.problem
    return problem.problem


def mixed(wanted: int = 40, others: int = 400, seed: int = 1) -> Repo:
    """A repo with a history: records of all kinds, some of them replaced or removed again."""
    rng = random.Random(seed)
    collections = ["app.bsky.feed.like", "app.bsky.graph.follow", "sh.tangled.star", "io.atcrx.y"]
    ours = ["io.atcr.hold.captain", "io.atcr.hold.crew", "io.atcr.manifest", "io.atcr.tag"]
    paths = [f"{rng.choice(ours)}/{n:04}" for n in range(wanted)]
    paths += [f"{rng.choice(collections)}/{n:04}" for n in range(others)]
    made = repo(*paths)
    for path in rng.sample(paths, min(20, len(paths))):
        made.apply([write(made, path, again=True)])
    for path in rng.sample(paths, min(20, len(paths))):
        made.apply([Write("delete", path)])
    return made


MIXED = mixed()


def backwards(repo: Repo, since: str | None = None) -> list[bytes]:
    """Every block that was ever written, children before their parents, the commit last."""
    return export.preorder(repo)[::-1]


ORDERS: dict[str, export.Order] = {
    "reference": export.reference,
    "carstore": export.carstore,
    "preorder": export.preorder,
    "backwards": backwards,
    **{f"shuffled {seed}": export.shuffled(seed) for seed in range(5)},
}


# --- what is read


@pytest.mark.parametrize("lookahead", [0, 500, 65_536])
@pytest.mark.parametrize("scope", [SCOPE, EVERYTHING, Scope.parse("io.atcr.tag"), Scope.parse("zz.none.*")], ids=str)
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_the_wanted_records_are_read_whatever_the_order_of_the_blocks(
    order: export.Order, scope: Scope, lookahead: int
) -> None:
    with read(export.car(MIXED, order).encode(), scope, lookahead=lookahead) as snapshot:
        assert list(snapshot.records()) == truth(MIXED, scope)
        assert snapshot.record_count == len(truth(MIXED, scope))
        assert (snapshot.skipped, snapshot.first_skipped) == (0, None)
        assert (snapshot.commit.did, snapshot.commit.rev, snapshot.commit.data) == (DID, MIXED.rev, MIXED.head.data)
        snapshot.commit.check_signature(KEY)


@pytest.mark.parametrize("size", [1, 37, 65_536, 10**9])
def test_the_size_of_the_chunks_does_not_matter(size: int) -> None:
    data = export.car(MIXED).encode()
    assert records(in_chunks(data, size)) == truth(MIXED)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_asking_for_more_than_memory_holds_gives_the_same_records(order: export.Order) -> None:
    for pending in (0, 3, 50):
        assert records(export.car(MIXED, order).encode(), EVERYTHING, pending=pending) == truth(MIXED, EVERYTHING)


def small_spool(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = {"_BYTES_IN_MEMORY": 1_000, "_BYTES_IN_WRITE": 700, "_PARTS_IN_WRITE": 3}
    for name, value in (bounds | {"_ROWS_IN_MEMORY": 25, "_ROWS_IN_BATCH": 4}).items():
        monkeypatch.setattr(spool, name, value)


def test_spooling_to_disk_gives_the_same_records(monkeypatch: pytest.MonkeyPatch) -> None:
    small_spool(monkeypatch)
    for order in (export.reference, export.carstore, backwards, export.shuffled(9)):
        data = export.car(MIXED, order).encode()
        for pending, size in ((5, 400), (5, 10_000), (10_000, 400), (10_000, 10_000)):
            for scope in (SCOPE, EVERYTHING):
                assert records(in_chunks(data, size), scope, pending=pending, lookahead=300) == truth(MIXED, scope)


def test_a_disk_that_takes_a_part_at_a_time_gives_the_same_records(monkeypatch: pytest.MonkeyPatch) -> None:
    small_spool(monkeypatch)
    takes = os.write
    monkeypatch.setattr(os, "writev", lambda file, parts: takes(file, b"".join(parts)[:100]))
    monkeypatch.setattr(os, "write", lambda file, data: takes(file, data[:100]))
    data = export.car(MIXED, export.shuffled(9)).encode()
    assert records(data, EVERYTHING, lookahead=300) == truth(MIXED, EVERYTHING)


@pytest.mark.parametrize("room", [0, 1, 9_999])
def test_a_full_disk_is_a_budget_that_is_exceeded(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    small_spool(monkeypatch)
    data = export.car(MIXED, export.shuffled(9)).encode()
    assert len(data) > 2 * room
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, allowed[1]))
    try:
        with pytest.raises(BudgetExceeded, match="no room left for temporary files"):
            read_once(data, EVERYTHING, lookahead=300)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)


def test_records_can_be_read_again_and_side_by_side() -> None:
    with read(export.car(MIXED).encode()) as snapshot:
        assert list(zip(snapshot.records(), snapshot.records(), strict=True)) == [(r, r) for r in truth(MIXED)]


def test_stale_blocks_are_not_records() -> None:
    hold = repo("io.atcr.hold.crew/gone", "io.atcr.hold.crew/changed", "io.atcr.hold.crew/kept")
    hold.apply([Write("delete", "io.atcr.hold.crew/gone")])
    hold.apply([write(hold, "io.atcr.hold.crew/changed", now="new")])
    data = export.car(hold, export.carstore).encode()
    assert data.count(b"io.atcr.hold.crew") > 3
    found = records(data)
    assert [each.path for each in found] == ["io.atcr.hold.crew/changed", "io.atcr.hold.crew/kept"]
    assert found[0].value == record(now="new")


def test_an_empty_repo_has_no_records() -> None:
    assert records(export.car(repo()).encode()) == []


def test_values_are_in_json_form() -> None:
    cid = cid_of(b"a blob")
    value = record(link=Link(cid), bytes=b"\x01\x02", nested=[None, True, -1, {"x": "ü"}])
    found = records(export.car(repo(**{"io.atcr.hold.crew/a": value})).encode())[0].value
    assert isinstance(found, dict)
    assert found["bytes"] == {"$bytes": "AQI"}
    assert found["nested"] == [None, True, -1, {"x": "ü"}]
    assert found["link"] == truth(repo(**{"io.atcr.hold.crew/a": value}))[0].value["link"]  # type: ignore[call-overload,index]


@pytest.mark.parametrize(("name", "count"), [("empty", 0), ("tiny", 8)])
def test_real_repos_are_read_whole_and_in_part(fixtures_dir: Path, name: str, count: int) -> None:
    data = (fixtures_dir / f"cars/{name}.car").read_bytes()
    reader = CarReader([data])
    did = parse_commit(dict(reader)[reader.root]).did
    with read(data, EVERYTHING, did) as snapshot:
        everything = list(snapshot.records())
    assert len(everything) == count
    assert not [each.problem for each in everything if each.problem]
    with read(data, Scope.parse("app.bsky.feed.post"), did) as snapshot:
        posts = list(snapshot.records())
    assert posts == [each for each in everything if each.path.startswith("app.bsky.feed.post/")]
    with read(data, Scope.parse("io.atcr.*"), did) as snapshot:
        assert list(snapshot.records()) == []


# --- how much of it is read


def counted(data: bytes, size: int = 1_000) -> tuple[Iterator[bytes], list[int]]:
    taken: list[int] = []

    def chunks() -> Iterator[bytes]:
        for chunk in in_chunks(data, size):
            taken.append(len(chunk))
            yield chunk

    return chunks(), taken


def test_reading_ends_where_the_range_is_proven_complete() -> None:
    made = repo(*(f"app.bsky.feed.like/{n:05}" for n in range(2_000)))
    made.apply([write(made, "io.atcr.hold.crew/new")])
    data = export.car(made, export.reference).encode()
    chunks, taken = counted(data)
    with read(chunks) as snapshot:
        assert snapshot.record_count == 1
        assert snapshot.bytes_read == sum(taken) < len(data) / 20


def test_reading_ends_with_the_nodes_on_the_way_where_nothing_is_wanted() -> None:
    made = repo(*(f"app.bsky.feed.like/{n:05}" for n in range(2_000)))
    made.apply([write(made, "app.bsky.feed.like/02000")])
    chunks, taken = counted(export.car(made, export.reference).encode())
    with read(chunks) as snapshot:
        assert snapshot.record_count == 0
        assert sum(taken) < 10_000


def test_what_follows_the_last_block_that_is_needed_is_not_looked_at() -> None:
    data = export.car(repo("io.atcr.hold.crew/a"), export.preorder).encode()
    junk = section(cid_of(b"\x80"), b"\x80")
    with read([data, junk, b"\xff\xff not a section"]) as snapshot:
        assert snapshot.bytes_read == len(data)
    with read([data + junk + b"\xff\xff not a section"]) as snapshot:
        assert snapshot.record_count == 1


def test_a_record_under_two_keys_does_not_keep_the_file_open() -> None:
    """Its block has come and gone when the second key asks for it."""
    same = record(n=1)
    made = repo(**{f"io.atcr.hold.crew/{n:03}": same for n in range(50)})
    data = export.car(made, export.preorder).encode()
    chunks, taken = counted(data + section(cid_of(b"\x80" * 5_000), b"\x80" * 5_000))
    with read(chunks) as snapshot:
        assert list(snapshot.records()) == truth(made)
        assert sum(taken) <= len(data) + 1_000


@pytest.mark.parametrize("pending", [0, 1, 20, 1_000])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_one_record_under_many_keys_is_a_record_under_each(order: export.Order, pending: int) -> None:
    same = record(n=1)
    made = repo(**{f"io.atcr.hold.crew/{n:03}": same for n in range(50)}, **{"io.atcr.hold.crew/x": record(n=2)})
    assert records(export.car(made, order).encode(), pending=pending, lookahead=100) == truth(made)


def test_what_the_connection_raises_comes_through() -> None:
    def broken() -> Iterator[bytes]:
        yield export.car(MIXED).encode()[:2_000]
        raise Unreachable("the connection broke")

    with pytest.raises(Unreachable):
        read(broken())


def test_memory_stays_bounded_while_junk_fills_the_file() -> None:
    made = repo("io.atcr.hold.crew/a")
    root, *rest = ((cid, made.blocks[cid]) for cid in export.preorder(made))

    def chunks() -> Iterator[bytes]:
        yield header(root[0])
        for number in range(1_500):
            like_a_node = b"\xa2ae" + number.to_bytes(4, "big") * 2_500
            yield section(cid_of(number.to_bytes(4, "big")), like_a_node)
        yield from (section(*block) for block in (*rest, root))

    tracemalloc.start()
    try:
        found = records(chunks())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == truth(made)
    assert peak < 12_000_000  # of 15 MB of junk


# --- class A: the file


@pytest.mark.parametrize("start", [b"\x3a", b"\xba\x00", b"\x00", b"\xff" * 20, header(b"")[:10], header()])
def test_class_a_a_bad_header(start: bytes) -> None:
    class_a(start)


def test_class_a_an_empty_file_has_an_error_of_its_own() -> None:
    with pytest.raises(EmptyCar):
        read([])


@pytest.mark.parametrize("length", [b"\x00", b"\x24", b"\x80\x00", b"\xff" * 9 + b"\x01", b"\xff\xff\xff\x7f"])
def test_class_a_a_bad_length_among_the_blocks(length: bytes) -> None:
    root, *_ = blocks = [(cid, MIXED.blocks[cid]) for cid in export.preorder(MIXED)]
    class_a(car(root[0], blocks[:3]) + length + b"x" * 40 + car(root[0], blocks[3:])[59:])


def test_class_a_a_cut_at_any_byte_of_the_last_block() -> None:
    made = repo("io.atcr.hold.crew/a", "io.atcr.hold.crew/b")
    data = export.car(made, export.preorder).encode()
    last = len(section(*list(CarReader([data]))[-1]))
    for cut in range(1, last):
        class_a(data[:-cut])
    class_b("missing-block", data[:-last])


def test_class_a_an_endless_file_of_tiny_blocks() -> None:
    def endless() -> Iterator[bytes]:
        yield header(MIXED.head.cid)
        while True:
            yield section(cid_of(b"\x80"), b"\x80") * 100

    class_a(endless(), max_blocks=20_000)
    class_a(endless(), max_bytes=1_000_000)
    assert SnapshotLimits().max_blocks == 10_000_000


def limits_of(data: bytes, scope: Scope = EVERYTHING) -> dict[str, int]:
    """Of each limit the lowest value with which the file is still read."""
    with read(data, scope) as snapshot:
        found = list(snapshot.records())
    blocks = list(CarReader([data]))
    sizes = {cid: len(block) for cid, block in blocks}
    kept = [section(cid, b"x" * sizes[cid]) for cid in {each.cid for each in found}]
    return {
        "max_bytes": len(data),
        "max_header": 58,
        "max_blocks": len(blocks),
        "max_block": max(sizes.values()),
        "max_records": len(found),
        "max_values": sum(sizes[each.cid] for each in found),
        "max_spool": len(header(found[0].cid)) + sum(map(len, kept)),
        "max_layer": max(mst.layer_of(each.path.encode()) for each in found),
        "max_node_entries": max(len(node.keys) for node in mst.nodes(MIXED.tree)),
    }


@pytest.mark.parametrize("name", limits_of(export.car(MIXED).encode()))
def test_each_limit_is_itself_allowed_and_no_more_than_it(name: str) -> None:
    scope = Scope.parse("io.atcr.*,io.atcrx.*,app.bsky.*,sh.tangled.*")
    data = export.car(MIXED, export.preorder).encode()
    lowest = limits_of(data, scope)[name]
    assert records(data, scope, **{name: lowest}) == truth(MIXED, scope)
    with pytest.raises((BudgetExceeded, VerificationFailed)) as error:
        read(data, scope, **{name: lowest - 1})
    of_the_tree = name in ("max_layer", "max_node_entries")
    assert isinstance(error.value, VerificationFailed if of_the_tree else BudgetExceeded)


def test_class_a_one_large_record_under_many_keys_costs_as_much_as_many_records() -> None:
    large = record(text="x" * 10_000)
    made = repo(**{f"io.atcr.hold.crew/{n:04}": large for n in range(100)})
    class_a(export.car(made).encode(), max_values=1_000_000)


# --- class B: the commit


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_class_b_the_root_is_in_no_block(order: export.Order) -> None:
    class_b("missing-block", forgeries.missing_root(MIXED, order).encode())


def test_class_b_the_root_is_a_node() -> None:
    class_b("bad-commit", forgeries.wrong_root(MIXED, export.reference).encode())


BAD_COMMITS: dict[str, dict[str, Any]] = {
    "version 2": {"version": 2},
    "version 4": {"version": 4},
    "a version that is text": {"version": "3"},
    "a version that is true": {"version": True},
    **{f"no {name}": {name: ...} for name in ("version", "did", "rev", "data", "prev", "sig")},
    **{f"null for {name}": {name: None} for name in ("version", "did", "rev", "data", "sig")},
    "a did that is none": {"did": "plc:x"},
    "a rev that is no TID": {"rev": "2026-01-01"},
    "a rev of 12 characters": {"rev": REV[1:]},
    "data that is bytes": {"data": cid_of(b"")},
    "data that is a raw block": {"data": Link(RAW + cid_of(b"")[4:])},
    "prev that is text": {"prev": "none"},
    "sig that is text": {"sig": "x" * 64},
}


@pytest.mark.parametrize("fields", BAD_COMMITS.values(), ids=BAD_COMMITS)
def test_class_b_a_malformed_commit(fields: dict[str, Any]) -> None:
    blocks = Blocks()
    blocks.commit(blocks.tree([]), **fields)
    class_b("bad-commit", blocks.car())


def test_class_b_a_commit_that_is_not_strict() -> None:
    blocks = Blocks()
    commit = blocks[blocks.commit(blocks.tree([]))]
    for bad in (commit + b"\x00", commit.replace(b"gversion\x03", b"gversion\x18\x03"), b"\xff", b""):
        if bad:
            root = blocks.add(bad)
            class_b("bad-commit", blocks.car(root))


def test_class_b_the_commit_of_another_did() -> None:
    blocks = Blocks()
    blocks.commit(blocks.tree([]), did="did:plc:zzzzzzzzzzzzzzzzzzzzzzzz")
    class_b("wrong-did", blocks.car())


def test_both_spellings_of_a_port_are_one_did() -> None:
    blocks = Blocks()
    blocks.commit(blocks.tree([]), did="did:web:localhost%3A2583")
    with read(blocks.car(), did=Did("did:web:localhost:2583")) as snapshot:
        assert snapshot.commit.did == "did:web:localhost%3A2583"


def test_class_b_a_rev_in_the_future() -> None:
    blocks = Blocks()
    blocks.commit(blocks.tree([]))
    data = blocks.car()
    with read(data, now=NOW - 299) as snapshot:
        assert snapshot.commit.rev == REV
    with pytest.raises(VerificationFailed) as error:
        read(data, now=NOW - 301)
    assert error.value.reason == "future-rev"
    years_ahead = Blocks()
    years_ahead.commit(years_ahead.tree([]), rev=tid_from_microseconds(2**52))
    class_b("future-rev", years_ahead.car())


def test_a_field_of_the_commit_that_is_not_known_is_signed_for_like_the_others() -> None:
    blocks = Blocks()
    blocks.commit(blocks.tree([]), more="than known")
    with read(blocks.car()) as snapshot:
        snapshot.commit.check_signature(KEY)


def test_a_commit_with_a_link_to_the_one_before_is_read() -> None:
    blocks = Blocks()
    blocks.commit(blocks.tree([]), prev=Link(cid_of(b"before")))
    with read(blocks.car()) as snapshot:
        snapshot.commit.check_signature(KEY)


BAD_SIGNATURES: dict[str, Callable[[bytes], bytes]] = {
    "63 bytes": lambda sig: sig[:63],
    "65 bytes": lambda sig: sig + b"\x00",
    "nothing": lambda sig: b"",
    "r zero": lambda sig: bytes(32) + sig[32:],
    "s zero": lambda sig: sig[:32] + bytes(32),
    "one bit": lambda sig: sig[:-1] + bytes((sig[-1] ^ 1,)),
    "DER": lambda sig: b"\x30\x44\x02\x20" + sig[:32] + b"\x02\x20" + sig[32:],
    "high S": lambda sig: sig[:32] + (ORDER["k256"] - int.from_bytes(sig[32:], "big")).to_bytes(32, "big"),
}


@pytest.mark.parametrize("change", BAD_SIGNATURES.values(), ids=BAD_SIGNATURES)
def test_class_b_a_bad_signature(change: Callable[[bytes], bytes]) -> None:
    signature = read(export.car(MIXED).encode()).commit.signature
    with (
        read(forgeries.signature(change(signature))(MIXED, export.reference).encode()) as snapshot,
        pytest.raises(BadSignature),
    ):
        snapshot.commit.check_signature(KEY)


def test_class_b_a_rotated_key_does_not_fit_until_it_is_fetched_again() -> None:
    new = SigningKey.generate(random.Random(8))
    with read(export.car(repo("io.atcr.hold.crew/a", key=new)).encode()) as snapshot:
        with pytest.raises(BadSignature):
            snapshot.commit.check_signature(KEY)
        snapshot.commit.check_signature(parse_did_key(new.did_key))


def test_a_signature_of_p256_is_checked() -> None:
    signer = SigningKey.generate(random.Random(9), "p256")
    with read(export.car(repo("io.atcr.hold.crew/a", key=signer)).encode()) as snapshot:
        snapshot.commit.check_signature(parse_did_key(signer.did_key))
        with pytest.raises(BadSignature):
            snapshot.commit.check_signature(KEY)


# --- class B: blocks that are asked for


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_class_b_a_wanted_record_is_missing(order: export.Order) -> None:
    path = truth(MIXED)[3].path
    class_b("missing-block", forgeries.missing_block(path)(MIXED, order).encode())
    class_b("missing-block", forgeries.missing_block(path)(MIXED, order).encode(), pending=0)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_class_b_a_wanted_record_has_other_bytes(order: export.Order) -> None:
    path = truth(MIXED)[3].path
    data = forgeries.altered_block(path)(MIXED, order).encode()
    for limits in ({}, {"lookahead": 0}, {"pending": 0}):
        class_b("wrong-hash", data, **limits)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("altered", [False, True])
def test_class_b_a_node_on_the_way_is_missing_or_has_other_bytes(order: export.Order, altered: bool) -> None:
    for node in mst.covering(MIXED.tree, truth(MIXED)[3].path.encode()):
        blocks = [
            (cid, MIXED.blocks[cid] + b"\x00" * (cid == node.cid))
            for cid in order(MIXED, None)
            if altered or cid != node.cid
        ]
        class_b("wrong-hash" if altered else "missing-block", car(MIXED.head.cid, blocks))


def test_class_b_the_commit_has_other_bytes() -> None:
    blocks = [(MIXED.head.cid, MIXED.head.block[:-1] + b"\x04")]
    class_b("wrong-hash", car(MIXED.head.cid, blocks))


# --- class B: the tree


def tree(build: Callable[[Blocks, bytes], bytes]) -> bytes:
    """The file of a commit over what ``build`` makes of a record."""
    blocks = Blocks()
    blocks.commit(build(blocks, blocks.add(record())))
    return blocks.car()


A, B, C = [key for key, _ in zip(keys_of_layer(1), range(3), strict=False)]
LOW, LATE = key_of_layer(0), key_of_layer(0, C)

BAD_TREES: dict[str, Callable[[Blocks, bytes], bytes]] = {
    "a child at layer 0": lambda b, v: b.node([(LOW, v, b.node([(LATE, v, None)]))]),
    "an empty inner node": lambda b, v: b.node([(A, v, b.node())]),
    "an empty node at the bottom of many": lambda b, v: b.node([(key_of_layer(2), v, b.node(left=b.node()))]),
    "a root that only leads on": lambda b, v: b.node(left=b.node([(LOW, v, None)])),
    "a layer left out": lambda b, v: b.node([(key_of_layer(2), v, b.node([(LATE, v, None)]))]),
    "layers out of order": lambda b, v: b.node([(LOW, v, None), (A, v, None)]),
    "a key outside of the parent's gap": lambda b, v: b.node(
        [(A, v, None), (C, v, b.node([(key_of_layer(0, B), v, None)]))]
    ),
    "keys out of order": lambda b, v: b.node([(B, v, None), (A, v, None)]),
    "the same key twice": lambda b, v: b.node([(A, v, None), (A, v, None)]),
    "the same key in two nodes": lambda b, v: b.node([(A, v, b.node([(A, v, None)]))]),
    "a node in two places": lambda b, v: b.node([(A, v, b.node(left=v)), (C, v, b.node(left=v))]),
    "a node that is a record": lambda b, v: b.node([(A, v, v)]),
    "a tree that is a record": lambda b, v: v,
    "a field more": lambda b, v: b.node([(A, v, None)], x=1),
    "1,001 entries in a node": lambda b, v: b.node([(b"io.atcr.x/%05d" % n, v, None) for n in range(1_001)]),
}


@pytest.mark.parametrize("build", BAD_TREES.values(), ids=BAD_TREES)
def test_class_b_a_malformed_tree(build: Callable[[Blocks, bytes], bytes]) -> None:
    class_b("bad-node", tree(build))


def test_class_b_a_cycle_of_nodes() -> None:
    """A hash can't be in what it is the hash of, so one of the two blocks has other bytes than it should."""
    blocks = Blocks()
    value = blocks.add(record())
    inner = blocks.node(left=cid_of(b"nothing"))
    root = blocks.node([(key_of_layer(2), value, inner)])
    blocks[inner] = blocks[blocks.node(left=root)]
    class_b("wrong-hash", blocks.car(blocks.commit(root)))


def test_class_b_a_chain_of_nodes_that_only_lead_on() -> None:
    blocks = Blocks()
    top = key_of_layer(3)
    below = blocks.node([(key_of_layer(0, top), blocks.add(record()), None)])
    for _ in range(3_000):
        below = blocks.node(left=below)
    blocks.commit(blocks.node([(top, blocks.add(record()), below)]))
    class_b("bad-node", blocks.car())


def test_a_malformed_node_outside_of_the_wanted_ranges_is_never_read() -> None:
    blocks = Blocks()
    value = blocks.add(record())
    wanted = key_of_layer(1)
    other = key_of_layer(1, b"app.bsky.feed.like/")
    bad = blocks.add({"not": "a node"})
    blocks.commit(blocks.node([(other, value, None), (wanted, value, None)], left=bad))
    assert [each.path for each in records(blocks.car())] == [wanted.decode()]


def test_an_empty_tree_is_a_tree() -> None:
    assert records(tree(lambda blocks, value: blocks.node())) == []


def test_a_node_that_only_leads_on_is_a_node() -> None:
    top, low = key_of_layer(2), key_of_layer(0, key_of_layer(2))
    data = tree(lambda b, v: b.node([(top, v, b.node(left=b.node([(low, v, None)])))]))
    assert [each.path for each in records(data)] == [top.decode(), low.decode()]


# --- class C: keys


BAD_KEYS = {
    "no slash": b"io.atcr.hold",
    "no record key": b"io.atcr.hold.crew/",
    "two slashes": b"io.atcr.hold.crew/a/b",
    "not ASCII": "io.atcr.hold.crew/ü".encode(),
    "not UTF-8": b"io.atcr.hold.crew/\xff",
    "over-long": b"io.atcr.hold.crew/" + b"a" * 513,
    "far over-long": b"io.atcr.hold.crew/" + b"a" * 100_000,
    "the namespace alone": b"io.atcr.",
    "a dot for a record key": b"io.atcr.hold.crew/.",
    "a space": b"io.atcr.hold.crew/a b",
    "no NSID": b"io.atcr.-/a",
    "a NUL": b"io.atcr.hold.crew/a\x00",
}


@pytest.mark.parametrize("order", [export.preorder, backwards], ids=["in order", "backwards"])
@pytest.mark.parametrize("key", BAD_KEYS.values(), ids=BAD_KEYS)
def test_class_c_a_key_that_is_no_path_is_skipped_and_counted(key: bytes, order: export.Order) -> None:
    blocks = Blocks()
    value = blocks.add(record())
    good = [b"io.atcr.hold.crew/%d" % n for n in range(5)]
    root = mst.build((each, value) for each in [*good, key, key + b"!"])
    nodes = {node.cid: node.block for node in mst.nodes(root)}
    commit = blocks.commit(root.cid)
    ordered = list({commit: blocks[commit], **nodes, value: blocks[value]}.items())
    with read(car(commit, ordered if order is export.preorder else ordered[::-1])) as snapshot:
        assert [each.path.encode() for each in snapshot.records()] == good
        assert snapshot.record_count == 5
        assert snapshot.skipped == 2
        assert snapshot.first_skipped


@pytest.mark.parametrize("key", [b"io.atcr/x", b"io.atcrx.y/1", b"io.atcq.z/1", b"io.atcr", b"io", b"zz", b"\xff\xff"])
def test_a_key_outside_of_the_scope_is_neither_a_record_nor_counted(key: bytes) -> None:
    blocks = Blocks()
    value = blocks.add(record())
    blocks.commit(blocks.tree([(b"io.atcr.hold.crew/a", value), (key, cid_of(b"in no block"))]))
    with read(blocks.car()) as snapshot:
        assert [each.path for each in snapshot.records()] == ["io.atcr.hold.crew/a"]
        assert snapshot.skipped == 0


@pytest.mark.parametrize("order", [export.preorder, backwards], ids=["in order", "backwards"])
def test_a_wanted_key_is_found_whose_namespace_is_hidden_by_compression(order: export.Order) -> None:
    """No block of the tree has ``io.atcr.`` in it: each key shares part of it with the key before."""
    first, hidden = b"io.atcq/x", b"io.atcr.hold.crew/%d"
    low = [hidden % n for n in range(100) if mst.layer_of(hidden % n) == 0][:3]
    before = next(key for n in range(100) if mst.layer_of(key := first + b"%d" % n) == 0)
    blocks = Blocks()
    value = blocks.add(record())
    root = blocks.node([(key, value, None) for key in [before, *low]])
    assert b"io.atcr." not in blocks[root]
    commit = blocks.commit(root)
    ordered = [(cid, blocks[cid]) for cid in (commit, root, value)]
    data = car(commit, ordered if order is export.preorder else ordered[::-1])
    assert [each.path.encode() for each in records(data)] == low


# --- class C: records


def cbor(text: str) -> bytes:
    return bytes.fromhex(text.replace(" ", ""))


TYPE = "652474797065 71" + b"io.atcr.hold.crew".hex()  # "$type": "io.atcr.hold.crew"

BAD_RECORDS = {
    "nothing but a byte": b"\x00",
    "a list": encode([record()]),
    "a string": encode("io.atcr.hold.crew"),
    "cut off": encode(record())[:-1],
    "bytes behind it": encode(record()) + b"\x00",
    "an indefinite map": cbor(f"bf {TYPE} ff"),
    "keys out of order": cbor(f"a2 {TYPE} 6161 00"),
    "duplicate keys": cbor(f"a3 6161 00 6161 00 {TYPE}"),
    "an integer key": cbor(f"a2 00 00 {TYPE}"),
    "a number longer than needed": cbor(f"a2 6161 1800 {TYPE}"),
    "a short float": cbor(f"a2 6161 f93c00 {TYPE}"),
    "NaN": cbor(f"a2 6161 fb7ff8000000000000 {TYPE}"),
    "infinity": cbor(f"a2 6161 fb7ff0000000000000 {TYPE}"),
    "another tag": cbor(f"a2 6161 c000 {TYPE}"),
    "a big integer": cbor(f"a2 6161 c24100 {TYPE}"),
    "undefined": cbor(f"a2 6161 f7 {TYPE}"),
    "invalid UTF-8": cbor(f"a2 6161 61ff {TYPE}"),
    "a link that is no CID": cbor(f"a2 6161 d82a4100 {TYPE}"),
    "no $type": encode({"text": "io.atcr.hold.crew"}),
    "no $type and no trace of the collection": encode({"text": "x"}),
    "another $type": encode(record("io.atcr.hold.captain")),
    "another $type, unwanted": encode(record("app.bsky.feed.post")),
    "a $type that is a number": encode({"$type": 1, "text": "io.atcr."}),
    "a million levels": b"\xa2aa" + b"\x81" * 900_000 + b"\x00" + cbor(TYPE),
    "1,000,001 bytes": encode(record(text="x" * (1_000_001 - len(encode(record(text="x" * 70_000))) + 70_000))),
    "a node of the tree": encode({"e": [], "l": None}),
    "bytes like a CID": cid_of(b""),
}


@pytest.mark.parametrize("lookahead", [0, 100, 65_536])
@pytest.mark.parametrize(
    "order", [export.preorder, backwards, export.shuffled(1)], ids=["in order", "backwards", "shuffled"]
)
@pytest.mark.parametrize("block", BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_class_c_a_bad_record_keeps_its_key_and_cid_and_no_more(
    block: bytes, order: export.Order, lookahead: int
) -> None:
    made = repo("io.atcr.hold.crew/a", "io.atcr.hold.crew/c", **{"io.atcr.hold.crew/b": block})
    found = records(export.car(made, order).encode(), lookahead=lookahead)
    good, bad, last = found
    assert [good, last] == [each for each in truth(made) if each.path != "io.atcr.hold.crew/b"]
    assert (bad.path, bad.cid, bad.value) == ("io.atcr.hold.crew/b", cid_of(block), None)
    assert bad.problem


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_a_second_reading_tells_a_record_without_a_type_from_a_missing_one(order: export.Order) -> None:
    bad = encode({"text": "x"})
    others = {f"app.bsky.feed.like/{number:02}": {"$type": "app.bsky.feed.like"} for number in range(30)}
    made = repo("io.atcr.hold.crew/a", **others, **{"io.atcr.hold.crew/b": bad})
    there = export.car(made, order).encode()
    gone = there.replace(section(cid_of(bad), bad), b"")
    assert len(gone) < len(there)
    for data in (there, gone):
        with pytest.raises(PassedOver):
            read_once([data], lookahead=0)
    with read_once([there], lookahead=0, keep_all=True) as snapshot:
        assert [each.problem for each in snapshot.records()] == [None, "its $type is missing"]
    with pytest.raises(VerificationFailed):
        read_once([gone], lookahead=0, keep_all=True)


def test_a_record_of_a_million_bytes_has_its_value() -> None:
    value = record(text="x" * (1_000_000 - len(encode(record(text="x" * 70_000))) + 70_000))
    assert len(encode(value)) == 1_000_000
    (found,) = records(export.car(repo(**{"io.atcr.hold.crew/a": value})).encode())
    assert found.value == value


@pytest.mark.parametrize("number", [2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)])
def test_large_integers_stay_what_they_are(number: int) -> None:
    (found,) = records(export.car(repo(**{"io.atcr.hold.crew/a": record(n=number)})).encode())
    assert found.value == record(n=number)


def test_bytes_that_look_like_a_cid_are_bytes() -> None:
    (found,) = records(export.car(repo(**{"io.atcr.hold.crew/a": record(b=b"\x00" + cid_of(b""))})).encode())
    assert isinstance(found.value, dict)
    assert list(found.value["b"]) == ["$bytes"]  # type: ignore[arg-type]


@pytest.mark.parametrize("cid", [RAW + cid_of(b"")[4:], b"\x01\x71\x13\x40" + b"x" * 64, b"\x12\x20" + b"x" * 32])
def test_class_c_a_record_of_another_kind_of_cid(cid: bytes) -> None:
    blocks = Blocks()
    value = blocks.add(record())
    keys = [key for key, _ in zip(keys_of_layer(0), range(3), strict=False)]
    root = blocks.add(encode_node(Node(keys, [value, cid, value], [None] * 4)))
    blocks.commit(root)
    found = records(blocks.car())
    assert [each.cid for each in found] == [value, cid, value]
    assert [each.problem is None for each in found] == [True, False, True]


def test_class_c_says_what_is_wrong() -> None:
    made = repo("io.atcr.hold.crew/a", **{"io.atcr.hold.crew/b": encode({"x": 1})})
    assert class_c(export.car(made).encode(), "io.atcr.hold.crew/b") == "its $type is missing"
    made = repo("io.atcr.hold.crew/a", **{"io.atcr.hold.crew/b": encode(record("io.atcr.tag"))})
    problem = class_c(export.car(made).encode(), "io.atcr.hold.crew/b")
    assert problem == "its $type is 'io.atcr.tag', not io.atcr.hold.crew"


# --- class D: what is not asked for


def around(extra: list[tuple[bytes, bytes]], at: int) -> bytes:
    blocks = [(cid, MIXED.blocks[cid]) for cid in export.preorder(MIXED)]
    return car(MIXED.head.cid, blocks[:at] + extra + blocks[at:])


JUNK = {
    "raw": (RAW + cid_of(b"blob")[4:], b"blob"),
    "another hash": (b"\x01\x71\x1b\x20" + cid_of(b"")[4:], b"keccak"),
    "version 0": (b"\x12\x20" + cid_of(b"")[4:], b"an old block"),
    "not CBOR": (cid_of(b"\xff"), b"\xff"),
    "not what its CID says": (cid_of(b"one"), b"another"),
    "like a node": (cid_of(b"two"), b"\xa2ae\x9a\xff\xff\xff\xff"),
    "like a record": (cid_of(b"three"), b"\x81" * 1_000 + b"io.atcr.hold.crew"),
    "a node of no tree": (cid_of(encode({"e": [], "l": None})), encode({"e": [], "l": None})),
}


@pytest.mark.parametrize("at", [0, 1, 2, 200])
@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_class_d_blocks_that_belong_to_nothing_are_ignored(junk: tuple[bytes, bytes], at: int) -> None:
    assert records(around([junk], at)) == truth(MIXED)


@pytest.mark.parametrize("lookahead", [0, 65_536])
def test_class_d_duplicates_before_and_after_use_are_ignored(lookahead: int) -> None:
    for order in (export.preorder, backwards, export.shuffled(2)):
        blocks = [(cid, MIXED.blocks[cid]) for cid in order(MIXED, None) for _ in range(2)]
        assert records(car(MIXED.head.cid, blocks), lookahead=lookahead) == truth(MIXED)
        assert records(car(MIXED.head.cid, blocks[::2] + blocks[::2]), lookahead=lookahead) == truth(MIXED)


def test_class_d_other_bytes_under_a_cid_that_was_used_are_ignored() -> None:
    forged = [(cid, MIXED.blocks[cid] + b"\x00") for cid in export.preorder(MIXED)]
    assert records(around(forged, len(forged))) == truth(MIXED)


@pytest.mark.parametrize("lookahead", [0, 65_536])
def test_class_b_other_bytes_under_a_cid_before_it_is_asked_for(lookahead: int) -> None:
    """Of several blocks under one CID the first counts."""
    forged = truth(MIXED)[3].cid
    blocks = [(cid, MIXED.blocks[cid]) for cid in backwards(MIXED)]
    data = car(MIXED.head.cid, [(forged, MIXED.blocks[forged] + b"\x00"), *blocks])
    class_b("wrong-hash", data, lookahead=lookahead)


def test_junk_that_pushes_out_what_is_asked_for_later_changes_nothing() -> None:
    junk = [(cid_of(b"%d" % n), b"\xa2ae" + bytes(5_000)) for n in range(60)]
    blocks = [(cid, MIXED.blocks[cid]) for cid in backwards(MIXED)]
    for at in (len(blocks) - 1, len(blocks) // 2):
        assert records(car(MIXED.head.cid, blocks[:at] + junk + blocks[at:])) == truth(MIXED)


def test_the_builders_sign_as_the_simulator_does() -> None:
    blocks = Blocks()
    blocks.commit(blocks.tree([(key_of_layer(0), blocks.add(record()))]), SIGNER)
    with read(blocks.car()) as snapshot:
        snapshot.commit.check_signature(KEY)
        assert snapshot.record_count == 1
