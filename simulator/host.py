"""A PDS, or an ATCR hold with its embedded PDS: accounts with repos, sync endpoints over them, an event stream.

What changes a host (``write``, ``set_status``, ...) is a plain function that is over when it returns; it works while
the port is dead too. Only ``start`` and ``stop`` and what waits for others are coroutines. Nothing here is thread-safe:
see ``SimulatorThread``.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

import aiohttp
from aiohttp import web

from . import export, frames
from .atcr import Author
from .car import Car
from .cbor import Value, cid_text
from .clock import Clock
from .faults import Fault, Reply
from .forgeries import Forgery
from .identity import Identities
from .keys import Curve, SigningKey
from .repo import Commit, Repo, Write
from .server import Refused, Server
from .stream import Event, Stream

SUBSCRIBE = "com.atproto.sync.subscribeRepos"

Status = Literal["deactivated", "suspended", "takendown", "deleted", "throttled", "desynchronized"]
UNLISTED: tuple[Status, ...] = ("deactivated", "suspended", "takendown", "deleted")
"""The statuses in which a repo is not public."""
_REFUSALS = {"deactivated": "RepoDeactivated", "suspended": "RepoSuspended", "takendown": "RepoTakendown"}


@dataclass(frozen=True)
class Shape:
    """In what servers differ."""

    order: export.Order = export.reference
    """Of the blocks in getRepo."""
    telling: frames.Telling = frames.commit
    """Of commits in the stream."""
    inclusive_cursor: bool = False
    """The event at the cursor is sent again."""
    lists_active: bool = True
    """listRepos has ``active`` and ``status``, and pages."""
    latest_commit: bool = True
    """getLatestCommit is there."""
    decoded_did_web: bool = False
    """A did:web with a port stands as ``did:web:localhost:8080`` in answers."""


PDS = Shape()
OLD_PDS = Shape(telling=frames.legacy_commit)
HOLD = Shape(order=export.carstore, lists_active=False, latest_commit=False)


@dataclass
class Account:
    """An account on one host. ``status`` None is active."""

    did: str
    handle: str
    repo: Repo
    status: Status | None = None

    @property
    def public(self) -> bool:
        return self.status not in UNLISTED


class CrawlAnswer(NamedTuple):
    """What a service said to requestCrawl."""

    status: int
    body: str


@dataclass(frozen=True)
class Backup:
    """A host as it was. Immutable: it can be restored more than once."""

    accounts: tuple[Account, ...]
    seq: int
    backlog: tuple[Event, ...]
    trimmed_to: int


class Host(Server):
    """One host. ``accounts`` are by DID, in the order of their creation; ``stream`` has the events."""

    def __init__(
        self, identities: Identities, clock: Clock, rng: random.Random, *, shape: Shape = PDS, port: int = 0
    ) -> None:
        super().__init__(port)
        self.identities = identities
        self.clock = clock
        self.rng = rng
        self.shape = shape
        self.accounts: dict[str, Account] = {}
        self.forgeries: dict[str, Forgery] = {}
        self.stream = Stream(clock, inclusive=shape.inclusive_cursor)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}, {len(self.accounts)} accounts>"

    @property
    def hostname(self) -> str:
        """With its port: ``localhost:2583``."""
        return f"localhost:{self.port}"

    @property
    def did_web(self) -> str:
        return f"did:web:localhost%3A{self.port}"

    @property
    def did(self) -> str:
        """The DID of its first account: of the hold, where there is only one."""
        return next(iter(self.accounts))

    # Accounts

    def create_account(
        self,
        did: str,
        handle: str,
        records: Iterable[tuple[str, Value]] = (),
        *,
        curve: Curve = "k256",
        legacy_key: bool = False,
    ) -> Account:
        """A new account, with a document that names this host, and records that the stream never shows one by one.

        Events: ``#identity``, ``#account``, and ``#commit`` of an empty repo or ``#sync`` of one with records.
        """
        key = SigningKey.generate(self.rng, curve)
        self.identities.publish(did, key=key, pds=self.url, handle=handle, legacy=legacy_key)
        account = Account(did, handle, Repo(did, key, self.clock, records))
        self.adopt(account)
        return account

    def adopt(self, account: Account) -> None:
        """Take in an account whose document is written elsewhere, and announce it."""
        self.accounts[account.did] = account
        self.emit_identity(account.did)
        self.emit_account(account.did)
        if account.repo.head.prev_data is None and not account.repo.tree.keys:
            self._tell(account.repo.head)
        else:
            self.emit_sync(account.did)

    def author(self, did: str) -> Author:
        """A maker of records for this account."""
        return Author(did, self.clock, self.rng)

    def set_status(self, did: str, status: Status | None, *, announce: bool = True) -> None:
        """Deactivate, suspend, take down, ...; None makes it active again. Emits ``#account``."""
        self.accounts[did].status = status
        if announce:
            self.emit_account(did)

    def delete_account(self, did: str, *, tombstone: bool = False, announce: bool = True) -> Account:
        """The account leaves this host, and (``tombstone``) its DID the world. Emits ``#account`` deleted."""
        self.accounts[did].status = "deleted"
        if announce:
            self.emit_account(did)
        if tombstone:
            self.identities.tombstone(did)
        return self.accounts.pop(did)

    def rotate_key(self, did: str, curve: Curve = "k256", *, sign: bool = True, announce: bool = True) -> None:
        """A new signing key, also in the document. Emits ``#identity``, then (``sign``) a ``#commit`` without ops."""
        key = SigningKey.generate(self.rng, curve)
        self.identities.update(did, key=key)
        self.accounts[did].repo.key = key
        if announce:
            self.emit_identity(did)
        if sign:
            self.write(did, [])

    # Records

    def write(
        self, did: str, writes: Sequence[Write], *, telling: frames.Telling | None = None, silent: bool = False
    ) -> Commit:
        """One commit, told in the host's way or as ``telling``; ``silent``: nobody hears of it."""
        commit = self.accounts[did].repo.apply(writes)
        if not silent:
            self._tell(commit, telling)
        return commit

    def put(self, did: str, path: str, value: Value, *, telling: frames.Telling | None = None) -> Commit:
        """Create or replace one record."""
        return self.write(did, [self.accounts[did].repo.put(path, value)], telling=telling)

    def add(self, did: str, entries: Iterable[tuple[str, Value]], *, telling: frames.Telling | None = None) -> Commit:
        """Create or replace several records in one commit."""
        repo = self.accounts[did].repo
        return self.write(did, [repo.put(path, value) for path, value in entries], telling=telling)

    def delete(self, did: str, *paths: str, telling: frames.Telling | None = None) -> Commit:
        """Delete records, in one commit."""
        return self.write(did, [Write("delete", path) for path in paths], telling=telling)

    def delete_collection(self, did: str, collection: str) -> Commit:
        """Delete all records of a collection, in one commit."""
        return self.delete(did, *self.accounts[did].repo.paths(collection))

    # The stream

    def emit_identity(self, did: str) -> None:
        handle = self.accounts[did].handle
        self.stream.emit(lambda seq, time: frames.identity(did, seq, time, handle))

    def emit_account(self, did: str) -> None:
        account = self.accounts[did]
        self.stream.emit(lambda seq, time: frames.account(did, seq, time, account.status is None, account.status))

    def emit_sync(self, did: str) -> None:
        commit = self.accounts[did].repo.head
        self.stream.emit(lambda seq, time: frames.sync(commit, seq, time))

    def _tell(self, commit: Commit, telling: frames.Telling | None = None) -> None:
        self.stream.emit(lambda seq, time: (telling or self.shape.telling)(commit, seq, time))

    # Life

    async def stop(self) -> None:
        self.stream.disconnect()
        await super().stop()

    def backup(self) -> Backup:
        """The host as it is now."""
        accounts = tuple(replace(account, repo=account.repo.copy()) for account in self.accounts.values())
        return Backup(accounts, self.stream.seq, tuple(self.stream.backlog), self.stream.trimmed_to)

    def restore(self, backup: Backup) -> None:
        """Back to how it was: repos, statuses, backlog, seq. Connections break; DID documents stay as they are."""
        self.stream.disconnect()
        self.accounts = {account.did: replace(account, repo=account.repo.copy()) for account in backup.accounts}
        self.stream.rewind(backup.seq, backup.backlog, backup.trimmed_to)

    async def request_crawl(self, service: str, hostname: str | None = None) -> CrawlAnswer:
        """POST requestCrawl to a discovery service or relay, as a hold does when it starts."""
        url = f"{service.rstrip('/')}/xrpc/com.atproto.sync.requestCrawl"
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, json={"hostname": hostname or self.hostname}) as response,
        ):
            return CrawlAnswer(response.status, await response.text())

    # HTTP

    async def serve(self, endpoint: str, request: web.BaseRequest, fault: Fault) -> web.StreamResponse:
        if endpoint == SUBSCRIBE and not fault.answer:
            cursor = request.query.get("cursor")
            if cursor is None or cursor.isdecimal():
                return await self.stream.serve(request, None if cursor is None else int(cursor), self._notify)
            fault = Fault(answer=Reply.error(400, "InvalidRequest", "cursor must be an integer"))
        return await super().serve(endpoint, request, fault)

    async def subscribed(self, count: int = 1, within: float = 10) -> None:
        """Wait until so many connections are open on the stream."""
        await self.until(lambda: self.stream.connections >= count, within)

    def answer(self, endpoint: str, request: web.BaseRequest) -> Reply:
        query = request.query
        match endpoint:
            case "_health":
                return Reply.of({"version": "simulator"})
            case ".well-known/did.json":
                return Reply.of(self.identities.document(self.did_web))
            case "com.atproto.server.describeServer":
                return Reply.of({"did": self.did_web, "availableUserDomains": [], "inviteCodeRequired": False})
            case "com.atproto.sync.listRepos":
                return self._list_repos(self._limit(query.get("limit"), 500, 1000), query.get("cursor"))
            case "com.atproto.sync.getRepo":
                return self._get_repo(self._public(query.get("did")), query.get("since"))
            case "com.atproto.sync.getRecord":
                path = f"{query.get('collection')}/{query.get('rkey')}"
                return _car(self._public(query.get("did")).repo.proof(path))
            case "com.atproto.sync.getRepoStatus":
                return self._status(self._account(query.get("did")))
            case "com.atproto.sync.getLatestCommit" if self.shape.latest_commit:
                repo = self._public(query.get("did")).repo
                return Reply.of({"cid": cid_text(repo.head.cid), "rev": repo.rev})
            case "com.atproto.repo.describeRepo":
                return self._describe_repo(self._public(query.get("repo")))
            case "com.atproto.repo.getRecord":
                account = self._public(query.get("repo"))
                path = f"{query.get('collection')}/{query.get('rkey')}"
                return Reply.of(_record(account, path))
            case "com.atproto.repo.listRecords":
                limit = self._limit(query.get("limit"), 50, 100)
                return self._list_records(
                    self._public(query.get("repo")), query.get("collection", ""), limit, query.get("cursor")
                )
        raise Refused(501, "MethodNotImplemented", f"no {endpoint} here")

    def _list_repos(self, limit: int, cursor: str | None) -> Reply:
        accounts = list(self.accounts.values())
        if not self.shape.lists_active:
            return Reply.of({"repos": [_listed(self._outside(account.did), account) for account in accounts]})
        start = int(cursor) if cursor and cursor.isdecimal() else 0
        page: dict[str, Any] = {
            "repos": [
                _listed(self._outside(account.did), account) | _activity(account)
                for account in accounts[start : start + limit]
            ]
        }
        return Reply.of(page if start + limit >= len(accounts) else {**page, "cursor": str(start + limit)})

    def _get_repo(self, account: Account, since: str | None) -> Reply:
        forgery = self.forgeries.get(account.did)
        if forgery:
            return _car(forgery(account.repo, self.shape.order))
        car = export.car(account.repo, self.shape.order, since)
        return (
            _car(car) if car.blocks else Reply(content_type="application/vnd.ipld.car")
        )  # nothing new: not even a header

    def _status(self, account: Account) -> Reply:
        status = {"did": self._outside(account.did), **_activity(account)}
        return Reply.of({**status, "rev": account.repo.rev} if account.public else status)

    def _describe_repo(self, account: Account) -> Reply:
        return Reply.of(
            {
                "did": self._outside(account.did),
                "handle": account.handle,
                "didDoc": self.identities.documents.get(account.did, {}),
                "collections": sorted({path.partition("/")[0] for path in account.repo.paths()}),
                "handleIsCorrect": True,
            }
        )

    def _list_records(self, account: Account, collection: str, limit: int, cursor: str | None) -> Reply:
        paths = reversed(list(account.repo.paths(collection)))
        rest = [path for path in paths if not cursor or path < f"{collection}/{cursor}"]
        page: dict[str, Any] = {"records": [_record(account, path) for path in rest[:limit]]}
        return Reply.of(page if len(rest) <= limit else {**page, "cursor": rest[limit - 1].partition("/")[2]})

    def _account(self, did: str | None) -> Account:
        """The account, by either spelling of its DID."""
        for spelling in (did or "", _encoded(did or "")):
            if spelling in self.accounts:
                return self.accounts[spelling]
        raise Refused(400, "RepoNotFound", f"Could not find repo for DID: {did}")

    def _public(self, did: str | None) -> Account:
        account = self._account(did)
        if account.status in _REFUSALS:
            raise Refused(400, _REFUSALS[account.status], f"Repo has been {account.status}: {did}")
        return account

    def _limit(self, text: str | None, default: int, most: int) -> int:
        if text is None:
            return default
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise Refused(400, "InvalidRequest", f"limit must be an integer from 1 to {most}")
        return int(text)

    def _outside(self, did: str) -> str:
        return unquote(did) if self.shape.decoded_did_web else did


def _encoded(did: str) -> str:
    """A did:web with a plain colon before its port, spelled as the specification has it."""
    return "did:web:" + did.removeprefix("did:web:").replace(":", "%3A") if did.startswith("did:web:") else did


def _car(car: Car) -> Reply:
    return Reply(body=car.chunks(), content_type="application/vnd.ipld.car")


def _listed(did: str, account: Account) -> dict[str, Any]:
    return {"did": did, "head": cid_text(account.repo.head.cid), "rev": account.repo.rev}


def _activity(account: Account) -> dict[str, Any]:
    return {"active": True} if account.status is None else {"active": False, "status": account.status}


def _record(account: Account, path: str) -> dict[str, Any]:
    record = account.repo.record(path)
    if not record:
        raise Refused(400, "RecordNotFound", f"Could not locate record: {path}")
    return {"uri": f"at://{account.did}/{path}", "cid": cid_text(record.cid), "value": record.value}
