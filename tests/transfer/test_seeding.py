"""Others' lists as a beginning: what is read, what is asked for, and that nothing is listed before it is verified."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from chalicelib import cli, settings
from chalicelib.atproto.syntax import Did, Origin
from chalicelib.crawl.context import Context
from chalicelib.crawl.jobs import work
from chalicelib.index.reader import Reader
from chalicelib.transfer.exporting import export
from chalicelib.transfer.seeding import Progress, seed
from chalicelib.transfer.sources import CannotRead, Source, opened
from simulator.clock import Clock
from simulator.thread import SimulatorThread
from tests.conftest import Stack
from tests.index.world import CAPTAIN, World

DIDS = [f"did:plc:{letter * 24}" for letter in "abcd"]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is logged stays out of what commands print, whichever test set up logs."""
    monkeypatch.setattr(logging.getLogger("discovery"), "propagate", False)


@pytest.fixture
def read(context: Context) -> Callable[[str | Path], Source]:
    return lambda where: opened(str(where), context.door, allow_private=True)


def taken(context: Context, source: Source, **options: Any) -> dict[str, int]:
    """What came of the candidates, without what did not occur."""
    progress = seed(context, source, **{"per_second": 1000, "pause": lambda seconds: None, **options})
    return {name: number for name, number in asdict(progress).items() if number}


def messages(stack: Stack) -> list[Any]:
    """What was put into the queue."""
    found: list[Any] = []
    while got := stack.sqs.receive_message(QueueUrl=stack.queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=0):
        if "Messages" not in got:
            return found
        found += [json.loads(message["Body"]) for message in got["Messages"]]
    return found


def mvp(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return path


def collectiondir(
    path: Path, *rows: tuple[str, ...], header: tuple[str, ...] = ("did", "collection", "millis")
) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows] if header else rows)
    return path


# -- sources


def test_tables_of_the_first_service_are_read_by_the_names_of_their_columns(
    context: Context, stack_env: Stack, read: Callable[..., Source], tmp_path: Path
) -> None:
    file = mvp(
        tmp_path / "discovery.db",
        "CREATE TABLE subscriptions (id INTEGER PRIMARY KEY, hostname TEXT, cursor INTEGER, status TEXT)",
        "CREATE TABLE crawl_queue (pds_url TEXT, added_at TEXT)",
        "CREATE TABLE indexed_records (uri TEXT, did TEXT, collection TEXT, rkey TEXT, cid TEXT)",
        "INSERT INTO subscriptions VALUES (1, 'hold01.example.com', 7, 'ok'), (2, 'hold02.example.com', 0, 'ok')",
        "INSERT INTO crawl_queue VALUES ('https://hold03.example.com/', ''), ('wss://hold02.example.com/xrpc/x', '')",
        "INSERT INTO crawl_queue VALUES ('not a host', ''), (NULL, ''), (x'00', '')",
        f"INSERT INTO indexed_records VALUES ('', '{DIDS[0]}', '{CAPTAIN}', 'self', ''), ('', '{DIDS[0]}', '{CAPTAIN}', 'b', '')",
        f"INSERT INTO indexed_records VALUES ('', '{DIDS[1]}', 'app.bsky.feed.post', 'x', '')",
        f"INSERT INTO indexed_records VALUES ('', 'alice', '{CAPTAIN}', '', '')",
    )
    source = read(file)
    assert source.understood == "subscriptions: hostname; crawl_queue: pds_url; indexed_records: did, collection"
    came = {"read": 8, "hosts": 3, "repos": 1, "known": 1, "out_of_scope": 1, "invalid": 2}
    assert taken(context, source) == came
    hosts = {row.origin: (row.status, row.last_error) for row in context.tables.hosts.scan()}
    assert hosts == dict.fromkeys(
        [f"hold0{number}.example.com" for number in (1, 2, 3)], ("unconfirmed", "named by discovery.db")
    )
    (repo,) = context.tables.repos.scan()
    assert (repo.did, repo.claimed_by, dict(repo.listed)) == (DIDS[0], "discovery.db", {})
    assert sorted(map(str, messages(stack_env))) == sorted(
        [*(str({"host": host}) for host in hosts), str({"repo": DIDS[0]})]
    )
    assert taken(context, read(file)) == {"read": 8, "known": 5, "out_of_scope": 1, "invalid": 2}


def test_records_may_be_named_by_uris_alone(read: Callable[..., Source], tmp_path: Path) -> None:
    file = mvp(
        tmp_path / "index.db",
        "CREATE TABLE indexed_records (URI TEXT)",
        f"INSERT INTO indexed_records VALUES ('at://{DIDS[0]}/{CAPTAIN}/self'), ('https://example.com')",
    )
    assert [(one.did, one.collection) for one in read(file).candidates] == [(DIDS[0], CAPTAIN)]


