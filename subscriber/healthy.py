"""``python -m subscriber.healthy``: exits with 0 if the subscriber in this container is alive.

The subscriber answers on a socket in Linux's abstract namespace, so neither a port nor a writable file system is needed, and
whoever asks imports next to nothing: a health check twice a minute must not cost a noticeable part of a quarter of a core.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

SILENCE = 120.0
"""Seconds without a round of its supervisor after which a subscriber is not healthy."""
_WAIT = 5.0


def _address() -> str:
    return f"\0atcr-discovery-subscriber-{os.environ.get('DISCOVERY_TABLE_PREFIX', '')}"


@asynccontextmanager
async def answering(age: Callable[[], float]) -> AsyncIterator[None]:
    """Answer whoever asks with ``age()``, seconds since the last round. A second subscriber beside the first one does not."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{age():.1f}".encode())
        writer.close()

    try:
        server = await asyncio.start_unix_server(answer, path=_address())
    except OSError:
        yield
        return
    async with server:
        yield


def ask() -> float:
    """Seconds since the subscriber's last round. Raises ``OSError`` if there is none, ``ValueError`` if it says nothing."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_WAIT)
        connection.connect(_address())
        return float(connection.recv(100))


if __name__ == "__main__":
    try:
        silent_for = ask()
    except (OSError, ValueError) as error:
        sys.exit(f"no subscriber answers: {error}")
    if silent_for > SILENCE:
        sys.exit(f"the subscriber's last round was {silent_for:.0f} s ago")
