"""Domains that the operator bans, with all hosts below them. A single host's ban stands on its own row."""

from __future__ import annotations

from chalicelib.atproto.syntax import Origin
from chalicelib.index.state import State

BAN = "ban"


class Bans:
    """Reads and writes them. They are few, and looked at whenever a host is let in or crawled."""

    def __init__(self, state: State) -> None:
        self._state = state

    def all(self) -> dict[str, str]:
        """Why each banned domain is banned."""
        return {row.id: row.content["reason"] for row in self._state.all(BAN) if row.content["reason"]}

    def of(self, origin: Origin) -> str | None:
        """The banned domain that the host belongs to."""
        return next((domain for domain in self.all() if covers(domain, origin)), None)

    def set(self, domain: str, reason: str | None, *, at: int) -> None:
        """Ban ``domain`` and all names below it, for hosts that are not known yet; None ends that. ``at`` is the time of the
        order, UTC ms: one that was given before another and is carried out after it changes nothing."""
        self._state.write(BAN, domain, {"reason": reason}, number=at)


def covers(domain: str, origin: Origin) -> bool:
    """Whether the host is ``domain`` or below it."""
    return f".{origin.hostname}".endswith(f".{domain}")
