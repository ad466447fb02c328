"""Others' lists of hosts and repos: SQLite files of the first discovery services, CSV of a collectiondir, a relay's listHosts,
and exports. What they say is a reason to look, and no more.

A source gives candidates in an order of its own, the same each time it is read, so that a number says how far somebody came.
"""

from __future__ import annotations

import csv
import gzip
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, TextIO
from urllib.parse import urlencode, urlsplit

from chalicelib.atproto.errors import InvalidSyntax, RemoteError
from chalicelib.atproto.net import Door
from chalicelib.atproto.syntax import parse_origin
from chalicelib.transfer.importing import check
from chalicelib.transfer.lines import parse, read

LIVE: Final = frozenset({None, "active", "idle", "throttled"})
"""Statuses, in listHosts, of hosts that are worth asking."""
TABLES: Final = ("subscriptions", "crawl_queue", "indexed_records")
"""Of the SQLite file, in the order in which they are read: hosts before repos."""
HOSTS: Final = (
    "hostname",
    "host",
    "pds",
    "pds_host",
    "pds_hostname",
    "pds_url",
    "pds_endpoint",
    "endpoint",
    "url",
    "origin",
)
DIDS: Final = ("did", "repo", "repo_did")
URIS: Final = ("uri", "at_uri")
COLLECTIONS: Final = ("collection", "nsid")
"""Names of columns, and by them what a column has; the first that is there counts."""
MAX_PAGE: Final = 2 * 1024 * 1024
"""Bytes of a page of listHosts."""


class CannotRead(Exception):
    """The message says what is wrong with the source."""


@dataclass(frozen=True)
class Candidate:
    """A host or a DID, as the source writes it. ``collection``: in which the DID is said to have records, if that is told."""

    host: str | None = None
    did: str | None = None
    collection: str | None = None


@dataclass(frozen=True)
class Source:
    """``name`` is what is noted of who named a repo, ``understood`` what the source was taken for."""

    name: str
    understood: str
    candidates: Iterator[Candidate]


def opened(text: str, door: Door, *, allow_private: bool) -> Source:
    """The source at a path or an address. Raises ``CannotRead``, now or while candidates are taken from it, and ``BadFile`` for
    an export that is not good."""
    if text.startswith(("https://", "http://")):
        return Source(text, "hosts of com.atproto.sync.listHosts", _relay(text, door, allow_private))
    path = Path(text)
    try:
        with path.open("rb") as file:
            begin = file.read(16)
    except OSError as error:
        raise CannotRead(f"{path}: {error.strerror}") from error
    if begin == b"SQLite format 3\x00":
        return _sqlite(path)
    if begin.startswith(b'{"export"'):
        check(path)
        return Source(path.name, "hosts and repos of an export", exported(path))
    return _csv(path, is_packed=begin.startswith(b"\x1f\x8b"))


def exported(path: Path) -> Iterator[Candidate]:
    """Hosts and repos of a checked export, but for those that its operator has stopped or taken down."""
    with path.open("rb") as file:
        for line in read(file):
            kind, content = parse(line)
            if kind == "host" and content["status"] not in ("banned", "paused"):
                yield Candidate(host=content["origin"])
            elif kind == "repo" and content.get("collections") and "taken_down" not in content:
                yield Candidate(did=content.get("verbatim", content["did"]))


# -- SQLite


def _sqlite(path: Path) -> Source:
    with closing(_connection(path)) as connection:
        columns = {table: _columns(connection, table) for table in TABLES}
    plans = [(table, plan) for table, names in columns.items() if (plan := _plan(names))]
    if not plans:
        raise CannotRead(f"{path} has none of the tables {', '.join(TABLES)} with a column of hosts or DIDs")
    understood = "; ".join(f"{table}: {', '.join(plan.values())}" for table, plan in plans)
    return Source(path.name, understood, _rows(path, plans))


