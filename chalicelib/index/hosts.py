"""The rows of hosts: announced by requestCrawl, crawled by jobs, followed by subscribers.

Three parties write a host's row, each its own attributes, each under a condition of its own:

- admission: ``announced_at``, ``status``, and the wake-ups of the two others (``due_at``, ``attention_at``);
- the crawl job that holds ``crawl_job``: its progress and its outcome;
- the subscriber that is ``owner``: ``epoch``, ``cursor``, and how the stream is.

A crawl notes the epoch under which it began. Whoever ends it later under a higher epoch leaves the host due: something may
have happened between the two that neither crawl nor stream has shown.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

from pynamodb.exceptions import DeleteError, TransactWriteError, UpdateError
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action
from pynamodb.transactions import TransactWrite

from chalicelib.atproto.syntax import Origin
from chalicelib.index.clock import Clock, now_ms
from chalicelib.index.errors import JobLost
from chalicelib.index.repo_state import TOLD_MS, back_off
from chalicelib.index.state import SUBSCRIBER
from chalicelib.index.tables import DUE_SHARD, NOBODY, HostRow, Tables

OFFLINE_AFTER = 5
"""Failures in a row after which a host is called offline (and still tried)."""
NAMED, RELAY = "named", "relay"
"""Kinds of hosts that did not announce themselves; the others are ``pds``."""
RELAYED_AFTER_MS = 60_000
"""After so long every subscriber knows that a host is left to the relays."""
STATUSES = ("unconfirmed", "active", "offline", "paused", "banned")
STOPPED = frozenset({"paused", "banned"})
"""Of a host that the operator wants neither crawled nor followed."""
UNLISTED_KEPT = 100
"""DIDs on the row of a host that is crawled by several jobs."""
TAKEN_AT_ONCE = 50
"""Hosts in one transaction."""


@dataclass(frozen=True)
class HostCrawl:
    """The right to crawl one host, as long as ``token`` stands on its row."""

    origin: Origin
    token: str
    row: HostRow

    @property
    def epoch(self) -> int:
        """The epoch under which this crawl began."""
        return int(self.row.crawl_epoch)


class Hosts:
    """Reads and writes the rows of hosts. One per process; safe to use from several threads."""

    def __init__(
        self,
        tables: Tables,
        *,
        clock: Clock = now_ms,
        job_lease_ms: int = 60_000,
        recrawl_ms: int = 12 * 3600 * 1000,
        confirm_ms: int = 24 * 3600 * 1000,
        failure_cap_ms: int = 6 * 3600 * 1000,
        announce_ms: int = 5 * 60 * 1000,
        jitter: random.Random | None = None,
    ) -> None:
        self._tables = tables
        self._rows = tables.hosts
        self._clock = clock
        self._job_lease_ms = job_lease_ms
        self._recrawl_ms = recrawl_ms
        self._confirm_ms = confirm_ms
        self._failure_cap_ms = failure_cap_ms
        self._announce_ms = announce_ms
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads retries, guards nothing

    def load(self, origin: Origin) -> HostRow | None:
        """The host's row as it is now."""
        try:
            return self._rows.get(str(origin), consistent_read=True)
        except self._rows.DoesNotExist:
            return None

    def by_status(self) -> dict[str, int]:
        """How many hosts there are of each status. Reads the whole table, a moment old: for once in a while."""
        numbers = dict.fromkeys(STATUSES, 0)
        for row in self._rows.scan(attributes_to_get=["status"]):
            numbers[row.status] = numbers.get(row.status, 0) + 1
        return numbers

    # -- admission

    def admit(
        self,
        origin: Origin,
        *,
        confirmed: bool,
        error: str | None = None,
        kind: str = "pds",
        followed: bool = True,
    ) -> None:
        """Write the row of a host that was not known: a PDS that answered (``confirmed``), to be crawled at once, and
        ``followed`` unless it is left to the relays, or one that could not be reached and is to be tried for a while. ``kind``:
        ``named`` where it has not announced itself."""
        now = self._clock()
        row = self._rows
        actions: list[Action] = [
            row.kind.set(kind if kind == "pds" else row.kind | kind),
            row.first_seen_at.set(row.first_seen_at | now),
            row.epoch.set(row.epoch | 0),
            row.announced_at.set(now),
            row.due_shard.set(DUE_SHARD),
        ]
        if confirmed:
            actions += [
                row.status.set("active"),
                *([row.owner.set(NOBODY), row.attention_at.set(now)] if followed else []),
                row.due_at.set(now + TOLD_MS),
                row.failures.set(0),
            ]
            self._update(
                origin,
                actions,
                row.owner.does_not_exist() & (row.status.does_not_exist() | (row.status == "unconfirmed")),
            )
        else:
            actions += [
                row.status.set("unconfirmed"),
                row.due_at.set(now + back_off(0, self._failure_cap_ms, None, self._jitter)),
                row.failures.set(0),
                *self._errors(error or ""),
            ]
            self._update(origin, actions, row.status.does_not_exist() | (row.status == "unconfirmed"))

    def announce(self, row: HostRow, *, crawl: bool) -> bool:
        """A known host announced itself again. Returns ``False`` if it did so moments ago and nothing was done.

        Resets the back-off of the stream and of crawls; ``crawl``: makes the host due at once as well. One that was only
        named so far is followed, and walked whole, from now on.
        """
        now = self._clock()
        is_named = row.kind == NAMED
        if not is_named and row.announced_at is not None and now - row.announced_at < self._announce_ms:
            return False
        rows = self._rows
        actions: list[Action] = [rows.announced_at.set(now), rows.attention_at.set(now), rows.failures.set(0)]
        if crawl:
            actions += [rows.due_shard.set(DUE_SHARD), rows.due_at.set(now + TOLD_MS)]
        if is_named:
            actions += [rows.kind.set("pds"), rows.owner.set(rows.owner | NOBODY)]
            actions += [rows.crawl_epoch.remove(), *self._without_job()]
        recent = rows.announced_at.does_not_exist() | (rows.announced_at == row.announced_at)
        return self._update(row.origin, actions, rows.origin.exists() & recent)

    def forget_unconfirmed(self, row: HostRow) -> bool:
        """Delete the row of a host that was never reached within the time that is given to it."""
        if row.status != "unconfirmed" or self._clock() - row.announced_at < self._confirm_ms:
            return False
        try:
            row.delete((self._rows.status == "unconfirmed") & (self._rows.announced_at == row.announced_at))
        except DeleteError as error:
            if error.cause_response_code == "ConditionalCheckFailedException":
                return False
            raise
        return True

    # -- the operator's word

    def reset(self, origin: Origin) -> None:
        """Forget the host's back-off, and make it due."""
        now, rows = self._clock(), self._rows
        actions: list[Action] = [rows.failures.set(0), rows.due_shard.set(DUE_SHARD), rows.due_at.set(now + TOLD_MS)]
        self._update(origin, [*actions, rows.attention_at.set(now)], self._is("active", "offline"))

    def ban(self, origin: Origin, *, by: str, at: int) -> bool:
        """Neither crawl nor follow this host, be it known or not; ``by`` is the ban's id, ``at`` the time of the order, UTC
        ms. Returns whether that is new. Its repos are still listed: whoever works on the host next asks for them."""
        now, rows = self._clock(), self._rows
        actions: list[Action] = [
            rows.kind.set(rows.kind | "pds"),
            rows.first_seen_at.set(rows.first_seen_at | now),
            rows.epoch.set(rows.epoch | 0),
            rows.failures.set(0),
            rows.banned_by.set(by),
            rows.withheld_at.set(now),
            rows.due_shard.set(DUE_SHARD),
            rows.due_at.set(now + TOLD_MS),
            *self._stopped("banned", at),
        ]
        return self._update(
            origin, actions, (rows.status.does_not_exist() | self._is(*STATUSES[:-1])) & self._is_newer(at)
        )

    def pause(self, origin: Origin, *, at: int) -> bool:
        """Neither crawl nor follow a known host until ``let_in``. Its repos stay as they are. Returns whether that is new."""
        rows = self._rows
        actions = [rows.due_shard.remove(), rows.due_at.remove(), *self._stopped("paused", at)]
        return self._update(origin, actions, self._is("unconfirmed", "active", "offline") & self._is_newer(at))

    def let_in(self, origin: Origin, *, at: int) -> bool:
        """End a ban or a pause: the host is crawled and followed again. Returns whether there was one."""
        row, rows, now = self.load(origin), self._rows, self._clock()
        if row is None:
            return False
        if row.status not in STOPPED:
            self._update(origin, [rows.ordered_at.set(at)], (rows.status == row.status) & self._is_newer(at))
            return False
        actions: list[Action] = [
            rows.ordered_at.set(at),
            rows.announced_at.set(now),
            rows.banned_by.remove(),
            rows.failures.set(0),
            rows.withheld_at.set(now),
            rows.due_shard.set(DUE_SHARD),
            rows.due_at.set(now + TOLD_MS),
        ]
        if row.crawled_at is None:
            actions.append(rows.status.set("unconfirmed"))
        else:
            actions += [rows.status.set("active"), rows.owner.set(NOBODY), rows.attention_at.set(now)]
        return self._update(origin, actions, (rows.status == row.status) & self._is_newer(at))

    def withheld(self, row: HostRow, *, again_at: int | None = None) -> None:
        """All repos of the host were asked to follow its ban, or the end of it. ``again_at``: to be looked at once more."""
        rows = self._rows
        if again_at is not None:
            actions: list[Action] = [rows.due_shard.set(DUE_SHARD), rows.due_at.set(again_at)]
        else:
            actions = [rows.withheld_at.remove()]
            if row.status in STOPPED:
                actions += [rows.due_shard.remove(), rows.due_at.remove()]
        at = rows.withheld_at
        same = at.does_not_exist() if row.withheld_at is None else at == row.withheld_at
        self._update(row.origin, actions, same & (rows.status == row.status))

    def _is(self, *statuses: str) -> Condition:
        return reduce(Condition.__or__, (self._rows.status == status for status in statuses))

    def _is_newer(self, at: int) -> Condition:
        condition: Condition = self._rows.ordered_at.does_not_exist() | (self._rows.ordered_at <= at)
        return condition

    def _stopped(self, status: str, at: int) -> list[Action]:
        """Without an owner and a crawl: both find it out at their next write."""
        rows = self._rows
        return [
            rows.ordered_at.set(at),
            rows.status.set(status),
            rows.owner.remove(),
            rows.crawl_epoch.remove(),
            *self._without_job(),
        ]

    # -- crawl jobs

    def claim_crawl(self, origin: Origin, row: HostRow | None = None) -> HostCrawl | None:
        """Take the right to crawl this host, going on where the last job stopped. ``None``: unknown, or a job is at it.
        ``row``: as it was a moment ago."""
        row = row or self.load(origin)
        now = self._clock()
        if row is None or row.status in STOPPED or (row.crawl_job is not None and row.crawl_until > now):
            return None
        rows = self._rows
        token = uuid.uuid4().hex
        goes_on = row.crawl_epoch is not None and row.crawl_epoch == row.epoch
        actions: list[Action] = [
            rows.crawl_job.set(token),
            rows.crawl_until.set(now + self._job_lease_ms),
            rows.due_shard.set(DUE_SHARD),
            rows.due_at.set(now + self._job_lease_ms),
        ]
        if not goes_on:
            actions += [rows.crawl_epoch.set(row.epoch), rows.crawl_page.remove()]
            actions += [rows.crawl_seen.set(0), rows.crawl_pages.set(0), rows.crawl_unlisted.remove()]
        free = rows.crawl_job.does_not_exist() if row.crawl_job is None else rows.crawl_job == row.crawl_job
        try:
            row.update(actions, condition=free & (rows.epoch == row.epoch) & (rows.status == row.status))
        except UpdateError as error:
            if error.cause_response_code == "ConditionalCheckFailedException":
                return None
            raise
        return HostCrawl(origin, token, row)  # which is now as it was written

    def progress(
        self, crawl: HostCrawl, *, page: str | None, seen: int, pages: int, unlisted: Collection[str] | None = None
    ) -> None:
        """Save where the next page begins, and which repos in scope were not listed before it, if that is known; shows as
        well that the job is alive. Raises ``JobLost``."""
        rows = self._rows
        until = self._clock() + self._job_lease_ms
        actions: list[Action] = [rows.crawl_until.set(until), rows.due_at.set(until)]
        actions += [rows.crawl_seen.set(seen), rows.crawl_pages.set(pages)]
        actions.append(rows.crawl_page.remove() if page is None else rows.crawl_page.set(page))
        few = unlisted is not None and len(unlisted) <= UNLISTED_KEPT
        actions.append(rows.crawl_unlisted.set(sorted(unlisted or ())) if few else rows.crawl_unlisted.remove())
        self._held(crawl, actions)

    def hand_over(self, crawl: HostCrawl, *, after_seconds: float = TOLD_MS / 1000) -> None:
        """Stop here; another job goes on from the saved page, at the latest after so long. Raises ``JobLost``."""
        rows = self._rows
        due_at = self._clock() + int(1000 * after_seconds)
        self._held(crawl, [*self._without_job(), rows.due_shard.set(DUE_SHARD), rows.due_at.set(due_at)])

    def finish(self, crawl: HostCrawl, *, repo_count: int) -> bool:
        """The walk through the host's repos is complete. Returns whether it must be walked again now, because the stream
        was opened anew meanwhile. Raises ``JobLost``."""
        rows = self._rows
        now = self._clock()
        actions: list[Action] = [
            *self._without_job(),
            rows.crawl_epoch.remove(),
            rows.crawl_page.remove(),
            rows.crawl_seen.remove(),
            rows.crawl_pages.remove(),
            rows.crawl_unlisted.remove(),
            rows.crawled_epoch.set(crawl.epoch),
            rows.crawled_at.set(now),
            rows.repo_count.set(repo_count),
            rows.status.set("active"),
            rows.failures.set(0),
            rows.last_error.remove(),
            rows.last_error_at.remove(),
            rows.due_shard.set(DUE_SHARD),
        ]
        next_at = now + int(self._recrawl_ms * self._jitter.uniform(0.9, 1.1))
        mine = rows.crawl_job == crawl.token
        if self._update(crawl.origin, [*actions, rows.due_at.set(next_at)], mine & (rows.epoch == crawl.epoch)):
            return False
        self._held(crawl, [*actions, rows.due_at.set(now + TOLD_MS)])
        return True

    def fail(self, crawl: HostCrawl, error: str, *, retry_after: float | None = None, got_on: bool = False) -> bool:
        """The host failed: say so on its row, and try again from the same page after a back-off, which grows only with
        failures before which the crawl did not get on. Returns whether it is called offline from now on. Raises ``JobLost``."""
        rows = self._rows
        failures = 1 if got_on else int(crawl.row.failures) + 1
        wait = back_off(failures - 1, self._failure_cap_ms, retry_after, self._jitter)
        actions: list[Action] = [
            *self._without_job(),
            rows.failures.set(failures),
            rows.due_shard.set(DUE_SHARD),
            rows.due_at.set(self._clock() + wait),
            *self._errors(error),
        ]
        goes_offline = failures >= OFFLINE_AFTER and crawl.row.status == "active"
        if goes_offline:
            actions.append(rows.status.set("offline"))
        self._held(crawl, actions)
        return goes_offline

    def confirm(self, crawl: HostCrawl) -> None:
        """A host that was unreachable when it announced itself has answered: follow it. Raises ``JobLost``."""
        rows = self._rows
        self._held(crawl, [rows.status.set("active"), rows.owner.set(NOBODY), rows.attention_at.set(self._clock())])

    def follow_named(self, row: HostRow) -> None:
        """Have a host followed that did not announce itself, and that was left to the relays."""
        rows = self._rows
        actions: list[Action] = [rows.owner.set(NOBODY), rows.attention_at.set(self._clock())]
        left = rows.owner.does_not_exist() & (rows.kind == NAMED)
        self._update(row.origin, actions, left & (rows.status == row.status))

    def leave_to_relays(self, crawl: HostCrawl) -> None:
        """A large host that did not announce itself is not followed any more, since relays are: what it says is believed from
        them, and the host crawled once all subscribers know that. Raises ``JobLost``."""
        rows = self._rows
        actions: list[Action] = [
            *self._without_job(),
            rows.crawl_epoch.remove(),
            rows.owner.remove(),
            rows.cursor.remove(),
            rows.epoch.add(1),
            rows.due_shard.set(DUE_SHARD),
            rows.due_at.set(self._clock() + RELAYED_AFTER_MS),
        ]
        self._held(crawl, actions)

    # -- relays

    def follow_relay(self, origin: Origin) -> bool:
        """Have the relay followed, unless it is. Returns whether that is new."""
        rows, now = self._rows, self._clock()
        actions: list[Action] = [
            rows.kind.set(RELAY),
            rows.status.set("active"),
            rows.first_seen_at.set(rows.first_seen_at | now),
            rows.epoch.set(rows.epoch | 0),
            rows.failures.set(rows.failures | 0),
            rows.owner.set(NOBODY),
            rows.attention_at.set(now),
        ]
        free = rows.kind.does_not_exist() | ((rows.kind == RELAY) & rows.owner.does_not_exist() & self._is("active"))
        return self._update(origin, actions, free)

    def leave_relay(self, row: HostRow) -> None:
        """The settings do not name the relay any more."""
        rows = self._rows
        self._update(row.origin, [rows.owner.remove(), rows.cursor.remove()], rows.kind == RELAY)

    def named(self) -> Iterator[str]:
        """Keys of the hosts that did not announce themselves (eventually consistent)."""
        return (row.origin for row in self._rows.by_kind.query(NAMED))

    def recheck(self, key: str, *, at: int) -> None:
        """A host that is left to the relays may have said what none has told: its repos in scope are checked at that time."""
        rows = self._rows
        actions: list[Action] = [rows.epoch.add(1), rows.due_shard.set(DUE_SHARD), rows.due_at.set(at)]
        left = (rows.kind == NAMED) & rows.owner.does_not_exist()
        self._update(key, actions, left & self._is("active", "offline"))

    def attend(self, origin: Origin) -> None:
        """Have the owner look at the host: repos of it came into scope."""
        rows = self._rows
        self._update(origin, [rows.attention_at.set(self._clock())], rows.owner.exists())

    def postpone(self, origin: Origin) -> bool:
        """Called by the sweep: if the host is due, note that a message is being sent for it. Returns whether to send it."""
        rows = self._rows
        now = self._clock()
        return self._update(origin, [rows.due_at.set(now + TOLD_MS)], rows.due_at <= now)

    # -- the stream's owner

    def owned_by(self, owner: str, *, since: int = 0) -> list[tuple[str, int]]:
        """Keys of the owner's hosts that were asked to be looked at since then, and when (eventually consistent). The hosts
        that should be followed and are not are those of ``NOBODY``."""
        found = self._rows.by_owner.query(owner, self._rows.attention_at >= since)
        return [(row.origin, int(row.attention_at)) for row in found]

    def take(self, keys: Sequence[str], owner: str, *, from_owner: str = NOBODY) -> list[HostRow]:
        """Become the owner of those of the hosts that ``from_owner`` still has. None of them, unless ``owner`` is a
        subscriber that is alive by its row."""
        taken: list[str] = []
        for start in range(0, len(keys), TAKEN_AT_ONCE):
            taken += self._take(list(keys[start : start + TAKEN_AT_ONCE]), owner, from_owner)
        return list(self._rows.batch_get(taken, consistent_read=True))

    def _take(self, keys: list[str], owner: str, from_owner: str) -> list[str]:
        rows, subscribers = self._rows, self._tables.state
        while keys:
            transaction = TransactWrite(connection=self._tables.connection)
            transaction.condition_check(subscribers, SUBSCRIBER, owner, condition=subscribers.number > 0)
            for key in keys:
                transaction.update(rows(key), actions=[rows.owner.set(owner)], condition=rows.owner == from_owner)
            try:
                with transaction:
                    return keys
            except TransactWriteError as error:
                if error.cause_response_code != "TransactionCanceledException":
                    raise
                alive, *reasons = error.cancellation_reasons
                free = [key for key, reason in zip(keys, reasons, strict=True) if reason is None]
                if alive is not None or len(free) == len(keys):
                    return []
                keys = free  # the others are somebody else's by now, or being changed: their turn comes again
        return []

    def give_up(self, key: str, owner: str) -> None:
        """Leave a host to whoever takes it next."""
        rows = self._rows
        self._update(key, [rows.owner.set(NOBODY)], rows.owner == owner)

    def new_epoch(self, row: HostRow, owner: str, *, reason: str) -> HostRow | None:
        """The stream is about to be opened, or goes on, in a way that does not continue the cursor: forget the cursor and
        make the host due. ``None``: no longer the owner."""
        rows = self._rows
        now = self._clock()
        actions: list[Action] = [
            rows.epoch.set(row.epoch + 1),
            rows.cursor.remove(),
            rows.cursor_at.remove(),
            rows.due_shard.set(DUE_SHARD),
            rows.due_at.set(now + TOLD_MS),
        ]
        self._update(row.origin, actions, (rows.owner == owner) & (rows.epoch == row.epoch))
        # That it was refused may be the answer to a repetition, after the first answer was lost: only an owner raises the epoch.
        now_there: HostRow = self._rows.get(row.origin, consistent_read=True)
        return now_there if (now_there.owner, now_there.epoch) == (owner, row.epoch + 1) else None

    def save_cursor(self, row: HostRow, owner: str, cursor: int) -> bool:
        """Save how far the stream's effects are durable. ``False``: no longer the owner, or in another epoch."""
        rows = self._rows
        actions: list[Action] = [rows.cursor.set(cursor), rows.cursor_at.set(self._clock())]
        return self._update(row.origin, actions, (rows.owner == owner) & (rows.epoch == row.epoch))

    def note_stream(self, key: str, owner: str, *, error: str | None) -> bool:
        """Note that the stream is open (``error`` is ``None``) or why it is not. ``False``: no longer the owner."""
        rows = self._rows
        if error is None:
            actions: list[Action] = [rows.connected_at.set(self._clock()), rows.stream_error.remove()]
        else:
            actions = [rows.stream_error.set(error[:500])]
        return self._update(key, actions, rows.owner == owner)

    # -- parts

    def _without_job(self) -> list[Action]:
        return [self._rows.crawl_job.remove(), self._rows.crawl_until.remove()]

    def _errors(self, error: str) -> list[Action]:
        return [self._rows.last_error.set(error[:500]), self._rows.last_error_at.set(self._clock())]

    def _held(self, crawl: HostCrawl, actions: list[Action]) -> None:
        if not self._update(crawl.origin, actions, self._rows.crawl_job == crawl.token):
            raise JobLost(str(crawl.origin))

    def _update(self, origin: Origin | str, actions: list[Action], condition: Condition) -> bool:
        try:
            self._rows(str(origin)).update(actions, condition=condition)
        except UpdateError as error:
            if error.cause_response_code == "ConditionalCheckFailedException":
                return False
            raise
        return True
