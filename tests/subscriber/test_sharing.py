"""Who waits for threads takes turns."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from subscriber.sharing import SharedThreads


class Threads(Executor):
    """Threads in which a call lasts until ``end``."""

    def __init__(self) -> None:
        self.calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.calls.append((lambda: function(*args, **kwargs), future))
        return future

    async def end(self) -> None:
        """The oldest call ends."""
        function, future = self.calls.popleft()
        future.set_result(function())
        await pause()


async def pause() -> None:
    """Let all do what they can do now."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_those_who_wait_take_turns() -> None:
    async def test() -> None:
        threads, ended = Threads(), list[str]()
        turns = SharedThreads(threads, 1, each=1)
        tasks = [asyncio.create_task(turns.run(host, ended.append, host)) for host in "aaaaaabcc"]
        await pause()
        while threads.calls:
            assert len(threads.calls) == 1
            await threads.end()
        assert "".join(ended) == "aabcacaaa"
        await asyncio.gather(*tasks)

    asyncio.run(test())


@pytest.mark.parametrize(("each", "begun"), [(1, "ab"), (2, "aab"), (4, "aaaa")])
def test_a_host_has_no_more_than_its_share_and_all_where_that_is_its_share(each: int, begun: str) -> None:
    async def test() -> None:
        threads, ended = Threads(), list[str]()
        turns = SharedThreads(threads, 4, each=each)
        tasks = [asyncio.create_task(turns.run(host, ended.append, host)) for host in "aaaaaab"]
        await pause()
        begins = [function for function, _ in threads.calls]
        for function in begins:
            function()
        assert "".join(sorted(ended)) == begun
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(test())


def test_who_gives_up_waiting_takes_nobodys_turn() -> None:
    async def test() -> None:
        threads, ended = Threads(), list[str]()
        turns = SharedThreads(threads, 1, each=1)
        tasks = [asyncio.create_task(turns.run(host, ended.append, host)) for host in "abc"]
        await pause()
        tasks[1].cancel()
        await pause()
        while threads.calls:
            await threads.end()
        assert ended == ["a", "c"]
        assert not turns._waiting
        assert not turns._under_way
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(test())


def test_a_turn_that_came_to_one_who_has_just_given_up_goes_to_the_next() -> None:
    async def test() -> None:
        turns = SharedThreads(Threads(), 1, each=1)
        await turns.begin("a")
        second, third = (asyncio.create_task(turns.begin(host)) for host in "bc")
        await pause()
        with turns.ending("a"):
            pass
        second.cancel()  # its turn has come, and it does not know yet
        await asyncio.wait_for(third, 10)

    asyncio.run(test())
