"""The right to write a file or folder, for one process at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class InUse(Exception):
    """Another process has it; the message says what."""


def hold(path: Path) -> int:
    """Hold what the lock file at ``path`` stands for, until this process ends or closes the descriptor that is returned.
    Raises ``InUse``."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InUse(f"{path} is held by another process") from None
    return descriptor


def lock_of(file: Path) -> Path:
    """The lock file of the engine's ``file``. (SQLite's own exclusive mode would shut out who only reads.)"""
    return file.with_name(file.name + ".lock")
