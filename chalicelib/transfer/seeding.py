"""Beginning with what others know. Nothing is listed because a source says so: hosts are let in as announced ones that were not
reached yet, and DIDs are asked for as those that somebody names. Crawls, and the signatures in repos, decide."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from chalicelib.atproto.errors import InvalidSyntax
from chalicelib.atproto.syntax import Did, canonical_did, parse_did, parse_nsid, parse_origin
from chalicelib.crawl.admission import is_banned
from chalicelib.crawl.context import Context
from chalicelib.crawl.pace import Pace
from chalicelib.crawl.queue import HostJob, RepoJob
from chalicelib.index import repo_state
from chalicelib.index.writer import MAX_DID_BYTES
from chalicelib.telemetry import log
from chalicelib.transfer.sources import Candidate, Source

TOLD_AFTER = 1_000
"""Candidates between two words on how far it is."""


@dataclass
class Progress:
    """What came of the candidates so far. ``read``: how many there were, with those that were passed over to go on."""

    read: int = 0
    hosts: int = 0
    repos: int = 0
    """That are asked for. A dry run counts them as often as they are named."""
    known: int = 0
    out_of_scope: int = 0
    """DIDs of collections that are not indexed."""
    banned: int = 0
    invalid: int = 0


def seed(
    context: Context,
    source: Source,
    *,
    per_second: float,
    after: int = 0,
    dry_run: bool = False,
    say: Callable[[Progress], None] = lambda progress: None,
    pause: Callable[[float], None] = time.sleep,
) -> Progress:
    """Ask for what the source names and is not known, so many a second, without the first ``after`` candidates. ``say`` is called
    once in a while, and at the end, be it an error: it is to be gone on with ``after`` what was read. Raises ``CannotRead``."""
    progress, pace = Progress(), Pace(per_second, 1)
    try:
        for candidate in source.candidates:
            if progress.read >= after and _take(context, candidate, source.name, progress, dry_run) and not dry_run:
                pause(pace.reserve())
            progress.read += 1
            if progress.read % TOLD_AFTER == 0:
                say(progress)
    finally:
        say(progress)
        log("seeded", source=source.name, dry_run=dry_run, **asdict(progress))
    return progress


def _take(context: Context, candidate: Candidate, name: str, progress: Progress, dry_run: bool) -> bool:
    """Returns whether it is asked for."""
    try:
        if candidate.host is not None:
            return _take_host(context, candidate.host, name, progress, dry_run)
        return _take_did(context, candidate, name, progress, dry_run)
    except InvalidSyntax:
        progress.invalid += 1
        return False


def _take_host(context: Context, host: str, name: str, progress: Progress, dry_run: bool) -> bool:
    origin = parse_origin(host, allow_private=context.settings.allow_private_hosts)
    if context.hosts.load(origin) is not None:
        progress.known += 1
        return False
    if context.bans.of(origin) if dry_run else is_banned(context, origin):
        progress.banned += 1
        return False
    progress.hosts += 1
    if not dry_run:
        context.hosts.admit(origin, confirmed=False, error=f"named by {name}")
        context.queue.send(HostJob(origin))
    return True


def _take_did(context: Context, candidate: Candidate, name: str, progress: Progress, dry_run: bool) -> bool:
    did = parse_did(candidate.did or "")
    if len(canonical_did(did).encode()) > MAX_DID_BYTES:
        raise InvalidSyntax("a DID as long as that is not indexed")
    if candidate.collection is not None and not context.settings.collections.wants(parse_nsid(candidate.collection)):
        progress.out_of_scope += 1
        return False
    if _is_known(context, did):
        progress.known += 1
        return False
    progress.repos += 1
    if not dry_run and context.writer.ask(did, claimed_by=name):
        context.queue.send(RepoJob(did))
    return True


def _is_known(context: Context, did: Did) -> bool:
    """Whether something of it is indexed, it is being looked for, or its PDS does not have it to give now."""
    row = context.writer.load(did)
    return row is not None and (bool(row.collections) or repo_state.is_pending(row) or not repo_state.is_public(row))
