"""The tree: nodes to the byte, the walk over a range of keys, and ops undone."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chalicelib.atproto import drisl
from chalicelib.atproto.cid import RAW, cid_from_text
from chalicelib.atproto.errors import MalformedCbor, VerificationFailed
from chalicelib.atproto.events import RepoOp
from chalicelib.atproto.mst import RangeWalk, find, invert, layer_of
from chalicelib.atproto.node import (
    NODE_LIMITS,
    ROOT_GAP,
    Gap,
    Node,
    NodeLimits,
    encode_node,
    parse_node,
    read_node,
    shared_prefix,
)
from simulator import mst as oracle
from simulator.cbor import Link, cid_of, encode
from tests.atproto.builders import Blocks, key_of_layer, keys_of_layer, node

VALUE = cid_of(b"a record")
OTHER = cid_of(b"another record")
CHILD = cid_of(b"a node")
KEYS = sorted(b"app.bsky.feed.like/%d" % n for n in range(6))

keys = st.binary(min_size=1, max_size=12) | st.from_regex(rb"[a-c]\.[a-c]\.[a-c]/[0-9]{1,3}", fullmatch=True)
trees = st.sets(keys, max_size=60).map(lambda some: oracle.build((key, VALUE) for key in some))


def reason(error: pytest.ExceptionInfo[VerificationFailed]) -> str:
    return error.value.reason


# --- keys and nodes


def test_layers_of_keys_are_those_of_the_interop_vectors(fixtures_dir: Path) -> None:
    for vector in json.loads((fixtures_dir / "interop/mst/key_heights.json").read_text()):
        assert layer_of(vector["key"].encode()) == vector["height"], vector


def test_shared_prefixes_are_those_of_the_interop_vectors(fixtures_dir: Path) -> None:
    for vector in json.loads((fixtures_dir / "interop/mst/common_prefix.json").read_text()):
        assert shared_prefix(vector["left"].encode(), vector["right"].encode()) == vector["len"], vector


def test_the_tree_of_the_example_keys_is_read_whole(fixtures_dir: Path) -> None:
    names = (fixtures_dir / "interop/mst/example_keys.txt").read_text().split()
    root = oracle.build((name.encode(), VALUE) for name in names)
    assert [key.decode() for key in walked(root, [(b"", b"\xff")])] == sorted(names)


@given(trees)
def test_every_node_of_a_healthy_tree_is_read_and_written_to_the_byte(root: oracle.Node) -> None:
    for healthy in oracle.nodes(root):
        parsed = parse_node(healthy.block)
        assert (parsed.keys, parsed.values) == (list(healthy.keys), list(healthy.values))
        assert parsed.children == [child and child.cid for child in healthy.children]
        assert encode_node(parsed) == healthy.block


BAD_NODES: dict[str, Any] = {
    "a list": [],
    "an empty map": {},
    "no e": {"l": None},
    "no l": {"e": []},
    "e that is a map": {"e": {}, "l": None},
    "a field more": {"e": [], "l": None, "x": 1},
    "l that is a number": {"e": [], "l": 1},
    "l that is bytes": {"e": [], "l": CHILD},
    "l to a raw block": {"e": [], "l": Link(RAW + CHILD[4:])},
    "l to another hash": {"e": [], "l": Link(b"\x01\x71\x13\x20" + CHILD[4:])},
    "an entry that is null": {"e": [None], "l": None},
    "an entry without t": {"e": [{"k": b"a", "p": 0, "v": Link(VALUE)}], "l": None},
    "an entry with a field more": {"e": [{"k": b"a", "p": 0, "t": None, "v": Link(VALUE), "w": 1}], "l": None},
    "a key that is text": {"e": [{"k": "a", "p": 0, "t": None, "v": Link(VALUE)}], "l": None},
    "a key that is null": {"e": [{"k": None, "p": 0, "t": None, "v": Link(VALUE)}], "l": None},
    "a value that is null": {"e": [{"k": b"a", "p": 0, "t": None, "v": None}], "l": None},
    "a value that is bytes": {"e": [{"k": b"a", "p": 0, "t": None, "v": VALUE}], "l": None},
    "a value that is an empty link": {"e": [{"k": b"a", "p": 0, "t": None, "v": Link(b"")}], "l": None},
    "a subtree that is text": {"e": [{"k": b"a", "p": 0, "t": "x", "v": Link(VALUE)}], "l": None},
    "a subtree of a raw block": {"e": [{"k": b"a", "p": 0, "t": Link(RAW + CHILD[4:]), "v": Link(VALUE)}], "l": None},
    "a negative prefix": {"e": [{"k": b"a", "p": -1, "t": None, "v": Link(VALUE)}], "l": None},
    "a prefix before the first key": {"e": [{"k": b"a", "p": 1, "t": None, "v": Link(VALUE)}], "l": None},
    "an empty key": {"e": [{"k": b"", "p": 0, "t": None, "v": Link(VALUE)}], "l": None},
    "a prefix longer than the key before it": {
        "e": [
            {"k": b"ab", "p": 0, "t": None, "v": Link(VALUE)},
            {"k": b"c", "p": 3, "t": None, "v": Link(VALUE)},
        ],
        "l": None,
    },
    "an empty suffix": {
        "e": [
            {"k": b"ab", "p": 0, "t": None, "v": Link(VALUE)},
            {"k": b"", "p": 1, "t": None, "v": Link(VALUE)},
        ],
        "l": None,
    },
    "the same key twice": node([(b"ab", VALUE, None), (b"ab", VALUE, None)]),
    "keys out of order": node([(b"b", VALUE, None), (b"a", VALUE, None)]),
}


@pytest.mark.parametrize("value", BAD_NODES.values(), ids=BAD_NODES)
def test_a_malformed_node_is_refused(value: Any) -> None:
    with pytest.raises(VerificationFailed) as error:
        parse_node(encode(value))
    assert reason(error) == "bad-node"


GOOD = encode(node([(b"io.atcr.hold.crew/a", VALUE, CHILD), (b"io.atcr.hold.crew/bb", OTHER, None)], CHILD))
LONG = encode(node([(b"k" * 30, VALUE, None), (b"k" * 29 + b"z" * 300, VALUE, None)]))

BAD_BYTES = {
    "cut off": GOOD[:-1],
    "cut off in a link": GOOD[:-40],
    "nothing": b"",
    "bytes behind it": GOOD + b"\x00",
    "a float for a prefix": GOOD.replace(b"ap\x00", b"ap\xf9\x00\x00"),
    "a length longer than needed": GOOD.replace(b"\xa2ae\x82", b"\xa2ae\x98\x02"),
    "an indefinite length": GOOD.replace(b"\xa2ae\x82", b"\xa2ae\x9f").replace(b"al\xd8", b"\xffal\xd8"),
    "more entries than said": GOOD.replace(b"\xa2ae\x82", b"\xa2ae\x81"),
    "fewer entries than said": GOOD.replace(b"\xa2ae\x82", b"\xa2ae\x83"),
    "a suffix longer than said": GOOD.replace(b"akBbb", b"akAbb"),
    "a suffix shorter than said": GOOD.replace(b"akBbb", b"akCbb"),
    "l before e": b"\xa2al\xf6ae\x80",
    "a prefix in two bytes": GOOD.replace(b"ap\x12", b"ap\x18\x12"),
    "a suffix length in two bytes": GOOD.replace(b"akBbb", b"akX\x02bb"),
    "a suffix length in three bytes": LONG.replace(b"akX\x1e", b"akY\x00\x1e"),
    "a suffix length in five bytes": LONG.replace(b"akY\x01\x2c", b"akZ\x00\x00\x01\x2c"),
    "a suffix length in nine bytes": LONG.replace(b"akY\x01\x2c", b"ak\x5b\x00\x00\x00\x00\x00\x00\x01\x2c"),
    "another tag": GOOD.replace(b"al\xd8*", b"al\xd8+"),
    "a link without its zero byte": GOOD.replace(b"al\xd8*X%\x00", b"al\xd8*X%\x01"),
}


@pytest.mark.parametrize("block", BAD_BYTES.values(), ids=BAD_BYTES)
def test_a_node_in_another_form_is_refused(block: bytes) -> None:
    parse_node(GOOD), parse_node(LONG)
    assert block not in (GOOD, LONG)
    with pytest.raises(VerificationFailed) as error:
        parse_node(block)
    assert reason(error) == "bad-node"


@given(trees, st.data())
def test_a_node_with_changed_bytes_is_read_as_a_general_decoder_reads_it(
    root: oracle.Node, data: st.DataObject
) -> None:
    block = bytearray(data.draw(st.sampled_from([*oracle.nodes(root)])).block)
    for _ in range(data.draw(st.integers(1, 3))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed = parse_node(bytes(block))
    except VerificationFailed:
        parsed = None
    assume(parsed is None or all(value[:4] == VALUE[:4] and len(value) == 36 for value in parsed.values))
    assert parsed == generally_parsed(bytes(block))


def generally_parsed(block: bytes) -> Node | None:
    """What a strict decoder and the rules of the specification make of a node."""
    try:
        fields: Any = drisl.decode(block)
        assert fields.keys() == {"e", "l"}
        entries = fields["e"]
        node = Node([], [], [fields["l"].cid if fields["l"] is not None else None])
        key = b""
        for entry in entries:
            assert entry.keys() == {"k", "p", "t", "v"}
            assert type(entry["p"]) is int
            assert 0 <= entry["p"] <= len(key)
            key = key[: entry["p"]] + entry["k"]
            assert key > (node.keys[-1] if node.keys else b"")
            node.keys.append(key)
            node.values.append(entry["v"].cid)
            node.children.append(entry["t"].cid if entry["t"] is not None else None)
        assert all(cid.startswith(CHILD[:4]) for cid in [*node.values, *filter(None, node.children)])
    except (AssertionError, AttributeError, KeyError, TypeError, MalformedCbor):
        return None
    return node


def test_a_value_of_another_kind_of_cid_does_not_spoil_its_node() -> None:
    for cid in (RAW + VALUE[4:], b"\x01\x71\x13\x40" + b"x" * 64, b"\x12\x20" + VALUE[4:]):
        assert parse_node(encode_node(Node([b"a"], [cid], [None, None]))).values == [cid]


def test_a_node_may_have_as_many_entries_as_the_limit_and_no_more() -> None:
    many = [(b"%05d" % n, VALUE, None) for n in range(1_001)]
    assert len(parse_node(encode(node(many[:-1]))).keys) == NODE_LIMITS.max_entries == 1_000
    with pytest.raises(VerificationFailed):
        parse_node(encode(node(many)))
    assert len(parse_node(encode(node(many[:5])), NodeLimits(max_entries=5)).keys) == 5
    with pytest.raises(VerificationFailed):
        parse_node(encode(node(many[:6])), NodeLimits(max_entries=5))


def test_a_node_of_a_hundred_thousand_entries_is_refused_unread() -> None:
    with pytest.raises(VerificationFailed):
        parse_node(b"\xa2ae\x9a\x00\x01\x86\xa0" + b"\xa4ak" * 100_000)


def test_shared_prefixes_may_unfold_to_as_many_bytes_as_the_limit_and_no_more() -> None:
    wide = [(b"k" * 300 + b"%03d" % n, VALUE, None) for n in range(10)]
    assert len(parse_node(encode(node(wide)), NodeLimits(max_key_bytes=3_030)).keys) == 10
    with pytest.raises(VerificationFailed):
        parse_node(encode(node(wide)), NodeLimits(max_key_bytes=3_029))


# --- places in the tree


def place(gap: Gap, *keys: bytes, left: bytes | None = None, children: Sequence[bytes | None] = ()) -> int:
    rights = [*children, *[None] * len(keys)]
    block = encode(node([(key, VALUE, right) for key, right in zip(keys, rights, strict=False)], left))
    return read_node(cid_of(block), block, gap)[1]


def test_a_node_stands_where_its_keys_and_its_layer_belong() -> None:
    low, *inner, high = keys_of(1, 4)
    assert place(ROOT_GAP) == 0
    assert place(ROOT_GAP, *inner, left=CHILD) == 1
    assert place(Gap(low, high, 1), *inner, children=[CHILD]) == 1
    assert place(Gap(low, None, 1), *inner) == 1
    assert place(Gap(b"", low, 3), left=CHILD) == 3


def keys_of(layer: int, count: int) -> list[bytes]:
    found = keys_of_layer(layer)
    return [next(found) for _ in range(count)]


@pytest.mark.parametrize(
    ("gap", "layer", "left", "inside"),
    [
        pytest.param("whole", 0, True, True, id="a child at layer 0"),
        pytest.param("inner", 0, False, True, id="a layer below its place"),
        pytest.param("inner", 2, False, True, id="a layer above its place"),
        pytest.param("inner", 1, False, False, id="a key outside of the parent's gap"),
        pytest.param("inner", None, False, True, id="an empty inner node"),
        pytest.param("whole", None, True, True, id="a root that only leads on"),
    ],
)
def test_a_node_in_the_wrong_place_is_refused(gap: str, layer: int | None, left: bool, inside: bool) -> None:
    some = keys_of(layer, 3) if layer is not None else []
    around = Gap(b"", None, 1) if inside else Gap(some[0], some[2], 1)
    mine = some if not inside else some[1:2]
    with pytest.raises(VerificationFailed) as error:
        place(ROOT_GAP if gap == "whole" else around, *mine, left=CHILD if left else None)
    assert reason(error) == "bad-node"


def test_a_child_right_of_a_key_at_layer_0_is_refused() -> None:
    with pytest.raises(VerificationFailed):
        place(ROOT_GAP, key_of_layer(0), children=[CHILD])


def test_keys_of_two_layers_in_one_node_are_refused() -> None:
    with pytest.raises(VerificationFailed):
        place(ROOT_GAP, *sorted([key_of_layer(0), key_of_layer(1)]))


def test_a_key_that_equals_a_neighbour_of_the_gap_is_outside_of_it() -> None:
    low, high = keys_of(1, 2)
    for key in (low, high):
        with pytest.raises(VerificationFailed):
            place(Gap(low, high, 1), key)


def test_a_node_may_be_as_high_as_the_limit_and_no_higher() -> None:
    block = encode(node([(key_of_layer(3), VALUE, None)]))
    assert read_node(cid_of(block), block, ROOT_GAP, NodeLimits(max_layer=3))[1] == 3
    with pytest.raises(VerificationFailed):
        read_node(cid_of(block), block, ROOT_GAP, NodeLimits(max_layer=2))
    empty = encode(node(left=CHILD))
    assert read_node(cid_of(empty), empty, Gap(b"", None, 20))[1] == 20
    with pytest.raises(VerificationFailed):
        read_node(cid_of(empty), empty, Gap(b"", None, 21))


def test_a_node_with_other_bytes_than_its_cid_says_is_refused() -> None:
    with pytest.raises(VerificationFailed) as error:
        read_node(CHILD, GOOD, ROOT_GAP)
    assert reason(error) == "wrong-hash"


# --- the walk


def walked(root: oracle.Node, ranges: Sequence[tuple[bytes, bytes]], visited: set[bytes] | None = None) -> list[bytes]:
    blocks = {each.cid: each.block for each in oracle.nodes(root)}
    walk = RangeWalk(root.cid, ranges)
    found = []
    while walk.want:
        cid = next(iter(walk.want))
        if visited is not None:
            visited.add(cid)
        found += [key for key, value in walk.visit(cid, blocks[cid])[1] if value == VALUE]
    return sorted(found)


@given(trees, st.lists(keys, max_size=4))
def test_the_walk_finds_the_keys_of_its_ranges_and_no_others(root: oracle.Node, edges: list[bytes]) -> None:
    edges = sorted(edges)
    ranges = list(zip(edges[::2], edges[1::2], strict=False))
    expected = [key for key, _ in oracle.items(root) if any(low <= key < high for low, high in ranges)]
    visited: set[bytes] = set()
    assert walked(root, ranges, visited) == expected
    if not ranges:
        assert visited == {root.cid}


@given(trees, keys)
def test_the_walk_asks_for_no_node_that_can_hold_no_key_of_its_range(root: oracle.Node, low: bytes) -> None:
    visited: set[bytes] = set()
    walked(root, [(low, low + b"\x01")], visited)
    needed = {each.cid for each in oracle.covering(root, low)} | {root.cid}
    needed |= {each.cid for each in oracle.covering(root, low + b"\x00")}
    needed |= {each.cid for each in oracle.covering(root, low + b"\x01")}
    assert visited <= needed


def test_a_node_that_hangs_in_two_places_is_refused() -> None:
    blocks = Blocks()
    a, b = keys_of(1, 2)
    child = blocks.node([(key_of_layer(0), VALUE, None)])
    root = blocks.node([(a, VALUE, child), (b, VALUE, child)])
    with pytest.raises(VerificationFailed) as error:
        RangeWalk(root, [(b"", b"z")]).visit(root, blocks[root])
    assert reason(error) == "bad-node"


# --- finding and undoing


@given(trees, keys)
def test_a_key_is_found_or_proven_absent_by_the_nodes_on_the_way_to_it(root: oracle.Node, key: bytes) -> None:
    assume(key.isascii())
    proof = {each.cid: each.block for each in oracle.covering(root, key)} | {root.cid: root.block}
    assert find(root.cid, proof, [key.decode()]) == [oracle.get(root, key)]


def test_a_key_is_not_called_absent_where_a_node_on_the_way_is_missing() -> None:
    root = oracle.build((key, VALUE) for key in keys_of(0, 3) + keys_of(2, 2))
    with pytest.raises(VerificationFailed) as error:
        find(root.cid, {root.cid: root.block}, [keys_of(0, 3)[0].decode()])
    assert reason(error) == "missing-block"


def test_several_keys_are_found_in_the_order_in_which_they_were_asked_for() -> None:
    root = oracle.build((key, VALUE) for key in KEYS)
    blocks = {each.cid: each.block for each in oracle.nodes(root)}
    assert find(root.cid, blocks, [KEYS[4].decode(), "nowhere/1", KEYS[0].decode()]) == [VALUE, None, VALUE]


def ops_between(before: dict[bytes, bytes], after: dict[bytes, bytes]) -> list[RepoOp]:
    ops = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old != new:
            action = "delete" if new is None else "create" if old is None else "update"
            ops.append(RepoOp(action, key.decode(), new, old))
    return ops


def test_the_commit_proofs_of_the_interop_vectors_invert(fixtures_dir: Path) -> None:
    vectors = json.loads((fixtures_dir / "interop/firehose/commit-proof-fixtures.json").read_text())
    assert len(vectors) == 6
    for vector in vectors:
        leaf = cid_from_text(vector["leafValue"])
        before = {key.encode(): leaf for key in vector["keys"]}
        after = {key: leaf for key in before if key.decode() not in vector["dels"]}
        after |= {key.encode(): leaf for key in vector["adds"]}
        root, old = oracle.build(after.items()), oracle.build(before.items())
        assert (old.cid, root.cid) == tuple(cid_from_text(vector[f"root{when}Commit"]) for when in ("Before", "After"))
        proof = {cid_from_text(cid) for cid in vector["blocksInProof"]}
        blocks = {each.cid: each.block for each in oracle.nodes(root) if each.cid in proof}
        assert len(blocks) == len(proof)
        assert invert(root.cid, blocks, ops_between(before, after)) == old.cid, vector["comment"]


ascii_keys = st.from_regex(r"[a-b]/[0-9]{1,3}", fullmatch=True).map(str.encode)
contents = st.dictionaries(ascii_keys, st.sampled_from([VALUE, OTHER]), max_size=40)


@given(contents, contents, st.randoms(use_true_random=False))
def test_ops_are_undone_on_a_whole_tree_in_any_order(
    before: dict[bytes, bytes], after: dict[bytes, bytes], rng: random.Random
) -> None:
    root = oracle.build(after.items())
    ops = ops_between(before, after)
    rng.shuffle(ops)
    blocks = {each.cid: each.block for each in oracle.nodes(root)}
    assert invert(root.cid, blocks, ops) == oracle.build(before.items()).cid


@given(contents, contents, st.integers(1, 6))
def test_ops_are_undone_with_the_nodes_that_a_commit_carries(
    before: dict[bytes, bytes], target: dict[bytes, bytes], count: int
) -> None:
    ops = ops_between(before, target)[:count]
    after = {key: value for key, value in before.items() if key.decode() not in {op.path for op in ops}}
    after |= {op.path.encode(): op.cid for op in ops if op.cid}
    old, root = oracle.build(before.items()), oracle.build(after.items())
    known = {each.cid for each in oracle.nodes(old)}
    carried = [each for each in oracle.nodes(root) if each.cid not in known]
    carried += [each for op in ops for each in oracle.covering(root, op.path.encode())]
    assert invert(root.cid, {each.cid: each.block for each in [*carried, root]}, ops) == old.cid


class Watched(dict[bytes, bytes]):
    """Blocks that note which of them were asked for."""

    def __init__(self, blocks: dict[bytes, bytes]) -> None:
        super().__init__(blocks)
        self.asked: set[bytes] = set()

    def get(self, key: bytes, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)


def test_where_a_node_is_missing_deleted_keys_are_put_back_first() -> None:
    """Ops in an order that nobody should send, with the nodes of a better one."""
    rng = random.Random(5)
    rescued = 0
    for _ in range(150):
        names = [b"a/%d" % n for n in rng.sample(range(1000), 24)]
        before = dict.fromkeys(names[:20], VALUE)
        after = dict.fromkeys(names[4:], VALUE)
        root, old = oracle.build(after.items()), oracle.build(before.items())
        ops = ops_between(before, after)
        deletes_last = sorted(ops, key=lambda op: op.cid is None)
        everything = Watched({each.cid: each.block for each in oracle.nodes(root)})
        assert invert(root.cid, everything, deletes_last) == old.cid
        needed = Watched({cid: everything[cid] for cid in everything.asked if cid in everything})
        deletes_first = sorted(ops, key=lambda op: op.cid is not None)
        assert invert(root.cid, needed, deletes_first) == old.cid
        rescued += not needed.asked <= needed.keys()
    assert rescued > 0


MISFITS: dict[str, Callable[[list[RepoOp]], list[RepoOp]]] = {
    "another CID than the tree has": lambda ops: [*ops[:-1], ops[-1]._replace(cid=OTHER)],
    "a create of what is not there": lambda ops: [*ops, RepoOp("create", "nowhere/1", VALUE, None)],
    "a delete of what is there": lambda ops: [*ops, RepoOp("delete", KEYS[2].decode(), None, VALUE)],
    "an update of what is not there": lambda ops: [*ops, RepoOp("update", "nowhere/1", VALUE, OTHER)],
}


@pytest.mark.parametrize("change", MISFITS.values(), ids=MISFITS)
def test_an_op_that_does_not_fit_the_tree_is_refused(change: Callable[[list[RepoOp]], list[RepoOp]]) -> None:
    root, _, blocks, ops = one_commit()
    with pytest.raises(VerificationFailed) as error:
        invert(root, blocks, change(ops))
    assert reason(error) == "inversion-mismatch"


def test_ops_that_are_wrong_about_the_past_lead_elsewhere() -> None:
    root, old, blocks, ops = one_commit()
    assert invert(root, blocks, ops) == old
    assert invert(root, blocks, [ops[0]._replace(prev=OTHER), *ops[1:]]) != old
    assert invert(root, blocks, ops[1:]) != old
    assert invert(root, blocks, ops[:1]) != old


def one_commit() -> tuple[bytes, bytes, dict[bytes, bytes], list[RepoOp]]:
    """The root after it, the root before it, its blocks and its ops."""
    before, after = dict.fromkeys(KEYS[:4], VALUE), dict.fromkeys(KEYS[1:], VALUE)
    root, old = oracle.build(after.items()), oracle.build(before.items())
    return root.cid, old.cid, {each.cid: each.block for each in oracle.nodes(root)}, ops_between(before, after)


@pytest.mark.parametrize("op", [RepoOp("update", KEYS[1].decode(), VALUE, None), RepoOp("delete", "x/1", None, None)])
def test_an_op_without_prev_can_not_be_undone(op: RepoOp) -> None:
    root = oracle.build([(KEYS[1], VALUE)])
    with pytest.raises(VerificationFailed) as error:
        invert(root.cid, {root.cid: root.block}, [op])
    assert reason(error) == "inversion-mismatch"


def test_undoing_without_the_root_is_a_missing_block() -> None:
    with pytest.raises(VerificationFailed) as error:
        invert(CHILD, {}, [RepoOp("create", "a/1", VALUE, None)])
    assert reason(error) == "missing-block"


def test_undoing_nothing_needs_no_block() -> None:
    assert invert(CHILD, {}, []) == CHILD


def test_undoing_the_first_record_leads_to_the_empty_tree() -> None:
    root = oracle.build([(KEYS[0], VALUE)])
    blocks = {root.cid: root.block}
    assert invert(root.cid, blocks, [RepoOp("create", KEYS[0].decode(), VALUE, None)]) == oracle.empty().cid
    assert (
        invert(
            oracle.empty().cid,
            {oracle.empty().cid: oracle.empty().block},
            [RepoOp("delete", KEYS[0].decode(), None, VALUE)],
        )
        == root.cid
    )
