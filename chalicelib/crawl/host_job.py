"""Walking through the repos of a host.

listRepos, page by page -- is the repo known at this rev? --> skip
                        |- a host of a few repos          --> brought up to date in place
                        `- a large one                    --> probed; where something of ours shows, a repo job

A host that did not announce itself, and has more than a page of repos, is spared that: it is asked for the rev of those that are
in scope. To crawl a relay is to look again at the hosts that are known through relays alone, if its stream has had a gap.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice

from chalicelib import metrics
from chalicelib.atproto.client import ListedRepo, PdsClient, RepoPage
from chalicelib.atproto.errors import (
    AtprotoError,
    BadResponse,
    BudgetExceeded,
    PassedOver,
    RemoteError,
    Unreachable,
    XrpcError,
)
from chalicelib.atproto.repo import read_snapshot
from chalicelib.atproto.syntax import Did, Origin, Tid, canonical_did, tid_to_microseconds
from chalicelib.atproto.transport import Timeouts
from chalicelib.crawl.budgets import OverBudget
from chalicelib.crawl.context import Context
from chalicelib.crawl.pace import Pace
from chalicelib.crawl.queue import HostJob, RepoJob
from chalicelib.crawl.repo_job import Deadline, sync_repo
from chalicelib.crawl.turns import HOST, NoTurn, Turn
from chalicelib.index import repo_state
from chalicelib.index.errors import JobLost
from chalicelib.index.hosts import NAMED, RELAY, STOPPED, HostCrawl
from chalicelib.index.tables import HostRow, RepoRow
from chalicelib.telemetry import log

PAGE = 500
_AT_ONCE = 100
IN_PLACE = 20
"""A host of so many repos at most is done in place, repo by repo."""
RECHECKS = 5
"""Hosts a second that are looked at again after a gap in a relay's stream."""
STRANGERS = 50
"""If none of the first so many repos that were resolved names this host as its PDS, the crawl is given up."""
UNREACHABLE_IN_A_ROW = 5
BURST = 100
"""So many requests may be made at once, before the host's rate holds."""
STREAM_LAG_MS = 2 * 60 * 1000
"""A rev younger than that which is not stored yet is left to the stream, while the stream is unbroken."""


def crawl_host(context: Context, origin: Origin, *, refresh: bool = False) -> None:
    """Walk through the host's repos, from where the last job stopped. A remote's failure ends up on the host's row; only our
    own faults raise. ``refresh``: fetch the DID documents of a host with few repos again."""
    row = _let_in(context, origin)
    crawl = None if row is None else context.hosts.claim_crawl(origin, row)
    if crawl is None:
        return
    try:
        with context.turns.begin(HOST) as turn:
            _walk(context, crawl, refresh, turn)
    except JobLost:
        log("host-job-lost", host=str(origin))


def _walk(context: Context, crawl: HostCrawl, refresh: bool, turn: Turn) -> None:
    origin = crawl.origin
    walk = _HostCrawl(context, crawl, refresh, turn)
    try:
        turn.of(origin)
        walk.run()
    except NoTurn as put_off:
        context.hosts.hand_over(crawl, after_seconds=put_off.retry_after)
        log("host-put-off", host=str(origin), seconds=round(put_off.retry_after))
    except OverBudget as over:
        context.hosts.fail(crawl, str(over), retry_after=over.retry_after)
        log("host-failed", host=str(origin), error=str(over))
    except RemoteError as error:
        if context.hosts.forget_unconfirmed(crawl.row):
            log("host-forgotten", host=str(origin), error=str(error))
            return
        reason = f"{type(error).__name__}: {error}"
        metrics.count("HostFailures")
        if context.hosts.fail(crawl, reason, retry_after=error.retry_after, got_on=walk.got_on):
            metrics.count("HostsGoneOffline")
        log("host-failed", host=str(origin), error=str(error))


