"""What one caller, one domain, and all of them together may have this service do.

    requestCrawl -> asked (every one, in memory) -> of a known host: nothing more
                        `-> asked_of_unknown (of an address, an hour) -> describeServer
                                |- answers ----> let_in (of a domain, and in all, a day)
                                `- does not ---> is_remembered (in all, a day)

A host counts once it has answered, so nobody uses up the budget of a domain that is not theirs by naming hosts under it.
The counts are rows of the ``state`` table; windows begin with the hour and the day, UTC.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network, ip_address

from chalicelib.atproto.syntax import Origin
from chalicelib.crawl.domain import registrable_domain
from chalicelib.crawl.pace import Pace
from chalicelib.index.state import State
from chalicelib.settings import Settings

BUDGET = "budget"
"""Kind of the state rows that count."""
BURST = 100
"""Requests of one caller that may come at once, before the rate holds."""
CALLERS = 10_000
"""So many are kept in memory; who asks after that many others begins anew."""
NAMED_EACH = 20
"""Holds a day that one repo's records may name."""
_HOUR, _DAY = 3600, 24 * 3600


class OverBudget(Exception):
    """Not now, in ``retry_after`` seconds; the message says which bound is reached."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Budgets:
    """Counts. One per process; safe to use from several threads. ``clock``: monotonic seconds."""

    def __init__(self, state: State, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._state = state
        self._settings = settings
        self._clock = clock
        self._callers: OrderedDict[str, Pace] = OrderedDict()
        self._lock = threading.Lock()

    def asked(self, address: str) -> None:
        """Somebody at ``address`` asks for something, which costs no write. Raises ``OverBudget``."""
        rate, caller = self._settings.request_rate, caller_of(address)
        if not rate:
            return
        with self._lock:
            pace = self._callers.pop(caller, None) or Pace(rate, BURST, clock=self._clock)
            self._callers[caller] = pace
            if len(self._callers) > CALLERS:
                self._callers.popitem(last=False)
        if wait := pace.attempt():
            raise OverBudget(f"{caller} asks more than {rate:g} times a second", wait)

    def asked_of_unknown(self, address: str) -> None:
        """Somebody at ``address`` names a host that is to be connected to. Raises ``OverBudget``."""
        caller, most = caller_of(address), self._settings.max_address_requests
        self._take(f"requests/{caller}", most, _HOUR, f"{caller} named {most} hosts that are not known here this hour")

    def let_in(self, origin: Origin) -> None:
        """A host that was not followed is going to be. Raises ``OverBudget``."""
        domain, most = registrable_domain(origin), self._settings.max_domain_hosts
        self._take(f"hosts/{domain}", most, _DAY, f"{most} new hosts of {domain} were let in today")
        most = self._settings.max_new_hosts
        self._take("hosts", most, _DAY, f"{most} new hosts were let in today")

    def is_remembered(self) -> bool:
        """Whether a host that could not be reached may be kept, to be tried for a while."""
        try:
            self._take("unreached", self._settings.max_unreached_hosts, _DAY, "")
        except OverBudget:
            return False
        return True

    def named(self, did: str) -> None:
        """A record of ``did`` names a hold that is to be looked into. Raises ``OverBudget``."""
        self._take(f"named/{did}", NAMED_EACH, _DAY, f"records of {did} named {NAMED_EACH} holds today")
        most = self._settings.max_unreached_hosts
        self._take("named", most, _DAY, f"records named {most} holds today")

    def _take(self, id: str, most: int, window: int, reached: str) -> None:
        if most and (wait := self._state.count(BUDGET, id, most=most, window=window)) is not None:
            raise OverBudget(f"{reached}, which is the most there may be", wait)


def caller_of(address: str) -> str:
    """What counts as one caller: an IPv4 address, or an IPv6 network of 64 bits, all of which one customer has."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return "an unknown address"
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or IPv6Network((int(parsed) >> 64 << 64, 64)))
