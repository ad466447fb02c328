"""The small things in the ``state`` table: the identity cache and the heartbeats of subscribers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chalicelib.index.clock import Clock, now_ms

if TYPE_CHECKING:  # who only reads through the plain client takes the kinds from here, without PynamoDB
    from chalicelib.index.tables import StateRow, Tables

IDENTITY = "identity"
SUBSCRIBER = "subscriber"


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

    def delete(self, kind: str, id: str) -> None:
        """Delete the row, if there is one."""
        self._rows(kind, id).delete()

    def all(self, kind: str) -> list[StateRow]:
        """All rows of a kind; for kinds of which there are few."""
        return list(self._rows.query(kind, consistent_read=True))
