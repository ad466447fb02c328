"""Holds that records name. A user's manifest says which hold has its blobs, a profile which one is used by default: so a hold
that announced itself while this service was away, or only elsewhere, is found all the same.

What a record names is tried like a host that announced itself and could not be reached yet: it has to answer as a PDS
within a day, within the same budgets, and is forgotten otherwise.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any, Final

from chalicelib.atproto.errors import InvalidSyntax
from chalicelib.atproto.syntax import Did, Origin, parse_did, parse_origin
from chalicelib.crawl.budgets import Budgets, OverBudget
from chalicelib.crawl.queue import HostJob, Queue, RepoJob
from chalicelib.index.clock import Clock
from chalicelib.index.hosts import Hosts
from chalicelib.index.state import State
from chalicelib.index.writer import Writer
from chalicelib.telemetry import log

MENTION: Final = "mention"
"""Kind of the state rows that say what was tried; the id is the host's key, or the hold's DID."""
KEEP_SECONDS: Final = 7 * 24 * 3600
"""What was tried is not tried again for so long."""
MOST: Final = 20
"""Holds that are looked into because of one commit, or one crawl of a repo."""
FIELDS: Final = {
    "io.atcr.manifest": ("holdDid", "holdEndpoint"),
    "io.atcr.sailor.profile": ("defaultHold",),
}
"""The fields that name a hold, by a DID or a URL."""
_MEMORY: Final = 10_000


class Named:
    """The holds that some records name, as they stand there."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def note(self, path: str, value: Any) -> None:
        """Look for one in a record. ``value``: as JSON text, or as that is when it is read."""
        fields = FIELDS.get(path.partition("/")[0])
        if fields is None or len(self._names) >= MOST:
            return
        record = json.loads(value) if isinstance(value, str) else value
        for field in fields:
            if isinstance(record, dict) and isinstance(name := record.get(field), str) and name:
                self._names[name] = None


class Mentions:
    """Follows up what records name. One per process; safe to use from several threads."""

    def __init__(
        self,
        *,
        hosts: Hosts,
        writer: Writer,
        state: State,
        queue: Queue,
        budgets: Budgets,
        clock: Clock,
        allow_private: bool,
    ) -> None:
        self._hosts = hosts
        self._writer = writer
        self._state = state
        self._queue = queue
        self._budgets = budgets
        self._clock = clock
        self._allow_private = allow_private
        self._seen: OrderedDict[str, None] = OrderedDict()

    def news(self, names: Iterable[str]) -> list[str]:
        """Those that this process has not looked into yet."""
        return [name for name in names if name not in self._seen]

    def follow_up(self, did: Did, names: Iterable[str]) -> None:
        """Look into the holds that records of ``did`` name, each once in a while."""
        for name in self.news(names):
            try:
                hold = _parsed(name, self._allow_private)
                if self._is_new(hold):
                    self._budgets.named(did)
                    self._try(hold, did)
            except InvalidSyntax as error:
                log("hold-not-looked-into", did=did, error=str(error))
            except OverBudget as over:
                log("hold-not-looked-into", did=did, error=str(over))
                continue  # another time
            self._remember(name)

    def _is_new(self, hold: Origin | Did) -> bool:
        known = self._hosts.load(hold) if isinstance(hold, Origin) else self._writer.load(hold)
        return known is None and self._state.read(MENTION, str(hold)) is None

    def _try(self, hold: Origin | Did, did: Did) -> None:
        log("hold-named", hold=str(hold), did=did)
        if isinstance(hold, Origin):
            self._hosts.admit(hold, confirmed=False, kind="named", error=f"named in a record of {did}")
            self._queue.send(HostJob(hold))
        elif self._writer.ask(hold, claimed_by=did):
            self._queue.send(RepoJob(hold))
        self._state.write(MENTION, str(hold), {"by": did}, number=self._clock(), keep_seconds=KEEP_SECONDS)

    def _remember(self, name: str) -> None:
        self._seen[name] = None
        if len(self._seen) > _MEMORY:
            self._seen.popitem(last=False)


def _parsed(name: str, allow_private: bool) -> Origin | Did:
    """Where the hold is, or who it is if that has to be looked up. Raises ``InvalidSyntax``."""
    if not name.startswith("did:"):
        return parse_origin(name, allow_private=allow_private)
    did = parse_did(name)
    if did.startswith("did:plc:"):
        return did
    if not did.startswith("did:web:"):
        raise InvalidSyntax(f"neither did:plc nor did:web: {did[:100]}")
    return parse_origin(did if allow_private else did.removeprefix("did:web:"), allow_private=allow_private)
