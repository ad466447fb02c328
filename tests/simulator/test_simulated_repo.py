"""The simulator's repos: signatures, commits and what they carry, and the orders of export."""

from __future__ import annotations

import json
import random
from pathlib import Path

import coincurve
import pytest

from simulator import Clock, Repo, SigningKey, Write, export, forgeries, mst
from simulator.atcr import Author
from simulator.car import Car
from simulator.cbor import Link, cid_of, decode, encode
from simulator.keys import ORDER, Curve

DID = "did:plc:abcdefghijklmnopqrstuvwx"


def repo_of(layers: int = 20, curve: Curve = "k256") -> Repo:
    rng, clock = random.Random(1), Clock()
    return Repo(DID, SigningKey.generate(rng, curve), clock, Author(DID, clock, rng).hold(layers=layers))


def layer(number: int) -> tuple[str, dict[str, object]]:
    return f"io.atcr.hold.layer/layer{number}", {"$type": "io.atcr.hold.layer", "size": number}


def live(repo: Repo) -> set[bytes]:
    return {
        repo.head.cid,
        *(node.cid for node in mst.nodes(repo.tree)),
        *(record.cid for record in repo.records().values()),
    }


def test_a_key_shows_itself_as_the_interop_vectors_have_it(fixtures_dir: Path) -> None:
    for case in json.loads((fixtures_dir / "interop/crypto/w3c_didkey_K256.json").read_text()):
        assert SigningKey(bytes.fromhex(case["privateKeyBytesHex"])).did_key == case["publicDidKey"]


@pytest.mark.parametrize("curve", ["k256", "p256"])
def test_signatures_are_low_s_and_repeatable_and_their_twins_are_high(curve: Curve) -> None:
    key = SigningKey.generate(random.Random(3), curve)
    for number in range(20):
        message = f"message {number}".encode()
        signature = key.sign(message)
        assert len(signature) == 64
        assert signature == key.sign(message)
        assert int.from_bytes(signature[32:], "big") <= ORDER[curve] // 2
        twin = key.sign_high_s(message)
        assert int.from_bytes(twin[32:], "big") > ORDER[curve] // 2


def test_the_commit_is_signed_over_its_bytes_without_the_signature() -> None:
    repo = repo_of()
    commit = decode(repo.head.block)
    signature = commit.pop("sig")
    assert commit == {"did": DID, "version": 3, "prev": None, "rev": repo.rev, "data": Link(repo.tree.cid)}
    der = coincurve.ecdsa.cdata_to_der(coincurve.ecdsa.deserialize_compact(signature))
    assert coincurve.PublicKey(repo.key.compressed).verify(der, encode(commit))


def test_a_commit_tells_what_it_did_and_from_where() -> None:
    repo = repo_of()
    before = repo.head
    path, value = layer(1)
    first = repo.apply([Write("create", path, value)])
    second = repo.apply([repo.put(path, {**value, "size": 2}), Write("create", *layer(5))])
    third = repo.apply([Write("delete", path)])
    assert [op.action for op in second.ops] == ["update", "create"]
    assert first.ops[0].prev is None
    assert second.ops[0].prev == first.ops[0].cid
    assert third.ops[0].prev == second.ops[0].cid
    assert third.ops[0].cid is None
    assert [c.since for c in (first, second, third)] == [before.rev, first.rev, second.rev]
    assert [c.prev_data for c in (first, second, third)] == [before.data, first.data, second.data]
    assert before.rev < first.rev < second.rev < third.rev


def test_a_commit_carries_itself_first_its_root_and_its_new_records() -> None:
    repo = repo_of(200)
    commit = repo.apply([Write("create", *layer(1)), Write("create", *layer(2))])
    cids = [cid for cid, _ in commit.blocks]
    assert cids[0] == commit.cid
    assert commit.data in cids
    assert {op.cid for op in commit.ops} <= set(cids)
    assert len(cids) < 40
    assert all(cid_of(block) == cid for cid, block in commit.blocks)


def test_a_commit_without_ops_has_the_same_tree_under_a_new_rev() -> None:
    repo = repo_of()
    before = repo.head
    again = repo.apply([])
    assert (again.data, again.prev_data, again.ops) == (before.data, before.data, ())
    assert again.rev > before.rev


def test_impossible_writes_are_errors_and_change_nothing() -> None:
    repo = repo_of()
    before = repo.head
    with pytest.raises(KeyError):
        repo.apply([Write("create", "io.atcr.hold.captain/self", {})])
    with pytest.raises(KeyError):
        repo.apply([Write("create", *layer(1)), Write("delete", "io.atcr.tag/none")])
    with pytest.raises(ValueError, match="at most once"):
        repo.apply([Write("create", *layer(1)), Write("create", *layer(1))])
    assert repo.head == before
    assert repo.get(layer(1)[0]) is None


def test_a_record_of_raw_bytes_is_there_without_a_value() -> None:
    repo = repo_of()
    repo.apply([Write("create", "io.atcr.tag/bad", b"\xff\x00")])
    record = repo.record("io.atcr.tag/bad")
    assert record is not None
    assert record.value is None
    assert record.cid == cid_of(b"\xff\x00")


def test_values_have_their_json_form() -> None:
    repo = repo_of()
    cid = cid_of(b"x")
    repo.apply(
        [Write("create", "io.atcr.tag/json", {"link": Link(cid), "bytes": b"\x01\x02", "list": [1, None, True]})]
    )
    record = repo.record("io.atcr.tag/json")
    assert record is not None
    assert record.value["bytes"] == {"$bytes": "AQI"}
    assert record.value["link"]["$link"].startswith("bafyrei")
    assert record.value["list"] == [1, None, True]


