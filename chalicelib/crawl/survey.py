"""The survey: what an operator should know of and no job comes across. Hosts by status, and what the dead letters are about."""

from __future__ import annotations

from chalicelib import metrics
from chalicelib.crawl.context import Context
from chalicelib.crawl.queue import DeadLetter, DirectoryJob, HostJob, MalformedMessage, Order, RepoJob, from_body
from chalicelib.telemetry import log


def survey(context: Context) -> None:
    """Measure how many hosts there are of each status, and sum up the dead letters, if there are any."""
    for status, number in context.hosts.by_status().items():
        metrics.observe("HostsByStatus", number, "Count", Status=status)
    dead, sample = context.queue.dead_letters()
    if dead:
        oldest = round((context.clock() - min((letter.sent_at for letter in sample), default=context.clock())) / 1000)
        metrics.observe("DeadLetters", dead, "Count")
        metrics.observe("DeadLetterAge", oldest, "Seconds")
        log("dead-letters", messages=dead, oldest_seconds=oldest, sample=[_about(letter) for letter in sample])


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
