"""Directories: other services that list who has records in a collection (com.atproto.sync.listReposByCollection).

What one says is a reason to look, and no more: each DID is resolved, its repo is read from its own PDS and verified, and only
what was verified is listed. So one that lies costs some looking, and takes nothing away from what others have shown.

    directory --pages--> DIDs that are not known, or not with that collection --> asked for, and noted as waiting
                                                                                    |- something was verified --> no more
                                                                                    `- a day has passed       --> unverified

No more than ``DISCOVERY_DIRECTORY_UNVERIFIED`` may wait for one directory: it is read no faster than it proves true. All that is
kept of it is one row of the ``state`` table.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from chalicelib.atproto.client import PdsClient
from chalicelib.atproto.errors import BadResponse, RemoteError, XrpcError
from chalicelib.atproto.syntax import Did, Origin, canonical_did
from chalicelib.crawl.context import Context
from chalicelib.crawl.pace import Pace
from chalicelib.crawl.queue import DirectoryJob, RepoJob
from chalicelib.crawl.repo_job import Deadline
from chalicelib.index import repo_state
from chalicelib.index.tables import RepoRow
from chalicelib.index.writer import MAX_DID_BYTES
from chalicelib.telemetry import log

DIRECTORY = "directory"
"""Kind of the state rows; the id is the directory's key."""
PAGE = 500
MAX_PAGES = 50
"""Pages that one job reads."""
RATE, BURST = 2.0, 5
"""Pages a second, after the first few."""
_DAY_MS = 24 * 3600 * 1000


@dataclass
class Walk:
    """How far one collection was paged."""

    cursor: str | None = None
    began_at: int | None = None
    """When it was last begun from the first page, UTC ms."""
    is_full: bool = False
    """It has not come to the end since."""
    pages: int = 0
    mark: str | None = None
    """A cursor of before, to see that they go in a circle."""
    failures: int = 0
    retry_at: int = 0
    error: str | None = None

    def begin(self, now: int) -> None:
        """From the first page on."""
        self.cursor, self.began_at, self.is_full, self.pages, self.mark = None, now, True, 0, None

    def advance(self, cursor: str | None, *, is_empty: bool) -> bool:
        """Go to the next page. ``False``: there is none now; the last cursor is good for what comes later. Raises
        ``BadResponse``."""
        if cursor is None or (is_empty and cursor == self.cursor):
            self.is_full = False
            return False
        if cursor in (self.cursor, self.mark):
            raise BadResponse("its cursors go in a circle")
        self.cursor = cursor
        self.pages += 1
        if self.pages & (self.pages - 1) == 0:  # the mark moves ever further: whatever the circle's length, it is found
            self.mark = cursor
        return True


@dataclass
class Progress:
    """What is kept of one directory."""

    due_at: int = 0
    failures: int = 0
    error: str | None = None
    verified: int = 0
    """DIDs that were found through it, and of which something was verified."""
    unverified: int = 0
    """DIDs of which nothing was, within a day."""
    waiting: dict[str, int] = field(default_factory=dict)
    """DIDs that were asked for because of it, and when, UTC ms."""
    walks: dict[str, Walk] = field(default_factory=dict)

    @classmethod
    def of(cls, content: dict[str, Any]) -> Progress:
        """As it stands in the row; what a later version has added is passed over."""
        progress = cls(**_known(cls, content))
        progress.walks = {name: Walk(**_known(Walk, walk)) for name, walk in content.get("walks", {}).items()}
        return progress


def send_due(context: Context) -> int:
    """Send a message for each directory that is to be read. Returns how many were sent."""
    directories = context.settings.directories
    if not directories:
        return 0
    known = {row.id: row.content["due_at"] for row in context.state.all(DIRECTORY)}
    due = [origin for origin in directories if known.get(str(origin), 0) <= context.clock()]
    for origin in due:
        context.queue.send(DirectoryJob(origin))
    return len(due)


def read_directory(context: Context, origin: Origin) -> None:
    """Read on in a directory, from where the last job stopped, unless that was done a short while ago. Its failure ends up in
    its row; only our own faults raise."""
    if origin not in context.settings.directories:
        return
    row, now = context.state.read(DIRECTORY, str(origin)), context.clock()
    progress = Progress.of(row.content if row is not None else {})
    if progress.due_at <= now:
        _Reading(context, origin, progress).run()


