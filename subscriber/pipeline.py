"""From events to effects: what a frame of a stream does to the index.

Frames that cannot matter are dropped before they are decoded. The others go, repo by repo, through a *lane*: the events of one
repo in their order, one at a time, lanes beside each other. A lane verifies a commit against the repo's chain and applies
it; whatever it cannot apply becomes a durable request to crawl the repo. Either way the event is then done, and the cursor
may pass it.

What one host sends must not keep others waiting. So a lane has the events of one host: what another one sends of the same
repo waits in a lane of its own until it has turned out to be the repo's PDS. And hosts take turns for what all of them share: the
threads in which tables are read and written, and those in which DID documents are fetched.

A relay speaks for every repo whose signature checks, and is its source where nobody follows its PDS; elsewhere what it shows is a
hint (``sources``). What it says and cannot be shown to be so changes nothing, and makes us ask no more often than ``RELAY_ASKS``.

    frame -> peek -> (nothing of ours) -> skipped
                 `-> lane of the repo -> verified, continues the chain -> applied in one transaction
                                      |- a job is writing the repo     -> waits for it to land, then goes on
                                      `- anything else                 -> desynchronized: crawl again
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from chalicelib.atproto.cid import cid_to_text
from chalicelib.atproto.errors import AtprotoError, BadSignature, DidNotFound, VerificationFailed
from chalicelib.atproto.events import AccountEvent, CommitEvent, IdentityEvent, SyncEvent
from chalicelib.atproto.identity import Identity
from chalicelib.atproto.mst import EMPTY_TREE
from chalicelib.atproto.repo import VerifiedCommit, verify_commit, verify_sync
from chalicelib.atproto.syntax import Did, Origin, Tid, canonical_did
from chalicelib.crawl.context import Context
from chalicelib.crawl.mentions import Named
from chalicelib.crawl.pace import Pace
from chalicelib.crawl.queue import RepoJob
from chalicelib.index import repo_state
from chalicelib.index.errors import Superseded, TooLarge
from chalicelib.index.tables import HostRow, RepoRow
from chalicelib.telemetry import log
from subscriber import measures
from subscriber.sharing import SharedThreads
from subscriber.sources import Sources, Standing


@dataclass(frozen=True)
class Unreadable:
    """An event of a repo whose fields are not what they should be. What it wanted to say, the repo itself must show."""

    seq: int
    did: Did


RepoEvent = CommitEvent | SyncEvent | IdentityEvent | AccountEvent | Unreadable

LANE_BYTES = 16_000_000
"""Bytes of frames that may wait in one lane while the repo is crawled; beyond, it is crawled once more instead."""
MEMORY = 200_000
"""Repos that are kept in memory at most."""
TRAIL = 256
"""Steps of a chain that are remembered since it was last saved."""
REFRESH_SECONDS = 10.0
"""A DID document is fetched again at most so often because a stream disagrees with it."""
LOOKUPS_EACH = 2
"""DID documents that are fetched at a time for the events of one host."""
RELAY_ASKS, RELAY_BURST = 20.0, 1000
"""Repos a second that are asked for because of one relay, after the first thousand."""
RELAY_CLAIMS = 1000
"""Repos a day of which nothing is known, and whose document cannot be had, that are asked for because of relays."""
_POLL_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)

T = TypeVar("T")

_source: ContextVar[Origin | None] = ContextVar("source", default=None)
"""The host whose event is worked on, whose turn is taken."""


@dataclass
class Repo:
    """A repo as the stream knows it: its row as it was last read or written, and the chain that was followed since."""

    row: RepoRow
    rev: str | None
    data: str | None
    head: str | None
    trail: deque[tuple[str | None, str | None]] = field(default_factory=lambda: deque(maxlen=TRAIL))
    identity_after: int = 0
    """The DID document must have been fetched after that moment (UTC ms)."""
    source: Origin | None = None
    """The host or relay from which the chain was followed last."""

    @property
    def is_ahead(self) -> bool:
        """Whether the chain was followed further than what is stored."""
        return self.rev != self.row.rev

    def advance(self, commit: VerifiedCommit, source: Origin) -> None:
        """Follow the chain through a commit that changed nothing wanted."""
        self.source = source
        self.trail.append((self.rev, self.data))
        self.rev, self.data, self.head = commit.rev, cid_to_text(commit.data), cid_to_text(commit.cid)

    def reset(self, row: RepoRow) -> None:
        """Take over a row that was read or written, keeping the chain if it is the continuation of that row."""
        self.row = row
        if (row.rev, row.data) not in self.trail:
            self.rev, self.data, self.head = row.rev, row.data, row.head
            self.trail.clear()


@dataclass
class _Item:
    event: RepoEvent
    size: int
    source: Origin
    done: Callable[[], None]
    number: int
    since: float
    """When it was read (monotonic seconds)."""


class _Lane:
    def __init__(self) -> None:
        self.items: deque[_Item] = deque()
        self.bytes = 0
        self.task: asyncio.Task[None] | None = None


class Pipeline:
    """Carries out events. One per process; belongs to the event loop, and writes in threads of ``executor``."""

    def __init__(self, context: Context, executor: Executor) -> None:
        self._context = context
        workers = context.settings.stream_workers
        self._tables = SharedThreads(executor, workers, each=workers)
        self._fetching = ThreadPoolExecutor(2 * workers, thread_name_prefix="identities")
        """Others keep us waiting for DID documents: never in the threads that cursors and commits need."""
        self._lookups = SharedThreads(self._fetching, 2 * workers, each=LOOKUPS_EACH)
        self._needles = context.settings.collections.needles
        self._repos: OrderedDict[str, Repo] = OrderedDict()
        self._ahead: defaultdict[str, set[str]] = defaultdict(set)
        """By host or relay, the repos whose chains may have been followed further than what is stored."""
        self._numbers = count()
        """Of events, and of what is fetched because of them: what comes after what."""
        self._disputes: OrderedDict[str, tuple[int, float]] = OrderedDict()
        """When a DID's document was last fetched again because a stream disagreed with it (number, monotonic seconds)."""
        self._settling: dict[str, asyncio.Future[Identity]] = {}
        """Those that are being fetched."""
        self._lanes: dict[tuple[str, Origin], _Lane] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Of repos that are worked on: two hosts may both have a say for a moment, when an account moves."""
        self._sources = Sources(self._host_row, self._ask_about)
        self._paces: dict[Origin, Pace] = {}
        """Of relays: how fast they may have us ask."""
        self._claims = Pace(RELAY_CLAIMS / 86_400, RELAY_CLAIMS, clock=time.monotonic)
        self.counts: Counter[str] = Counter()
        """What became of events, by kind of outcome, since the start."""

    # -- what concerns us

    def concerns(self, did: str | None, paths: bytes) -> bool:
        """Whether a commit may matter: its repo is in scope, or ``paths``, of which it has all, may have a wanted one."""
        if did is not None and did in self._repos:
            return True
        for needle in self._needles:  # noqa: SIM110 - any() costs as much as all else here
            if needle in paths:
                return True
        return False

    async def follow(self, origin: Origin) -> int:
        """Know the repos in scope of a host, so that their chains are followed. Returns how many there are."""

        def load() -> list[RepoRow]:
            repos = self._context.tables.repos
            keys = [Did(row.did) for host in hosts for row in repos.by_host.query(host)]
            return list(self._context.writer.load_many(keys).values())

        hosts = await self._relayed_hosts() if origin in self._paces else [str(origin)]
        rows = await self._run(load)
        for row in rows:
            if row.did not in self._repos:
                self._remember(row, origin)
        return len(rows)

    def trust_signatures(self, relay: Origin) -> None:
        """What comes from there is a relay's: it is for the repos' signatures to vouch for it."""
        self._paces.setdefault(relay, Pace(RELAY_ASKS, RELAY_BURST, clock=time.monotonic))

    # -- events in

    def submit(self, source: Origin, event: RepoEvent, size: int, done: Callable[[], None]) -> None:
        """Carry out an event; ``done`` is called in the event loop when its effect is durable."""
        key = canonical_did(event.did), source
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane()
        lane.items.append(_Item(event, size, source, done, next(self._numbers), time.monotonic()))
        lane.bytes += size
        if lane.task is None:
            lane.task = asyncio.get_running_loop().create_task(self._drive(key, lane))

    @property
    def oldest(self) -> float:
        """How long the event that was read first, of those that are not done, has been waiting (seconds)."""
        first = min((lane.items[0].since for lane in self._lanes.values() if lane.items), default=None)
        return 0.0 if first is None else time.monotonic() - first

    def forget(self, origin: Origin) -> None:
        """Somebody else follows the host from now on: what is in memory of its repos is soon out of date."""
        for did in [did for did, repo in self._repos.items() if repo.row.host == str(origin) or repo.source == origin]:
            del self._repos[did]
        self._ahead.pop(str(origin), None)

    def abandon(self) -> None:
        """Stop all lanes where they are; what is not done stays before the cursor."""
        for lane in self._lanes.values():
            if lane.task is not None:
                lane.task.cancel()
        self._sources.abandon()
        self._fetching.shutdown(wait=False, cancel_futures=True)

    async def save_chains(self, origin: Origin) -> None:
        """Save how far the chains of the host's repos were followed; comes before the host's cursor is saved."""
        ahead = self._ahead.get(str(origin), set())
        for did in list(ahead):
            repo = self._repos.get(did)
            if repo is None or not repo.is_ahead or repo.source != origin:
                ahead.discard(did)
                continue
            rev, data, head = repo.rev, repo.data, repo.head
            if rev is None or data is None or (did, origin) in self._lanes:
                continue
            try:
                row = await self._run(self._context.writer.save_chain, repo.row, rev=rev, data=data, head=head)
            except Superseded:
                await self._reload(repo)
            else:
                repo.trail.append((row.rev, row.data))
                repo.reset(row)

    # -- lanes

    async def _drive(self, key: tuple[str, Origin], lane: _Lane) -> None:
        _source.set(key[1])
        pauses = iter(_POLL_SECONDS)
        while lane.items:
            item = lane.items[0]
            try:
                outcome = await self._handled(item, lane)
            except (
                Exception
            ) as error:  # our own fault or the table's: the event stays before the cursor, and is tried again
                log("event-failed", exception=error, did=item.event.did)
                self.counts["retried"] += 1
                await asyncio.sleep(next(pauses, _POLL_SECONDS[-1]))
                continue
            pauses = iter(_POLL_SECONDS)
            self.counts[outcome] += 1
            for _ in range(len(lane.items) if outcome == "overrun" else 1):
                done = lane.items.popleft()
                lane.bytes -= done.size
                done.done()
        del self._lanes[key]

    async def _handled(self, item: _Item, lane: _Lane) -> str:
        try:
            return await self._handle(item, lane)
        except AtprotoError as error:  # a DID document that can't be had, say: a repo job finds out, and keeps trying
            log("event-unverified", did=item.event.did, error=str(error))
            if item.source in self._paces:
                return await self._doubt(item, error)
            return await self._desynchronize(item.event.did, f"unverified: {type(error).__name__}")

    async def _handle(self, item: _Item, lane: _Lane) -> str:
        event = item.event
        if item.source in self._paces:
            repo = await self._lookup_relayed(event)
            outcome = await self._relayed(item, repo)
            if outcome is not None:
                return outcome
        else:
            repo = await self._lookup(event.did)
            if not self._is_wanted(event, repo):
                return "unwanted"
            if (repo is None or repo.row.host != str(item.source)) and await self._vouched(item, repo) is None:
                return "no-authority"
        async with self._locks.setdefault(canonical_did(event.did), asyncio.Lock()):
            match event:
                case CommitEvent():
                    return await self._commit(event, item, repo, lane)
                case SyncEvent():
                    return await self._sync(event, item, repo)
                case IdentityEvent() if repo is not None:
                    return await self._identity(event, repo)
                case AccountEvent() if repo is not None:
                    return await self._account(event, repo)
                case _:
                    return await self._unreadable(item, repo)

    def _is_wanted(self, event: RepoEvent, repo: Repo | None) -> bool:
        """Whether anything may follow from the event, whoever sent it."""
        match event:
            case CommitEvent():
                wants = self._context.settings.collections.wants_key
                in_scope = repo is not None and repo.row.collections
                return bool(in_scope) or event.too_big or any(wants(op.path.encode()) for op in event.ops)
            case IdentityEvent() | AccountEvent():
                return repo is not None
        return True

    # -- relays

    async def _lookup_relayed(self, event: RepoEvent) -> Repo | None:
        """The repo that a relay's event is of. A relay tells of all the world: the table is asked where it matters."""
        if isinstance(event, IdentityEvent | SyncEvent | Unreadable):
            return self._repos.get(canonical_did(event.did))
        return await self._lookup(event.did)

    async def _relayed(self, item: _Item, repo: Repo | None) -> str | None:
        """What becomes of a relay's event, unless it is to be taken for the PDS's own: None."""
        event = item.event
        if not self._is_wanted(event, repo) or (repo is None and not isinstance(event, CommitEvent)):
            return "unwanted"
        if repo is None and isinstance(event, CommitEvent):
            await self._verify(event, item, None)  # else anybody could have us write rows
        host = repo.row.host if repo is not None else None
        if host is None:
            pds = (await self._identity_of(event.did)).pds
            if pds is None:
                return "no-authority"
            host = str(pds)
        standing = await self._sources.standing(host)
        if standing is Standing.STOPPED:
            return "withheld"
        if standing is Standing.DIRECT and not isinstance(event, IdentityEvent):
            return self._hint(event)
        if isinstance(event, SyncEvent):
            identity = await self._vouched(item, repo)
            if identity is None or identity.key is None:
                return "no-authority"
            verify_sync(event, identity.key)
        return None

    async def _doubt(self, item: _Item, error: AtprotoError) -> str:
        """What becomes of a relay's event that cannot be verified: if that is for want of a document, it is asked about."""
        did = item.event.did
        is_known = canonical_did(did) in self._repos
        if isinstance(error, VerificationFailed):
            return self._hint(item.event) if is_known else "unverified"
        if not is_known and (isinstance(error, DidNotFound) or self._claims.attempt()):
            return "unknown-did"
        return await self._ask(did, claimed_by=str(item.source))

    def _hint(self, event: RepoEvent) -> str:
        if isinstance(event, CommitEvent | SyncEvent):
            self._sources.hint(event.did, event.rev)
        return "hint"

    async def _relayed_hosts(self) -> list[str]:
        """Keys of the hosts that are left to the relays."""
        named = await self._run(lambda: list(self._context.hosts.named()))
        return [key for key in named if await self._sources.standing(key) is Standing.RELAYED]

    async def _host_row(self, origin: Origin) -> HostRow | None:
        return await self._run(self._context.hosts.load, origin)

    async def _ask_about(self, did: Did, rev: Tid) -> bool:
        """Ask about a repo of which a relay has shown ``rev``, unless that is known by now. Returns whether it was asked."""
        repo = await self._lookup(did)
        if repo is not None:
            await self._reload(repo)
        if repo is not None and (repo_state.is_pending(repo.row) or (repo.rev is not None and repo.rev >= rev)):
            return False
        log("relay-ahead", did=did, rev=rev)
        await self._ask(did, refresh=True)
        return True

    # -- commits

    async def _commit(self, event: CommitEvent, item: _Item, repo: Repo | None, lane: _Lane) -> str:
        if repo is None:
            return await self._desynchronize(event.did, "new")
        while True:
            outcome = await self._settled_row(repo, lane)
            if outcome is not None:
                return outcome
            if not repo_state.is_public(repo.row):
                if await self._was_stale(repo):
                    continue
                return await self._from_inactive(repo)
            if repo.rev is not None and event.rev <= repo.rev:
                return "duplicate"
            try:
                commit = await self._verify(event, item, repo)
            except VerificationFailed as error:
                if error.reason == "no-authority":
                    return error.reason
                if item.source in self._paces:
                    return self._hint(event)
                return await self._desynchronize(event.did, error.reason)
            break_ = self._break_in_chain(repo, commit)
            if break_ is not None:
                if await self._was_stale(repo):
                    continue
                return await self._desynchronize(event.did, break_)
            if not commit.changes:
                repo.advance(commit, item.source)
                self._ahead[str(item.source)].add(repo.row.did)
                return "followed"
            try:
                row = await self._run(self._context.writer.apply, repo.row, commit)
            except Superseded:
                await self._reload(repo)
            except TooLarge:
                return await self._desynchronize(event.did, "too-large")
            else:
                repo.trail.clear()
                repo.reset(row)
                log("applied", did=event.did, rev=event.rev, changes=len(commit.changes))
                measures.applied(event.time, self._context.clock())
                await self._follow_up(commit)
                return "applied"

    async def _follow_up(self, commit: VerifiedCommit) -> None:
        """Look into the holds that its records name."""
        named = Named()
        for change in commit.changes:
            if change.record is not None:
                named.note(change.path, change.record.value)
        if (names := list(named)) and (news := self._context.mentions.news(names)):
            await self._run(self._context.mentions.follow_up, commit.did, news)

    async def _settled_row(self, repo: Repo, lane: _Lane) -> str | None:
        """Wait until no job writes the repo. ``None`` once its state is one that a commit can continue; else the outcome."""
        if repo.row.sync == "synced" and repo.row.job is None:
            return None
        await self._reload(repo)
        pauses = iter(_POLL_SECONDS)
        while repo.row.job is not None:
            limit = self._context.settings.queued_commits
            if len(lane.items) > limit or lane.bytes > LANE_BYTES:
                await self._desynchronize(Did(repo.row.did), "overrun")
                return "overrun"
            await asyncio.sleep(next(pauses, _POLL_SECONDS[-1]))
            await self._reload(repo)
        if repo.row.sync == "synced":
            return None
        if repo_state.is_pending(repo.row):
            return "awaits-crawl"  # that crawl begins after this commit, and will see it
        return await self._desynchronize(Did(repo.row.did), repo.row.reason or "new")

    async def _from_inactive(self, repo: Repo) -> str:
        """A commit of an account that is not active: not taken, but a reason to ask for its status. Once it is active again,
        its repo is crawled if it has moved on."""
        if not repo_state.is_pending(repo.row):
            await self._ask(Did(repo.row.did))
        return "inactive"

    async def _verify(self, event: CommitEvent, item: _Item, repo: Repo | None) -> VerifiedCommit:
        scope = self._context.settings.collections
        identity = await self._vouched(item, repo)
        if identity is None:
            raise VerificationFailed("no-authority", f"its DID document does not name {item.source}")
        if identity.key is None:
            raise VerificationFailed("no-key", "its DID document names no signing key that can be used")
        now = self._context.clock() / 1000
        try:
            return verify_commit(event, identity.key, scope, now=now)
        except BadSignature:
            fresh = await self._refreshed(item)
            if fresh is None or fresh.key is None or fresh.key == identity.key:
                raise
            return verify_commit(event, fresh.key, scope, now=now)

    def _break_in_chain(self, repo: Repo, commit: VerifiedCommit) -> str | None:
        """Why the commit does not continue the repo's chain, if it does not."""
        if commit.inverted:
            if commit.prev_data is None or cid_to_text(commit.prev_data) != repo.data:
                return "prev-data-mismatch"
        elif self._context.settings.strict_prev_data:
            return "no-prev-data"
        if commit.since != repo.rev and not (commit.since is None and not commit.inverted):
            return "since-mismatch"
        return None

    # -- the other events: each is a reason to ask

    async def _sync(self, event: SyncEvent, item: _Item, repo: Repo | None) -> str:
        identity = await self._vouched(item, repo)
        if identity is None or identity.key is None:
            return "no-authority"
        if repo is not None:
            if repo.rev is not None and event.rev < repo.rev:
                return "duplicate"
            if repo.rev == event.rev and repo.row.sync == "synced" and repo.row.job is None:
                commit = verify_sync(event, identity.key)
                if cid_to_text(commit.data) == repo.data:
                    return "duplicate"
        elif verify_sync(event, identity.key).data == EMPTY_TREE:
            return "unwanted"
        return await self._desynchronize(event.did, "sync-event")

    async def _identity(self, event: IdentityEvent, repo: Repo) -> str:
        repo.identity_after = self._context.clock()
        if not repo.row.collections:
            return "unwanted"
        return await self._ask(event.did, refresh=True)

    async def _account(self, event: AccountEvent, repo: Repo) -> str:
        await self._reload(repo)
        row = repo.row
        if (
            row.job is None
            and not repo_state.is_pending(row)
            and row.active == event.active
            and row.status == event.status
        ):
            return "duplicate"
        claim = "active" if event.active else event.status or "deactivated"
        return await self._ask(event.did, claim=claim)

    async def _unreadable(self, item: _Item, repo: Repo | None) -> str:
        if await self._vouched(item, repo) is None:
            return "no-authority"
        return await self._ask(item.event.did)

    # -- parts

    async def _desynchronize(self, did: Did, reason: str) -> str:
        log("desynchronized", did=did, reason=reason)
        await self._ask(did, desynchronized=reason)
        repo = self._repos.get(canonical_did(did))
        if repo is None:
            await self._lookup(did)
        else:
            await self._reload(repo)
        return f"desynchronized:{reason}"

    async def _ask(self, did: Did, **request: Any) -> str:
        pace = self._paces.get(source) if (source := _source.get()) else None
        if pace is not None:
            await asyncio.sleep(pace.reserve())

        def ask() -> None:
            if self._context.writer.ask(did, **request):
                self._context.queue.send(RepoJob(did))

        await self._run(ask)
        return "asked"

    async def _lookup(self, did: Did) -> Repo | None:
        """The repo in memory, or from the table; ``None`` if there is no row."""
        key = canonical_did(did)
        repo = self._repos.get(key)
        if repo is None:
            row = await self._run(self._context.writer.load, did)
            return None if row is None else self._remember(row, _source.get())
        self._repos.move_to_end(key)
        return repo

    async def _was_stale(self, repo: Repo) -> bool:
        """Read the row again; whether it is another one than what was in memory."""
        version = repo.row.version
        await self._reload(repo)
        return bool(repo.row.version != version)

    async def _reload(self, repo: Repo) -> None:
        row = await self._run(self._context.writer.load, Did(repo.row.did))
        if row is not None:
            repo.reset(row)

    def _remember(self, row: RepoRow, source: Origin | None = None) -> Repo:
        repo = self._repos[row.did] = Repo(row, row.rev, row.data, row.head, source=source)
        while len(self._repos) > MEMORY:
            self._repos.popitem(last=False)
        return repo

    async def _vouched(self, item: _Item, repo: Repo | None) -> Identity | None:
        """Who the DID is, if its document names the event's source as its PDS, be it only since a short while ago, or if that is
        a relay."""
        did, newer_than = item.event.did, repo.identity_after if repo else None
        identity = await self._identity_of(did, newer_than=newer_than)
        if item.source in self._paces:
            return identity
        if identity.pds != item.source:
            identity = await self._refreshed(item) or await self._identity_of(did, newer_than=newer_than)
        return identity if identity.pds == item.source else None

    async def _refreshed(self, item: _Item) -> Identity | None:
        """Who the DID is by a document fetched now, since a stream disagrees with what is known; ``None``: one was fetched
        since the event came."""
        did, key = item.event.did, canonical_did(item.event.did)
        while True:
            number, at = self._disputes.get(key, (-1, -REFRESH_SECONDS))
            if number > item.number:
                return await asyncio.shield(self._settling[key]) if key in self._settling else None
            if (wait := at + REFRESH_SECONDS - time.monotonic()) > 0:
                await asyncio.sleep(wait)
                continue
            await self._lookups.begin(item.source)
            with self._lookups.ending(item.source):
                if self._disputes.get(key, (-1,))[0] == number:
                    return await asyncio.shield(self._settle(did, key))

    def _settle(self, did: Did, key: str) -> asyncio.Future[Identity]:
        """Begin to fetch a document again."""
        self._disputes[key] = next(self._numbers), time.monotonic()
        self._disputes.move_to_end(key)
        while len(self._disputes) > MEMORY:
            self._disputes.popitem(last=False)
        refresh = self._context.identities.refresh
        fetching = asyncio.get_running_loop().run_in_executor(self._fetching, refresh, did)
        self._settling[key] = fetching
        fetching.add_done_callback(lambda _: self._settling.pop(key))
        return fetching

    async def _identity_of(self, did: Did, *, newer_than: int | None = None) -> Identity:
        identities = self._context.identities
        known = await self._run(identities.known, did, newer_than=newer_than)
        if known is not None:
            return known
        return await self._lookups.run(_source.get(), identities.get, did, newer_than=newer_than)

    async def _run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return await self._tables.run(_source.get(), function, *args, **kwargs)
