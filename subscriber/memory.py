"""Memory of a process that has thousands of connections, which come and go in storms."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

_YOUNG = (5_000, 3)
"""New objects to a collection of the young, and such collections to one of those that outlived them: milliseconds."""
_NEVER = 1_000_000

ENDINGS: Final = 100
"""Connections that end until memory is tidied up: they leave some 5,000 new objects and 6 MB, which takes 5 to 20 ms."""

_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's


def prepare() -> None:
    """Do without full garbage collections from now on; once all is imported.

    A full collection looks at every object: with thousands of connections the event loop stands still for a third of a
    second, and it is started by the very storm of reconnects that makes new objects. What dies here dies by its reference
    count, or young, in a cycle of an exception and its traceback.
    """
    gc.freeze()
    gc.set_threshold(*_YOUNG, _NEVER)


class Endings:
    """The ends of a subscriber's connections: memory is tidied up after each hundredth."""

    def __init__(self) -> None:
        self._before = 0

    def add(self) -> None:
        """One more has ended, or could not be opened."""
        self._before += 1
        if self._before == ENDINGS:
            self._before = 0
            _tidy_up()


def _tidy_up() -> None:
    """Do in time what nobody does by himself while connections end.

    Python counts new objects less those that went, whatever their age. While old ones go, the young become hundreds of
    thousands, and then a collection of them stops the event loop for 200 ms.

    glibc keeps what was freed. New connections' TLS buffers (256 KB each, of which next to nothing is written to) would lie
    on memory that was in use, and what is in use on memory that was not: the process would grow with each storm.
    """
    gc.collect(1)
    if _malloc_trim:
        _malloc_trim(0)
