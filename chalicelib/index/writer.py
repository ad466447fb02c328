"""The only code that changes repos, records and listings.

Three rules keep the index exact under any interleaving, crash or pause:

1. Every write of a repo's row is a compare-and-set on its ``version``. What follows from the row (records, listings) is
   written in the same transaction, so a decision takes effect whole, on the row that it was made for, or not at all.
2. Between ``claim`` and ``land`` a snapshot's records are written in transactions that each check the job's token. A job
   that lost its token writes nothing, however late it wakes up.
3. A listing is entered in one transaction over the collection's head, the listing's row and the repo's row (``listings``).

    repo row (version, rev, data, job, collections, listed)  <- compare-and-set
       |-- records   did, path         | same transaction, or
       |-- listings  collection, key   | under the job's token
       `-- state     head, collection  | (bulk records only)
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, field

from pynamodb.exceptions import PutError, TransactWriteError
from pynamodb.transactions import TransactWrite

from chalicelib import metrics
from chalicelib.atproto.cid import cid_to_text
from chalicelib.atproto.repo import Record, Snapshot, VerifiedCommit
from chalicelib.atproto.syntax import Did, canonical_did
from chalicelib.index import listings, repo_state
from chalicelib.index.clock import Clock, now_ms
from chalicelib.index.errors import IndexConflict, JobLost, Superseded, TooLarge
from chalicelib.index.listings import Listings
from chalicelib.index.tables import RecordRow, RepoRow, Tables, copy_of
from chalicelib.telemetry import log

MAX_ITEMS = 100
"""Items in one DynamoDB transaction."""
MAX_TRANSACTION_BYTES = 3_500_000
"""Bytes of record values in one transaction; DynamoDB's limit is 4 MB for everything."""
MAX_VALUE_BYTES = 350_000
"""Bytes of a record's JSON that are kept; DynamoDB's limit is 400 KB for the whole item."""
MAX_CHANGES = MAX_ITEMS - 1 - listings.MAX_ITEMS
"""Records changed in one transaction, beside the repo's row and its listings."""
MAX_DID_BYTES = 512
"""A DID longer than that does not fit into the listings' sort key, and no supported method makes one."""
_ATTEMPTS = 40
_LOST_SAVES = frozenset({"ConditionalCheckFailedException", "TransactionConflictException"})
_LOST_RACES = frozenset({"ConditionalCheckFailed", "TransactionConflict"})


@dataclass(frozen=True)
class Job:
    """The right to write one repo, as long as ``token`` stands on its row."""

    did: Did
    token: str
    asked: int
    """The requests that this job answers: those up to this number."""
    row: RepoRow
    """The row as it was claimed."""
    unresolved: bool = False
    """The DID document should have been fetched again and could not be: that remains to be done."""


@dataclass
class _Effects:
    """Record rows to write and paths to delete, together with the repo's row."""

    puts: list[RecordRow] = field(default_factory=list)
    deletes: list[str] = field(default_factory=list)
    end_of_many: bool = False
    """Others were written before, in transactions of their own."""

    def __len__(self) -> int:
        return len(self.puts) + len(self.deletes)

    @property
    def collections(self) -> frozenset[str]:
        """Whose records change."""
        return frozenset(path.partition("/")[0] for path in (*(put.path for put in self.puts), *self.deletes))


_Decision = Callable[[RepoRow], _Effects | None]
"""Changes the row that it is given and returns what to write with it; ``None`` leaves everything as it is."""


