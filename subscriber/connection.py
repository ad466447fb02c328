"""One host's stream: open it, read it, keep its cursor behind the data, and open it again, forever.

Invariants of the stream and how they are kept:

- the cursor is saved behind the data: ``CursorTracker`` knows the last seq up to which all is durable;
- no gap: whatever does not continue the saved cursor begins a new epoch, which makes the host due to be crawled, and the crawl
  begins after the stream is open;
- a host is never given up: back-off with full jitter grows to a cap and stays there; a requestCrawl ends it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

from chalicelib.atproto.errors import AtprotoError, BudgetExceeded, MalformedFrame, forget
from chalicelib.atproto.events import (
    AccountEvent,
    CommitEvent,
    ErrorEvent,
    IdentityEvent,
    InfoEvent,
    MalformedEvent,
    SyncEvent,
    decode_frame,
    peek,
)
from chalicelib.atproto.syntax import Origin
from chalicelib.atproto.websocket import Websocket
from chalicelib.crawl.context import Context
from chalicelib.crawl.queue import HostJob
from chalicelib.index.hosts import RELAY
from chalicelib.index.tables import HostRow
from chalicelib.telemetry import log
from subscriber.budget import StreamBudget
from subscriber.cursor import CursorTracker
from subscriber.memory import Endings
from subscriber.pipeline import Pipeline, RepoEvent, Unreadable

MAX_OPEN = 2_000
"""Events of one stream that may be begun and not done; beyond, the stream is not read."""
MAX_OPEN_BYTES = 32_000_000
OPENING = 50
"""Streams that are being opened at a time, by a whole subscriber. With thousands of TLS handshakes at once, after a broken
network, all would run into their time limit, and begin again."""
BACKOFF_SECONDS = 1.0
STABLE_SECONDS = 60.0
"""A connection that lasted so long ends the back-off."""
FOLLOW_SECONDS = 300.0
"""A relay's connection looks so often for repos that came into scope."""
BACKWARDS_SECONDS = 30.0
"""A stream that runs backwards begins a new epoch at most so often; more often, it is closed."""

T = TypeVar("T")


class LeaseLost(Exception):
    """Somebody else is the owner of this host now."""


class _StreamBroken(Exception):
    """The stream must be closed and opened again. ``skip``: without the cursor, since the same would come again."""

    def __init__(self, message: str, *, skip: bool = False) -> None:
        super().__init__(message)
        self.skip = skip


