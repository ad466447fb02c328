"""Which hosts one subscriber follows beside others: it takes what nobody follows and what the dead have left, up to its fair
share, and has too much when others come.

Each watches the rows of the others by its own clock. One whose row has not changed for a lease's length is declared dead,
in its row, on condition that the row is still as it was seen; from then on it can take no host and write no beat, and its
hosts may be taken, on condition that they are still its own. Clocks need not agree, and no step needs a second one:

    dies after                          then
    taking a host, before following it  it owns the host: the host is inherited with the others
    its last beat, or while it drains   the others declare it dead after a lease
    being declared dead (or by whom)    its row says so: whoever looks next takes its hosts
    some of its hosts were taken        the row stays until the index by owner has shown none for a lease: the rest is taken
    the last was taken                  whoever looks next deletes the row

A host that the tables give to a living subscriber without its knowledge (an answer was lost) is found by ``reconcile``.
"""

from __future__ import annotations

import os
import random
import socket
import time
import uuid
from collections.abc import Callable, Collection
from typing import Any

from chalicelib.index.hosts import Hosts
from chalicelib.index.subscribers import ENDED, Subscribers
from chalicelib.index.tables import NOBODY, HostRow
from chalicelib.telemetry import log

AT_ONCE = 200
"""Hosts that are taken in one go; then there is time for a beat."""


class Leases:
    """One subscriber's part in the sharing. Not safe for several threads at a time."""

    def __init__(
        self,
        hosts: Hosts,
        subscribers: Subscribers,
        *,
        lease_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._hosts = hosts
        self._subscribers = subscribers
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._order = random.Random()  # noqa: S311 - spreads rivals, guards nothing
        self._watched: dict[str, tuple[int, float]] = {}
        self._dead: list[str] = []
        self._others: list[int] = []
        self._seen_otherwise: set[str] = set()

    def begin(self) -> None:
        """Become one of the subscribers."""
        self._subscribers.begin(self.name)

    def beat(self, content: dict[str, Any]) -> bool:
        """Show life. ``False``: declared dead; the hosts may be others' by now, and this object is of no more use."""
        return self._subscribers.beat(self.name, content)

    def watch(self) -> None:
        """Look at the others: who lives, how many hosts each has, and who is dead."""
        now = self._clock()
        watched, self._dead, self._others = self._watched, [], []
        self._watched = {}
        for row in self._subscribers.all():
            if row.id == self.name:
                continue
            number = int(row.number)
            seen, since = watched.get(row.id, (number, now))
            self._watched[row.id] = (number, since if seen == number else now)
            silent = now - self._watched[row.id][1] >= self._lease_seconds
            if number == ENDED:
                self._dead.append(row.id)
                if silent and not self._hosts.owned_by(row.id):
                    self._subscribers.forget(row.id)
            elif silent and self._subscribers.end(row.id, number=number):
                log("declared-dead", name=row.id)
                self._dead.append(row.id)
            elif not row.content.get("draining"):
                self._others.append(int(row.content.get("hosts", 0)))

    def take(self, held: int) -> list[HostRow]:
        """Take hosts that nobody follows, having ``held``, up to the fair share of what there is."""
        free = [(key, owner) for owner in (NOBODY, *self._dead) for key, _ in self._hosts.owned_by(owner)]
        room = min(self._share(held + len(free)) - held, AT_ONCE)
        if room <= 0:
            return []
        self._order.shuffle(free)
        by_owner: dict[str, list[str]] = {}
        for key, owner in free[:room]:
            by_owner.setdefault(owner, []).append(key)
        taken: list[HostRow] = []
        for owner, keys in by_owner.items():
            taken += self._hosts.take(keys, self.name, from_owner=owner)
        return taken

    def surplus(self, held: int) -> int:
        """How many hosts to give back now: some of what is clearly more than the fair share, for each move costs."""
        share = self._share(held)
        excess = held - share
        return 0 if excess <= max(1, share // 10) else -(-excess // 10)

    def reconcile(self, followed: Collection[str], leaving: Collection[str]) -> tuple[list[HostRow], set[str]]:
        """What the tables have shown otherwise at two looks in a row: hosts that are this subscriber's without its knowledge,
        and those of ``followed`` that are not its own any more, as when they are banned. What it is ``leaving`` is neither."""
        owned = {key for key, _ in self._hosts.owned_by(self.name)}
        strays, lost = owned.difference(followed, leaving), set(followed) - owned
        before, self._seen_otherwise = self._seen_otherwise, strays | lost
        return self._hosts.take(sorted(strays & before), self.name, from_owner=self.name), lost & before

    def end(self) -> None:
        """Leave: what could not be given back is free to be taken."""
        self._subscribers.end(self.name)

    def _share(self, mine_and_free: int) -> int:
        return -(-(mine_and_free + sum(self._others)) // (len(self._others) + 1))
