"""Bringing the index of one repo up to date: resolve, ask its PDS, fetch, verify, land."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from enum import Enum

from chalicelib import metrics
from chalicelib.atproto.client import PdsClient, RepoStatus
from chalicelib.atproto.errors import (
    AtprotoError,
    BadSignature,
    BudgetExceeded,
    DidNotFound,
    DidTombstoned,
    PassedOver,
    RemoteError,
    VerificationFailed,
    XrpcError,
)
from chalicelib.atproto.identity import Identity
from chalicelib.atproto.repo import Snapshot, read_snapshot
from chalicelib.atproto.syntax import Did, Origin
from chalicelib.atproto.transport import Timeouts
from chalicelib.crawl.admission import follow_named, is_banned
from chalicelib.crawl.budgets import OverBudget
from chalicelib.crawl.context import Context
from chalicelib.crawl.mentions import Named
from chalicelib.crawl.queue import RepoJob
from chalicelib.crawl.turns import REPO, NoTurn, Turn
from chalicelib.index import repo_state
from chalicelib.index.errors import JobLost
from chalicelib.index.tables import HostRow, RepoRow
from chalicelib.index.writer import Job
from chalicelib.telemetry import log

MISSING_TRIES, CLAIM_TRIES = 3, 16
"""A repo that only an upstream has claimed to be there is given up after so many failures: it does not exist, as those say
who should know, or cannot be had, which with the default back-off takes about a day. It may be claimed again."""
_ROUNDS = 3
_RENEW_SECONDS = 10
_TELL_SECONDS = 2

_STATUS_OF_ERROR = {"RepoTakendown": "takendown", "RepoSuspended": "suspended", "RepoDeactivated": "deactivated"}


class Outcome(Enum):
    """What became of a repo job."""

    LANDED = "landed"
    UNCHANGED = "unchanged"
    STATUS = "status"
    WITHHELD = "withheld"
    REFUSED = "refused"
    FAILED = "failed"
    HANDED_OVER = "handed-over"
    PUT_OFF = "put-off"
    NOTHING = "nothing"


class _OutOfTime(Exception):
    pass


class Deadline:
    """How long a job may go on. ``seconds`` from now, by the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds, possibly negative."""
        return self._end - time.monotonic()


def sync_repo(
    context: Context,
    did: Did,
    *,
    deadline: Deadline,
    listed_by: Origin | None = None,
    ask: bool = False,
    refresh: bool = False,
    audit: bool = False,
    turn: Turn | None = None,
) -> Outcome:
    """Do what was asked for this repo, and what is asked while that is done (up to a bound).

    ``listed_by``: the host that listed it, which must be its PDS. ``ask``: ask for it here and now, ``refresh``
    with a newly fetched DID document, ``audit`` comparing everything. ``turn``: of the job that this is a part of. A remote's
    failure ends up on the repo's row; only our own faults raise.
    """
    with nullcontext(turn) if turn else context.turns.begin(REPO) as turn:
        outcome = Outcome.NOTHING
        for round_ in range(_ROUNDS):
            first = round_ == 0
            job = context.writer.claim(did, ask=ask and first, refresh=refresh and first, audit=audit and first)
            if job is None:
                break
            # What was asked while a round ran was not asked by that host.
            work = _RepoJob(context, job, listed_by if first else None, deadline, turn)
            try:
                outcome = work.run()
            except JobLost:
                log("job-lost", did=did)
                break
            if work.is_to_wait or outcome in (Outcome.FAILED, Outcome.HANDED_OVER, Outcome.PUT_OFF):
                break
    return outcome


class _RepoJob:
    def __init__(self, context: Context, job: Job, listed_by: Origin | None, deadline: Deadline, turn: Turn) -> None:
        self._context = context
        self._job = job
        self._row = job.row
        self._listed_by = listed_by
        self._deadline = deadline
        self._turn = turn
        self._renewed = self._told = time.monotonic()
        self._host: str | None = None

    @property
    def is_to_wait(self) -> bool:
        """Whether something remains to be done that cannot be done now."""
        return self._job.unresolved

    def run(self) -> Outcome:
        job, writer = self._job, self._context.writer
        try:
            outcome = self._sync()
        except _OutOfTime:
            writer.release(job)
            self._context.queue.send(RepoJob(job.did))
            outcome = Outcome.HANDED_OVER
        except NoTurn as put_off:
            writer.release(job, after_seconds=put_off.retry_after)
            outcome = Outcome.PUT_OFF
        except OverBudget as over:
            writer.fail(job, f"its host is not let in yet: {over}", retry_after=over.retry_after)
            outcome = Outcome.FAILED
        except AtprotoError as error:
            missing = self._is_missing(error)
            if missing and self._is_gone():
                writer.land_status(job, active=False, status="deleted", host=self._host)
                log("repo-gone", did=job.did)
                return Outcome.STATUS
            reason = error.reason if isinstance(error, VerificationFailed) else type(error).__name__
            if self._row.claimed_by and self._row.failures >= (MISSING_TRIES if missing else CLAIM_TRIES):
                writer.refuse(job, f"{self._row.claimed_by} lists it, and nothing of it can be had: {reason}")
                return Outcome.REFUSED
            retry_after = error.retry_after if isinstance(error, RemoteError) else None
            writer.fail(job, f"{reason}: {error}", retry_after=retry_after, missing=missing)
            log("repo-failed", did=job.did, reason=reason, error=str(error))
            metrics.count("RepoFailures")
            return Outcome.FAILED
        log("repo-done", did=job.did, outcome=outcome.value)
        return outcome

    def _is_missing(self, error: AtprotoError) -> bool:
        """Whether its PDS says that it has no such repo, or the directory that there is no such DID."""
        if isinstance(error, XrpcError):
            return error.name == "RepoNotFound"
        return isinstance(error, DidNotFound) and self._job.did.startswith("did:plc:")

    def _is_gone(self) -> bool:
        """Whether that has been said for long enough. A PDS that is being put back from a backup says it for a while."""
        context, since = self._context, self._row.missing_since
        now = context.clock()
        return now - (now if since is None else since) >= context.settings.gone_hours * 3600 * 1000

    def _sync(self) -> Outcome:
        context, row = self._context, self._row
        try:
            identity = self._identity()
        except DidNotFound as error:
            gone = isinstance(error, DidTombstoned) or row.claim == "deleted"
            if not gone or not self._job.did.startswith("did:plc:"):
                raise
            context.writer.land_status(self._job, active=False, status="deleted")
            return Outcome.STATUS
        job = self._job
        if self._listed_by is not None and self._listed_by != identity.pds and not row.resolve_again:
            identity = context.identities.refresh(job.did)  # it may have moved to the host that lists it
        if identity.pds is None or identity.key is None:
            raise VerificationFailed("no-authority", "the DID document names no PDS or no signing key that can be used")
        self._turn.of(identity.pds)
        host = self._host = str(identity.pds)
        only_listed = row.asked - row.answered <= 1  # nobody but that host has shown it
        if self._listed_by is not None and self._listed_by != identity.pds and not row.collections and only_listed:
            context.writer.refuse(job, f"its DID document names {host}, not {self._listed_by}")
            return Outcome.REFUSED
        host_row = context.hosts.load(identity.pds)
        if is_banned(context, identity.pds) if host_row is None else host_row.status == "banned":
            context.writer.withhold(job, host=host)
            return Outcome.WITHHELD
        if host_row is None and row.claimed_by is None:
            follow_named(context, identity.pds)
        if host_row is not None and host_row.status == "paused":
            context.writer.fail(job, f"its host {host} is paused")
            return Outcome.FAILED
        client = PdsClient(context.door, identity.pds, timeouts=self._turn.watching(Timeouts()))
        if self._asks_for_status(row):
            status = self._status(client)
            if status is not None and not status.active and status.status not in repo_state.STILL_LISTED:
                context.writer.land_status(job, active=False, status=status.status or "deactivated", host=host)
                return Outcome.STATUS
            if (
                status is not None
                and row.sync == "synced"
                and status.rev == row.rev
                and row.host == host
                and not row.audit
            ):
                context.writer.land_status(job, active=status.active, status=status.status, host=host)
                return Outcome.UNCHANGED
        try:
            return self._crawl(client, identity, host_row)
        except XrpcError as error:
            status_name = _STATUS_OF_ERROR.get(error.name) or self._deleted(error)
            if status_name is None:
                raise
            context.writer.land_status(job, active=False, status=status_name, host=host)
            return Outcome.STATUS

    def _identity(self) -> Identity:
        """Who the DID is, by a document that was fetched now if that was asked for and is possible."""
        identities, did = self._context.identities, self._job.did
        if not self._row.resolve_again:
            # Another process may know of a move that this one's memory has not heard of.
            return identities.get(did, shared=True)
        began = self._context.clock()
        identity = identities.refresh(did)
        self._job = replace(self._job, unresolved=identities.known(did, newer_than=began) is None)
        return identity

    @staticmethod
    def _asks_for_status(row: RepoRow) -> bool:
        return row.claim is not None or not row.active or row.status is not None or row.sync == "synced"

    def _status(self, client: PdsClient) -> RepoStatus | None:
        try:
            return client.get_repo_status(self._job.did)
        except XrpcError as error:
            deleted = self._deleted(error)
            if deleted is not None:
                return RepoStatus(active=False, status=deleted, rev=None)
            if error.name == "RepoNotFound" or error.status >= 500 or error.status == 429:
                raise
            return None  # the method is not served there: getRepo has to tell

    def _deleted(self, error: XrpcError) -> str | None:
        """``deleted``, if the stream has said so, be it long ago, and the PDS does not know the repo any more."""
        told = "deleted" in (self._row.claim, self._row.status)
        return "deleted" if error.name == "RepoNotFound" and told else None

    def _crawl(self, client: PdsClient, identity: Identity, host_row: HostRow | None) -> Outcome:
        context, job = self._context, self._job
        began = time.monotonic()
        try:
            snapshot = self._fetch(client)
        except PassedOver:
            snapshot = self._fetch(client, keep_all=True)
        with snapshot:
            self._check(snapshot, identity)
            if host_row is None and snapshot.record_count and self._row.claimed_by and identity.pds is not None:
                follow_named(context, identity.pds)  # for nothing less than a record that was verified
            named = Named()
            landed = context.writer.land(
                job,
                snapshot,
                host=str(identity.pds),
                epoch=int(host_row.epoch) if host_row is not None else 0,
                keep_on=self._keep_on,
                seen=lambda record: named.note(record.path, record.value),
            )
            context.mentions.follow_up(job.did, named)
            if landed.scope_host is not None and landed.scope_host != self._row.scope_host and identity.pds is not None:
                context.hosts.attend(identity.pds)
            log(
                "repo-landed",
                did=job.did,
                rev=snapshot.commit.rev,
                records=snapshot.record_count,
                bytes=snapshot.bytes_read,
            )
            metrics.observe("BackfillDuration", (time.monotonic() - began) * 1000, "Milliseconds")
            metrics.observe("BackfillBytes", snapshot.bytes_read, "Bytes")
        return Outcome.LANDED

    def _fetch(self, client: PdsClient, *, keep_all: bool = False) -> Snapshot:
        timeouts = self._turn.watching(Timeouts(total=max(1.0, self._deadline.left)))
        with client.repo_car(self._job.did, timeouts=timeouts) as chunks:
            return read_snapshot(
                self._alive(chunks),
                did=self._job.did,
                scope=self._context.settings.collections,
                limits=self._context.snapshot_limits,
                now=self._context.clock() / 1000,
                keep_all=keep_all,
            )

    def _check(self, snapshot: Snapshot, identity: Identity) -> None:
        assert identity.key is not None  # noqa: S101 - checked by the caller
        try:
            snapshot.commit.check_signature(identity.key)
        except BadSignature:
            fresh = self._context.identities.refresh(self._job.did)
            if fresh.key is None or fresh.pds != identity.pds or fresh.key == identity.key:
                raise
            snapshot.commit.check_signature(fresh.key)

    def _alive(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        read = 0
        for chunk in chunks:
            read += len(chunk)
            if self._deadline.left < 0:
                raise BudgetExceeded("the repo could not be read within the time of a job")
            self._show_life(read=read)
            yield chunk

    def _keep_on(self, changed: int) -> None:
        """Called between two batches of a landing, which another job can go on with."""
        if self._deadline.left < 0:
            raise _OutOfTime
        self._show_life(changed=changed)

    def _show_life(self, *, read: int | None = None, changed: int | None = None) -> None:
        """Keep the job's token and its turn, and tell how far it is."""
        self._turn.keep()
        if time.monotonic() - self._told > _TELL_SECONDS:
            log(
                "repo-progress",
                did=self._job.did,
                progress=f"{read} bytes read" if changed is None else f"{changed} records changed",
            )
            self._told = time.monotonic()
        if time.monotonic() - self._renewed > min(_RENEW_SECONDS, self._context.settings.job_lease_seconds / 3):
            self._context.writer.renew(self._job)
            self._renewed = time.monotonic()
