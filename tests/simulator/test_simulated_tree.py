"""The simulator's own MST: interop vectors, edits against bulk builds, and proofs that can be undone."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from simulator import mst
from simulator.cbor import Link, cid_of, cid_text, decode

VALUE = cid_of(b"leaf")


def built(keys: list[str]) -> mst.Node:
    return mst.build((key.encode(), VALUE) for key in keys)


def texts(nodes: list[mst.Node]) -> set[str]:
    return {cid_text(node.cid) for node in nodes}


def proof_cases(fixtures_dir: Path) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((fixtures_dir / "interop/firehose/commit-proof-fixtures.json").read_text())
    return cases


def test_layers_are_those_of_the_interop_vectors(fixtures_dir: Path) -> None:
    for case in json.loads((fixtures_dir / "interop/mst/key_heights.json").read_text()):
        assert mst.layer_of(case["key"].encode()) == case["height"], case


def test_edits_and_their_proofs_are_those_of_the_interop_vectors(fixtures_dir: Path) -> None:
    from chalicelib.atproto.cid import cid_from_text

    for case in proof_cases(fixtures_dir):
        value = cid_from_text(case["leafValue"])
        tree = mst.build((key.encode(), value) for key in case["keys"])
        assert cid_text(tree.cid) == case["rootBeforeCommit"], case["comment"]
        for key in case["adds"]:
            tree = mst.put(tree, key.encode(), value)
        for key in case["dels"]:
            tree = mst.delete(tree, key.encode())
        assert cid_text(tree.cid) == case["rootAfterCommit"], case["comment"]
        proof = [node for key in case["adds"] + case["dels"] for node in mst.covering(tree, key.encode())]
        assert texts(proof) == set(case["blocksInProof"]), case["comment"]


def test_the_empty_tree_is_the_known_one() -> None:
    assert cid_text(mst.build([]).cid) == "bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm"


@pytest.mark.parametrize("seed", range(5))
def test_any_sequence_of_edits_ends_in_the_tree_that_a_bulk_build_makes(seed: int) -> None:
    rng = random.Random(seed)
    tree, entries = mst.empty(), dict[bytes, bytes]()
    for _ in range(400):
        key = f"c/{rng.randrange(120)}".encode()
        if key in entries and rng.random() < 0.6:
            tree = mst.delete(tree, key)
            del entries[key]
        else:
            value = cid_of(rng.randbytes(4))
            tree = mst.put(tree, key, value)
            entries[key] = value
        assert tree.cid == mst.build(entries.items()).cid
    assert list(mst.items(tree)) == sorted(entries.items())
    assert list(mst.items(tree, b"c/5")) == [entry for entry in sorted(entries.items()) if entry[0] >= b"c/5"]


def test_an_edit_leaves_the_old_tree_as_it_was() -> None:
    old = built([f"c/{number}" for number in range(50)])
    before = old.cid
    new = mst.delete(mst.put(old, b"c/new", VALUE), b"c/7")
    assert mst.get(old, b"c/7") == VALUE
    assert mst.get(old, b"c/new") is None
    assert mst.get(new, b"c/7") is None
    assert old.cid == before != new.cid


def test_deleting_what_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError):
        mst.delete(built(["c/1"]), b"c/2")


def test_new_nodes_are_exactly_those_that_the_old_tree_lacks() -> None:
    old = built([f"c/{number}" for number in range(300)])
    before = texts(list(mst.nodes(old)))
    new = mst.put(old, b"c/1234", VALUE)
    made = mst.new_nodes(new)
    assert texts(made) == texts(list(mst.nodes(new))) - before
    assert mst.new_nodes(new) == []


class Absent:
    """A subtree whose block the proof does not have: looking into it is an error."""

    def __init__(self, cid: bytes, layer: int) -> None:
        self.cid = cid
        self.layer = layer


def partial(cid: bytes, blocks: dict[bytes, bytes], layer: int) -> Any:
    """The tree as far as the blocks go."""
    if cid not in blocks:
        return Absent(cid, layer)
    node = decode(blocks[cid])
    keys: list[bytes] = []
    values: list[bytes] = []
    links: list[Link | None] = [node["l"]]
    for entry in node["e"]:
        keys.append((keys[-1] if keys else b"")[: entry["p"]] + entry["k"])
        values.append(entry["v"].cid)
        links.append(entry["t"])
    children = (partial(link.cid, blocks, layer - 1) if link else None for link in links)
    return mst.Node(layer, tuple(keys), tuple(values), tuple(children))


@pytest.mark.parametrize("seed", range(40))
def test_a_commits_proof_is_enough_to_undo_its_edits(seed: int) -> None:
    rng = random.Random(seed)
    keys = [f"c/{number}".encode() for number in rng.sample(range(500), rng.choice((1, 5, 60, 300)))]
    old = mst.build((key, VALUE) for key in keys)
    before = old.cid
    deleted = rng.sample(keys, min(len(keys), rng.randrange(4)))
    added = [f"c/new{rng.randrange(10**6)}".encode() for _ in range(rng.randrange(1, 4))]
    new = old
    for key in deleted:
        new = mst.delete(new, key)
    for key in added:
        new = mst.put(new, key, VALUE)
    proof = {node.cid: node.block for key in added + deleted for node in [new, *mst.covering(new, key)]}

    tree = partial(new.cid, proof, new.layer)
    for key in reversed(added):
        tree = mst.delete(tree, key)
    for key in reversed(deleted):
        tree = mst.put(tree, key, VALUE)
    assert tree.cid == before
