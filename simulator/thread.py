"""A neighbourhood for tests without an event loop of their own: it lives in a thread."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

from .clock import Clock
from .neighbourhood import Neighbourhood

T = TypeVar("T")


class SimulatorThread:
    """``with SimulatorThread() as sim:`` runs ``sim.net`` in a thread; ``sim.call`` is the only way to touch it.

    >>> with SimulatorThread() as sim:
    ...     hold = sim.call(sim.net.add_hold(layers=3))
    ...     commit = sim.call(hold.put, hold.did, *hold.author(hold.did).captain(public=False))
    """

    def __init__(self, seed: int = 0, clock: Clock | None = None, *, timeout: float = 60) -> None:
        self.net = Neighbourhood(seed, clock)
        self._timeout = timeout
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="simulator", daemon=True)

    def __enter__(self) -> SimulatorThread:
        self._thread.start()
        self.call(self.net.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.call(self.net.__aexit__(kind, error, trace))
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def call(self, work: Coroutine[Any, Any, T] | Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a coroutine, or a function with arguments, in the simulator's loop, and return its result."""

        async def run() -> Any:
            result = work(*args, **kwargs) if callable(work) else work
            return await result if inspect.isawaitable(result) else result

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(self._timeout)
