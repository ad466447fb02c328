"""What an operator may look at: hosts, repos, bans, dead letters, and what came of orders.

Values are ready for JSON. Rows are shown with the names of their attributes in camelCase, and times as text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from chalicelib.atproto.errors import InvalidSyntax
from chalicelib.atproto.syntax import Origin, canonical_did, parse_did, parse_origin
from chalicelib.crawl import orders
from chalicelib.crawl.context import Context

Entry = dict[str, Any]
UNKNOWN: Final = "unknown"
"""``status`` of an order that nothing is entered of: it was not taken up yet, or there was none."""
_IN_A_LIST: Final = (
    *("origin", "status", "connected_at", "cursor_at", "crawled_at"),
    *("due_at", "repo_count", "failures", "last_error", "stream_error"),
)
_ORDER_ID: Final = re.compile(r"[0-9]{16}-[0-9a-f]{8}(-[0-9a-f]{16})?")
_TIME: Final = re.compile(r".*_(at|until|since)")
_INNER: Final = frozenset({"due_shard", "scope_shard"})


class NotKnown(Exception):
    """There is no such host or repo here; the message says which."""


@dataclass(frozen=True)
class Page:
    """Some entries, and where the next page begins, if there may be more."""

    entries: list[Entry]
    next: str | None


def hosts(context: Context, *, status: str | None = None, after: str | None = None, limit: int) -> Page:
    """Hosts in no order, in short. ``after``: ``next`` of the page before. Raises ``InvalidSyntax``."""
    rows = context.tables.hosts
    found = rows.scan(
        None if status is None else rows.status == status,
        limit=limit,
        last_evaluated_key=None if after is None else {"origin": {"S": str(Origin.parse_key(after))}},
    )
    entries = [_readable({name: getattr(row, name) for name in _IN_A_LIST}) for row in found]
    last = found.last_evaluated_key
    return Page(entries, last["origin"]["S"] if last else None)


def host(context: Context, text: str) -> Entry:
    """All that is known of a host. Raises ``InvalidSyntax``, ``NotKnown``."""
    origin = parse_origin(text, allow_private=context.settings.allow_private_hosts)
    row = context.hosts.load(origin)
    if row is None:
        raise NotKnown(f"{origin} is not known")
    return _readable(row.attribute_values) | {"reposInScope": context.tables.repos.by_host.count(str(origin))}


def repo(context: Context, text: str) -> Entry:
    """All that is known of a repo. Raises ``InvalidSyntax``, ``NotKnown``."""
    did = canonical_did(parse_did(text))
    row = context.writer.load(did)
    if row is None:
        raise NotKnown(f"{did} is not known")
    return _readable(row.attribute_values)


def bans(context: Context) -> list[Entry]:
    """The banned domains, and why. Hosts that are banned are among ``hosts``."""
    return [{"domain": domain, "why": why} for domain, why in context.bans.all().items()]


def dead_letters(context: Context) -> Entry:
    """How many messages were given up, and some of them. Botocore's errors are raised."""
    count, sample = context.queue.dead_letters()
    return {"messages": count, "some": [{"body": one.body, "sentAt": _moment(one.sent_at)} for one in sample]}


def audit(context: Context, *, after: str | None = None, limit: int) -> Page:
    """What was ordered, the newest first. ``after``: ``next`` of the page before. Raises ``InvalidSyntax``."""
    rows = context.tables.state
    earlier = None if after is None else rows.id < _order_id(after)
    found = list(rows.query(orders.AUDIT, earlier, scan_index_forward=False, consistent_read=True, limit=limit))
    return Page([_order(row.content) for row in found], found[-1].id if len(found) == limit else None)


def order(context: Context, text: str) -> Entry:
    """What came of an order, by its id. Raises ``InvalidSyntax``."""
    row = context.state.read(orders.AUDIT, _order_id(text))
    return {"id": text, "status": UNKNOWN} if row is None else _order(row.content)


def _order_id(text: str) -> str:
    if not _ORDER_ID.fullmatch(text):
        raise InvalidSyntax(f"not the id of an order: {text[:100]!r}")
    return text


def _order(entry: Mapping[str, Any]) -> Entry:
    return {**entry, "orderedAt": _moment(int(entry["id"][:16])), "at": _moment(entry["at"])}


def _readable(values: Mapping[str, Any]) -> Entry:
    return {
        _camel_case(name): _moment(value) if _TIME.fullmatch(name) else value
        for name, value in values.items()
        if value is not None and name not in _INNER
    }


def _camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.title, rest))


def _moment(milliseconds: float) -> str:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
