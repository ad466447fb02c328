"""What an operator looks at."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from chalice.app import Request, Response

from chalicelib import process
from chalicelib.api import cursor as cursors
from chalicelib.api import xrpc
from chalicelib.api.xrpc import Parameters, XrpcFailure
from chalicelib.atproto.errors import InvalidSyntax
from chalicelib.crawl import inspection
from chalicelib.crawl.context import Context
from chalicelib.crawl.inspection import Entry, NotKnown, Page
from chalicelib.index.hosts import STATUSES

MAX_LIMIT = 1000
DEFAULT_LIMIT = 100


def list_hosts(request: Request) -> Response:
    """A page of the hosts; with ``status`` those that have it. Raises ``XrpcFailure``."""
    status = Parameters(request).one("status")
    if status is not None and status not in STATUSES:
        raise xrpc.invalid_request(f"status must be one of {', '.join(STATUSES)}, not {xrpc.shown(status)}")
    return _page(request, "hosts", partial(inspection.hosts, status=status))


def get_host(request: Request) -> Response:
    """All that is known of the host ``hostname``. Raises ``XrpcFailure``."""
    return _one(request, "hostname", inspection.host, "HostNotFound")


def get_repo(request: Request) -> Response:
    """All that is known of the repo ``did``. Raises ``XrpcFailure``."""
    return _one(request, "did", inspection.repo, "RepoNotFound")


def get_order(request: Request) -> Response:
    """What came of the order ``id``. Raises ``XrpcFailure``."""
    return _one(request, "id", inspection.order)


def list_bans(request: Request) -> Response:
    """The banned domains."""
    return xrpc.answer({"bans": inspection.bans(process.context())})


def list_dead_letters(request: Request) -> Response:
    """How many messages were given up, and some of them."""
    return xrpc.answer(inspection.dead_letters(process.context()))


def list_audit(request: Request) -> Response:
    """A page of what was ordered, the newest first. Raises ``XrpcFailure``."""
    return _page(request, "entries", inspection.audit)


def _one(request: Request, name: str, read: Callable[[Context, str], Entry], not_known: str = "NotFound") -> Response:
    text = Parameters(request).one(name)
    if text is None:
        raise xrpc.invalid_request(f"{name} is missing")
    try:
        return xrpc.answer(read(process.context(), text))
    except InvalidSyntax as error:
        raise xrpc.invalid_request(f"{name}: {error}") from error
    except NotKnown as error:
        raise XrpcFailure(400, not_known, str(error)) from error


def _page(request: Request, name: str, read: Callable[..., Page]) -> Response:
    parameters, scope = Parameters(request), f"admin {name}"
    limit = parameters.integer("limit", 1, MAX_LIMIT, default=DEFAULT_LIMIT)
    cursor = parameters.one("cursor")
    (after,) = cursors.decode(scope, cursor, str) if cursor else (None,)
    try:
        page = read(process.context(), after=after, limit=limit)
    except InvalidSyntax as error:
        raise cursors.bad() from error
    body: dict[str, object] = {name: page.entries}
    if page.next is not None:
        body["cursor"] = cursors.encode(scope, [page.next])
    return xrpc.answer(body)
