"""Reading a repo's CAR for the records of a few collections: the product beside four other ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bench import repos
from bench.harness import Bench, Contender, Figure, Run, Target, sized
from bench.repos import RepoFile
from chalicelib.atproto.repo import read_snapshot
from chalicelib.atproto.scope import Scope
from chalicelib.atproto.syntax import Did

SCOPE = Scope.parse("io.atcr.*")
START, END = b"io.atcr.", b"io.atcr/"

Walk = Callable[[bytes, dict[bytes, Any]], list[tuple[bytes, bytes]]]


def file_of(kind: str, *arguments: Any) -> RepoFile:
    """A file by the name of the function that builds it."""
    return repos.hold(*arguments) if kind == "hold" else repos.account(*arguments[:3], shuffled=kind == "shuffled")


def ours(kind: str, *arguments: Any) -> Run:
    """The product: the file comes in chunks, as from the network, and is left as soon as the range is proven."""
    file = file_of(kind, *arguments)

    def run() -> tuple[Any, dict[str, float]]:
        with read_snapshot(_chunks(file), did=Did(repos.DID), scope=SCOPE) as snapshot:
            records = [(record.path.encode(), record.cid) for record in snapshot.records() if record.value]
            return _result(records), {"share": 100 * snapshot.bytes_read / file.size}

    return run


def atmst(kind: str, *arguments: Any) -> Run:
    """An index of the file, then a walk of the range in the tree; hashes what it reads. No signature, no chunks."""
    from atmst.blockstore.car_file import ReadOnlyCARBlockStore
    from atmst.mst.node_store import NodeStore
    from atmst.mst.node_walker import NodeWalker
    from cbrrr import decode_dag_cbor

    file = file_of(kind, *arguments)

    def run() -> tuple[Any, dict[str, float]]:
        records = []
        with file.path.open("rb") as car:
            store = ReadOnlyCARBlockStore(car)
            commit = decode_dag_cbor(store.get_block(bytes(store.car_root)))
            walk = NodeWalker(NodeStore(store), commit["data"])
            for key, cid in walk.iter_kv_range(START.decode(), END.decode()):
                decode_dag_cbor(store.get_block(bytes(cid)))
                records.append((key.encode(), bytes(cid)))
        return _result(records), {}

    return run


def libipld(kind: str, *arguments: Any) -> Run:
    """The whole file decoded, then a walk of the range. No hashes, no checks of the tree."""
    import libipld as ipld

    file = file_of(kind, *arguments)

    def run() -> tuple[Any, dict[str, float]]:
        header, blocks = ipld.decode_car(file.path.read_bytes())
        return _result(_walk(header["roots"][0], blocks)), {}

    return run


def sdk(kind: str, *arguments: Any) -> Run:
    """``atproto``, the SDK: the whole file decoded. No hashes, no checks of the tree."""
    from atproto import CAR

    file = file_of(kind, *arguments)

    def run() -> tuple[Any, dict[str, float]]:
        car = CAR.from_bytes(file.path.read_bytes())
        blocks = {_cid_bytes(cid): block for cid, block in car.blocks.items()}
        return _result(_walk(_cid_bytes(car.root), blocks)), {}

    return run


def plain(kind: str, *arguments: Any) -> Run:
    """cbor2 for each block, every block hashed, CIDs by ``multiformats``, as one would write it at first."""
    from hashlib import sha256

    import cbor2
    from multiformats import CID

    file = file_of(kind, *arguments)

    def run() -> tuple[Any, dict[str, float]]:
        data = file.path.read_bytes()
        blocks: dict[bytes, Any] = {}
        root, at = _header_root(data)
        while at < len(data):
            length, at = _varint(data, at)
            cid = CID.decode(data[at : at + 36])
            block = data[at + 36 : at + length]
            assert sha256(block).digest() == cid.raw_digest
            blocks[bytes(cid)] = cbor2.loads(block, tag_hook=lambda tag, _: tag.value[1:])
            at += length
        return _result(_walk(root, blocks)), {}

    return run


def _result(records: list[tuple[bytes, bytes]]) -> Any:
    return [len(records), repos.digest(iter(sorted(records)))]


def _chunks(file: RepoFile) -> Iterator[bytes]:
    with file.path.open("rb") as source:
        while chunk := source.read(65_536):
            yield chunk


def _walk(root: bytes, blocks: dict[bytes, Any]) -> list[tuple[bytes, bytes]]:
    """The range of a decoded tree. Subtrees outside of it are not entered."""
    found: list[tuple[bytes, bytes]] = []

    def enter(cid: bytes | None, low: bytes, high: bytes) -> None:
        if cid is None or high < START or low >= END:
            return
        node = blocks[_cid_bytes(cid)]
        key = b""
        below = node["l"]
        for entry in node["e"]:
            following = key[: entry["p"]] + entry["k"]
            enter(below, key or low, following)
            key, below = following, entry["t"]
            if START <= key < END:
                found.append((key, _cid_bytes(entry["v"])))
        enter(below, key or low, high)

    enter(blocks[_cid_bytes(root)]["data"], b"", b"\xff")
    return found


def _cid_bytes(cid: Any) -> bytes:
    if isinstance(cid, bytes):
        return cid
    if isinstance(cid, str):
        from libipld import decode_cid

        cid = decode_cid(cid)
        return bytes((cid["version"], cid["codec"], cid["hash"]["code"], cid["hash"]["size"])) + cid["hash"]["digest"]
    return b"\x01\x71\x12\x20" + bytes(cid.hash.digest)


def _header_root(data: bytes) -> tuple[bytes, int]:
    import cbor2

    length, at = _varint(data, 0)
    header = cbor2.loads(data[at : at + length], tag_hook=lambda tag, _: tag.value[1:])
    return header["roots"][0], at + length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7


def _bench(
    name: str, title: str, file: tuple[Any, ...], contenders: list[Contender], *targets: Target, **more: Any
) -> Bench:
    def check(name: str, result: Any) -> None:
        built = file_of(*file)
        assert result == [built.ours, built.digest], f"{name} found other records"

    return Bench(name, title, contenders, check, targets, **more)


def _against(slow: str, at_least: float) -> Target:
    def ratio(figures: Mapping[str, Figure]) -> float:
        return figures[slow].cpu_ms / figures["ours"].cpu_ms

    return Target(f"times as fast as {slow}", ratio, at_least=at_least, needs=frozenset({slow}))


def _memory(at_most: float) -> Target:
    return Target("MB over the interpreter", lambda figures: figures["ours"].peak_mb, at_most=at_most)


def _slower(at_most: float) -> Target:
    def ratio(figures: Any) -> float:
        return float(figures["ours"].cpu_ms / figures["ours, ordered"].cpu_ms)

    return Target("times the ordered file's time", ratio, at_most=at_most)


def _peer(name: str, file: tuple[Any, ...]) -> Contender:
    needs = {"atmst": ("atmst",), "libipld": ("libipld",), "sdk": ("atproto",), "plain": ("multiformats",)}[name]
    shown = {"sdk": "atproto (SDK)", "plain": "cbor2 + multiformats"}.get(name, name)
    return Contender(shown, f"bench.backfill:{name}", file, needs)


def _ours(file: tuple[Any, ...], name: str = "ours") -> Contender:
    return Contender(name, "bench.backfill:ours", file)


def benches() -> list[Bench]:
    """The rows about backfill, and those of the plot."""
    records, few, many = sized(3_000, 300_000), sized(30, 1_000), sized(10_000, 3_000_000)
    none, recent = ("account", records, 0, "none"), ("account", records, few, "recent")
    spread, shuffled = ("account", records, few, "spread"), ("shuffled", records, few, "spread")
    held, ordered = ("hold", sized(200, 22_500), "carstore"), ("hold", sized(200, 22_500), "reference")
    share = Target("% of the file read", lambda figures: figures["ours"].more["share"], at_most=2)
    all_peers = [_ours(spread), *(_peer(name, spread) for name in ("atmst", "libipld", "sdk"))]
    rows = [
        _bench("whole", f"{records:,} records, the oldest of them ours", spread, all_peers, _against("atmst", 3), _memory(40)),
        _bench("recent", f"{records:,} records, ours among the latest", recent, [_ours(recent), _peer("atmst", recent)],
               _against("atmst", 10), _memory(10)),
        _bench("none", f"{records:,} records, none ours", none, [_ours(none), _peer("atmst", none)],
               _against("atmst", 10), _memory(10), share),
        _bench("carstore", "a hold's store with 200,000 stale blocks", held,
               [_ours(held), _ours(ordered, "ours, ordered")], _slower(1.5), _memory(40)),
        _bench("random", f"{records:,} records in random order", shuffled,
               [_ours(shuffled), _ours(spread, "ours, ordered")], _slower(1.5), _memory(40)),
        _bench("huge", f"{many:,} records, the oldest of them ours", ("account", many, few, "spread"),
               [_ours(("account", many, few, "spread"))], _memory(40), repeats=1),
        _bench("huge random", f"{many:,} records in random order", ("shuffled", many, few, "spread"),
               [_ours(("shuffled", many, few, "spread"))], _memory(40), repeats=1),
    ]  # fmt: skip
    for count in (sized(300, 1_000), sized(1_000, 10_000), sized(3_000, 100_000), many):
        file = ("account", count, few, "spread")
        peers = ("atmst", "libipld", "sdk", "plain")[: 4 if count <= 10_000 else 3 if count <= 300_000 else 0]
        rows.append(
            _bench(f"{count:,}", f"{count:,} records", file, [_ours(file), *(_peer(peer, file) for peer in peers)],
                   repeats=1, group="records", scale=count, scale_name="records of the repo")
        )  # fmt: skip
    return rows
