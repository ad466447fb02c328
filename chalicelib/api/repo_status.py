"""What is known here of one repo: com.atproto.sync.getRepoStatus, and io.atcr.discovery.getRepoStatus, which says why as well."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from chalice.app import Request, Response

from chalicelib import process
from chalicelib.api import xrpc
from chalicelib.api.xrpc import Parameters, XrpcFailure
from chalicelib.atproto.errors import InvalidSyntax
from chalicelib.atproto.syntax import canonical_did, parse_did


def get_repo_status(request: Request) -> Response:
    """The account's status as its PDS gives it, or ``desynchronized`` while what is indexed may be behind; the ``rev`` that
    is indexed. What is taken down here is ``takendown``, what is on a banned host ``suspended``. Raises ``XrpcFailure``:
    ``InvalidRequest``, ``RepoNotFound``."""
    repo = _repo(request)
    if repo["sync"] == "refused":
        raise _not_found(f"its DID document does not vouch for it: {repo.get('reason')}")
    return xrpc.answer(_status(repo))


def get_repo_status_here(request: Request) -> Response:
    """The same, and why it is so: what is indexed, the reason of the state since when, the last failure, what comes next.
    Raises ``XrpcFailure``: ``InvalidRequest``, ``RepoNotFound``."""
    repo = _repo(request)
    body = _status(repo) | {
        "host": repo.get("host"),
        "sync": repo["sync"],
        "reason": repo.get("reason"),
        "reasonSince": _datetime(repo.get("reason_at")),
        "collections": [{"name": name, "records": count} for name, count in sorted(repo["collections"].items())],
        "crawledAt": _datetime(repo.get("crawled_at")),
        "lastError": repo.get("last_error"),
        "lastErrorAt": _datetime(repo.get("last_error_at")),
        "nextAttemptAt": _datetime(repo.get("due_at")),
    }
    return xrpc.answer({name: value for name, value in body.items() if value is not None})


def _repo(request: Request) -> Mapping[str, Any]:
    text = Parameters(request).one("did")
    if text is None:
        raise xrpc.invalid_request("did is missing: give a DID such as did=did:web:hold01.atcr.io")
    try:
        did = parse_did(text)
    except InvalidSyntax:
        raise xrpc.invalid_request(
            f"did must be a DID such as did:web:hold01.atcr.io, not {xrpc.shown(text)}"
        ) from None
    repo = process.reader().repo(canonical_did(did))
    if repo is None:
        raise _not_found("no host that was crawled or followed here has shown it")
    return repo


def _status(repo: Mapping[str, Any]) -> dict[str, Any]:
    active, status = repo["active"], repo.get("status")
    if repo.get("taken_down") is not None:
        active, status = False, "takendown"
    elif repo.get("host_banned"):
        active, status = False, "suspended"
    elif active and repo["sync"] == "desynchronized":
        status = "desynchronized"
    found = {"did": repo.get("verbatim") or repo["did"], "active": active, "status": status}
    if active:
        found["rev"] = repo.get("rev")
    return {name: value for name, value in found.items() if value is not None}


def _not_found(why: str) -> XrpcFailure:
    return XrpcFailure(400, "RepoNotFound", f"this repo is not known here: {why}")


def _datetime(milliseconds: float | None) -> str | None:
    if milliseconds is None:
        return None
    moment = datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