class Connection:
    """Follows the stream of one host as its owner. ``run`` ends when the lease is lost or the task is cancelled."""

    def __init__(
        self,
        context: Context,
        pipeline: Pipeline,
        executor: Executor,
        *,
        row: HostRow,
        owner: str,
        opening: asyncio.Semaphore,
        endings: Endings,
        jitter: random.Random,
    ) -> None:
        self._context = context
        self._pipeline = pipeline
        self._executor = executor
        self._row = row
        self._owner = owner
        self._opening = opening
        self._endings = endings
        self.origin = Origin.parse_key(row.origin)
        self._is_relay = row.kind == RELAY
        if self._is_relay:
            pipeline.trust_signatures(self.origin)
        self._pace = (lambda frames, size: 0.0) if self._is_relay else StreamBudget(row.origin, context.settings).spend
        self._tracker = CursorTracker(_whole(row.cursor))
        self._last_seq: int | None = None
        self._open_bytes = 0
        self._room: asyncio.Future[None] | None = None
        """What waits until fewer events are open."""
        self._wake: asyncio.Future[None] | None = None
        """What waits until it is time to connect."""
        self._saved = _whole(row.cursor)
        self._saving = asyncio.Lock()
        self._ran_backwards = -BACKWARDS_SECONDS
        self._malformed_after: int | None = -1
        self._jitter = jitter
        self.is_open = False
        self.events = 0
        """Frames that were taken or skipped since the start."""

    async def attend(self) -> None:
        """The host announced itself, or repos of it came into scope: connect now, and know those repos."""
        _wake(self._wake)
        await self._pipeline.follow(self.origin)

    async def run(self) -> None:
        """Keep the stream open. Raises ``LeaseLost``."""
        async with asyncio.TaskGroup() as beside:
            beside.create_task(self._save_regularly())
            if self._is_relay:
                beside.create_task(self._follow_regularly())
            await self._reconnect_forever()

    async def _reconnect_forever(self) -> None:
        failures = 0
        while True:
            opened = time.monotonic()
            try:
                await self._stream()
                error = "the host closed the stream"
            except _StreamBroken as broken:
                error = str(broken)
                forget(broken)
                if broken.skip:
                    self._tracker = CursorTracker()  # opened without a cursor, the stream begins a new epoch
            except AtprotoError as failure:
                error = f"{type(failure).__name__}: {failure}"
                forget(failure)
            if self.is_open and time.monotonic() - opened > STABLE_SECONDS:
                failures = 0
            if failures == 0 or self.is_open:
                await self._note(error)
            self.is_open = False
            log("stream-closed", host=str(self.origin), error=error, failures=failures)
            self._endings.add()
            ceiling = min(self._context.settings.reconnect_cap_seconds, BACKOFF_SECONDS * 2 ** min(failures, 20))
            failures += 1
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await asyncio.wait_for(self._wake, self._jitter.uniform(0, ceiling))
                failures = 0
            except TimeoutError:
                pass

    async def _stream(self) -> None:
        settings = self._context.settings
        cursor = self._tracker.durable
        self._tracker = CursorTracker(cursor)  # what is still open comes again, and is done again
        url = f"{self.origin.websocket_url}/xrpc/com.atproto.sync.subscribeRepos"
        async with self._context.door.websocket(
            url if cursor is None else f"{url}?cursor={cursor}",
            max_message=settings.max_frame_bytes,
            open_timeout=settings.connect_seconds,
            ping_interval=settings.ping_seconds,
            ping_timeout=settings.ping_seconds,
            pace=self._pace,
            opening=self._opening,
        ) as socket:
            await self._note(None)
            if cursor is None:
                await self._new_epoch("no cursor")
            self._last_seq = cursor
            followed = await self._pipeline.follow(self.origin)
            self.is_open = True
            log("stream-open", host=str(self.origin), cursor=cursor, epoch=int(self._row.epoch), followed=followed)
            await self._read(socket)

    async def _read(self, socket: Websocket) -> None:
        try:
            async for frames in socket:
                for frame in frames:
                    if not self._is_foreign(frame):
                        await self._take(frame)
                    self.events += 1
        except MalformedFrame as error:
            again = self._malformed_after == self._last_seq
            self._malformed_after = self._last_seq
            raise _StreamBroken(f"malformed frame after {self._last_seq}: {error}", skip=again) from error
        except BudgetExceeded as error:
            raise _StreamBroken(str(error), skip=True) from error

    def _is_foreign(self, frame: bytes) -> bool:
        """Whether the frame is a commit that cannot concern us; then it is skipped, undecoded."""
        seen = peek(frame)
        if seen is None:
            return False
        seq, did, ops = seen
        if (self._last_seq is not None and seq <= self._last_seq) or self._pipeline.concerns(did, ops):
            return False
        self._last_seq = seq
        self._tracker.skip(seq)
        return True

    async def _take(self, frame: bytes) -> None:
        try:
            event = decode_frame(frame)
        except MalformedEvent as malformed:
            if malformed.seq is None:
                raise
            log("malformed-event", host=str(self.origin), seq=malformed.seq, did=malformed.did, error=str(malformed))
            if malformed.did is not None and self._pipeline.concerns(malformed.did, frame):
                await self._submit(Unreadable(malformed.seq, malformed.did), len(frame))
            elif await self._follows(malformed.seq):
                self._tracker.skip(malformed.seq)
            return
        match event:
            case CommitEvent() | SyncEvent() | IdentityEvent() | AccountEvent():
                await self._submit(event, len(frame))
            case InfoEvent(name="OutdatedCursor"):
                await self._new_epoch("OutdatedCursor")
            case ErrorEvent():
                # A cursor of the future means that the host's stream began anew, as after a restore from a backup.
                raise _StreamBroken(f"{event.error}: {event.message or ''}", skip=event.error == "FutureCursor")
            case _:
                pass

    async def _submit(self, event: RepoEvent, size: int) -> None:
        if not await self._follows(event.seq):
            return
        tracker, seq = self._tracker, event.seq
        tracker.begin(seq)
        self._open_bytes += size
        self._pipeline.submit(self.origin, event, size, lambda: self._done(tracker, seq, size))
        while self._tracker.open > MAX_OPEN or self._open_bytes > MAX_OPEN_BYTES:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    async def _follows(self, seq: int) -> bool:
        """Whether the event is to be taken: not if it is the last one once more. A stream that runs backwards has begun anew."""
        if self._last_seq is not None and seq == self._last_seq:
            return False
        if self._last_seq is not None and seq < self._last_seq:
            if time.monotonic() - self._ran_backwards < BACKWARDS_SECONDS:
                raise _StreamBroken(f"seq went back from {self._last_seq} to {seq}, again")
            self._ran_backwards = time.monotonic()
            await self._new_epoch(f"seq went back from {self._last_seq} to {seq}")
        self._last_seq = seq
        return True

    def _done(self, tracker: CursorTracker, seq: int, size: int) -> None:
        tracker.done(seq)
        self._open_bytes -= size
        _wake(self._room)

    # -- the host's row

    async def _new_epoch(self, reason: str) -> None:
        """Forget the cursor and have the host crawled."""
        async with self._saving:
            row = await self._run(self._context.hosts.new_epoch, self._row, self._owner, reason=reason)
            if row is None:
                raise LeaseLost(str(self.origin))
            self._row = row
            self._tracker = CursorTracker()
            self._saved = None
        log("new-epoch", host=str(self.origin), epoch=int(row.epoch), reason=reason)
        await self._run(self._context.queue.send, HostJob(self.origin))

    async def _note(self, error: str | None) -> None:
        if not await self._run(self._context.hosts.note_stream, self._row.origin, self._owner, error=error):
            raise LeaseLost(str(self.origin))

    async def _follow_regularly(self) -> None:
        """Nobody tells a relay's connection that a repo came into scope: the first commits that change nothing wanted are passed
        over, and the next that does has the repo crawled."""
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            try:
                await self._pipeline.follow(self.origin)
            except Exception as error:  # the table's fault: the next time
                log("repos-not-followed", exception=error, host=str(self.origin))

    async def _save_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._context.settings.cursor_seconds)
            try:
                await self.save()
            except LeaseLost:
                raise
            except Exception as error:  # the table's fault: the cursor stays behind, and is saved the next time
                log("cursor-not-saved", exception=error, host=str(self.origin))

    async def settle(self) -> None:
        """Wait until every event that was read is durable. Only once nothing is read any more."""
        while self._tracker.open:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    async def save(self) -> None:
        """Save the chains and then the cursor, if it has moved. Raises ``LeaseLost``."""
        async with self._saving:
            durable = self._tracker.durable
            if durable is None or durable == self._saved:
                return
            await self._pipeline.save_chains(self.origin)
            if not await self._run(self._context.hosts.save_cursor, self._row, self._owner, durable):
                raise LeaseLost(str(self.origin))
            self._saved = durable

    async def _run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: function(*args, **kwargs))


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting and not waiting.done():
        waiting.set_result(None)


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)
