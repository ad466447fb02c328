"""What an operator may have done: orders, which are carried out where the rights for it are, and kept in the audit log.

API --message--> crawl Lambda --+
CLI, with AWS credentials ------+--> carry_out --> tables, audit log
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
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
MAX_WHO, MAX_WHY, MAX_DOMAIN = 100, 1_000, 255
"""Characters."""
BEGUN, WAITS, DONE, REFUSED = "begun", "waits", "done", "refused"
"""``status`` of an entry of the audit log. ``begun`` is all that is left of an order whose process died."""
_HOST, _DOMAIN, _DID, _NOTHING = "a host", "a domain (*.example.com)", "a DID", "nothing"
_DOMAIN_PATTERN: Final = re.compile(
    r"\*\.((?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?)"
)


class Refused(Exception):
    """An order that makes no sense; the message says why."""


class Busy(Exception):
    """A job is at the repo: the order has to wait for its end."""


@dataclass(frozen=True)
class Action:
    """What may be ordered. ``takes``: the kinds of its target; ``does``: for people; ``carry_out`` returns what was done."""

    takes: tuple[str, ...]
    does: str
    carry_out: Callable[[Context, Order], str]

    @property
    def has_target(self) -> bool:
        """Whether it is one on a host, a domain or a DID."""
        return _NOTHING not in self.takes


def check(order: Order, *, allow_private: bool) -> None:
    """Raises ``Refused`` unless the order could be carried out, as far as its text tells."""
    if order.action not in ACTIONS:
        raise Refused(f"there is no action {order.action:.40}: {', '.join(sorted(ACTIONS))}")
    _check_text("who", order.who, MAX_WHO)
    _check_text("why", order.why, MAX_WHY)
    takes, kind = ACTIONS[order.action].takes, _kind(order.target)
    if kind not in takes:
        raise Refused(f"{order.action} takes {' or '.join(takes)}, not {order.target[:100]!r}")
    if kind == _HOST:
        _origin(order.target, allow_private)
    elif kind == _DID:
        _did(order.target)


def _check_text(name: str, text: str, most: int) -> None:
    if not text.strip():
        raise Refused(f"say {name}: it goes into the audit log")
    if len(text) > most or not text.isprintable():
        raise Refused(f"{name} goes into the audit log: a line of at most {most} printable characters")


def new_order(context: Context, action: str, target: str, *, who: str, why: str, via: str = "cli") -> Order:
    """An order of this moment, checked. Raises ``Refused``."""
    order = Order(action, target, who, why, f"{context.clock():016d}-{uuid.uuid4().hex[:8]}", via)
    try:
        check(order, allow_private=context.settings.allow_private_hosts)
    except Refused as reason:  # nothing comes of it, so it is not in the audit log
        log("order-refused", **asdict(order), reason=str(reason))
        raise
    return order


def carry_out(context: Context, order: Order) -> str:
    """Carry out an order, unless that was done, and enter it in the audit log, before it takes effect and with what came of
    it. Returns what was done. Raises ``Refused``, ``Busy``."""
    entry = context.state.read(AUDIT, order.id)
    if entry is not None and entry.content["status"] in (DONE, REFUSED):
        return str(entry.content["outcome"])
    _enter(context, order, BEGUN)
    try:
        check(order, allow_private=context.settings.allow_private_hosts)
        outcome = ACTIONS[order.action].carry_out(context, order)
    except (Refused, AdmissionRefused, InvalidSyntax) as error:
        _enter(context, order, REFUSED, str(error))
        raise Refused(str(error)) from error
    except Busy:
        _enter(context, order, WAITS, "a job is at the repo")
        raise
    _enter(context, order, DONE, outcome)
    return outcome


def _enter(context: Context, order: Order, status: str, outcome: str = "") -> None:
    now = context.clock()
    entry = asdict(order) | {"status": status, "outcome": outcome, "at": now}
    final = int(status in (DONE, REFUSED))  # which a second delivery does not undo
    context.state.write(AUDIT, order.id, entry, number=final, keep_seconds=AUDIT_DAYS * 86_400)
    log("order", **asdict(order), status=status, outcome=outcome)


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
    for did in dids:  # a DID may be longer than a key
        digest = hashlib.sha256(did.encode()).hexdigest()[:16]
        context.queue.order(replace(order, target=did, id=f"{order.id}-{digest}"))
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


ACTIONS: Final[Mapping[str, Action]] = {
    "crawl": Action((_HOST,), "crawl a host now, and forget its back-off; one that is not known is let in", _crawl),
    "resync": Action(
        (_DID,), "compare a repo with the index record by record, with a newly fetched DID document", _resync
    ),
    "ban": Action(
        (_HOST, _DOMAIN),
        "neither crawl nor follow a host, or all of a domain (*.example.com); its repos leave the listings",
        _ban,
    ),
    "unban": Action((_HOST, _DOMAIN), "end a ban: the repos come back", _unban),
    "pause": Action((_HOST,), "neither crawl nor follow a host for a while; its repos stay listed", _pause),
    "resume": Action((_HOST,), "end a pause", _resume),
    "takedown": Action((_DID,), "keep a DID out of all listings, whatever its host says", _take_down),
    "restore": Action((_DID,), "end a takedown", _restore),
    "purge": Action(
        (_DID, _HOST),
        "delete what is indexed of a DID, or of all repos of a host; it is indexed anew unless it is withheld",
        _purge,
    ),
    "redrive": Action((_NOTHING,), "send the dead letters again", _redrive),
}


def _kind(target: str) -> str:
    if target.startswith("did:"):
        return _DID
    if _domain(target):
        return _DOMAIN
    return _HOST if target else _NOTHING


def _domain(target: str) -> str:
    match = _DOMAIN_PATTERN.fullmatch(target) if len(target) <= MAX_DOMAIN else None
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
