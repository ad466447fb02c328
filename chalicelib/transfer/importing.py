"""A file of lines to tables. It is read whole before the first row is written, so that nothing comes of a file that is not good.

Into empty tables: every row as it was, so that an export of them is the same file. Where that is cut off the same command goes
on: a state row says how far it came. Rows come before those that lead to them: records and places in listings, then their repo,
and the hosts last. So a service that runs already finds nothing half there.

Into tables in use nothing of the file is believed: what it bans or takes down is banned and taken down, unless there was a later
order here, and its hosts and repos are a seed.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pynamodb.models import Model

from chalicelib.atproto.syntax import Did, Origin
from chalicelib.crawl.bans import BAN
from chalicelib.crawl.context import Context
from chalicelib.index.clock import now_ms
from chalicelib.index.tables import Tables
from chalicelib.transfer.lines import FIRST, FORMAT, KEYS, LAST, ForeignLine, parse, read, row_of

IMPORT: Final = "import"
"""Kind of the state row of an import that is not at its end: of which file, and how many lines of it are in the tables."""
BATCH: Final = 25
"""What one BatchWriteItem may hold."""
_HELD: Final = 500
"""Rows that are collected before they are written."""
_TABLES: Final = {"record": "records", "listing": "listings", "state": "state", "repo": "repos", "host": "hosts"}
"""Where lines of a kind belong, in the order in which rows lead to each other, backwards."""


class BadFile(Exception):
    """The message says which line it is, and why."""


class CannotImport(Exception):
    """The message says why, and what to do."""


@dataclass(frozen=True)
class Checked:
    """A file that is an export, whole."""

    path: Path
    digest: str
    counts: Counter[str]


def check(path: Path) -> Checked:
    """Read a file whole. Raises ``BadFile``."""
    digest, counts, number, repo, last = hashlib.sha256(), Counter[str](), 0, "", False
    with path.open("rb") as file:
        for number, line in enumerate(read(file), start=1):
            try:
                if last:
                    raise ForeignLine("there is something after the end")
                kind, content = parse(line)
                if (kind == FIRST) != (number == 1):
                    raise ForeignLine("an export begins with one line that says its format")
                if kind == FIRST:
                    _check_format(content)
                elif kind == LAST:
                    last = True
                    if content.get("lines") != number - 1:
                        raise ForeignLine(f"{content.get('lines')} lines should be before it, and {number - 1} are")
                else:
                    row_of(kind, content, now=0)
                    repo = content["did"] if kind == "repo" else repo
                    _check_owner(kind, content, repo)
            except ForeignLine as error:
                raise BadFile(f"line {number}: {error}") from error
            digest.update(line)
            counts[kind] += 1
    if not last:
        raise BadFile(f"after line {number}: the end is missing; the command that made the file goes on with it")
    return Checked(path, digest.hexdigest(), counts)


def _check_format(content: dict[str, Any]) -> None:
    found = content.get("format")
    if found != FORMAT:
        later = isinstance(found, int) and found > FORMAT
        raise ForeignLine(f"the format is {found!r}, this version reads {FORMAT}" + ": take a later one" * later)


def _check_owner(kind: str, content: dict[str, Any], repo: str) -> None:
    is_of_it = {"record": content.get("did") == repo, "listing": content.get("key", "").endswith(f"#{repo}")}
    if not (repo and is_of_it.get(kind, True)) and kind in is_of_it:
        raise ForeignLine(f"a {kind} stands behind its repo, and the last repo is {repo or 'none'}")


def bring_in(
    tables: Tables,
    client: Any,
    file: Checked,
    *,
    clock: Callable[[], int] = now_ms,
    pause: Callable[[float], None] = time.sleep,
) -> Counter[str]:
    """Write all rows of a file into empty tables, or the rest of them where that was cut off. Returns how many lines of each
    kind it has. ``client`` is a botocore DynamoDB client. Raises ``CannotImport``."""
    done = _lines_done(tables, file)
    writing = _Writing(tables.prefix, client, pause)
    for number, kind, content in _in_order(file.path):
        if number < done:
            continue
        if kind in ("host", "repo", "state"):  # what came before it is complete
            writing.close()
            if writing.held >= _HELD:
                writing.flush()
                _note(tables, file, number)
        writing.add(kind, row_of(kind, content, now=clock()))
    writing.close()
    writing.flush()
    tables.state(IMPORT, IMPORT).delete()
    return Counter({kind: number for kind, number in file.counts.items() if kind not in (FIRST, LAST)})


def _lines_done(tables: Tables, file: Checked) -> int:
    begun = next(iter(tables.state.query(IMPORT, consistent_read=True)), None)
    if begun is not None:
        if begun.content["file"] != file.digest:
            raise CannotImport("the import of another file was cut off: bring that one to its end first")
        return int(begun.content["lines"])
    models = {"hosts": tables.hosts, "repos": tables.repos, "records": tables.records, "listings": tables.listings}
    in_use = [name for name, model in models.items() if any(True for _ in model.scan(limit=1, consistent_read=True))]
    if in_use:
        raise CannotImport(
            f"there are {', '.join(in_use)} here already: --merge takes what the file has as a seed, and as bans and takedowns"
        )
    _note(tables, file, 0)
    return 0


def _note(tables: Tables, file: Checked, lines: int) -> None:
    tables.state(IMPORT, IMPORT, content={"file": file.digest, "lines": lines}).save()


def _in_order(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Lines with a number, which counts on: those of hosts are read last."""
    number = 0
    for hosts in (False, True):
        with path.open("rb") as file:
            for line in read(file):
                if line.startswith(b'{"host"') == hosts:
                    kind, content = parse(line)
                    if kind not in (FIRST, LAST):
                        yield number, kind, content
                        number += 1


