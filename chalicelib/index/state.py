"""The small things in the ``state`` table: the identity cache, the heartbeats of subscribers, budgets, turns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chalicelib.index.clock import Clock, now_ms

if TYPE_CHECKING:  # who only reads through the plain client takes the kinds from here, without PynamoDB
    from pynamodb.expressions.condition import Condition
    from pynamodb.expressions.update import Action

    from chalicelib.index.tables import StateRow, Tables

IDENTITY = "identity"
SUBSCRIBER = "subscriber"
LISTING_HEAD = "listing-head"
"""The last key of a listing and of its feed, by collection."""


def feed_of(collection: str) -> str:
    """The hash key, in the table of listings, of a collection's feed of changes. No NSID has a colon."""
    return f"changes:{collection}"


THROTTLED_SECONDS = 5.0
_TOO_MANY = frozenset({"ThrottlingException", "ProvisionedThroughputExceededException", "RequestLimitExceeded"})


class State:
    """Reads and writes rows by kind and id."""

    def __init__(self, tables: Tables, *, clock: Clock = now_ms) -> None:
        self._rows = tables.state
        self._clock = clock

    def read(self, kind: str, id: str) -> StateRow | None:
        """The row, unless it has expired (DynamoDB deletes expired rows only hours later)."""
        try:
            row = self._rows.get(kind, id, consistent_read=True)
        except self._rows.DoesNotExist:
            return None
        return None if row.expires_at is not None and row.expires_at * 1000 <= self._clock() else row

    def write(
        self,
        kind: str,
        id: str,
        content: dict[str, Any],
        *,
        number: int,
        keep_seconds: float | None = None,
    ) -> None:
        """Write the row, unless there is one with a higher ``number``: who comes late does not undo what is newer. With
        ``keep_seconds`` it is deleted after that time."""
        from pynamodb.exceptions import PutError  # not at the top: see the kinds above

        expires_at = None if keep_seconds is None else int(self._clock() / 1000 + keep_seconds)
        newest = self._rows.number.does_not_exist() | (self._rows.number <= number)
        try:
            self._rows(kind, id, content=content, number=number, expires_at=expires_at).save(newest)
        except PutError as error:
            if error.cause_response_code != "ConditionalCheckFailedException":
                raise

    def count(self, kind: str, id: str, *, most: int, window: int) -> float | None:
        """Count one more, if there were fewer than ``most`` in this window: of so many seconds, from a multiple of it since
        1970. ``None``: it is counted. Else the seconds until the next window, or until DynamoDB may take more counts."""
        from pynamodb.exceptions import UpdateError

        rows, now = self._rows, self._clock() / 1000
        begins = int(now // window * window)
        actions: list[Action] = [rows.number.add(1), rows.expires_at.set(begins + 2 * window)]
        try:
            rows(kind, f"{id}@{begins}").update(actions, rows.number.does_not_exist() | (rows.number < most))
        except UpdateError as error:
            if error.cause_response_code in _TOO_MANY:
                return THROTTLED_SECONDS
            if error.cause_response_code != "ConditionalCheckFailedException":
                raise
            return begins + window - now
        return None

    def hold(self, kind: str, id: str, holder: str, *, seconds: float) -> bool:
        """Have the row for so long, from now on, unless somebody else has it. Returns whether that is so."""
        rows, now = self._rows, self._clock()
        until = int(now + 1000 * seconds)
        actions: list[Action] = [
            rows.number.set(until),
            rows.holder.set(holder),
            rows.expires_at.set(until // 1000 + 86_400),
        ]
        free = rows.number.does_not_exist() | (rows.number <= now) | (rows.holder == holder)
        return self._update(kind, id, actions, free)

    def let_go(self, kind: str, id: str, holder: str) -> None:
        """Somebody else may have the row now."""
        self._update(kind, id, [self._rows.number.set(0)], self._rows.holder == holder)

    def _update(self, kind: str, id: str, actions: list[Action], condition: Condition) -> bool:
        from pynamodb.exceptions import UpdateError

        try:
            self._rows(kind, id).update(actions, condition)
        except UpdateError as error:
            if error.cause_response_code == "ConditionalCheckFailedException":
                return False
            raise
        return True

    def all(self, kind: str) -> list[StateRow]:
        """All rows of a kind; for kinds of which there are few."""
        return list(self._rows.query(kind, consistent_read=True))