def _let_in(context: Context, origin: Origin) -> HostRow | None:
    """The row of the host, if it may be crawled. After a ban, and after its end, its repos are asked to follow first."""
    hosts = context.hosts
    if (domain := context.bans.of(origin)) and hosts.ban(origin, by=domain, at=context.clock()):
        log("host-banned", host=str(origin), by=domain)
    row = hosts.load(origin)
    if row is None:
        return None
    banned = row.status == "banned"
    if row.withheld_at is not None:
        if not _ask_repos(context, origin, banned):
            return None  # the host is still due
        # A job that began before the ban may still land a repo that nothing was known of.
        settled_at = int(row.withheld_at + 1000 * (context.settings.job_seconds + context.settings.job_lease_seconds))
        hosts.withheld(row, again_at=settled_at if banned and settled_at > context.clock() else None)
    elif row.status in STOPPED and row.due_at is not None:
        hosts.withheld(row)
    return row if row.status not in STOPPED else None


def _ask_repos(context: Context, origin: Origin, banned: bool) -> bool:
    """Ask for those repos of the host that no job has seen it banned, or let in again. Returns whether there was time."""
    deadline = Deadline(context.settings.job_seconds)
    found = context.tables.repos.by_host.query(str(origin))
    while dids := [Did(row.did) for row in islice(found, _AT_ONCE)]:
        for key, row in context.writer.load_many(dids).items():
            if row.job is not None or row.failures or bool(row.host_banned) != banned:
                context.writer.ask(Did(key), reset=True)
                context.queue.send(RepoJob(Did(key)))
        if deadline.left < 0:
            return False
    return True


@dataclass
class _Authority:
    resolved: int = 0
    ours: int = 0

    @property
    def is_stranger(self) -> bool:
        return self.resolved >= STRANGERS and self.ours == 0


_NO_REV = Tid("2222222222222")
"""Of a repo that nobody can have now; older than any."""


