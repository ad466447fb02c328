"""Which source a repo has: its PDS where that is followed, else the relays; whatever else shows it is a hint.

a relay's event of a repo -- its PDS is followed by nobody --> as good as the PDS's own, if the signature says so
                          |- by us, or another subscriber ---> a hint: asked about if the PDS has not told it after a while
                          `- not to be followed -------------> nothing
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Final

from chalicelib.atproto.syntax import Did, Origin, Tid
from chalicelib.index.hosts import STOPPED
from chalicelib.index.tables import HostRow

KNOWN_SECONDS: Final = 30.0
"""What is known of a host is looked up again after so long."""
HINT_SECONDS: Final = 60.0
"""A PDS that is followed has so long to tell what a relay has shown."""
HINTS: Final = 10_000
"""Repos of which a hint is remembered at most."""
ASK_SECONDS: Final = 1.0
"""Between two repos that are asked about because of hints."""
_MEMORY: Final = 10_000


class Standing(Enum):
    """What a relay's word counts for the repos of a host."""

    DIRECT = "direct"
    RELAYED = "relayed"
    STOPPED = "stopped"


class Sources:
    """Belongs to the event loop. ``load`` reads a host's row; ``ask`` asks about a repo, unless it is known at this rev by now,
    and says whether it has."""

    def __init__(
        self, load: Callable[[Origin], Awaitable[HostRow | None]], ask: Callable[[Did, Tid], Awaitable[bool]]
    ) -> None:
        self.relays: set[Origin] = set()
        self._load = load
        self._ask = ask
        self._known: OrderedDict[str, tuple[Standing, float]] = OrderedDict()
        self._hints: OrderedDict[Did, tuple[Tid, float]] = OrderedDict()
        self._asking: asyncio.Task[None] | None = None

    async def standing(self, host: str) -> Standing:
        """Of the host with this key."""
        now = asyncio.get_running_loop().time()
        standing, until = self._known.get(host, (None, 0.0))
        if standing is None or until < now:
            standing = _standing(await self._load(Origin.parse_key(host)))
            self._known[host] = standing, now + KNOWN_SECONDS
            self._known.move_to_end(host)
            if len(self._known) > _MEMORY:
                self._known.popitem(last=False)
        return standing

    def hint(self, did: Did, rev: Tid) -> None:
        """A relay has shown that the repo is at ``rev``, or so it says."""
        loop = asyncio.get_running_loop()
        last, due = self._hints.get(did, (rev, loop.time() + HINT_SECONDS))
        if did in self._hints or len(self._hints) < HINTS:
            self._hints[did] = max(last, rev), due
        if self._asking is None:
            self._asking = loop.create_task(self._ask_later())

    def abandon(self) -> None:
        """Forget all hints."""
        self._hints.clear()
        if self._asking is not None:
            self._asking.cancel()

    async def _ask_later(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._hints:
                did, (_, due) = next(iter(self._hints.items()))
                await asyncio.sleep(due - loop.time())
                rev, _ = self._hints.pop(did)
                if await self._ask(did, rev):
                    await asyncio.sleep(ASK_SECONDS)
        finally:
            self._asking = None


def _standing(row: HostRow | None) -> Standing:
    if row is None or (row.owner is None and row.status not in STOPPED):
        return Standing.RELAYED
    return Standing.STOPPED if row.status in STOPPED else Standing.DIRECT