class _Reading:
    def __init__(self, context: Context, origin: Origin, progress: Progress) -> None:
        self._context = context
        self._settings = context.settings
        self._origin = origin
        self._progress = progress
        self._client = PdsClient(context.door, origin)
        self._deadline = Deadline(context.settings.job_seconds)
        self._jitter = random.Random()  # noqa: S311 - spreads visits, guards nothing
        self._pages = 0

    def run(self) -> None:
        progress, began = self._progress, self._context.clock()
        # Two jobs at a time would do no harm; this keeps the next from beginning before this one has ended.
        progress.due_at = began + int(1000 * (self._settings.job_seconds + self._settings.job_lease_seconds))
        self._settle()
        self._save()
        try:
            is_cut_short = self._read()
            progress.failures, progress.error = 0, None
            wait = repo_state.TOLD_MS if is_cut_short else 1000 * self._settings.directory_seconds
        except RemoteError as error:
            wait = self._after(progress.failures, error)
            progress.failures += 1
            progress.error = str(error)[:500]
        progress.due_at = self._context.clock() + int(wait * self._jitter.uniform(0.9, 1.1))
        self._save()
        log(
            "directory-read",
            directory=str(self._origin),
            pages=self._pages,
            waiting=len(progress.waiting),
            verified=progress.verified,
            unverified=progress.unverified,
            error=progress.error,
        )

    def _read(self) -> bool:
        """Page by page, the collections in turn. Returns whether to go on soon."""
        now, pace = self._context.clock(), Pace(RATE, BURST)
        walks = {name: self._progress.walks.setdefault(name, Walk()) for name in self._settings.directory_collections}
        for walk in walks.values():
            if walk.began_at is None or (
                not walk.is_full and now - walk.began_at >= self._settings.directory_hours * 3600 * 1000
            ):
                walk.begin(now)
        todo = [name for name, walk in walks.items() if walk.retry_at <= now]
        while todo:
            for name in list(todo):
                if self._pages == MAX_PAGES or self._deadline.left < 0:
                    return True
                time.sleep(pace.reserve())
                self._pages += 1
                if not self._turn_page(name, walks[name]):
                    todo.remove(name)
            self._save()
        return False

    def _turn_page(self, name: str, walk: Walk) -> bool:
        """Look at the page at which the walk stands. Returns whether to go on with the next."""
        try:
            page = self._client.list_repos_by_collection(name, walk.cursor, PAGE)
            goes_on = self._ask(page.dids, name, walk) and walk.advance(page.cursor, is_empty=not page.dids)
        except (BadResponse, XrpcError) as error:
            if isinstance(error, XrpcError) and (error.status == 429 or error.status >= 500):
                raise
            # Of this collection only: one that it does not list, or a cursor that it does not know any more.
            walk.retry_at = self._context.clock() + int(self._after(walk.failures, error))
            walk.failures += 1
            walk.error = str(error)[:500]
            walk.begin(self._context.clock())
            return False
        walk.failures, walk.error = 0, None
        return goes_on

    def _ask(self, dids: Iterable[Did], collection: str, walk: Walk) -> bool:
        """Ask for those of a page that are not known with this collection. Returns whether there was room for all."""
        waiting, most = self._progress.waiting, self._settings.directory_unverified
        sound = [did for did in dids if len(canonical_did(did)) <= MAX_DID_BYTES]
        rows = self._context.writer.load_many(sound)
        for did in sound:
            key = canonical_did(did)
            row = rows.get(key)
            if key in waiting or (row is not None and not (walk.is_full and _is_doubtful(row, collection))):
                continue
            if len(waiting) >= most:
                return False
            waiting[key] = self._context.clock()
            if self._context.writer.ask(did, claimed_by=str(self._origin)):
                self._context.queue.send(RepoJob(did))
        return True

    def _settle(self) -> None:
        """Let go of those of which something was verified, or nothing for long enough."""
        progress, now = self._progress, self._context.clock()
        rows = self._context.writer.load_many(map(Did, progress.waiting))
        for did, asked_at in list(progress.waiting.items()):
            is_verified = did in rows and bool(rows[did].collections)
            if is_verified or now - asked_at >= _DAY_MS:
                del progress.waiting[did]
                progress.verified += is_verified
                progress.unverified += not is_verified

    def _after(self, failures: int, error: RemoteError) -> int:
        cap_ms = int(1000 * self._settings.failure_cap_seconds)
        return repo_state.back_off(failures, cap_ms, error.retry_after, self._jitter)

    def _save(self) -> None:
        self._context.state.write(DIRECTORY, str(self._origin), asdict(self._progress), number=self._context.clock())


def _known(kind: type[Walk | Progress], content: dict[str, Any]) -> dict[str, Any]:
    return {each.name: content[each.name] for each in fields(kind) if each.name in content}


def _is_doubtful(row: RepoRow, collection: str) -> bool:
    """Whether a repo is known, nothing is being done about it, and nothing of the collection was found in it."""
    return collection not in row.collections and not repo_state.is_pending(row) and row.taken_down is None
