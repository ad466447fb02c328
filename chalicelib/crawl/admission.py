"""Who is let in: what a requestCrawl does."""

from __future__ import annotations

from chalicelib.atproto.client import PdsClient
from chalicelib.atproto.errors import AddressRefused, InvalidSyntax, RemoteError
from chalicelib.atproto.syntax import Origin, parse_origin
from chalicelib.atproto.transport import Timeouts
from chalicelib.crawl.budgets import OverBudget
from chalicelib.crawl.context import Context
from chalicelib.crawl.queue import HostJob
from chalicelib.index.hosts import NAMED, RELAY

SMALL_HOST = 10
"""A host of so many repos at most is walked again, and its DIDs resolved again, whenever it announces itself."""


class AdmissionRefused(Exception):
    """A requestCrawl that is not followed. ``error`` and ``status`` are what the XRPC answer says."""

    error = "InvalidRequest"
    status = 400
    retry_after: float | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class HostNotFound(AdmissionRefused):
    """Nothing that is a PDS answers there."""

    error = "HostNotFound"


class HostBanned(AdmissionRefused):
    """The operator does not want this host."""

    error = "HostBanned"


class RateLimitExceeded(AdmissionRefused):
    """A budget is used up."""

    error = "RateLimitExceeded"
    status = 429

    def __init__(self, over: OverBudget) -> None:
        super().__init__(f"{over}: try again later")
        self.retry_after = over.retry_after


def request_crawl(context: Context, hostname: str, *, address: str | None = None) -> Origin:
    """Let a host in, or take note that a known one is alive (com.atproto.sync.requestCrawl).

    Raises ``InvalidSyntax`` or ``AdmissionRefused``. A host that cannot be reached is remembered all the same, and tried
    for a while: holds announce themselves once, maybe before their proxy is up. ``address``: of who asks, for which there
    are budgets; for an operator there are none.
    """
    try:
        return _request_crawl(context, hostname, address)
    except OverBudget as over:
        raise RateLimitExceeded(over) from over


def _request_crawl(context: Context, hostname: str, address: str | None) -> Origin:
    budgets = context.budgets
    if address is not None:
        budgets.asked(address)
    origin = parse_origin(hostname, allow_private=context.settings.allow_private_hosts)
    row = context.hosts.load(origin)
    if (row is not None and row.status == "banned") or (row is None and context.bans.of(origin) is not None):
        raise HostBanned(f"{origin} is banned from this service")
    if row is not None and row.status == "paused":
        return origin  # it will be crawled once it is let in again
    if row is not None and row.kind == RELAY:
        raise HostNotFound(f"{origin} is a relay, which is followed as such")
    if row is not None and row.status != "unconfirmed":
        crawl = row.failures > 0 or row.kind == NAMED or (row.repo_count or 0) <= SMALL_HOST
        if context.hosts.announce(row, crawl=crawl) and crawl:
            context.queue.send(HostJob(origin, refresh=True))
        return origin
    if address is not None:
        budgets.asked_of_unknown(address)
    try:
        PdsClient(context.door, origin, timeouts=Timeouts(total=context.settings.describe_seconds)).describe_server()
    except AddressRefused as error:
        raise InvalidSyntax(str(error)) from error
    except RemoteError as error:
        message = f"{origin} does not answer as a PDS ({error})"
        if row is None and address is not None and not budgets.is_remembered():
            raise HostNotFound(message) from error
        context.hosts.admit(origin, confirmed=False, error=str(error))
        raise HostNotFound(f"{message}; it will be tried again for a while") from error
    follow(context, origin, within_budget=address is not None)
    return origin


def follow(context: Context, origin: Origin, *, within_budget: bool = True) -> bool:
    """Follow a host that is known to be a PDS: crawl it, and have its stream opened. ``False``: its domain is banned.
    Raises ``OverBudget``."""
    if is_banned(context, origin):
        return False
    if within_budget:
        context.budgets.let_in(origin)
    context.hosts.admit(origin, confirmed=True)
    context.queue.send(HostJob(origin))
    return True


def follow_named(context: Context, origin: Origin) -> None:
    """Follow a host that did not announce itself, and is the PDS of a repo in scope; the first crawl finds out whether it is so
    large that it is left to the relays. Raises ``OverBudget``."""
    context.budgets.let_in(origin)
    context.hosts.admit(origin, confirmed=True, kind=NAMED, followed=not context.settings.relays)
    context.queue.send(HostJob(origin))


def is_banned(context: Context, origin: Origin) -> bool:
    """Whether the domain of a host that is not known is banned; then its row says so from now on."""
    domain = context.bans.of(origin)
    if domain is not None:
        context.hosts.ban(origin, by=domain, at=context.clock())
    return domain is not None