def _connection(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    try:
        return [row[1].lower() for row in connection.execute(f"PRAGMA table_info({table})")]
    except sqlite3.DatabaseError as error:
        raise CannotRead(f"the SQLite file cannot be read: {error}") from error


def _plan(names: Sequence[str]) -> dict[str, str]:
    """Which column of a table is read as what: ``host``, ``did``, ``uri``, ``collection``."""
    known = {"host": HOSTS, "did": DIDS, "uri": URIS, "collection": COLLECTIONS}
    found = {what: next((name for name in known[what] if name in names), "") for what in known}
    found = {what: name for what, name in found.items() if name}
    if "did" in found:
        found.pop("uri", None)
    return found if found.keys() & {"host", "did", "uri"} else {}


def _rows(path: Path, plans: Sequence[tuple[str, dict[str, str]]]) -> Iterator[Candidate]:
    with closing(_connection(path)) as connection:
        for table, plan in plans:
            names = ", ".join(f'"{name}"' for name in plan.values())
            try:
                for row in connection.execute(f"SELECT DISTINCT {names} FROM {table} ORDER BY {names}"):  # noqa: S608 - names of ours
                    yield from _of_row(dict(zip(plan, map(_text, row), strict=True)))
            except sqlite3.DatabaseError as error:
                raise CannotRead(f"{path}: {error}") from error


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _of_row(row: dict[str, str]) -> Iterator[Candidate]:
    if row.get("host"):
        yield Candidate(host=_bare(row["host"]))
    did, collection = row.get("did"), row.get("collection")
    if row.get("uri", "").startswith("at://"):
        did, _, path = row["uri"].removeprefix("at://").partition("/")
        collection = collection or path.partition("/")[0]
    if did:
        yield Candidate(did=did, collection=collection or None)


def _bare(host: str) -> str:
    """The host of an address, be it that of a stream."""
    parts = urlsplit(host)
    if parts.scheme not in ("http", "https", "ws", "wss"):
        return host
    return f"{parts.scheme.replace('ws', 'http')}://{parts.netloc}"


# -- CSV


def _csv(path: Path, *, is_packed: bool) -> Source:
    with _text_of(path, is_packed) as file:
        try:
            first = next(csv.reader(file), [])
        except (csv.Error, OSError, EOFError) as error:
            raise CannotRead(f"{path}: {error}") from error
    names = [name.strip().lower() for name in first]
    if first and first[0].startswith("did:"):
        plan, skip = {"did": 0, "collection": 1} if len(first) > 1 else {"did": 0}, 0
    else:
        plan, skip = {what: names.index(name) for what, name in _plan(names).items()}, 1
    if not plan:
        raise CannotRead(f"{path} has no column did, host or hostname: its first line is {', '.join(first)[:100]!r}")
    understood = ", ".join(f"column {number + 1}: {what}" for what, number in plan.items())
    return Source(path.name, understood, _csv_rows(path, is_packed, plan, skip))


def _text_of(path: Path, is_packed: bool) -> TextIO:
    opens: Callable[..., Any] = gzip.open if is_packed else open
    file: TextIO = opens(path, "rt", encoding="utf-8-sig", errors="replace", newline="")
    return file


def _csv_rows(path: Path, is_packed: bool, plan: dict[str, int], skip: int) -> Iterator[Candidate]:
    with _text_of(path, is_packed) as file:
        rows = csv.reader(file)
        try:
            next(islice(rows, skip, skip), None)
            for row in rows:
                yield from _of_row({what: row[number] for what, number in plan.items() if number < len(row)})
        except (csv.Error, OSError, EOFError) as error:
            raise CannotRead(f"{path}: line {rows.line_num + 1}: {error}") from error


# -- listHosts


def _relay(text: str, door: Door, allow_private: bool) -> Iterator[Candidate]:
    try:
        origin = parse_origin(text, allow_private=allow_private)
    except InvalidSyntax as error:
        raise CannotRead(str(error)) from error
    cursor, seen = None, set[str]()
    while True:
        query = urlencode({"limit": 1000} | ({"cursor": cursor} if cursor else {}))
        try:
            answer = door.get(f"{origin.url}/xrpc/com.atproto.sync.listHosts?{query}", max_bytes=MAX_PAGE)
            page = answer.json() if answer.succeeded else {}
        except RemoteError as error:
            raise CannotRead(f"{origin}: {error}") from error
        hosts = page.get("hosts") if isinstance(page, dict) else None
        if not isinstance(hosts, list):
            raise CannotRead(f"{origin} answers listHosts with {answer.status}, and no list of hosts")
        for host in hosts:
            if isinstance(host, dict) and isinstance(host.get("hostname"), str) and host.get("status") in LIVE:
                yield Candidate(host=host["hostname"])
        cursor = page.get("cursor")
        if not isinstance(cursor, str) or not cursor:
            return
        if cursor in seen:
            raise CannotRead(f"{origin}: its cursors go in a circle")
        seen.add(cursor)
