"""Threads for which hosts take turns: one that sends a flood keeps nobody waiting but itself.

waiting    a: ........    b: .    c: ..        whose turn was the longest ago is next: a, b, c, a, c, a, a, ...
threads    a b c                               one host may have all of them, or no more than `each`
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


class SharedThreads:
    """Runs functions in the threads of ``executor``: ``size`` at a time, ``each`` of them for one host. Belongs to the event
    loop."""

    def __init__(self, executor: Executor, size: int, each: int) -> None:
        self._executor = executor
        self._free = size
        self._each = each
        self._under_way: Counter[Hashable] = Counter()
        self._waiting: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()
        """By host, whose turn is next first."""

    async def run(self, host: Hashable, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """What the function returns, once it was the host's turn."""
        await self.begin(host)
        with self.ending(host):
            return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: function(*args, **kwargs))

    async def begin(self, host: Hashable) -> None:
        """Wait for the host's turn, which lasts until ``ending``."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(host, deque()).append(turn)
        self._next()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it had just come
                self._end(host)
            raise

    @contextmanager
    def ending(self, host: Hashable) -> Iterator[None]:
        """A turn that has begun."""
        try:
            yield
        finally:
            self._end(host)

    def _end(self, host: Hashable) -> None:
        self._free += 1
        self._under_way[host] -= 1
        if not self._under_way[host]:
            del self._under_way[host]
        self._next()

    def _next(self) -> None:
        """Give what is free to those whose turn it is."""
        while self._free:
            for host in self._waiting:  # few are passed over: so many as have ``each`` already
                if self._under_way[host] < self._each:
                    break
            else:
                return
            turns = self._waiting.pop(host)
            turn = turns.popleft()
            if turns:
                self._waiting[host] = turns
            if not turn.done():
                self._free -= 1
                self._under_way[host] += 1
                turn.set_result(None)
