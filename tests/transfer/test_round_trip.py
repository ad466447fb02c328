"""Tables out to a file, and in again."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pynamodb.attributes import BooleanAttribute, JSONAttribute, NumberAttribute
from pynamodb.models import Model

from chalicelib.atproto.syntax import Did, Origin
from chalicelib.index.hosts import Hosts
from chalicelib.index.state import LISTING_HEAD, feed_of
from chalicelib.index.subscribers import Subscribers
from chalicelib.index.tables import HostRow, ListingRow, RecordRow, RepoRow, StateRow, Tables
from chalicelib.transfer import exporting
from chalicelib.transfer.exporting import CannotExport, export
from chalicelib.transfer.importing import BATCH, CannotImport, bring_in, check
from tests.conftest import Stack
from tests.index.world import CAPTAIN, HOST, World

AT = 1_800_000_000_000
TAG = "io.atcr.tag"


@pytest.fixture
def client(stack_env: Stack) -> Any:
    return stack_env.dynamodb


def clock() -> int:
    return AT


def exported(tables: Tables, path: Path) -> bytes:
    path.unlink(missing_ok=True)
    export(tables, path)
    return path.read_bytes()


# -- rows of any kind

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


def attributes_of(model: type[Model], *fixed: str) -> st.SearchStrategy[dict[str, Any]]:
    """Values for the attributes of a row, but for those that are ``fixed``; those that may be absent are, at times."""
    required, optional = {}, {}
    for name, one in model.get_attributes().items():
        if name in fixed:
            continue
        values: Any = words
        if isinstance(one, JSONAttribute):
            values = st.dictionaries(words, plain, max_size=3)
        elif isinstance(one, BooleanAttribute):
            values = st.booleans()
        elif isinstance(one, NumberAttribute):
            values = st.integers(0, 2**53)
        elif name in (
            "owner",
            "due_shard",
            "scope_host",
            "scope_shard",
            "kind",
        ):  # keys of indexes, which are never empty
            values = st.sampled_from(["a", "b"])
        (optional if one.null else required)[name] = values
    return st.fixed_dictionaries(required, optional=optional)


@st.composite
def repos(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """A repo's row, its records, and its places in listings."""
    did = f"did:plc:{draw(st.text('abc234', min_size=1, max_size=4))}"
    repo = draw(attributes_of(RepoRow, "did", "collections", "listed", "changed"))
    paths = draw(st.sets(st.sampled_from([f"{name}/{number}" for name in (CAPTAIN, TAG) for number in range(20)])))
    records = []
    for path in sorted(paths):
        record = draw(attributes_of(RecordRow, "did", "path", "value"))
        value = draw(st.none() | st.dictionaries(words, plain, max_size=3))
        text = None if value is None else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        records.append({**record, "did": did, "path": path, "value": text})
    collections = Counter(path.partition("/")[0] for path in paths)
    listed = {name: f"{draw(st.integers(0, 10**15)):016d}" for name in collections}
    changed = {CAPTAIN: f"{draw(st.integers(0, 10**15)):016d}"} if draw(st.booleans()) else {}
    keys = [*listed.items(), *((feed_of(name), key) for name, key in changed.items())]
    listings = [{"collection": name, "key": f"{key}#{did}"} for name, key in keys]
    return (
        repo | {"did": did, "collections": dict(collections), "listed": listed, "changed": changed},
        records,
        listings,
    )


@st.composite
def states(draw: st.DrawFn) -> dict[str, Any]:
    state = draw(attributes_of(StateRow, "kind", "id"))
    kind = draw(st.sampled_from(["ban", LISTING_HEAD, "identity", "subscriber", "audit", "budget"]))
    return {**state, "kind": kind, "id": draw(st.text("abc.", min_size=1, max_size=5))}


