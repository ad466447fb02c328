"""Backup and restore of the embedded engine: ``make backup``, ``make restore FILE=...``.

    python -m infra.local.backup [FILE]           copy the state to FILE, whether the stack runs or not
    python -m infra.local.backup --restore FILE   put a copy in the place of the state; the stack must not run

A copy is the state at one moment, with everything that was answered before it: SQLite reads from one snapshot while the engine
writes on. It appears under its name once it is whole, checked and on disk. What a restore replaces is kept beside it as
``engine.sqlite.replaced``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from infra.env_file import read as read_env_file
from infra.local import engines
from infra.local.holding import InUse, hold, lock_of


class CannotCopy(Exception):
    """The message says why."""


def back_up(state: Path, copy: Path) -> int:
    """Copy the engine's file ``state`` to ``copy``. Returns how many items the copy has. Raises ``CannotCopy``."""
    if not state.is_file():
        raise CannotCopy(f"there is no {state}: nothing has run here yet")
    if copy.exists():
        raise CannotCopy(f"{copy} exists already")
    copy.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _beside(copy, ".unfinished")
    unfinished.unlink(missing_ok=True)
    with closing(_opened(state)) as source:
        source.execute("VACUUM INTO ?", (str(unfinished),))
    items = _checked(unfinished)
    _settle(unfinished, copy)
    return items


def restore(copy: Path, folder: Path) -> int:
    """Put ``copy`` in the place of the engine's file in ``folder``. Returns how many items it has. Raises ``CannotCopy``."""
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "engine.sqlite"
    try:
        hold(folder / "lock")
        hold(lock_of(state))
    except InUse:
        raise CannotCopy(f"{folder} is in use: end the stack first") from None
    if not copy.is_file():
        raise CannotCopy(f"there is no {copy}")
    items = _checked(copy)
    unfinished = _beside(state, ".unfinished")
    shutil.copyfile(copy, unfinished)
    replaced = _beside(state, ".replaced")
    for suffix in ("-shm", "-wal", ""):  # SQLite would read a -wal file into whatever stands beside it
        _beside(replaced, suffix).unlink(missing_ok=True)
        if (current := _beside(state, suffix)).exists():
            (os.rename if suffix else os.link)(current, _beside(replaced, suffix))
    _settle(unfinished, state)
    return items


def _opened(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None)


def _checked(file: Path) -> int:
    """How many items ``file`` has. Raises ``CannotCopy`` if it is damaged or no file of the engine."""
    try:
        with closing(_opened(file)) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            (items,) = connection.execute("SELECT count(*) FROM item").fetchone()
            connection.execute("SELECT operation, body FROM definition LIMIT 1")
    except sqlite3.DatabaseError as fault:
        raise CannotCopy(f"{file} is no state of the embedded engine: {fault}") from fault
    if verdict != "ok":
        raise CannotCopy(f"{file} is damaged: {verdict}")
    return int(items)


def _settle(unfinished: Path, file: Path) -> None:
    """Rename what is ``unfinished`` to ``file``, so that it is on disk whole or not at all."""
    _sync(unfinished)
    os.replace(unfinished, file)
    _sync(file.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _beside(file: Path, suffix: str) -> Path:
    return file.with_name(file.name + suffix)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.local.backup", description="Backup of the embedded engine.")
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="the copy; default: .local/backups/<time>.sqlite"
    )
    parser.add_argument("--restore", action="store_true", help="put FILE in the place of the state")
    options = parser.parse_args()
    folder = engines.state_folder(read_env_file(engines.ROOT / ".env") | dict(os.environ))
    try:
        if options.restore:
            if options.file is None:
                parser.error("say which FILE to restore")
            print(f"{folder} has the {restore(options.file, folder)} items of {options.file}")
        else:
            copy = options.file or folder / "backups" / f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}.sqlite"
            items = back_up(folder / "engine.sqlite", copy)
            print(f"{copy} has {items} items, {copy.stat().st_size / 1e6:.1f} MB")
    except (CannotCopy, OSError, sqlite3.Error) as fault:
        print(f"backup: {fault}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
