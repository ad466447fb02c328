"""A subscriber in a thread, for benches and tests that drive the service from outside."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import uvloop

from chalicelib.crawl.context import Context
from subscriber.supervisor import Supervisor

PATIENCE: Final = float(os.environ.get("PATIENCE", "120"))
"""Seconds in which whatever is waited for must have come about."""

T = TypeVar("T")


class Following:
    """The subscriber begins at once, and ends with ``stop``."""

    def __init__(self, context: Context) -> None:
        self._ready = threading.Event()
        self._context = context
        self._thread = threading.Thread(target=lambda: uvloop.run(self._main()), name="subscriber", daemon=True)
        self._thread.start()
        assert self._ready.wait(PATIENCE)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.supervisor = Supervisor(self._context)
        self._ready.set()
        await self.supervisor.run()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the subscriber's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def stop(self) -> None:
        """Drain, save, give the hosts back."""
        self._loop.call_soon_threadsafe(self.supervisor.stop)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the subscriber does not stop"
