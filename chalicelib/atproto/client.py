"""XRPC client for a PDS: the queries that finding and reading its repos needs, their answers checked.

Lexicons: com.atproto.server.describeServer, com.atproto.sync.{listRepos,listReposByCollection,getRepoStatus,getRepo,getRecord}
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from chalicelib.atproto.errors import BadResponse, InvalidSyntax, RemoteError, XrpcError
from chalicelib.atproto.net import Door, Response, printable
from chalicelib.atproto.syntax import Did, Nsid, Origin, RecordKey, Tid, canonical_did, parse_did, parse_tid
from chalicelib.atproto.transport import Timeouts

MAX_ANSWER: Final = 64 * 1024
"""Bytes of a small JSON answer."""
MAX_PAGE: Final = 2 * 1024 * 1024
"""Bytes of a page of listRepos. A thousand repos take some 250 KB."""
MAX_PROOF: Final = 4 * 1024 * 1024
"""Bytes of the CAR of one record: the record, and the nodes on the way to it."""
MAX_REPO: Final = 2 * 1024**3
"""Bytes of the CAR of a repo, unless the caller says otherwise."""

_REPO_TIMEOUTS: Final = Timeouts(idle=30.0, total=600.0)
_CAR: Final = "application/vnd.ipld.car"
_ERROR_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_STATUS: Final = re.compile(r"[A-Za-z][A-Za-z0-9._#:-]{0,127}")
_CID: Final = re.compile(r"b[a-z2-7]{1,127}")
_MAX_CURSOR: Final = 2048


@dataclass(frozen=True)
class ServerDescription:
    """What makes a PDS of a web server: it has a DID. ``user_domains`` are the domains of new handles."""

    did: Did
    user_domains: tuple[str, ...] = ()


@dataclass(frozen=True)
class ListedRepo:
    """A repo as its host lists it. ``did`` in its one spelling; ``head`` is the CID of the commit, unchecked."""

    did: Did
    rev: Tid
    head: str | None
    active: bool
    status: str | None


@dataclass(frozen=True)
class RepoPage:
    """A page of listRepos. ``dropped`` counts the entries that were no repos. The last page has no cursor."""

    repos: tuple[ListedRepo, ...]
    cursor: str | None
    dropped: int = 0


@dataclass(frozen=True)
class DidPage:
    """A page of listReposByCollection. ``dropped`` counts the entries that were no DIDs. The last page has no cursor."""

    dids: tuple[Did, ...]
    cursor: str | None
    dropped: int = 0


@dataclass(frozen=True)
class RepoStatus:
    """What a host says of an account. ``status`` is why it is not active, as the host calls it."""

    active: bool
    status: str | None
    rev: Tid | None


class PdsClient:
    """Asks one host. Every method raises XrpcError for an XRPC error, BadResponse for an answer that the lexicon doesn't
    allow, and the other RemoteErrors of the door. An error that is not XRPC's has the name ``HttpError``.

    ``timeouts``: of all queries but ``repo_car``, which has its own; else the door's."""

    def __init__(self, door: Door, origin: Origin, *, timeouts: Timeouts | None = None) -> None:
        self._door = door
        self._timeouts = timeouts
        self.origin = origin

    def describe_server(self) -> ServerDescription:
        """Tells a PDS from a relay or a web page: they have no such answer."""
        answer = self._query("com.atproto.server.describeServer", {}, MAX_ANSWER)
        try:
            did = canonical_did(parse_did(_text(answer, "did")))
        except InvalidSyntax as error:
            raise self._bad("describeServer", str(error)) from error
        domains = answer.get("availableUserDomains")
        names = [name for name in domains if isinstance(name, str)] if isinstance(domains, list) else []
        return ServerDescription(did, tuple(names))

    def list_repos(self, cursor: str | None = None, limit: int = 500) -> RepoPage:
        """A page of the host's repos, 1 to 1,000 of them asked for. A host without pages may answer with all at once."""
        entries, next_cursor = self._page("listRepos", {}, cursor, limit)
        repos = tuple(repo for repo in map(_listed_repo, entries) if repo)
        return RepoPage(repos, next_cursor, len(entries) - len(repos))

    def list_repos_by_collection(self, collection: str, cursor: str | None = None, limit: int = 500) -> DidPage:
        """A page of those who have records in a collection, 1 to 2,000 of them asked for, as a relay or a discovery service
        lists them; a PDS need not have the method."""
        entries, next_cursor = self._page("listReposByCollection", {"collection": collection}, cursor, limit)
        dids = tuple(did for did in map(_listed_did, entries) if did)
        return DidPage(dids, next_cursor, len(entries) - len(dids))

    def get_repo_status(self, did: Did) -> RepoStatus:
        """The account's status at this host. A host that doesn't have the repo says XrpcError RepoNotFound."""
        answer = self._query("com.atproto.sync.getRepoStatus", {"did": did}, MAX_ANSWER)
        try:
            if canonical_did(parse_did(_text(answer, "did"))) != canonical_did(did):
                raise self._bad("getRepoStatus", "the answer is about another DID")
        except InvalidSyntax as error:
            raise self._bad("getRepoStatus", str(error)) from error
        active = answer.get("active", True)
        if not isinstance(active, bool):
            raise self._bad("getRepoStatus", "'active' is not a boolean")
        try:
            rev = parse_tid(_text(answer, "rev"))
        except InvalidSyntax:
            rev = None
        return RepoStatus(active, _status(answer), rev)

    @contextmanager
    def repo_car(
        self, did: Did, since: str | None = None, *, max_bytes: int = MAX_REPO, timeouts: Timeouts = _REPO_TIMEOUTS
    ) -> Iterator[Iterator[bytes]]:
        """The CAR of a repo, in chunks as they arrive. Leaving the context before the end hangs up.

        XrpcError names: RepoNotFound, RepoTakendown, RepoSuspended, RepoDeactivated. The chunks raise RemoteErrors too.
        """
        url = self._url("com.atproto.sync.getRepo", {"did": did} | ({"since": since} if since else {}))
        with self._door.stream(url, max_bytes=max_bytes, accept=_CAR, timeouts=timeouts) as answer:
            if not answer.succeeded:
                raise _xrpc_error(Response(answer.url, answer.status, answer.retry_after, b"".join(answer.chunks)))
            yield answer.chunks

    def get_record_car(self, did: Did, collection: Nsid | str, rkey: RecordKey | str) -> bytes:
        """The CAR that proves that a record exists, or that it does not."""
        parameters = {"did": did, "collection": collection, "rkey": rkey}
        url = self._url("com.atproto.sync.getRecord", parameters)
        answer = self._door.get(url, max_bytes=MAX_PROOF, accept=_CAR)
        if not answer.succeeded:
            raise _xrpc_error(answer)
        return answer.body

    def _page(
        self, name: str, parameters: dict[str, str], cursor: str | None, limit: int
    ) -> tuple[list[Any], str | None]:
        """The entries of a page of ``repos``, and the cursor of the next page, if there is one."""
        parameters = parameters | {"limit": str(limit)} | ({"cursor": cursor} if cursor else {})
        answer = self._query(f"com.atproto.sync.{name}", parameters, MAX_PAGE)
        entries = answer.get("repos")
        if not isinstance(entries, list):
            raise self._bad(name, "no list 'repos'")
        following = answer.get("cursor")
        if not isinstance(following, str) or not following:
            return entries, None
        if len(following) > _MAX_CURSOR or not following.isprintable():  # so are lone surrogates
            raise self._bad(name, "the cursor is too long, or not printable")
        return entries, following

    def _query(self, nsid: str, parameters: dict[str, str], max_bytes: int) -> dict[str, Any]:
        answer = self._door.get(self._url(nsid, parameters), max_bytes=max_bytes, timeouts=self._timeouts)
        if not answer.succeeded:
            raise _xrpc_error(answer)
        value = answer.json()
        if not isinstance(value, dict):
            raise self._bad(nsid, "not a JSON object")
        return value

    def _url(self, nsid: str, parameters: dict[str, str]) -> str:
        # A percent sign in a DID (did:web:localhost%3A2583) has to be escaped itself.
        return f"{self.origin.url}/xrpc/{nsid}{'?' * bool(parameters)}{urlencode(parameters)}"

    def _bad(self, query: str, what: str) -> BadResponse:
        return BadResponse(f"{self.origin} answers {query.rpartition('.')[2]} against the lexicon: {what}")


