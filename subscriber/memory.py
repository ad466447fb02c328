"""Memory of a process that has thousands of connections, which come and go in storms."""

from __future__ import annotations

import contextlib
import ctypes
import gc

_YOUNG = (5_000, 3)
"""New objects to a collection of the young, and such collections to one of those that outlived them: milliseconds."""
_NEVER = 1_000_000
_M_MMAP_THRESHOLD = -3
_LARGE = 48 * 1024
"""Bytes of a block that the system is asked for, and that goes back to it: less than the 64 KiB that uvloop sets aside for each
TLS connection and hardly ever fills. From the heap they would be others' leftovers, all of it resident, after each storm more."""


def prepare() -> None:
    """Do without full garbage collections from now on, and give large blocks back to the system; once all is imported.

    A full collection looks at every object: with thousands of connections the event loop stands still for a third of a
    second, and it is started by the very storm of reconnects that makes new objects. What dies here dies by its reference
    count, or young, in a cycle of an exception and its traceback.
    """
    with contextlib.suppress(AttributeError):  # where the C library is another
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
    gc.freeze()
    gc.set_threshold(*_YOUNG, _NEVER)
