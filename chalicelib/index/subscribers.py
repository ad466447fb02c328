"""The rows of subscribers: by them each shows that it lives, and learns that it has been declared dead.

    absent --begin--> alive: ``number`` is the time of the last beat --end, by itself or by another--> ended: 0 --forget--> absent

Only who is alive may take hosts: ``Hosts.take`` checks the row in the transaction that changes the owners. Once a row says
that its subscriber has ended, it has that subscriber's last word, and the row stays for as long as a host has this owner.
So each owner of a host has a row, and no host is ever without someone who answers for it, or whose place others may take.
"""

from __future__ import annotations

from typing import Any

from pynamodb.exceptions import UpdateError

from chalicelib.index.clock import Clock, now_ms
from chalicelib.index.state import SUBSCRIBER, State
from chalicelib.index.tables import StateRow, Tables

ENDED = 0
"""``number`` of a subscriber that will take no more hosts and whose hosts may be taken."""


class Subscribers:
    """Reads and writes the rows of subscribers. Safe to use from several threads."""

    def __init__(self, tables: Tables, *, clock: Clock = now_ms) -> None:
        self._rows = tables.state
        self._state = State(tables, clock=clock)
        self._clock = clock

    def all(self) -> list[StateRow]:
        """All rows."""
        return self._state.all(SUBSCRIBER)

    def begin(self, name: str) -> None:
        """A new subscriber. Names are never used twice."""
        now = self._clock()
        self._state.write(SUBSCRIBER, name, {"at": now}, number=now)

    def beat(self, name: str, content: dict[str, Any]) -> bool:
        """Show that the subscriber lives. ``False``: it has been declared dead, and its hosts may be others' by now."""
        now = self._clock()
        rows = self._rows
        return self._update(name, [rows.content.set({"at": now, **content}), rows.number.set(now)], rows.number > ENDED)

    def end(self, name: str, *, number: int | None = None) -> bool:
        """The subscriber takes no more hosts. ``number``: only if that was its last beat. Returns whether it was so."""
        rows = self._rows
        last = rows.number > ENDED if number is None else rows.number == number
        return self._update(name, [rows.content.set({"at": 0}), rows.number.set(ENDED)], last)

    def forget(self, name: str) -> None:
        """Delete the row of one that has ended and has no hosts."""
        self._rows(SUBSCRIBER, name).delete()

    def _update(self, name: str, actions: list[Any], condition: Any) -> bool:
        try:
            self._rows(SUBSCRIBER, name).update(actions, condition=condition)
        except UpdateError as error:
            if error.cause_response_code == "ConditionalCheckFailedException":
                return False
            raise
        return True