def _listed_repo(entry: Any) -> ListedRepo | None:
    if not isinstance(entry, dict):
        return None
    head, active = entry.get("head"), entry.get("active", True)
    try:
        did, rev = canonical_did(parse_did(_text(entry, "did"))), parse_tid(_text(entry, "rev"))
    except InvalidSyntax:
        return None
    if not isinstance(active, bool):
        return None
    return ListedRepo(
        did, rev, head if isinstance(head, str) and _CID.fullmatch(head) else None, active, _status(entry)
    )


def _listed_did(entry: Any) -> Did | None:
    try:
        return canonical_did(parse_did(_text(entry, "did"))) if isinstance(entry, dict) else None
    except InvalidSyntax:
        return None


def _text(answer: dict[str, Any], field: str) -> str:
    if not isinstance(text := answer.get(field), str):
        raise InvalidSyntax(f"no string {field!r}")
    return text


def _status(answer: dict[str, Any]) -> str | None:
    status = answer.get("status")
    return status if isinstance(status, str) and _STATUS.fullmatch(status) else None


def _xrpc_error(answer: Response) -> RemoteError:
    """``{"error": name, "message": text}``, https://atproto.com/specs/xrpc#error-responses"""
    try:
        body = answer.json()
    except BadResponse:
        body = None
    name, message = (body.get("error"), body.get("message")) if isinstance(body, dict) else (None, None)
    if not isinstance(name, str) or not _ERROR_NAME.fullmatch(name):
        name = "HttpError"
    message = printable(message) if isinstance(message, str) else ""
    return XrpcError(answer.status, name, message, retry_after=answer.retry_after)