@settings(max_examples=5, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    hosts=st.lists(attributes_of(HostRow, "origin"), max_size=4),
    rows=st.lists(repos(), max_size=5, unique_by=lambda repo: repo[0]["did"]),
    small=st.lists(states(), max_size=5),
)
def test_what_goes_out_and_comes_in_goes_out_the_same(
    client: Any, empty_tables: Callable[[], Tables], file: Path, hosts: list[Any], rows: list[Any], small: list[Any]
) -> None:
    here, there = empty_tables(), empty_tables()
    for number, host in enumerate(hosts):
        put(here.hosts(f"host{number}.example.com", **host))
    for repo, records, listings in rows:
        put(here.repos(**repo), *(here.records(**row) for row in records), *(here.listings(**row) for row in listings))
    put(*(here.state(**row) for row in small))
    first = exported(here, file)
    bring_in(there, client, check(file), clock=clock)
    assert exported(there, file) == first
    lines = [json.loads(line) for line in first.splitlines()]
    kinds = Counter(next(iter(line)) for line in lines)
    assert kinds["record"] == sum(len(records) for _, records, _ in rows)
    assert kinds["listing"] == sum(len(listings) for _, _, listings in rows)
    assert {line["state"]["kind"] for line in lines if "state" in line} <= {"ban", LISTING_HEAD}


def put(*rows: Model) -> None:
    """Store rows as they are, without conditions."""
    for row in rows:
        with type(row).batch_write() as batch:
            batch.save(row)


# -- an index, moved


@pytest.fixture
def world(stack_env: Stack) -> World:
    world = World(stack_env, feeds={CAPTAIN})
    world.put(f"{CAPTAIN}/self", *(f"{TAG}/{number}" for number in range(2 * BATCH)), number=7)
    world.crawl()
    return world


def moved(stack: Stack, world: World, tables: Tables) -> World:
    """The same repo, and the other index of it."""
    there = World(Stack(tables.prefix, *list(vars(stack).values())[1:]), world.did, feeds={CAPTAIN})
    there.repo, there.key = world.repo, world.key
    return there


def test_the_moved_index_goes_on_where_the_other_one_stopped(
    stack_env: Stack, client: Any, world: World, empty_tables: Callable[[], Tables], file: Path
) -> None:
    exported(world.tables, file)
    tables = empty_tables()
    bring_in(tables, client, check(file), clock=clock)
    there = moved(stack_env, world, tables)
    assert (there.listing(), there.records()) == (world.listing(), world.records())
    assert vars(there.row)["attribute_values"] == vars(world.row)["attribute_values"]
    commit = there.delete(f"{CAPTAIN}/self")
    there.writer.apply(there.row, there.verified(commit))
    assert (there.listing(), there.listing(TAG)) == ((), (world.did,))
    there.put(f"{CAPTAIN}/self")
    there.crawl()
    assert there.listing() == (world.did,)
    assert there.row.listed[CAPTAIN] > world.row.listed[CAPTAIN]  # the head has moved too


def test_whose_process_it_was_stays_behind(
    client: Any, world: World, empty_tables: Callable[[], Tables], file: Path
) -> None:
    hosts, origin = Hosts(world.tables, clock=clock), Origin.parse_key(HOST)
    hosts.admit(origin, confirmed=True)
    Subscribers(world.tables).begin("subscriber-1")
    (host,) = hosts.take([HOST], "subscriber-1")
    hosts.save_cursor(host, "subscriber-1", 77)
    assert hosts.claim_crawl(origin) is not None
    assert world.writer.claim(world.did, ask=True) is not None
    assert b"subscriber-1" not in exported(world.tables, file)
    tables = empty_tables()
    bring_in(tables, client, check(file), clock=clock)
    there = Hosts(tables, clock=clock)
    row = there.load(origin)
    assert row is not None
    assert (row.cursor, row.crawl_job, there.owned_by("-")) == (77, None, [(HOST, AT)])
    assert tables.repos.get(world.did).job is None
    assert [row.did for row in tables.repos.due.query("0")] == [world.did]  # what was begun is done there


