"""Memory of a process that has thousands of connections, which come and go in storms."""

from __future__ import annotations

import ctypes
import gc

_YOUNG = (5_000, 3)
"""New objects to a collection of the young, and such collections to one of those that outlived them: milliseconds."""
_NEVER = 1_000_000
_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 128 * 1024


def prepare() -> None:
    """Do without full garbage collections and give large blocks back, from now on; once all is imported.

    A full collection looks at every object: with thousands of connections the event loop stands still for a third of a
    second, and it is started by the very storm of reconnects that makes new objects. What dies here dies by its reference
    count, or young, in a cycle of an exception and its traceback.

    uvloop allocates 256 KB for each TLS connection, of which a quiet one touches a few pages. Once such a block has been
    freed, the C library would take the next from its heap, where all pages are in use sooner or later; told a size from which
    to map a block on its own (mallopt(3)), it keeps to it. Other C libraries than glibc have no such setting.
    """
    gc.freeze()
    gc.set_threshold(*_YOUNG, _NEVER)
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