def test_a_copy_goes_its_own_way() -> None:
    repo = repo_of()
    copy = repo.copy()
    repo.apply([Write("create", *layer(1))])
    copy.apply([Write("create", *layer(2))])
    assert repo.get(layer(2)[0]) is None
    assert copy.get(layer(1)[0]) is None


def test_paths_of_a_collection_are_not_those_of_its_neighbours() -> None:
    repo = repo_of(0)
    repo.apply([Write("create", path, {}) for path in ("a.b.c/1", "a.b.c/2", "a.b.c.d/1", "a.b.cd/1")])
    assert list(repo.paths("a.b.c")) == ["a.b.c/1", "a.b.c/2"]
    assert list(repo.paths()) == sorted(repo.records())


def test_live_orders_hold_what_is_live_and_nothing_else() -> None:
    repo = repo_of()
    for number in range(5):
        repo.apply([repo.put(*layer(number))])
    repo.apply([Write("delete", layer(0)[0])])
    for order in (export.reference, export.preorder, export.shuffled(4)):
        cids = order(repo, None)
        assert set(cids) == live(repo)
        assert len(cids) == len(set(cids))


def test_the_reference_order_is_newest_first_and_parents_first() -> None:
    repo = repo_of(200)
    for number in range(20):
        repo.apply([repo.put(*layer(number))])
    written = {cid: rev for rev, cids in repo.log for cid in cids}
    order = export.reference(repo)
    revs = [written[cid] for cid in order]
    assert revs == sorted(revs, reverse=True)
    place = {cid: index for index, cid in enumerate(order)}
    assert place[repo.head.cid] == 0
    for node in mst.nodes(repo.tree):
        for child in node.children:
            assert child is None or place[node.cid] < place[child.cid]
        assert all(place[node.cid] < place[value] for value in node.values)


def test_carstore_sends_what_is_dead_too_newest_first() -> None:
    repo = repo_of()
    first = repo.head
    path, value = layer(1)
    gone = repo.apply([Write("create", path, value)])
    repo.apply([Write("delete", path)])
    cids = export.carstore(repo)
    assert live(repo) < set(cids)
    assert {first.cid, gone.cid, gone.data, gone.ops[0].cid} <= set(cids)
    assert cids.index(repo.head.cid) < cids.index(gone.cid) < cids.index(first.cid)
    assert len(cids) > len(set(cids))  # the tree went back to what it was: its nodes were written twice


@pytest.mark.parametrize("order", [export.reference, export.carstore])
def test_since_leaves_out_what_was_there_and_at_the_head_all(order: export.Order) -> None:
    repo = repo_of()
    rev = repo.rev
    commit = repo.apply([Write("create", *layer(1))])
    newer = set(order(repo, rev))
    assert {commit.cid, commit.data, commit.ops[0].cid} <= newer
    assert len(newer) < len(live(repo))
    assert order(repo, repo.rev) == []


def test_the_shuffled_order_is_the_same_each_time() -> None:
    repo = repo_of()
    assert export.shuffled(1)(repo, None) == export.shuffled(1)(repo, None) != export.shuffled(2)(repo, None)


def test_car_chunks_make_the_whole_file() -> None:
    car = export.car(repo_of(500))
    chunks = list(car.chunks(4_000))
    assert len(chunks) > 10
    assert b"".join(chunks) == car.encode()
    assert car.encode()[1:59] == encode({"version": 1, "roots": [Link(car.roots[0])]})


def test_a_proof_shows_presence_and_absence() -> None:
    repo = repo_of(300)
    there = repo.proof("io.atcr.hold.captain/self")
    absent = repo.proof("io.atcr.hold.captain/other")
    captain = repo.get("io.atcr.hold.captain/self")
    assert captain in {cid for cid, _ in there.blocks}
    assert captain not in {cid for cid, _ in absent.blocks}
    assert repo.tree.cid in {cid for cid, _ in absent.blocks}
    assert len(list(there.blocks)) < 20


def test_forgeries_differ_from_the_truth_in_one_thing() -> None:
    repo = repo_of()
    path = "io.atcr.hold.captain/self"
    true = export.car(repo)

    def commit(car: Car) -> dict[str, object]:
        blocks = dict(car.blocks)
        fields: dict[str, object] = decode(blocks[car.roots[0]])
        return fields

    honest = commit(true)
    for forgery in (forgeries.bad_signature, forgeries.high_s, forgeries.signature(b"\1" * 63)):
        forged = commit(forgery(repo, export.reference))
        assert forged.pop("sig") != honest["sig"]
        assert forged == {name: value for name, value in honest.items() if name != "sig"}
    assert commit(forgeries.commit_with(did="did:web:other")(repo, export.reference))["did"] == "did:web:other"
    assert forgeries.wrong_root(repo, export.reference).roots == (repo.tree.cid,)
    missing = dict(forgeries.missing_block(path)(repo, export.reference).blocks)
    assert set(dict(true.blocks)) - set(missing) == {repo.get(path)}
    altered = [
        cid for cid, block in forgeries.altered_block(path)(repo, export.reference).blocks if cid_of(block) != cid
    ]
    assert altered == [repo.get(path)]


def test_the_same_seed_makes_the_same_bytes() -> None:
    assert export.car(repo_of()).encode() == export.car(repo_of()).encode()
