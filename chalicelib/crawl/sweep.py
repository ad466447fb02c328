"""The sweep: finds in the tables what is due and sends a message for it, so that no lost message loses work."""

from __future__ import annotations

from itertools import islice

from chalicelib.atproto.syntax import Did, Origin
from chalicelib.crawl import directories
from chalicelib.crawl.context import Context
from chalicelib.crawl.queue import HostJob, RepoJob
from chalicelib.index.tables import DUE_SHARD
from chalicelib.telemetry import log

MOST = 1000
"""Messages of one sweep for hosts, and for repos; the next sweep goes on."""


def sweep(context: Context) -> int:
    """Send a message for each host, repo and directory that is due. Returns how many were sent."""
    now = context.clock()
    hosts, repos = context.tables.hosts, context.tables.repos
    sent = directories.send_due(context)
    for host in islice(hosts.due.query(DUE_SHARD, hosts.due_at <= now), MOST):
        origin = Origin.parse_key(host.origin)
        if context.hosts.postpone(origin):
            context.queue.send(HostJob(origin))
            sent += 1
    for repo in islice(repos.due.query(DUE_SHARD, repos.due_at <= now), MOST):
        did = Did(repo.did)
        if context.writer.postpone(did):
            context.queue.send(RepoJob(did))
            sent += 1
    if sent:
        log("swept", messages=sent)
    return sent
