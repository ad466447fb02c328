"""Memory of a process that has thousands of connections, which come and go in storms."""

from __future__ import annotations

import gc

_YOUNG = (5_000, 3)
"""New objects to a collection of the young, and such collections to one of those that outlived them: milliseconds."""
_NEVER = 1_000_000


def prepare() -> None:
    """Do without full garbage collections from now on; once all is imported.

    A full collection looks at every object: with thousands of connections the event loop stands still for a third of a
    second, and it is started by the very storm of reconnects that makes new objects. What dies here dies by its reference
    count, or young, in a cycle of an exception and its traceback.
    """
    gc.freeze()
    gc.set_threshold(*_YOUNG, _NEVER)
