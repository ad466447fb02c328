"""Repos, as the sync namespace asks of them: com.atproto.sync.listRepos, getRepoStatus, getLatestCommit; getRepo and
getRecord, which send the caller on to the repo's PDS; and io.atcr.discovery.getRepoStatus, which says why a repo is as it is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from chalice.app import Request, Response

from chalicelib import process
from chalicelib.api import cursor as cursors
from chalicelib.api import xrpc
from chalicelib.api.xrpc import Parameters, XrpcFailure
from chalicelib.atproto.syntax import (
    Did,
    Origin,
    canonical_did,
    parse_did,
    parse_nsid,
    parse_record_key,
    parse_tid,
)

MAX_LIMIT = 1000
DEFAULT_LIMIT = 500

_SCOPE = "listRepos"
_ERRORS = {
    "takendown": ("RepoTakendown", "it is taken down"),
    "suspended": ("RepoSuspended", "it is suspended"),
    "deactivated": ("RepoDeactivated", "its account is not active"),
}


# -- what is known


def list_repos(request: Request) -> Response:
    """A page of the repos of which something is indexed, by DID, with the revision that is indexed. Raises ``XrpcFailure``:
    ``InvalidRequest``."""
    parameters = Parameters(request)
    limit = parameters.integer("limit", 1, MAX_LIMIT, default=DEFAULT_LIMIT)
    cursor = parameters.one("cursor")
    (after,) = cursors.decode(_SCOPE, cursor, str) if cursor else (" ",)
    reader = process.reader()
    dids = reader.in_scope(after=after, limit=limit + 1)
    rows = reader.repos(dids[:limit])
    body: dict[str, Any] = {"repos": [_listed(rows[did]) for did in dids[:limit] if rows.get(did, {}).get("head")]}
    if len(dids) > limit:
        body["cursor"] = cursors.encode(_SCOPE, [dids[limit - 1]])
    return xrpc.answer(body)


def get_repo_status(request: Request) -> Response:
    """The account's status as its PDS gives it, or ``desynchronized`` while what is indexed may be behind; the ``rev`` that
    is indexed. What is taken down here is ``takendown``, what is on a banned host ``suspended``. Raises ``XrpcFailure``:
    ``InvalidRequest``, ``RepoNotFound``."""
    repo = _vouched(did_of(request))
    return xrpc.answer(_status(repo))


def get_repo_status_here(request: Request) -> Response:
    """The same, and why it is so: what is indexed, the reason of the state since when, the last failure, what comes next.
    Raises ``XrpcFailure``: ``InvalidRequest``, ``RepoNotFound``."""
    return xrpc.answer(status_here(did_of(request)))


def status_here(did: Did) -> dict[str, Any]:
    """What io.atcr.discovery.getRepoStatus answers. Raises ``XrpcFailure``: ``RepoNotFound``."""
    repo = _known(did)
    body = _status(repo) | {
        "host": repo.get("host"),
        "sync": repo["sync"],
        "reason": repo.get("reason"),
        "reasonSince": datetime_of(repo.get("reason_at")),
        "collections": [{"name": name, "records": count} for name, count in sorted(repo["collections"].items())],
        "crawledAt": datetime_of(repo.get("crawled_at")),
        "lastError": repo.get("last_error"),
        "lastErrorAt": datetime_of(repo.get("last_error_at")),
        "nextAttemptAt": datetime_of(repo.get("due_at")),
    }
    return {name: value for name, value in body.items() if value is not None}


def get_latest_commit(request: Request) -> Response:
    """The commit up to which a repo is indexed. Raises ``XrpcFailure``: ``InvalidRequest``, ``RepoNotFound``,
    ``RepoTakendown``, ``RepoSuspended``, ``RepoDeactivated``."""
    repo = public(did_of(request))
    if "head" not in repo:
        raise _not_found("no commit of it is indexed")
    return xrpc.answer({"cid": repo["head"], "rev": repo["rev"]})


# -- what its PDS has


def get_repo(request: Request) -> Response:
    """302 to the same method of the repo's PDS. Raises ``XrpcFailure`` as ``get_latest_commit`` does."""
    since = Parameters(request)
    more = {} if since.one("since") is None else {"since": since.parsed("since", parse_tid, "3mbd3542kzc22")}
    return _sent_on("com.atproto.sync.getRepo", did_of(request), more)


def get_record(request: Request) -> Response:
    """302 to the same method of the repo's PDS. Raises ``XrpcFailure`` as ``get_latest_commit`` does."""
    path = Parameters(request)
    collection = path.parsed("collection", parse_nsid, "io.atcr.hold.captain")
    rkey = path.parsed("rkey", parse_record_key, "self")
    return _sent_on("com.atproto.sync.getRecord", did_of(request), {"collection": collection, "rkey": rkey})


def _sent_on(nsid: str, did: Did, more: Mapping[str, str]) -> Response:
    repo = public(did)
    if "host" not in repo:
        raise _not_found("its PDS is not known yet")
    query = urlencode({"did": name_of(repo), **more})
    return Response("", {"Location": f"{Origin.parse_key(repo['host']).url}/xrpc/{nsid}?{query}"}, 302)


# -- parameters


def did_of(request: Request, name: str = "did") -> Did:
    """The DID in a parameter, in its one spelling. Raises ``XrpcFailure``."""
    return canonical_did(Parameters(request).parsed(name, parse_did, "did:web:hold01.atcr.io"))


# -- rows


def public(did: Did) -> Mapping[str, Any]:
    """The row of a repo whose records everyone may have. Raises ``XrpcFailure``: ``RepoNotFound``, ``RepoTakendown``,
    ``RepoSuspended``, ``RepoDeactivated``."""
    repo = _vouched(did)
    status = _status(repo)
    if not status["active"]:
        error, why = _ERRORS.get(status.get("status", ""), ("RepoNotFound", "its account is gone"))
        raise XrpcFailure(400, error, f"this repo cannot be had: {why}")
    return repo


def name_of(repo: Mapping[str, Any]) -> str:
    """The DID of a repo's row, as its host spells it."""
    return str(repo.get("verbatim") or repo["did"])


def datetime_of(milliseconds: float | None) -> str | None:
    """A moment in UTC ms, as lexicons write it."""
    if milliseconds is None:
        return None
    moment = datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _known(did: Did) -> Mapping[str, Any]:
    repo = process.reader().repo(did)
    if repo is None:
        raise _not_found("no host that was crawled or followed here has shown it")
    return repo


def _vouched(did: Did) -> Mapping[str, Any]:
    repo = _known(did)
    if repo["sync"] == "refused":
        raise _not_found(f"its DID document does not vouch for it: {repo.get('reason')}")
    return repo


def _status(repo: Mapping[str, Any]) -> dict[str, Any]:
    active, status = repo["active"], repo.get("status")
    if repo.get("taken_down") is not None:
        active, status = False, "takendown"
    elif repo.get("host_banned"):
        active, status = False, "suspended"
    elif active and repo["sync"] == "desynchronized":
        status = "desynchronized"
    found = {"did": name_of(repo), "active": active, "status": status}
    if active:
        found["rev"] = repo.get("rev")
    return {name: value for name, value in found.items() if value is not None}


def _listed(repo: Mapping[str, Any]) -> dict[str, Any]:
    return _status(repo) | {"head": repo["head"], "rev": repo["rev"]}


def _not_found(why: str) -> XrpcFailure:
    return XrpcFailure(400, "RepoNotFound", f"this repo is not known here: {why}")