class _HostCrawl:
    def __init__(self, context: Context, crawl: HostCrawl, refresh: bool, turn: Turn) -> None:
        self._context = context
        self._crawl = crawl
        self._origin = crawl.origin
        self._refresh = refresh
        self._turn = turn
        self._client = PdsClient(context.door, crawl.origin, timeouts=turn.watching(Timeouts()))
        self._deadline = Deadline(context.settings.job_seconds)
        self._authority = _Authority()
        self._unreachable = 0
        self._pace = Pace(context.settings.crawl_rate, BURST)
        self._renewed = time.monotonic()
        self.got_on = False
        """Whether something was done that needs not be done again."""

    def run(self) -> None:
        context, crawl = self._context, self._crawl
        if crawl.row.status == "unconfirmed":
            self._client.describe_server()
            context.budgets.let_in(self._origin)
            context.hosts.confirm(crawl)
        if crawl.row.kind == RELAY:
            self._look_behind_relay()
            return
        if crawl.row.kind == NAMED:
            is_large = self._is_large()
            if self._has_left(is_large=is_large):
                return
            if is_large:
                self._walk_scope()
                return
        cursor: str | None = crawl.row.crawl_page
        seen, pages = int(crawl.row.crawl_seen or 0), int(crawl.row.crawl_pages or 0)
        been = set[int]()
        """Cursors that this job was given, as hashes."""
        unlisted = self._not_listed_before(cursor)
        while True:
            time.sleep(self._pace.reserve())
            been.add(hash(cursor))
            page = self._client.list_repos(cursor, PAGE)
            pages += 1
            if page.cursor is not None and hash(page.cursor) in been:
                raise self._endless(BadResponse("listRepos gives a cursor that leads back to a page that was read"))
            if pages > context.settings.max_host_pages:
                most = context.settings.max_host_pages
                raise self._endless(BudgetExceeded(f"the host lists its repos on more than {most} pages"))
            few = cursor is None and len(page.repos) <= IN_PLACE and self._is_last(page)
            if not self._visit(
                page.repos,
                few,
                partial(context.hosts.progress, crawl, page=cursor, seen=seen, pages=pages - 1, unlisted=unlisted),
            ):
                self._hand_over()
                return
            if unlisted is not None:
                unlisted.difference_update(canonical_did(repo.did) for repo in page.repos)
            seen += len(page.repos)
            if seen > context.settings.max_host_repos:
                most = context.settings.max_host_repos
                raise self._endless(BudgetExceeded(f"the host lists more than {most} repos"))
            if few or page.cursor is None:
                break
            cursor = page.cursor
            context.hosts.progress(crawl, page=cursor, seen=seen, pages=pages, unlisted=unlisted)
            self.got_on = True
            log("host-progress", host=str(self._origin), repos=seen)
            if self._deadline.left < 0:
                self._hand_over()
                return
        for did in self._overlooked() if unlisted is None else unlisted:  # deleted, it seems, and nobody told us
            self._ask(Did(did), claim="unlisted", refresh=True)
        self._finish(seen)

    def _finish(self, seen: int) -> None:
        again = self._context.hosts.finish(self._crawl, repo_count=seen)
        log("host-done", host=str(self._origin), repos=seen, again=again)
        if again:
            self._context.queue.send(HostJob(self._origin))

    def _endless(self, error: RemoteError) -> RemoteError:
        """What ends a walk that would have no end: the next job gets no further, so it comes later and later."""
        self.got_on = False
        return error

    def _hand_over(self) -> None:
        """There is no time left: another job goes on where this one stopped."""
        self._context.hosts.hand_over(self._crawl)
        self._context.queue.send(HostJob(self._origin, refresh=self._refresh))

    def _not_listed_before(self, cursor: str | None) -> set[str] | None:
        """The repos in scope that earlier jobs of this walk have not come by; None where that is not known."""
        if cursor is None:
            return self._in_scope()
        left = self._crawl.row.crawl_unlisted
        return None if left is None else set(left)

    def _is_large(self) -> bool:
        """Whether the host has more than a page of repos."""
        if self._crawl.row.crawl_page is not None:  # it was when this walk, through those in scope, began
            return True
        time.sleep(self._pace.reserve())
        return not self._is_last(self._client.list_repos(None, PAGE))

    def _has_left(self, *, is_large: bool) -> bool:
        """Settle who follows a host that did not announce itself. Returns whether it is left to the relays from now on; it is
        crawled a little later then."""
        row, hosts = self._crawl.row, self._context.hosts
        is_left = is_large and bool(self._context.settings.relays)
        if not is_left and row.owner is None:
            hosts.follow_named(row)
        if not is_left or row.owner is None:
            return False
        hosts.leave_to_relays(self._crawl)
        log("host-left-to-relays", host=str(self._origin))
        return True

    def _walk_scope(self) -> None:
        """Ask the host for the rev of each repo in scope, in the order of their DIDs."""
        context, crawl = self._context, self._crawl
        repos = context.tables.repos
        after, seen = crawl.row.crawl_page, int(crawl.row.crawl_seen or 0)
        found = repos.by_host.query(str(self._origin), None if after is None else repos.did > after)
        while dids := [Did(row.did) for row in islice(found, IN_PLACE)]:
            listed = [repo for repo in map(self._shown, dids) if repo is not None]
            if not self._visit(listed, False, partial(context.hosts.progress, crawl, page=after, seen=seen, pages=0)):
                self._hand_over()
                return
            after, seen = dids[-1], seen + len(dids)
            context.hosts.progress(crawl, page=after, seen=seen, pages=0)
            self.got_on = True
            self._turn.keep()
            if self._deadline.left < 0:
                self._hand_over()
                return
        self._finish(seen)

    def _shown(self, did: Did) -> ListedRepo | None:
        """What the host says of a repo. If it does not say, a repo job asks."""
        time.sleep(self._pace.reserve())
        try:
            status = self._client.get_repo_status(did)
        except XrpcError as error:
            if error.status in (429, 503):
                raise
            self._ask(did, claim="unlisted" if error.name == "RepoNotFound" else None, refresh=True)
            return None
        if status.rev is None and status.active:
            self._ask(did)
            return None
        return ListedRepo(did, status.rev or _NO_REV, None, status.active, status.status)

    def _look_behind_relay(self) -> None:
        """After a gap in the relay's stream, the hosts that are known through relays alone are looked at again, one after the
        other."""
        context, crawl = self._context, self._crawl
        seen = 0
        if crawl.row.crawled_epoch != crawl.row.epoch:
            now = context.clock()
            for seen, key in enumerate(context.hosts.named(), 1):
                context.hosts.recheck(key, at=now + seen * 1000 // RECHECKS)
                if seen % _AT_ONCE == 0:
                    context.hosts.progress(crawl, page=None, seen=seen, pages=0)
        self._finish(seen)

    def _in_scope(self) -> set[str]:
        """The repos of this host of which something is indexed."""
        return {row.did for row in self._context.tables.repos.by_host.query(str(self._origin))}

    def _overlooked(self) -> set[str]:
        """The repos in scope whose audit nobody has asked for, though it is time: a walk that comes by them does."""
        now = self._context.clock()
        rows = self._context.writer.load_many(map(Did, self._in_scope()))
        return {
            did
            for did, row in rows.items()
            if self._awaits_audit(row) and not repo_state.is_pending(row) and (row.retry_at or 0) <= now
        }

    def _is_last(self, page: RepoPage) -> bool:
        """Whether no page follows. The reference PDS gives a cursor with its last page too; only an empty one has none."""
        if page.cursor is None:
            return True
        following = self._client.list_repos(page.cursor, PAGE)
        return not following.repos and following.cursor is None

    def _visit(self, repos: Iterable[ListedRepo], few: bool, show_life: Callable[[], None]) -> bool:
        """Look at those of a page's repos that are due. Returns whether there was time for all of them."""
        rows = self._context.writer.load_many(repo.did for repo in repos)
        refresh = few and self._refresh
        todo = [repo for repo in repos if refresh or self._is_due(repo, rows.get(canonical_did(repo.did)))]

        ended = False

        def visit(repo: ListedRepo) -> bool:
            nonlocal ended
            late = self._deadline.left < 0
            if ended or (late and not few):
                return False
            row = rows.get(canonical_did(repo.did))
            try:
                if not _is_public(repo) and (row is None or not row.collections):
                    self._context.writer.not_public(repo.did, host=str(self._origin), status=repo.status)
                elif late:  # the next job would begin with the first repo again, and never end
                    self._ask(repo.did, refresh=refresh or (row is not None and row.host != str(self._origin)))
                elif few:
                    self._sync(repo, audit=row is not None and self._awaits_audit(row))
                else:
                    self._probe(repo, row)
            except BaseException:
                ended = True  # and nothing more is asked of the host
                raise
            return True

        complete = True
        with ThreadPoolExecutor(self._context.settings.crawl_concurrency, thread_name_prefix="crawl") as pool:
            for visited in pool.map(visit, todo):  # the first exception ends the page
                complete = complete and visited
                self._turn.keep()
                if time.monotonic() - self._renewed > self._context.settings.job_lease_seconds / 3:
                    show_life()
                    self._renewed = time.monotonic()
        return complete

    def _is_due(self, repo: ListedRepo, row: RepoRow | None) -> bool:
        """Whether what the host lists is something that is not known yet."""
        if row is None:
            return True
        if row.sync == "refused":
            return repo.active
        if row.collections and row.host != str(self._origin):
            return True  # its document is to be fetched again, whatever else is waited for
        now = self._context.clock()
        if row.retry_at is not None and row.retry_at > now:
            return False
        if repo_state.is_pending(row):
            return True
        if self._awaits_audit(row):
            return True
        public = _is_public(repo)
        if not row.collections:
            if row.host != str(self._origin):
                return public  # whatever another host said of it
            unbroken = row.probed_epoch == self._crawl.row.epoch > 0
            return public != repo_state.is_public(row) or (public and not unbroken and row.rev != repo.rev)
        if public != repo_state.is_public(row) or not (public or repo.status in (None, row.status)):
            return True
        if row.sync != "synced":
            return True
        streamed = self._crawl.row.crawled_epoch == self._crawl.row.epoch
        young = tid_to_microseconds(repo.rev) // 1000 > now - STREAM_LAG_MS
        return public and row.rev != repo.rev and not (streamed and young)

    def _awaits_audit(self, row: RepoRow) -> bool:
        """Whether it is time to compare all that is stored of a repo in scope, whatever its rev."""
        oldest = self._context.clock() - self._context.settings.audit_hours * 3600 * 1000
        return row.scope_host == str(self._origin) and row.sync == "synced" and (row.audited_at or 0) < oldest

    def _sync(self, repo: ListedRepo, *, audit: bool) -> None:
        sync_repo(
            self._context,
            repo.did,
            deadline=self._deadline,
            listed_by=self._origin,
            ask=True,
            refresh=self._refresh,
            audit=audit,
            turn=self._turn,
        )

    def _probe(self, repo: ListedRepo, row: RepoRow | None) -> None:
        """See whether a repo of a large host has anything of ours, with one request and without its DID document."""
        if row is not None and row.collections:
            self._ask(repo.did, refresh=row.host != str(self._origin), audit=self._awaits_audit(row))
            return
        settings, writer = self._context.settings, self._context.writer
        time.sleep(self._pace.reserve())
        try:
            timeouts = self._turn.watching(Timeouts(total=max(1.0, self._deadline.left)))
            with self._client.repo_car(repo.did, timeouts=timeouts) as chunks:
                snapshot = read_snapshot(
                    chunks,
                    did=repo.did,
                    scope=settings.collections,
                    limits=self._context.snapshot_limits,
                    now=self._context.clock() / 1000,
                )
            with snapshot:
                wanted = snapshot.record_count > 0
                rev = snapshot.commit.rev
            self._unreachable = 0
            self.got_on = True
        except XrpcError as error:
            if error.status in (429, 503):
                raise
            log("probe-refused", host=str(self._origin), did=repo.did, error=str(error))
            return
        except Unreachable:
            self._unreachable += 1
            if self._unreachable >= UNREACHABLE_IN_A_ROW:
                raise
            self._ask(repo.did)
            return
        except PassedOver:  # there is a record of ours: what it looks like is for its job
            wanted, rev = True, repo.rev
        except AtprotoError as error:
            with suppress(JobLost):
                job = writer.claim(repo.did, ask=True)
                if job is not None:
                    writer.fail(job, f"{type(error).__name__}: {error}")
            return
        if not wanted:
            is_new, epoch = row is None, self._crawl.epoch
            writer.out_of_scope(repo.did, host=str(self._origin), rev=rev, epoch=epoch, is_new=is_new)
        elif self._is_ours(repo.did):
            self._ask(repo.did)

    def _is_ours(self, did: Did) -> bool:
        """Whether the DID's document names this host. Raises ``BadResponse`` once it is clear that none does."""
        try:
            identities = self._context.identities
            ours = identities.get(did).pds == self._origin or identities.refresh(did).pds == self._origin
        except AtprotoError:
            return True  # not known now: the repo job will find out, and try again
        self._authority.resolved += 1
        self._authority.ours += ours
        if self._authority.is_stranger:
            raise BadResponse(f"none of the first {STRANGERS} repos that were resolved names this host as its PDS")
        return ours

    def _ask(self, did: Did, *, claim: str | None = None, refresh: bool = False, audit: bool = False) -> None:
        if self._context.writer.ask(did, claim=claim, refresh=refresh, audit=audit):
            self._context.queue.send(RepoJob(did))


def _is_public(repo: ListedRepo) -> bool:
    """Whether the host says that the repo's records are there for everyone."""
    return repo.active or repo.status in repo_state.STILL_LISTED
