"""Processes that die and pause where the oracle says, in one thread at a time, under a clock that is only ever set.

A *process* is what loses its memory when it dies: a Lambda, a subscriber. What it does runs in the caller's own thread; a
call that is to be paused runs in a thread of its own, and either that thread runs or the oracle's, never both.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from simulator.clock import Clock

_here = threading.local()


class Killed(BaseException):
    """The process died here. Not an ``Exception``: nothing in it can go on."""


class Process:
    """Something that dies as a whole."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False

    def kill(self) -> None:
        self.dead = True

    def run(self, work: Callable[[], Any]) -> Any:
        """Do the work as this process."""
        before, _here.process = current(), self
        try:
            return work()
        finally:
            _here.process = before


def as_nobody(work: Callable[[], Any]) -> Any:
    """Do the work as the oracle itself, to which nothing happens."""
    before, _here.process = current(), None
    try:
        return work()
    finally:
        _here.process = before


def current() -> Process | None:
    """The process that runs in this thread; None for the oracle itself."""
    return getattr(_here, "process", None)


class Paused:
    """Work in a thread of its own that can stop in the middle, for as long as the oracle likes."""

    def __init__(self, process: Process, work: Callable[[], Any]) -> None:
        self.process = process
        self.outcome: Future[Any] = Future()
        self.is_done = False
        self._work = work
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=f"paused {process.name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._go.acquire()
        _here.paused = self
        self.outcome.set_running_or_notify_cancel()  # from now on nobody cancels it
        try:
            result = self.process.run(self._work)
        except BaseException as error:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(result)
        finally:
            self.is_done = True
            self._back.release()

    def resume(self) -> None:
        """Go on until the end, or until the next pause."""
        if not self.is_done:
            self._go.release()
            assert self._back.acquire(timeout=60), "what was paused does not come back"

    def park(self) -> None:
        """Called in the thread itself: stop here. Raises ``Killed`` if the process died meanwhile."""
        self._back.release()
        self._go.acquire()
        if self.process.dead:
            raise Killed


def paused_here() -> Paused | None:
    """The work that this thread was made for."""
    return getattr(_here, "paused", None)


class Inline(Executor):
    """An executor whose work is done when ``submit`` returns, unless ``may_pause`` says that it may stop in the middle."""

    def __init__(self, process: Process, start: Callable[[Process, Callable[[], Any]], Future[Any]]) -> None:
        self._process = process
        self._start = start

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._start(self._process, lambda: fn(*args, **kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        pass


class InTurn:
    """For ``ThreadPoolExecutor`` where only its ``map`` is used: one after the other."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> InTurn:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, function: Callable[..., Any], *items: Any) -> Any:
        return map(function, *items)


class Loop(asyncio.SelectorEventLoop):
    """An event loop that takes its time from the simulator, and stands still between ``turn`` and ``turn``."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._simulated = clock
        # A timer is due from its own microsecond on; by itself the loop would wait for a moment that floats do not have.
        self._clock_resolution = 1e-6
        self.set_exception_handler(lambda loop, context: None)

    def time(self) -> float:
        return self._simulated.now / 1_000_000

    def turn(self) -> bool:
        """Run what is ready now. Returns whether something was."""
        ran = False
        while self._is_ready():
            ran = True
            self.call_soon(self.stop)
            self.run_forever()
        return ran

    @property
    def next_timer(self) -> float | None:
        """When a timer fires next, in seconds."""
        times = [timer._when for timer in self._scheduled if not timer._cancelled]  # type: ignore[attr-defined]
        return min(times, default=None)

    def _is_ready(self) -> bool:
        at = self.next_timer
        ready = any(not handle._cancelled for handle in self._ready)  # type: ignore[attr-defined]
        return ready or (at is not None and at <= self.time())
