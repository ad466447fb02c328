"""Tables to a file of lines. Memory does not follow the number of rows; a file that was cut off is gone on with.

What is written of a repo is of one moment: its row is read again after its records and its places in listings, and if it has
changed, all of it is written anew. Hosts come first, so that their cursors are older than what is written of their repos. So an
export of tables in use is right as well: who goes on from it hears the rest from the streams, as after a restart.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from chalicelib.index.state import feed_of
from chalicelib.index.tables import RepoRow, Tables
from chalicelib.transfer.lines import FIRST, FORMAT, LAST, STATES, ForeignLine, line_of, parse, read, to_line

ATTEMPTS = 20
"""So often a repo is read again that changes meanwhile."""
TOLD_AFTER = 10_000
"""Rows between two words on how far it is."""


class CannotExport(Exception):
    """The message says why, and what to do."""


@dataclass
class _Begun:
    """How far an earlier run came: what is good of its file, and where to go on."""

    size: int = 0
    host: str | None = None
    """The last host that is in the file."""
    repo: str | None = None
    """The last repo that is in it with all its lines."""
    counts: Counter[str] = field(default_factory=Counter)

    def keep(self, size: int, counts: Counter[str]) -> None:
        self.size, self.counts = size, Counter(counts)


def export(tables: Tables, path: Path, *, say: Callable[[str], None] = lambda text: None) -> Counter[str]:
    """Write all rows to ``path``, or the rest of them where an earlier run was cut off. Returns how many lines of each kind the
    file has. Raises ``CannotExport``."""
    with path.open("r+b" if path.exists() else "x+b") as file:
        begun = _begun(file)
        file.seek(begun.size)
        file.truncate()
        writing = _Writing(tables, file, begun.counts, say)
        if not begun.size:
            writing.put(FIRST, to_line(FIRST, {"format": FORMAT}))
        writing.run(begun)
        file.write(to_line(LAST, {"lines": sum(writing.counts.values())}))
        file.flush()
        os.fsync(file.fileno())
    del writing.counts[FIRST]
    return writing.counts


def _begun(file: IO[bytes]) -> _Begun:
    """What an earlier run has left: up to the last host, or the last repo that another one follows."""
    begun, size, counts, repo = _Begun(), 0, Counter[str](), None
    for line in read(file):
        try:
            kind, content = parse(line)
        except ForeignLine as error:
            if not counts:
                raise CannotExport(f"there is a file already, and it is no export: {error}") from error
            break  # of a run that was cut off
        if (kind == FIRST) != (size == 0) or (kind == FIRST and content.get("format") != FORMAT):
            raise CannotExport("there is a file already, and it is no export of this version")
        if kind == LAST:
            raise CannotExport("the file is a whole export already: name another one, or delete it")
        if kind == "repo":
            begun.keep(size, counts)
            begun.repo, repo = repo, content["did"]
        if kind == "state" and not counts[kind]:
            begun.keep(size, counts)
            begun.repo = repo
        size += len(line)
        counts[kind] += 1
        if kind in (FIRST, "host"):
            begun.keep(size, counts)
            begun.host = content.get("origin")
    return begun


class _Writing:
    def __init__(self, tables: Tables, file: IO[bytes], counts: Counter[str], say: Callable[[str], None]) -> None:
        self._tables = tables
        self._file = file
        self._say = say
        self.counts = counts

    def put(self, kind: str, line: bytes) -> None:
        self._file.write(line)
        self.counts[kind] += 1

    def run(self, begun: _Begun) -> None:
        tables = self._tables
        if begun.repo is None:
            for row in self._told(tables.hosts, None if begun.host is None else {"origin": {"S": begun.host}}):
                self.put("host", line_of("host", row))
        for row in self._told(tables.repos, None if begun.repo is None else {"did": {"S": begun.repo}}):
            self._put_repo(row)
        for kind in STATES:
            for row in tables.state.query(kind, consistent_read=True):
                self.put("state", line_of("state", row))

    def _told(self, model: Any, after: Any) -> Iterator[Any]:
        for number, row in enumerate(model.scan(consistent_read=True, last_evaluated_key=after)):
            yield row
            if (number + 1) % TOLD_AFTER == 0:
                self._say(f"{sum(self.counts.values())} lines")

    def _put_repo(self, row: RepoRow) -> None:
        if not (row.collections or row.listed or row.changed or row.half_landed):
            self.put("repo", line_of("repo", row))  # which has nothing beside its row
            return
        begins, counts = self._file.tell(), Counter(self.counts)
        for _ in range(ATTEMPTS):
            self.put("repo", line_of("repo", row))
            for record in self._tables.records.query(row.did, consistent_read=True):
                self.put("record", line_of("record", record))
            for listing in self._listings(row):
                self.put("listing", line_of("listing", listing))
            before, row = row, self._tables.repos.get(row.did, consistent_read=True)
            if row.version == before.version:
                return
            self._file.seek(begins)
            self._file.truncate()
            self.counts.clear()
            self.counts.update(counts)
        raise CannotExport(f"{row.did} changes all the time; the same command goes on with it")

    def _listings(self, row: RepoRow) -> list[Any]:
        keys = [(name, f"{key}#{row.did}") for name, key in row.listed.items()]
        keys += [(feed_of(name), f"{key}#{row.did}") for name, key in row.changed.items()]
        found = self._tables.listings.batch_get(keys, consistent_read=True)
        return sorted(found, key=lambda listing: (listing.collection, listing.key))