class Writer:
    """Writes what was verified. One per process; safe to use from several threads."""

    def __init__(
        self,
        tables: Tables,
        *,
        clock: Clock = now_ms,
        job_lease_ms: int = 60_000,
        failure_cap_ms: int = 6 * 3600 * 1000,
        feeds: Set[str] = frozenset(),
        jitter: random.Random | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """``feeds``: the collections whose changes are fed."""
        self._tables = tables
        self._listings = Listings(tables, feeds)
        self._clock = clock
        self._job_lease_ms = job_lease_ms
        self._failure_cap_ms = failure_cap_ms
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads retries, guards nothing
        self._pause = pause

    # -- reading what a decision needs

    def load(self, did: Did) -> RepoRow | None:
        """The repo's row as it is now."""
        try:
            return self._tables.repos.get(canonical_did(did), consistent_read=True)
        except self._tables.repos.DoesNotExist:
            return None

    def load_many(self, dids: Iterable[Did]) -> dict[str, RepoRow]:
        """The rows that exist of ``dids``, by key."""
        keys = sorted({canonical_did(did) for did in dids})
        return {row.did: row for row in self._tables.repos.batch_get(keys, consistent_read=True)}

    # -- asking for work

    def ask(
        self,
        did: Did,
        *,
        desynchronized: str | None = None,
        claim: str | None = None,
        claimed_by: str | None = None,
        refresh: bool = False,
        audit: bool = False,
        reset: bool = False,
        create: bool = True,
    ) -> bool:
        """Note durably that this repo must be looked at. Returns whether to send a message for it now.

        ``desynchronized``: the reason why its stored state no longer continues the stream. ``claim``: what an #account
        event, or its host's list, said of it. ``claimed_by``: who says that there is such a repo, without being able to vouch
        for it. ``refresh``: fetch its DID document again. ``audit``: compare everything.
        ``reset``: forget its back-off. ``create=False``: a repo without a row is none of ours.
        """
        tell = False

        def decide(row: RepoRow) -> _Effects | None:
            nonlocal tell
            if row.version is None and not create:
                return None
            now = self._clock()
            if claimed_by is None or row.version is None or row.sync == "refused":
                row.claimed_by = claimed_by
            if desynchronized is not None:
                repo_state.desynchronize(row, desynchronized, now)
            if claim is not None and claim != row.claim:
                row.claim, row.retry_at = claim, None  # news: not even a back-off makes it wait
            row.resolve_again = row.resolve_again or refresh or None
            row.audit = row.audit or audit or None
            if reset:
                row.failures, row.retry_at = 0, None
            tell = repo_state.ask(row, now)
            return _Effects()

        self._update(did, decide)
        return tell

    def postpone(self, did: Did) -> bool:
        """Called by the sweep: if the repo is due, note that a message is being sent for it. Returns whether to send it."""
        due = False

        def decide(row: RepoRow) -> _Effects | None:
            nonlocal due
            now = self._clock()
            due = row.version is not None and row.due_at is not None and row.due_at <= now
            if not due:
                return None
            row.job, row.job_until = None, None  # a job that is due again has lapsed
            row.retry_at = now + repo_state.TOLD_MS
            return _Effects()

        self._update(did, decide, settle=False)
        return due

    # -- jobs: the life of a snapshot

    def claim(self, did: Did, *, ask: bool = False, refresh: bool = False, audit: bool = False) -> Job | None:
        """Take the right to write this repo. ``ask``: ask for the work as well, writing the row first if there is none;
        ``refresh``: with a newly fetched DID document; ``audit``: comparing everything. ``None``: a job is at it already, or
        nothing is to be done."""
        token = uuid.uuid4().hex

        def decide(row: RepoRow) -> _Effects | None:
            now = self._clock()
            if row.job == token:  # our own write, whose answer was lost
                return None
            busy = row.job is not None and row.job_until > now
            row.asked += ask
            row.claimed_by = None if ask else row.claimed_by
            row.resolve_again = row.resolve_again or refresh or None
            row.audit = row.audit or audit or None
            if not repo_state.is_pending(row) or (busy and not ask):
                return None
            if busy:
                return _Effects()
            row.job, row.job_until, row.retry_at = token, now + self._job_lease_ms, None
            return _Effects()

        row = self._update(did, decide)
        return Job(did, token, int(row.asked), row) if row.job == token else None

    def renew(self, job: Job, *, landing: bool = False) -> None:
        """Show that the job is alive. ``landing``: from now on it writes records. Raises ``JobLost``."""

        def decide(row: RepoRow) -> _Effects:
            now = self._clock()
            _own(row, job).job_until = now + self._job_lease_ms
            if landing:
                repo_state.desynchronize(row, "landing", now)
                row.half_landed = True
            return _Effects()

        self._update(job.did, decide)

    def land(
        self,
        job: Job,
        snapshot: Snapshot,
        *,
        host: str,
        epoch: int,
        keep_on: Callable[[int], None] = lambda changed: None,
        seen: Callable[[RecordRow], None] = lambda record: None,
    ) -> RepoRow:
        """Make the index of this repo equal to a snapshot whose signature was checked. Raises ``JobLost``.

        A snapshot older than what is stored changes nothing: the repo stays desynchronized until a higher rev comes. One
        that is what is stored is not compared record by record, unless an audit was asked for. ``keep_on`` is called between
        batches with the number of records changed so far (about), and may renew the job or raise; what was written by then
        stays written. ``seen`` is called with each record that is new or another, before it is written.
        """
        row = _own(self._load_or_new(job.did), job)
        commit = snapshot.commit
        data = cid_to_text(commit.data)
        if row.data is not None and row.rev is not None and commit.rev < row.rev:
            return self._end(job, lambda row, now: repo_state.desynchronize(row, "rev-went-back", now))
        counts: Counter[str] | None = None
        last, unlisted, unfed = _Effects(), frozenset[str](), frozenset[str]()
        known = row.sync == "synced" and (row.rev, row.data) == (commit.rev, data)
        if row.audit or not known:
            counts = Counter(record.path.partition("/")[0] for record in snapshot.records())
            differences = self._differences(job.did, commit.rev, snapshot.records(), audit=bool(row.audit))
            if row.audit and known:
                unlisted, unfed = self._listings.lost(row)
                drift = list(differences)
                found = len(drift) + len(unlisted) + len(unfed) + (row.collections != counts)
                log("audited", did=job.did, drift=found)
                metrics.count("Audits")
                metrics.count("Drift", found)
                differences = iter(drift)
            last = self._write_all_but_the_last(job, _shown(differences, seen), keep_on)

        def landed(row: RepoRow, now: int) -> None:
            row.rev, row.data, row.head, row.host = commit.rev, data, cid_to_text(commit.cid), host
            row.sync, row.reason, row.reason_at = "synced", None, None
            row.verbatim = None if commit.did == row.did else commit.did
            row.skipped = snapshot.skipped or None
            row.crawled_at = now
            row.active, row.status = True, None
            if counts is not None:
                row.collections, row.audited_at = dict(counts), now
                row.listed = {name: key for name, key in row.listed.items() if name not in unlisted}
                row.half_landed = row.half_landed or bool(unfed) or None
            row.probed_epoch = None if row.collections else epoch

        return self._end(job, landed, last)

    def land_status(self, job: Job, *, active: bool, status: str | None, host: str | None = None) -> RepoRow:
        """The repo's own PDS, ``host``, says that this is the account's status; ``None``: the directory has let go of the DID.
        ``deleted`` drops its records. Raises ``JobLost``."""
        deleted = not active and status == "deleted"
        last: _Effects | None = None
        if deleted:
            last = self._write_all_but_the_last(job, self._differences(job.did, "", ()))

        def landed(row: RepoRow, now: int) -> None:
            row.active, row.status = active, None if active and status in (None, "active") else status
            row.host = host or row.host
            if deleted:
                row.rev = row.data = row.head = None
                row.collections = {}
                repo_state.desynchronize(row, "deleted", now)

        return self._end(job, landed, last)

    def refuse(self, job: Job, reason: str) -> RepoRow:
        """Nobody who may speak for this DID told us of it: nothing of it is indexed until somebody asks again."""

        def landed(row: RepoRow, now: int) -> None:
            row.sync, row.reason, row.reason_at = "refused", reason, now

        return self._end(job, landed)

    def withhold(self, job: Job, *, host: str) -> RepoRow:
        """Its host, ``host``, is banned: it leaves all listings until a job finds that it is not. Raises ``JobLost``."""

        def landed(row: RepoRow, now: int) -> None:
            row.host = host

        return self._end(job, landed, banned=True)

    def fail(self, job: Job, error: str, *, retry_after: float | None = None, missing: bool = False) -> None:
        """The remote failed: keep what is known, say why, and try again after a back-off that grows. ``missing``: it says that
        it has no such repo. Raises ``JobLost``."""

        def decide(row: RepoRow) -> _Effects:
            _own(row, job)
            now = self._clock()
            wait = repo_state.back_off(int(row.failures), self._failure_cap_ms, retry_after, self._jitter)
            row.job, row.job_until = None, None
            row.failures += 1
            row.retry_at = now + wait
            row.missing_since = (row.missing_since or now) if missing else row.missing_since
            row.last_error, row.last_error_at = error[:500], now
            return _Effects()

        self._update(job.did, decide)

    def release(self, job: Job, *, after_seconds: float | None = None) -> None:
        """Give the job back undone: whoever comes next may start at once, or ``after_seconds``. Raises ``JobLost``."""

        def decide(row: RepoRow) -> _Effects:
            _own(row, job)
            row.job, row.job_until = None, None
            row.retry_at = None if after_seconds is None else self._clock() + int(1000 * after_seconds)
            return _Effects()

        self._update(job.did, decide)

    def out_of_scope(self, did: Did, *, host: str, rev: str, epoch: int, is_new: bool = False) -> None:
        """Remember that a repo was probed and has no wanted records; one write, once per rev and epoch. ``is_new``: it had no
        row a moment ago, so none is read."""

        def decide(row: RepoRow) -> _Effects | None:
            if row.version is not None and (repo_state.is_pending(row) or row.collections or row.job is not None):
                return None
            if (row.rev, row.host, row.probed_epoch) == (rev, host, epoch):
                return None
            row.host, row.rev, row.data, row.head, row.probed_epoch = host, rev, None, None, epoch
            row.sync, row.reason, row.reason_at = "new", None, None
            row.active, row.status = True, None
            return _Effects()

        self._update(did, decide, is_new=is_new)

    def not_public(self, did: Did, *, host: str, status: str | None) -> None:
        """Remember that its host lists a repo that nobody can have now, and of which nothing is indexed; one write. Without
        the row, an #account event that ends this would be one of a DID that is none of ours."""

        def decide(row: RepoRow) -> _Effects | None:
            known = row.version is not None
            if known and (repo_state.is_pending(row) or row.collections or row.job is not None):
                return None
            if known and (row.host != host or not repo_state.is_public(row)):
                return None
            row.host, row.rev, row.data, row.head, row.probed_epoch = host, None, None, None, None
            row.sync, row.reason, row.reason_at = "new", None, None
            row.active, row.status = False, status or "deactivated"
            return _Effects()

        self._update(did, decide)

    # -- the stream

    def apply(self, row: RepoRow, commit: VerifiedCommit) -> RepoRow:
        """Apply a verified commit that continues the state of ``row``, as the caller has checked, in one transaction.

        Returns the row as it then is. Raises ``Superseded`` if the row has changed meanwhile, ``TooLarge`` if the commit
        does not fit into one transaction.
        """
        updated = copy_of(row)
        keys = [(row.did, change.path) for change in commit.changes]
        before = {old.path: old.cid for old in self._tables.records.batch_get(keys, consistent_read=True)}
        effects = self._effects_of(commit, before)
        counts = Counter(updated.collections)
        for change in commit.changes:
            counts[change.path.partition("/")[0]] += (change.cid is not None) - (change.path in before)
        updated.rev, updated.data, updated.head = commit.rev, cid_to_text(commit.data), cid_to_text(commit.cid)
        updated.collections = {collection: count for collection, count in sorted(counts.items()) if count > 0}
        if len(list(_batches([*effects.puts, *effects.deletes]))) > 1:
            raise TooLarge(f"{len(effects)} records change at once")
        if not self._write(updated, effects):
            raise Superseded(row.did)
        return updated if repo_state.is_settled(updated) else self._update(commit.did, lambda _: _Effects())

    def save_chain(self, row: RepoRow, *, rev: str, data: str, head: str | None) -> RepoRow:
        """Save how far the repo's chain was followed through commits that changed nothing wanted. Raises ``Superseded``."""
        updated = copy_of(row)
        updated.rev, updated.data, updated.head = rev, data, head
        if not self._write(updated, _Effects()):
            raise Superseded(row.did)
        return updated

    # -- the operator's word

    def take_down(self, did: Did, reason: str | None, *, at: int) -> bool:
        """Keep this repo out of all listings, whatever its PDS says, be it known or not; None ends that. What is indexed
        stays. ``at``: the time of the order, UTC ms. Returns whether it was taken down before."""
        was = False

        def decide(row: RepoRow) -> _Effects | None:
            nonlocal was
            was = row.taken_down is not None
            if (row.version is None and reason is None) or (row.ordered_at is not None and row.ordered_at > at):
                return None
            row.taken_down, row.ordered_at = reason, at
            row.asked += reason is None and row.rev is None  # it was purged meanwhile
            return _Effects()

        self._update(did, decide)
        return was

    def purge(self, job: Job) -> RepoRow:
        """Forget all that is indexed of this repo. It is indexed anew, unless it is withheld. Raises ``JobLost``."""
        last = self._write_all_but_the_last(job, self._differences(job.did, "", ()))

        def landed(row: RepoRow, now: int) -> None:
            row.rev = row.data = row.head = row.skipped = row.audited_at = row.probed_epoch = None
            row.collections = {}
            row.sync, row.reason, row.reason_at = "new", None, None
            row.asked += not repo_state.is_withheld(row)

        return self._end(job, landed, last)

    # -- how a decision is carried out

    def _update(self, did: Did, decide: _Decision, *, is_new: bool = False, settle: bool = True) -> RepoRow:
        """``settle=False``: the listings are left to whoever writes the row next; the sweep has no right to them."""
        for attempt in range(_ATTEMPTS):
            row = self._new(did) if is_new and attempt == 0 else self._load_or_new(did)
            effects = decide(row)
            if effects is None:
                return row
            if self._write(row, effects, settle=settle):
                is_done = repo_state.is_settled(row) or not settle
                return row if is_done else self._update(did, lambda _: _Effects())
            self._pause(self._jitter.uniform(0.002, 0.05))
        raise IndexConflict(f"{did}: the row changed under {_ATTEMPTS} attempts")

    def _load_or_new(self, did: Did) -> RepoRow:
        new = self._new(did)
        return self.load(did) or new

    def _new(self, did: Did) -> RepoRow:
        key = canonical_did(did)
        if len(key.encode()) > MAX_DID_BYTES:
            raise TooLarge(f"a DID of more than {MAX_DID_BYTES} bytes is not indexed")
        return self._tables.repos(key, sync="new", verbatim=None if did == key else did)

    def _write(self, row: RepoRow, effects: _Effects, *, settle: bool = True) -> bool:
        """Write the row with what follows from it, if nobody has changed it meanwhile. Returns whether that was so."""
        wanted, touched = frozenset(row.listed), effects.collections
        if settle:
            wanted = repo_state.wanted_listings(row)
        entering, leaving = self._listings.steps(row, wanted)
        if effects.end_of_many:
            touched |= self._listings.feeds
        touched = touched & {*wanted, *row.listed} | {*entering, *leaving}
        fed = sorted(touched & self._listings.feeds)
        now = self._clock()
        if not (entering or leaving or fed or len(effects)):
            repo_state.schedule(row, now)
            return self._save(row)
        transaction = TransactWrite(connection=self._tables.connection)
        self._listings.add(transaction, row, entering=entering, leaving=leaving, fed=fed, now=now)
        self._add_records(transaction, Did(row.did), effects)
        repo_state.schedule(row, now)
        transaction.save(row)
        return _commit(transaction)

    def _save(self, row: RepoRow) -> bool:
        try:
            row.save()
        except PutError as error:
            if error.cause_response_code in _LOST_SAVES:
                return False
            raise
        return True

    def _end(
        self,
        job: Job,
        landed: Callable[[RepoRow, int], None],
        last: _Effects | None = None,
        *,
        banned: bool | None = None,
    ) -> RepoRow:
        """Take the job's token off the row, together with its outcome and the last of its records."""

        def decide(row: RepoRow) -> _Effects:
            _own(row, job)
            now = self._clock()
            landed(row, now)
            row.host_banned = banned
            row.job, row.job_until = None, None
            row.answered = max(row.answered, job.asked)
            row.missing_since = row.claimed_by = None
            if row.asked <= job.asked:  # else somebody asked meanwhile, perhaps for just that
                row.claim, row.audit, row.resolve_again = None, None, job.unresolved or None
            row.failures, row.retry_at, row.last_error, row.last_error_at = 0, None, None, None
            if job.unresolved:
                row.failures = job.row.failures + 1
                row.retry_at = now + repo_state.back_off(
                    int(job.row.failures), self._failure_cap_ms, None, self._jitter
                )
                row.last_error, row.last_error_at = "the DID document could not be fetched again", now
                row.asked += 1
            effects = last or _Effects()
            effects.end_of_many, row.half_landed = bool(row.half_landed), None
            return effects

        return self._update(job.did, decide)

    # -- records

    def _write_all_but_the_last(
        self, job: Job, changes: Iterable[RecordRow | str], keep_on: Callable[[int], None] = lambda changed: None
    ) -> _Effects:
        """Write the changes under the job's token, batch by batch; the last batch is left for the transaction that lands.

        From the first batch on the repo is desynchronized: should the job die, what is stored is no state that ever was.
        """
        held: _Effects | None = None
        for number, batch in enumerate(_batches(changes)):
            if held is not None:
                if number == 1:
                    self.renew(job, landing=True)
                keep_on(number * MAX_CHANGES)
                self._write_under_token(job, held)
            held = batch
        return held or _Effects()

    def _write_under_token(self, job: Job, batch: _Effects) -> None:
        tables = self._tables
        for _ in range(_ATTEMPTS):
            transaction = TransactWrite(connection=tables.connection)
            transaction.condition_check(tables.repos, canonical_did(job.did), condition=tables.repos.job == job.token)
            self._add_records(transaction, job.did, batch)
            if _commit(transaction):
                return
            _own(self._load_or_new(job.did), job)
            self._pause(self._jitter.uniform(0.002, 0.05))
        raise IndexConflict(f"{job.did}: the row changed under {_ATTEMPTS} attempts")

    def _add_records(self, transaction: TransactWrite, did: Did, effects: _Effects) -> None:
        for put in effects.puts:
            transaction.save(put)
        for path in effects.deletes:
            transaction.delete(self._tables.records(canonical_did(did), path))

    def _differences(
        self, did: Did, rev: str, records: Iterable[Record], *, audit: bool = False
    ) -> Iterator[RecordRow | str]:
        """What must be written (a row) or deleted (a path) so that the stored records become ``records``; both in key order.
        A CID says all about a record, unless in an ``audit``, which looks at the stored values too."""
        wanted = ["path", "cid", *(["value", "problem"] if audit else [])]
        stored = iter(self._tables.records.query(canonical_did(did), consistent_read=True, attributes_to_get=wanted))
        old = next(stored, None)
        for record in records:
            while old is not None and old.path < record.path:
                yield old.path
                old = next(stored, None)
            same = old if old is not None and old.path == record.path else None
            if same is not None:
                old = next(stored, None)
                if same.cid == cid_to_text(record.cid) and not audit:
                    continue
            new = self._record_row(did, rev, record)
            if same is None or (same.cid, same.value, same.problem) != (new.cid, new.value, new.problem):
                yield new
        while old is not None:
            yield old.path
            old = next(stored, None)

    def _effects_of(self, commit: VerifiedCommit, before: dict[str, str]) -> _Effects:
        effects = _Effects()
        for change in commit.changes:
            if change.record is None:
                if change.path in before:
                    effects.deletes.append(change.path)
            elif before.get(change.path) != cid_to_text(change.record.cid):
                effects.puts.append(self._record_row(commit.did, commit.rev, change.record))
        return effects

    def _record_row(self, did: Did, rev: str, record: Record) -> RecordRow:
        problem = record.problem
        value = None if problem else json.dumps(record.value, separators=(",", ":"), ensure_ascii=False)
        if value is not None and len(value.encode()) > MAX_VALUE_BYTES:
            value, problem = None, f"its value has more than the {MAX_VALUE_BYTES} bytes that are kept"
        return self._tables.records(
            canonical_did(did),
            record.path,
            cid=cid_to_text(record.cid),
            rev=rev,
            value=value,
            problem=problem,
            indexed_at=self._clock(),
        )


def _own(row: RepoRow, job: Job) -> RepoRow:
    if row.job != job.token:
        raise JobLost(job.did)
    return row


def _shown(changes: Iterable[RecordRow | str], seen: Callable[[RecordRow], None]) -> Iterator[RecordRow | str]:
    for change in changes:
        if isinstance(change, RecordRow):
            seen(change)
        yield change


def _batches(changes: Iterable[RecordRow | str]) -> Iterator[_Effects]:
    """Group changes so that each group fits into one transaction beside the repo's row and its listings."""
    batch, size = _Effects(), 0
    for change in changes:
        weight = 0 if isinstance(change, str) else len(change.value or "") * 4
        if len(batch) == MAX_CHANGES or (len(batch) and size + weight > MAX_TRANSACTION_BYTES):
            yield batch
            batch, size = _Effects(), 0
        if isinstance(change, str):
            batch.deletes.append(change)
        else:
            batch.puts.append(change)
        size += weight
    if len(batch):
        yield batch


def _commit(transaction: TransactWrite) -> bool:
    """Run the transaction. Returns ``False`` if a condition did not hold or another transaction was in the way."""
    try:
        with transaction:
            pass
    except TransactWriteError as error:
        codes = {reason.code for reason in error.cancellation_reasons if reason is not None}
        if error.cause_response_code == "TransactionCanceledException" and codes & _LOST_RACES:
            return False
        raise
    return True