@pytest.mark.parametrize("packed", [False, True])
def test_the_csv_of_a_collectiondir_is_read(
    context: Context, read: Callable[..., Source], tmp_path: Path, packed: bool
) -> None:
    rows = [(did, name, "1700000000000") for name in ("app.bsky.feed.like", CAPTAIN) for did in DIDS]
    file = collectiondir(tmp_path / "dir.csv", *rows, ("did:plc:x", "not-an-nsid", "0"))
    if packed:
        file.write_bytes(gzip.compress(file.read_bytes()))
    source = read(file)
    assert source.understood == "column 1: did, column 2: collection"
    assert taken(context, source) == {"read": 9, "repos": 4, "out_of_scope": 4, "invalid": 1}


def test_csv_without_a_header_and_csv_of_hosts_are_read(read: Callable[..., Source], tmp_path: Path) -> None:
    pairs = read(collectiondir(tmp_path / "pairs.csv", *((did, CAPTAIN) for did in DIDS), header=()))
    assert [one.did for one in pairs.candidates] == DIDS
    hosts = read(collectiondir(tmp_path / "hosts.csv", ("1", "hold01.example.com"), header=("id", "Hostname")))
    assert [one.host for one in hosts.candidates] == ["hold01.example.com"]


@pytest.fixture
def relay() -> Iterator[Callable[[list[Any]], str]]:
    """Serves pages of listHosts, in turn by their cursors."""
    servers: list[ThreadingHTTPServer] = []

    def serve(pages: list[Any]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = urlsplit(self.path)
                number = int(parse_qs(asked.query).get("cursor", ["0"])[0])
                found = asked.path == "/xrpc/com.atproto.sync.listHosts"
                self.send_response(200 if found else 404)
                self.end_headers()
                self.wfile.write(json.dumps(pages[number]).encode() if found else b"")

            def log_message(self, *arguments: Any) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def host(name: str, **more: Any) -> dict[str, Any]:
    return {"hostname": name, **more}


def test_hosts_that_a_relay_lists_are_read_page_by_page(
    context: Context, read: Callable[..., Source], relay: Callable[[list[Any]], str]
) -> None:
    first = [host("hold01.example.com", status="active"), host("hold02.example.com", status="banned"), "x"]
    url = relay([{"hosts": first, "cursor": "1"}, {"hosts": [host("hold03.example.com")]}])
    assert taken(context, read(url)) == {"read": 2, "hosts": 2}
    assert {row.origin for row in context.tables.hosts.scan()} == {"hold01.example.com", "hold03.example.com"}


@pytest.mark.parametrize(
    ("pages", "why"),
    [
        ([{"hosts": [], "cursor": "0"}], "cursors go in a circle"),
        ([{"error": "x"}], "no list of hosts"),
        ([[]], "no list of hosts"),
    ],
)
def test_a_relay_that_answers_badly_ends_it(
    read: Callable[..., Source], relay: Callable[[list[Any]], str], pages: list[Any], why: str
) -> None:
    with pytest.raises(CannotRead, match=why):
        list(read(relay(pages)).candidates)


def test_what_is_no_source_is_refused(read: Callable[..., Source], tmp_path: Path) -> None:
    for content in (b"", b"hold01.example.com\n", b"SQLite format 3\x00 and no more", b"\x1f\x8b broken"):
        file = tmp_path / "file"
        file.write_bytes(content)
        with pytest.raises(CannotRead):
            list(read(file).candidates)
    with pytest.raises(CannotRead, match="No such file"):
        read(tmp_path / "nothing")
    with pytest.raises(CannotRead, match="none of the tables"):
        read(mvp(tmp_path / "other.db", "CREATE TABLE posts (did TEXT)"))


# -- how it is asked


def test_a_dry_run_asks_for_nothing(
    context: Context, stack_env: Stack, read: Callable[..., Source], tmp_path: Path
) -> None:
    file = collectiondir(tmp_path / "dir.csv", *((did, CAPTAIN, "0") for did in DIDS))
    assert taken(context, read(file), dry_run=True) == {"read": 4, "repos": 4}
    assert not list(context.tables.repos.scan())
    assert messages(stack_env) == []


def test_it_is_gone_on_with_and_keeps_its_pace(context: Context, read: Callable[..., Source], tmp_path: Path) -> None:
    file = collectiondir(tmp_path / "dir.csv", *((did, CAPTAIN, "0") for did in DIDS))
    said: list[Progress] = []

    def broken() -> Iterator[Any]:
        candidates = read(file).candidates
        yield next(candidates)
        raise CannotRead("the disk is gone")

    with pytest.raises(CannotRead):
        taken(context, Source("dir.csv", "", broken()), say=said.append)
    assert said[-1].read == 1
    waits: list[float] = []
    came = taken(context, read(file), after=said[-1].read, per_second=0.1, pause=waits.append)
    assert came == {"read": 4, "repos": 3}
    assert [round(wait / 10) for wait in waits] == [0, 1, 2]


def test_banned_hosts_stay_out(context: Context, read: Callable[..., Source], tmp_path: Path) -> None:
    context.bans.set("example.net", "spam", at=1)
    file = collectiondir(tmp_path / "hosts.csv", ("a.example.net",), ("b.example.com",), header=("host",))
    assert taken(context, read(file), dry_run=True) == {"read": 2, "hosts": 1, "banned": 1}
    assert taken(context, read(file)) == {"read": 2, "hosts": 1, "banned": 1}
    assert {row.origin: row.status for row in context.tables.hosts.scan()} == {
        "a.example.net": "banned",
        "b.example.com": "unconfirmed",
    }


# -- what comes of it


def listing(stack: Stack) -> tuple[str, ...]:
    return Reader(stack.dynamodb, stack.prefix).page([CAPTAIN], limit=100, after={}).dids


def test_only_what_is_verified_is_listed(stack_env: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SimulatorThread(seed=1, clock=Clock.wall()) as sim:
        given = stack_env.environment | {"DISCOVERY_PLC_URL": sim.net.plc.url}
        context = Context(settings.read(given))
        hold = sim.call(sim.net.add_hold(method="plc"))
        file = collectiondir(tmp_path / "dir.csv", (hold.did, CAPTAIN, "0"), (DIDS[0], CAPTAIN, "0"))
        assert cli.main(["seed", str(file), "--per-second", "1000"], context) == 0
        shown = capsys.readouterr()
        assert json.loads(shown.out)["repos"] == 2
        assert "read as column 1: did, column 2: collection" in shown.err
        assert listing(stack_env) == ()
        for message in messages(stack_env):
            work(context, json.dumps(message))
        assert listing(stack_env) == (hold.did,)


def test_an_export_is_merged_as_a_seed(
    stack_env: Stack, context: Context, file: Path, capsys: pytest.CaptureFixture[str], empty_tables: Callable[..., Any]
) -> None:
    here = World(stack_env, Did(DIDS[0]))
    here.put(f"{CAPTAIN}/self")
    here.crawl()
    context.hosts.admit(Origin.parse_key("hold01.example.com"), confirmed=True)
    context.hosts.ban(Origin.parse_key("hold02.example.com"), by="hold02.example.com", at=5)
    context.bans.set("example.net", "spam", at=5)
    context.writer.take_down(Did(DIDS[1]), "spam", at=5)
    export(context.tables, file)
    prefix = empty_tables().prefix
    there = Context(settings.read(stack_env.environment | {"DISCOVERY_TABLE_PREFIX": prefix}))
    there.hosts.admit(Origin.parse_key("hold03.example.com"), confirmed=True)
    assert cli.main(["import", str(file)], there) == 1
    assert "there are hosts here already" in capsys.readouterr().err
    assert cli.main(["import", str(file), "--merge", "--per-second", "1000"], there) == 0
    came = json.loads(capsys.readouterr().out)
    assert came["withheld"] == {"state": 1, "host": 1, "repo": 1}
    assert (came["read"], came["hosts"], came["repos"]) == (2, 1, 1)
    assert there.bans.all() == {"example.net": "spam"}
    assert {row.origin: row.status for row in there.tables.hosts.scan()} == {
        "hold01.example.com": "unconfirmed",
        "hold02.example.com": "banned",
        "hold03.example.com": "active",
    }
    repos = {row.did: (row.taken_down, row.rev, row.claimed_by) for row in there.tables.repos.scan()}
    assert repos == {DIDS[0]: (None, None, "index.jsonl"), DIDS[1]: ("spam", None, None)}
    assert not list(there.tables.records.scan())


def test_the_commands_move_an_index(
    stack_env: Stack, context: Context, file: Path, capsys: pytest.CaptureFixture[str], empty_tables: Callable[..., Any]
) -> None:
    world = World(stack_env, Did(DIDS[0]))
    world.put(f"{CAPTAIN}/self")
    world.crawl()
    assert cli.main(["export", str(file)], context) == 0
    counts = {"repo": 1, "record": 1, "listing": 1, "state": 1}
    assert json.loads(capsys.readouterr().out) == counts
    prefix = empty_tables().prefix
    there = Context(settings.read(stack_env.environment | {"DISCOVERY_TABLE_PREFIX": prefix}))
    assert cli.main(["import", str(file)], there) == 0
    assert json.loads(capsys.readouterr().out) == counts
    assert Reader(stack_env.dynamodb, prefix).page([CAPTAIN], limit=9, after={}).dids == (DIDS[0],)
    for refused in (["export", str(file)], ["import", "no-such-file"], ["--url", "https://example.com", "export", "x"]):
        assert cli.main(refused, there) == 1
        assert capsys.readouterr().err.startswith("refused: ")
