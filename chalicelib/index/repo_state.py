"""What follows from a repo's row: pure decisions, without I/O.

A repo is *pending* while more work was asked for than was answered, or while its listings are not what they should be.
A row's ``due_at`` follows from that alone (``schedule``), so work that nobody does is found by a sweep over ``due``.
"""

from __future__ import annotations

import random

from chalicelib.index.tables import DUE_SHARD, SCOPE_SHARD, RepoRow

STILL_LISTED = frozenset({"active", "throttled", "desynchronized"})
"""Statuses under which a repo's records are still there for everyone."""

TOLD_MS = 15_000
"""After a message was sent for a repo, so long passes before a sweep sends another."""

BACKOFF_BASE_MS = 5_000


def is_public(row: RepoRow) -> bool:
    """Whether the repo's records are there for everyone, as far as the account's status goes."""
    return bool(row.active) or row.status in STILL_LISTED


def is_withheld(row: RepoRow) -> bool:
    """Whether the operator keeps the repo out of all listings: itself, or the host that it is on."""
    return row.taken_down is not None or bool(row.host_banned)


def wanted_listings(row: RepoRow) -> frozenset[str]:
    """The collections in whose listings the DID must stand."""
    if row.sync == "refused" or not is_public(row) or is_withheld(row):
        return frozenset()
    return frozenset(row.collections)


def is_settled(row: RepoRow) -> bool:
    """Whether the DID stands in exactly the listings in which it must."""
    return wanted_listings(row) == frozenset(row.listed)


def is_pending(row: RepoRow) -> bool:
    """Whether there is work to do on this repo."""
    return row.asked > row.answered or not is_settled(row)


def schedule(row: RepoRow, now: int) -> None:
    """Set what follows from the rest of the row: its place in ``due``, ``by_host`` and ``in_scope``."""
    due: int | None = None
    if row.job is not None:
        due = int(row.job_until)
    elif is_pending(row):
        due = int(row.retry_at or now)
    row.due_at = due
    row.due_shard = None if due is None else DUE_SHARD
    row.scope_host, row.scope_shard = (row.host, SCOPE_SHARD) if row.collections else (None, None)


def ask(row: RepoRow, now: int) -> bool:
    """Ask for work on this repo. Returns whether a message should be sent now: not if one is on its way, if a job is at
    it (which sees the new request when it ends), or while the repo's back-off lasts."""
    row.asked += 1
    if (row.job is not None and row.job_until > now) or (row.retry_at is not None and row.retry_at > now):
        return False
    row.retry_at = now + TOLD_MS
    return True


def desynchronize(row: RepoRow, reason: str, now: int) -> None:
    """Note that the stored state does not continue what the stream says."""
    if row.sync == "desynchronized" and row.reason == reason:
        return
    row.sync, row.reason, row.reason_at = "desynchronized", reason, now


def back_off(failures: int, cap_ms: int, retry_after: float | None, jitter: random.Random) -> int:
    """Milliseconds until the next attempt after so many failures in a row: exponential with full jitter, capped, never
    shorter than what the remote asked for (``retry_after``, seconds; itself capped)."""
    ceiling = min(cap_ms, BACKOFF_BASE_MS * 2 ** min(failures, 30))
    wait = int(jitter.uniform(ceiling / 2, ceiling))
    return max(wait, min(cap_ms, int((retry_after or 0) * 1000)))
