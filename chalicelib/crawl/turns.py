"""Turns: few jobs run at a time, and no domain's slow hosts may take them all.

    job -- quick ------------------------------------------------> done, without a write
       `-- goes on after ``turn_seconds`` -- one of its domain's turns is free --> goes on, holding it
                                          `- none is free --> NoTurn: put off, with what it has done so far

Turns are rows of the ``state`` table that expire unless their job shows life. Crawls of hosts may have half of a domain's turns,
so that the repos that they ask for are not kept waiting. Where a process found none free, the domain's next jobs of that kind
need one from their beginning, for a while: else each of very many slow hosts would have its ``turn_seconds``, again and again.
"""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Iterable
from dataclasses import replace
from math import inf
from types import TracebackType
from typing import Final

from chalicelib import metrics
from chalicelib.atproto.syntax import Origin
from chalicelib.atproto.transport import Timeouts
from chalicelib.crawl.domain import registrable_domain
from chalicelib.index.clock import Clock, now_ms
from chalicelib.index.state import State
from chalicelib.settings import Settings

TURN: Final = "turn"
"""Kind of the state rows."""
HOST, REPO = "host", "repo"
"""Kinds of jobs."""
WAIT_SECONDS: Final = (60.0, 300.0)
"""A job that is put off is tried again after a time between these."""
CROWDED_SECONDS: Final = 120
_MEMORY: Final = 1000


class NoTurn(Exception):
    """Enough long jobs of this domain run. The job is to be put off for ``retry_after`` seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Turns:
    """Hands them out. One per process; safe to use from several threads."""

    def __init__(
        self, state: State, settings: Settings, *, clock: Clock = now_ms, jitter: random.Random | None = None
    ) -> None:
        self.state = state
        self.clock = clock
        self.lease_seconds = settings.job_lease_seconds
        self.free_ms = 1000 * settings.turn_seconds if settings.jobs_per_domain else inf
        self._most = settings.jobs_per_domain
        self._longest_wait = settings.failure_cap_seconds
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads retries, guards nothing
        self._crowded: dict[tuple[str, str], int] = {}

    def begin(self, kind: str) -> Turn:
        """For a job that begins now. Use as a context manager."""
        return Turn(self, kind)

    def is_crowded(self, kind: str, origin: Origin) -> bool:
        """Whether this process has found no turn lately for a job of this kind."""
        return bool(self._crowded) and self._crowded.get((kind, registrable_domain(origin)), 0) > self.clock()

    def take(self, kind: str, origin: Origin, holder: str) -> str:
        """Take a turn. Returns its id. Raises ``NoTurn``."""
        domain = registrable_domain(origin)
        numbers: Iterable[int] = reversed(range(self._most)) if kind == REPO else range(max(1, self._most // 2))
        for id in (f"{domain}#{number}" for number in numbers):
            if self.state.hold(TURN, id, holder, seconds=self.lease_seconds):
                return id
        if len(self._crowded) >= _MEMORY:
            self._crowded.clear()
        self._crowded[kind, domain] = self.clock() + 1000 * CROWDED_SECONDS
        metrics.count("JobsPutOff")
        wait = min(self._jitter.uniform(*WAIT_SECONDS), self._longest_wait)
        raise NoTurn(f"enough jobs of {domain} are going on: this one waits for its turn", wait)


class Turn:
    """What one job may have of its domain's turns, with all its threads."""

    def __init__(self, turns: Turns, kind: str) -> None:
        self._turns = turns
        self._kind = kind
        self._holder = uuid.uuid4().hex
        self._origin: Origin | None = None
        self._id: str | None = None
        self._due = turns.clock() + turns.free_ms
        """When something is to be done about it, UTC ms: a turn taken, or kept."""
        self._refused: NoTurn | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Turn:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._id is not None:
            self._turns.state.let_go(TURN, self._id, self._holder)

    def of(self, origin: Origin) -> None:
        """Say on which host the job works; the first one counts. Raises ``NoTurn``."""
        if self._origin is None:
            self._origin = origin
            if self._turns.is_crowded(self._kind, origin):
                self._due = 0
        self.keep()

    def keep(self) -> None:
        """Called at least every few seconds while the job is at work. Raises ``NoTurn``."""
        if self._turns.clock() < self._due or self._origin is None:
            return
        with self._lock:
            if self._refused is not None:
                raise self._refused
            if self._turns.clock() < self._due:
                return
            self._id = self._kept() or self._taken(self._origin)
            self._due = self._turns.clock() + 1000 * self._turns.lease_seconds / 3

    def watching(self, limits: Timeouts) -> Timeouts:
        """``limits`` for a request that ends with ``NoTurn`` as soon as the job has to be put off."""
        return replace(limits, watch=self.keep)

    def _kept(self) -> str | None:
        held = self._id
        kept = held is not None and self._turns.state.hold(TURN, held, self._holder, seconds=self._turns.lease_seconds)
        return held if kept else None

    def _taken(self, origin: Origin) -> str:
        self._id = None
        try:
            return self._turns.take(self._kind, origin, self._holder)
        except NoTurn as refused:
            self._refused = refused
            raise
