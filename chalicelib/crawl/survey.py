"""The survey: what no job comes across. Hosts by status, what the dead letters are about, and how much is in each collection."""

from __future__ import annotations

from itertools import islice

from chalicelib import metrics
from chalicelib.crawl.context import Context
from chalicelib.crawl.queue import DeadLetter, DirectoryJob, HostJob, MalformedMessage, Order, RepoJob, from_body
from chalicelib.index.statistics import COLLECTIONS, STATISTICS, Statistics
from chalicelib.index.tables import SCOPE_SHARD
from chalicelib.telemetry import log

MANY = 100_000
"""Repos that are counted once a day, not in each survey."""
_DAY_MS = 86_400_000
_AT_ONCE = 100


def survey(context: Context) -> None:
    """Measure how many hosts there are of each status, sum up the dead letters, if there are any, and count the repos and
    records of each collection."""
    for status, number in context.hosts.by_status().items():
        metrics.observe("HostsByStatus", number, "Count", Status=status)
    dead, sample = context.queue.dead_letters()
    if dead:
        oldest = round((context.clock() - min((letter.sent_at for letter in sample), default=context.clock())) / 1000)
        metrics.observe("DeadLetters", dead, "Count")
        metrics.observe("DeadLetterAge", oldest, "Seconds")
        log("dead-letters", messages=dead, oldest_seconds=oldest, sample=[_about(letter) for letter in sample])
    count(context)


def count(context: Context) -> None:
    """Write how many repos are listed in each collection and how many records they have; a moment old."""
    now, last = context.clock(), context.state.read(STATISTICS, COLLECTIONS)
    if last is not None and now - last.number < _DAY_MS and last.content["seen"] > MANY:
        return
    found, seen, repos = Statistics(now), 0, context.tables.repos
    keys = (row.did for row in repos.in_scope.query(SCOPE_SHARD))
    while batch := list(islice(keys, _AT_ONCE)):
        for row in repos.batch_get(batch, attributes_to_get=["did", "listed", "collections"]):
            found.add(row.listed, row.collections)
        seen += len(batch)
    context.state.write(STATISTICS, COLLECTIONS, found.content() | {"seen": seen}, number=now)
    for name, number in found.repos.items():
        metrics.observe("ListedRepos", number, "Count", Collection=name)


def _about(letter: DeadLetter) -> str:
    try:
        job = from_body(letter.body)
    except MalformedMessage as error:
        return f"malformed {error}"
    match job:
        case HostJob():
            return f"host {job.origin}"
        case RepoJob():
            return f"repo {job.did}"
        case DirectoryJob():
            return f"directory {job.origin}"
        case Order():
            return f"{job.action} {job.target}"