class _Writing:
    """Collects rows, and writes them in the order in which they lead to each other."""

    def __init__(self, prefix: str, client: Any, pause: Callable[[float], None]) -> None:
        self._prefix = prefix
        self._client = client
        self._pause = pause
        self._rows: dict[str, list[Model]] = {kind: [] for kind in _TABLES}
        self._repo: Model | None = None

    @property
    def held(self) -> int:
        return sum(map(len, self._rows.values()))

    def add(self, kind: str, row: Model) -> None:
        if kind == "repo":
            self._repo = row
        else:
            self._rows[kind].append(row)
            if kind == "record" and len(self._rows[kind]) >= _HELD:
                self._write(kind)

    def close(self) -> None:
        """The lines of the repo are at their end."""
        if self._repo is not None:
            self._rows["repo"].append(self._repo)
            self._repo = None

    def flush(self) -> None:
        for kind in _TABLES:
            self._write(kind)

    def _write(self, kind: str) -> None:
        rows = {tuple(row.attribute_values[name] for name in KEYS[kind]): row for row in self._rows[kind]}
        puts = [{"PutRequest": {"Item": row.serialize()}} for row in rows.values()]
        self._rows[kind] = []
        for start in range(0, len(puts), BATCH):
            self._write_batch(f"{self._prefix}-{_TABLES[kind]}", puts[start : start + BATCH])

    def _write_batch(self, table: str, puts: Any) -> None:
        for attempt in range(20):
            puts = self._client.batch_write_item(RequestItems={table: puts})["UnprocessedItems"].get(table)
            if not puts:
                return
            self._pause(min(0.05 * 2**attempt, 10.0))
        raise CannotImport(f"{table} takes no more: the same command goes on")


def orders_of(context: Context, path: Path) -> Counter[str]:
    """Have the bans and takedowns of a checked file hold here, unless there was a later order. Returns how many there are."""
    found: Counter[str] = Counter()
    with path.open("rb") as file:
        for line in read(file):
            kind, content = parse(line)
            if kind == "state" and content["kind"] == BAN and content.get("content", {}).get("reason"):
                context.bans.set(content["id"], content["content"]["reason"], at=content.get("number", 0))
            elif kind == "host" and content["status"] == "banned":
                origin = Origin.parse_key(content["origin"])
                context.hosts.ban(origin, by=content.get("banned_by", str(origin)), at=content.get("ordered_at", 0))
            elif kind == "repo" and "taken_down" in content:
                context.writer.take_down(Did(content["did"]), content["taken_down"], at=content.get("ordered_at", 0))
            else:
                continue
            found[kind] += 1
    return found