def test_an_export_that_was_cut_off_is_gone_on_with(stack_env: Stack, world: World, context: Any, file: Path) -> None:
    for letter in "bcd":
        other = World(stack_env, Did(f"did:plc:{letter * 24}"), feeds={CAPTAIN})
        other.put(f"{CAPTAIN}/self", f"{TAG}/1")
        other.crawl()
    world.writer.out_of_scope(Did("did:plc:nothing"), host=HOST, rev="3m6cgqdmvdk2a", epoch=1)
    for number in range(3):
        context.hosts.admit(Origin.parse_key(f"host{number}.example.com"), confirmed=True)
    context.bans.set("example.net", "spam", at=1)
    whole = exported(world.tables, file)
    ends = list(itertools.accumulate(map(len, whole.splitlines(keepends=True))))
    for cut in [0, *ends[:6], *(end + 9 for end in ends[:-1:7]), *(end - 1 for end in ends[-5:])]:
        file.write_bytes(whole[:cut])
        export(world.tables, file)
        assert file.read_bytes() == whole, cut
    with pytest.raises(CannotExport, match="whole export already"):
        export(world.tables, file)
    assert file.read_bytes() == whole


def test_a_file_of_something_else_is_not_written_over(world: World, file: Path) -> None:
    file.write_text("my notes\n")
    with pytest.raises(CannotExport, match="no export"):
        export(world.tables, file)
    assert file.read_text() == "my notes\n"


def test_a_repo_that_changes_meanwhile_is_written_as_it_is_then(
    world: World, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    listings = exporting._Writing._listings

    def change_once(self: Any, row: RepoRow) -> list[ListingRow]:
        found = listings(self, row)
        if not told:
            told.append("changed")
            world.writer.apply(world.row, world.verified(world.put(f"{TAG}/new")))
        return found

    monkeypatch.setattr(exporting._Writing, "_listings", change_once)
    lines = [json.loads(line) for line in exported(world.tables, file).splitlines()]
    (repo,) = [line["repo"] for line in lines if "repo" in line]
    records = [line["record"]["path"] for line in lines if "record" in line]
    assert repo["collections"] == Counter(path.partition("/")[0] for path in records)
    assert (f"{TAG}/new" in records, lines[-1]) == (True, {"end": {"lines": len(lines) - 1}})


# -- an import that is cut off


class CutOff(Exception):
    pass


class Client:
    """A DynamoDB client of which each batch is ``carried_out`` in its own way."""

    def __init__(self, carried_out: Callable[[dict[str, Any]], Any]) -> None:
        self._carried_out = carried_out

    def batch_write_item(self, RequestItems: dict[str, Any]) -> Any:
        return self._carried_out(RequestItems)


def test_an_import_that_was_cut_off_is_gone_on_with(
    client: Any,
    world: World,
    empty_tables: Callable[[], Tables],
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chalicelib.transfer.importing._HELD", 10)
    for number in range(4):
        Hosts(world.tables, clock=clock).admit(Origin.parse_key(f"host{number}.example.com"), confirmed=True)
    whole = exported(world.tables, file)
    tables, batches = empty_tables(), itertools.count()

    def cut_off(puts: dict[str, Any]) -> Any:
        if next(batches) == 4:
            raise CutOff
        return client.batch_write_item(RequestItems=puts)

    with pytest.raises(CutOff):
        bring_in(tables, Client(cut_off), check(file), clock=clock)
    other = tmp_path / "other.jsonl"
    other.write_bytes(b'{"export":{"format":1}}\n{"end":{"lines":1}}\n')
    with pytest.raises(CannotImport, match="another file"):
        bring_in(tables, client, check(other), clock=clock)
    bring_in(tables, client, check(file), clock=clock)
    assert exported(tables, file) == whole
    assert not list(tables.state.query("import"))


def test_what_the_tables_do_not_take_at_once_is_sent_again(
    client: Any, world: World, empty_tables: Callable[[], Tables], file: Path
) -> None:
    whole, tables, waited = exported(world.tables, file), empty_tables(), list[float]()

    def take_some(puts: dict[str, Any]) -> Any:
        ((table, items),) = puts.items()
        client.batch_write_item(RequestItems={table: items[:10]})
        return {"UnprocessedItems": {table: items[10:]} if items[10:] else {}}

    bring_in(tables, Client(take_some), check(file), clock=clock, pause=waited.append)
    assert exported(tables, file) == whole
    assert waited


def test_tables_in_use_are_left_alone(client: Any, world: World, file: Path) -> None:
    exported(world.tables, file)
    with pytest.raises(CannotImport, match="repos, records, listings here already"):
        bring_in(world.tables, client, check(file))
