"""Memory in a storm: many connections end, and as many begin."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from bench.worker import resident_mb
from chalicelib.atproto.errors import Unreachable
from chalicelib.index.tables import HostRow
from chalicelib.settings import read
from subscriber.connection import Connection, LeaseLost
from subscriber.memory import ENDINGS, Endings, prepare

STORM = 20 * ENDINGS
EACH = 50
"""Objects of a connection."""


@pytest.fixture
def prepared() -> Iterator[None]:
    before = gc.get_threshold()
    gc.collect()
    prepare()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def objects(count: int) -> list[list[None]]:
    return [[] for _ in range(count)]


def young() -> int:
    """Objects that the next collection has to look at."""
    return len(gc.get_objects(generation=0)) + len(gc.get_objects(generation=1))


@pytest.mark.usefixtures("prepared")
def test_while_old_objects_go_and_new_ones_come_the_young_stay_few() -> None:
    old, new, endings = objects(STORM * EACH), list[list[None]](), Endings()
    gc.collect()
    for _ in range(STORM):
        del old[-EACH:]
        new += objects(EACH)
        endings.add()
    assert young() < 2 * ENDINGS * EACH


def glibc() -> bool:
    try:
        return "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (AttributeError, ValueError):
        return False


@pytest.mark.skipif(not glibc(), reason="other systems have their own ways")
def test_what_connections_held_goes_back_to_the_system() -> None:
    size, endings = 50_000, Endings()  # too small to be a mapping of its own
    connections = [b"x" * size for _ in range(STORM)]
    between = connections[::ENDINGS]  # so that it isn't the end of the heap that becomes free
    full = resident_mb()
    while connections:
        connections.pop()
        endings.add()
    assert full - resident_mb() > 0.9 * size * (STORM - len(between)) / 2**20


class Counted(Endings):
    count = 0

    def add(self) -> None:
        self.count += 1


def test_a_stream_that_ends_and_one_that_can_not_be_opened_are_endings() -> None:
    endings, attempts = Counted(), iter((None, Unreachable("there is no way"), LeaseLost()))

    async def no_messages() -> AsyncIterator[list[bytes]]:
        return
        yield

    @asynccontextmanager
    async def websocket(url: str, **_: Any) -> AsyncIterator[AsyncIterator[list[bytes]]]:
        if failure := next(attempts):
            raise failure
        yield no_messages()

    async def follow() -> None:
        with ThreadPoolExecutor(1) as executor:
            context: Any = SimpleNamespace(
                settings=read({}),
                door=SimpleNamespace(websocket=websocket),
                hosts=SimpleNamespace(note_stream=lambda *_, **__: True),
            )
            parts: Any = {
                "pipeline": SimpleNamespace(follow=lambda _: asyncio.sleep(0)),
                "jitter": SimpleNamespace(uniform=lambda *_: 0),
                "opening": asyncio.Semaphore(1),
                "endings": endings,
            }
            row = HostRow("hold.example", cursor=1, epoch=1)
            await Connection(context, executor=executor, row=row, owner="test", **parts).run()

    with pytest.raises(ExceptionGroup):
        asyncio.run(follow())
    assert endings.count == 2
