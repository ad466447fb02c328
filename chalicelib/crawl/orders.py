"""What an operator may have done: orders, which are carried out where the rights for it are, and kept in the audit log.

API --message--> crawl Lambda --+
CLI, with AWS credentials ------+--> carry_out --> tables, audit log
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Final

from chalicelib.atproto.errors import InvalidSyntax
from chalicelib.atproto.syntax import Did, Origin, parse_did, parse_origin
from chalicelib.crawl.admission import AdmissionRefused, request_crawl
from chalicelib.crawl.bans import covers
from chalicelib.crawl.context import Context
from chalicelib.crawl.queue import HostJob, Order, RepoJob
from chalicelib.telemetry import log

AUDIT = "audit"
"""Kind of the state rows of the audit log; their ids sort by time."""
AUDIT_DAYS: Final = 400
"""So long an entry of the audit log is kept."""
RETRY_SECONDS: Final = 15
_HOST, _DOMAIN, _DID, _NOTHING = "a host", "a domain (*.example.com)", "a DID", "nothing"
_DOMAIN_PATTERN: Final = re.compile(
    r"\*\.((?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?)"
)


class Refused(Exception):
    """An order that makes no sense; the message says why."""


class Busy(Exception):
    """A job is at the repo: the order has to wait for its end."""


def check(order: Order, *, allow_private: bool) -> None:
    """Raises ``Refused`` unless the order could be carried out, as far as its text tells."""
    if order.action not in ACTIONS:
        raise Refused(f"there is no action {order.action:.40}: {', '.join(sorted(ACTIONS))}")
    if not order.why.strip():
        raise Refused("say why: it goes into the audit log")
    kinds, kind = ACTIONS[order.action][0], _kind(order.target)
    if kind not in kinds:
        raise Refused(f"{order.action} takes {' or '.join(kinds)}, not {order.target[:100]!r}")
    if kind == _HOST:
        _origin(order.target, allow_private)
    elif kind == _DID:
        _did(order.target)


def new_order(context: Context, action: str, target: str, *, who: str, why: str) -> Order:
    """An order of this moment, checked. Raises ``Refused``."""
    order = Order(action, target, who, why, f"{context.clock():016d}-{uuid.uuid4().hex[:8]}")
    check(order, allow_private=context.settings.allow_private_hosts)
    return order


def carry_out(context: Context, order: Order) -> str:
    """Carry out an order, unless that was done, and enter it in the audit log whatever comes of it. Returns what was done.
    Raises ``Refused``, ``Busy``."""
    done = context.state.read(AUDIT, order.id)
    if done is not None:
        return str(done.content["outcome"])
    try:
        check(order, allow_private=context.settings.allow_private_hosts)
        outcome = ACTIONS[order.action][1](context, order)
    except (Refused, AdmissionRefused) as error:
        _enter(context, order, f"refused: {error}")
        raise Refused(str(error)) from error
    _enter(context, order, outcome)
    return outcome


def _enter(context: Context, order: Order, outcome: str) -> None:
    now = context.clock()
    entry = asdict(order) | {"outcome": outcome, "at": now}
    context.state.write(AUDIT, order.id, entry, number=now, keep_seconds=AUDIT_DAYS * 86_400)
    log("order", **asdict(order), outcome=outcome)


def _crawl(context: Context, order: Order) -> str:
    origin = _of_host(context, order)
    row = context.hosts.load(origin)
    if row is None or row.status == "unconfirmed":
        request_crawl(context, order.target)
        return "admitted"
    if row.status in ("banned", "paused"):
        raise Refused(f"{origin} is {row.status}")
    context.hosts.reset(origin)
    context.queue.send(HostJob(origin, refresh=True))
    return "asked for"


def _resync(context: Context, order: Order) -> str:
    did = _did(order.target)
    context.writer.ask(did, refresh=True, audit=True, reset=True)
    context.queue.send(RepoJob(did))
    return "asked for"


def _ban(context: Context, order: Order) -> str:
    if domain := _domain(order.target):
        context.bans.set(domain, order.why, at=order.at)
        known = (Origin.parse_key(row.origin) for row in context.tables.hosts.scan(attributes_to_get=["origin"]))
        new = [origin for origin in known if covers(domain, origin) and _ban_host(context, origin, domain, order.at)]
        return f"banned, and {len(new)} known hosts with it"
    origin = _of_host(context, order)
    return "banned" if _ban_host(context, origin, str(origin), order.at) else "was banned already"


def _ban_host(context: Context, origin: Origin, by: str, at: int) -> bool:
    new = context.hosts.ban(origin, by=by, at=at)
    if new:
        context.queue.send(HostJob(origin))
    return new


def _unban(context: Context, order: Order) -> str:
    if domain := _domain(order.target):
        context.bans.set(domain, None, at=order.at)
        rows = context.tables.hosts.scan(context.tables.hosts.banned_by == domain)
        let_in = [row.origin for row in rows if _let_in(context, Origin.parse_key(row.origin), order.at)]
        return f"let in again, and {len(let_in)} known hosts with it"
    origin = _of_host(context, order)
    if domain := context.bans.of(origin) or "":
        raise Refused(f"its domain is banned: unban *.{domain}")
    return "let in again" if _let_in(context, origin, order.at) else "was not banned"


def _let_in(context: Context, origin: Origin, at: int) -> bool:
    was = context.hosts.let_in(origin, at=at)
    if was:
        context.queue.send(HostJob(origin, refresh=True))
    return was


def _pause(context: Context, order: Order) -> str:
    return "paused" if context.hosts.pause(_of_host(context, order), at=order.at) else "was not being followed"


def _resume(context: Context, order: Order) -> str:
    origin = _of_host(context, order)
    row = context.hosts.load(origin)
    if row is None or row.status != "paused":
        return "was not paused"
    return "resumed" if _let_in(context, origin, order.at) else "was not paused"


def _take_down(context: Context, order: Order) -> str:
    context.writer.take_down(_did(order.target), order.why, at=order.at)
    return "taken down"


def _restore(context: Context, order: Order) -> str:
    was = context.writer.take_down(_did(order.target), None, at=order.at)
    return "restored" if was else "was not taken down"


def _purge(context: Context, order: Order) -> str:
    if _kind(order.target) == _DID:
        if not _purge_repo(context, _did(order.target)):
            raise Busy(order.target)
        return "purged"
    rows = context.tables.repos.by_host.query(str(_of_host(context, order)))
    dids = [Did(row.did) for row in rows]
    for did in dids:
        context.queue.order(replace(order, target=did, id=f"{order.id}-{did}"))
    return f"its {len(dids)} repos are to be purged"


def _purge_repo(context: Context, did: Did) -> bool:
    if context.writer.load(did) is None:
        return True
    job = context.writer.claim(did, ask=True)
    if job is not None:
        context.writer.purge(job)
    return job is not None


def _redrive(context: Context, order: Order) -> str:
    return f"{context.queue.redrive()} messages sent again"


ACTIONS: Final[Mapping[str, tuple[tuple[str, ...], Callable[[Context, Order], str]]]] = {
    "crawl": ((_HOST,), _crawl),
    "resync": ((_DID,), _resync),
    "ban": ((_HOST, _DOMAIN), _ban),
    "unban": ((_HOST, _DOMAIN), _unban),
    "pause": ((_HOST,), _pause),
    "resume": ((_HOST,), _resume),
    "takedown": ((_DID,), _take_down),
    "restore": ((_DID,), _restore),
    "purge": ((_DID, _HOST), _purge),
    "redrive": ((_NOTHING,), _redrive),
}
"""What each action takes, and what does it."""


def takes_a_target(action: str) -> bool:
    """Whether the action is one on a host, a domain or a DID."""
    return _NOTHING not in ACTIONS[action][0]


def _kind(target: str) -> str:
    if target.startswith("did:"):
        return _DID
    if _domain(target):
        return _DOMAIN
    return _HOST if target else _NOTHING


def _domain(target: str) -> str:
    match = _DOMAIN_PATTERN.fullmatch(target)
    return match[1] if match else ""


def _of_host(context: Context, order: Order) -> Origin:
    return _origin(order.target, context.settings.allow_private_hosts)


def _origin(target: str, allow_private: bool) -> Origin:
    try:
        return parse_origin(target, allow_private=allow_private)
    except InvalidSyntax as error:
        raise Refused(str(error)) from error


def _did(target: str) -> Did:
    try:
        return parse_did(target)
    except InvalidSyntax as error:
        raise Refused(str(error)) from error
