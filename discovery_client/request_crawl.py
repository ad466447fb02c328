"""``request-crawl``, or ``python -m discovery_client.request_crawl``: asks relays and discovery services to crawl hosts.

request-crawl hold01.atcr.io https://relay.example https://discovery.example
request-crawl --all --service https://discovery.example https://relay.example     all hosts that a service knows
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Self

import httpx

from discovery_client import entries, web
from discovery_client.entries import bare_host, shown
from discovery_client.errors import SourceFailed, Unreachable
from discovery_client.sources import Service
from discovery_client.web import BUSY, Answer, Limits, Retry, Web

RELAYS = "https://bsky.network"
"""Who is asked where nobody is named, here or in REQUEST_CRAWL_RELAYS: addresses with spaces between them."""
LIVE = frozenset({"", "active", "idle", "throttled"})
"""Statuses of hosts, in listHosts, that another relay is told of."""
_AT_ONCE = 4
"""Hosts that one relay is asked about at the same time."""
_LOST = 3
"""Hosts in a row about which a relay did not answer: it is not asked about others."""
_PATIENCE = Retry(attempts=6, pause=1, longest=300)
_ANSWER = 64_000
"""Bytes of a relay's answer; it has none where it agrees."""


@dataclass(frozen=True)
class Outcome:
    """What one relay did about one host."""

    host: str
    relay: str
    accepted: bool
    attempts: int
    error: str | None = None
    answered: bool = True
    """Whether it said yes or no in the end."""


class Registrar:
    """Asks relays, with patience. ``seconds``: that one answer may take. ``wait``: how pauses are made."""

    def __init__(
        self,
        relays: Sequence[str],
        *,
        retry: Retry = _PATIENCE,
        seconds: float = 60,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._relays = tuple(dict.fromkeys(Service.at(relay).name for relay in relays))
        if not self._relays:
            raise ValueError("name a relay")
        self._retry, self._seconds, self._wait = retry, seconds, wait
        self._http: httpx.AsyncClient

    async def __aenter__(self) -> Self:
        self._http = web.client(self._seconds)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def request_crawl(
        self, hosts: Iterable[str], say: Callable[[Outcome], None], *, starting: bool = True
    ) -> list[Outcome]:
        """Ask every relay to crawl every host; ``say`` hears of each outcome as it comes. Of outcomes, those of the first
        host come first, in the order of the relays. ``starting``: the hosts may not be up yet, so ``HostNotFound`` is not
        the last word."""
        hosts = tuple(dict.fromkeys(hosts))
        turns = {relay: asyncio.Semaphore(_AT_ONCE) for relay in self._relays}
        lost = dict.fromkeys(self._relays, 0)
        worth = _is_busy_or_early if starting else _is_busy

        async def one(host: str, relay: str) -> Outcome:
            async with turns[relay]:
                if lost[relay] < _LOST:
                    outcome = await self._ask(host, relay, worth)
                    lost[relay] = 0 if outcome.answered else lost[relay] + 1
                else:
                    outcome = Outcome(host, relay, False, 0, "not asked any more, as it does not answer", False)
            say(outcome)
            return outcome

        return list(await asyncio.gather(*(one(host, relay) for host in hosts for relay in self._relays)))

    async def _ask(self, host: str, relay: str, worth: Callable[[Answer], bool]) -> Outcome:
        asking = Web(self._http, self._retry, _ANSWER, self._wait, self._seconds)
        url = f"{relay}/xrpc/com.atproto.sync.requestCrawl"
        try:
            answer = await asking.ask("POST", url, worth=worth, json={"hostname": host})
        except SourceFailed as failed:
            return Outcome(host, relay, False, asking.attempts, str(failed), False)
        error = None if answer.status in range(200, 300) else str(answer.refusal())
        return Outcome(host, relay, error is None, asking.attempts, error, not _is_busy(answer))

    async def hosts_of(self, service: str, *, limits: Limits) -> list[str]:
        """The live hosts that a service lists (com.atproto.sync.listHosts). Raises SourceFailed, ValueError."""
        asking = Web(self._http, self._retry, limits.bytes, self._wait)
        url = f"{Service.at(service).name}/xrpc/com.atproto.sync.listHosts"
        found: list[tuple[str, str]] = []
        try:
            async with asyncio.timeout(limits.seconds):
                async for _, _, hosts in asking.pages(url, {"limit": 1000}, entries.hosts_page, most=limits.pages):
                    found += hosts
        except TimeoutError:
            raise Unreachable(f"no whole list of hosts within {limits.seconds:g} s") from None
        return [name for name, status in found if status in LIVE]


def _is_busy(answer: Answer) -> bool:
    return answer.status in BUSY


def _is_busy_or_early(answer: Answer) -> bool:
    # A host may announce itself before its proxy is up.
    return _is_busy(answer) or (answer.status == 400 and answer.refusal().error == "HostNotFound")


def registered(outcomes: Sequence[Outcome], *, with_all: bool) -> bool:
    """Whether each host was accepted by one relay at least, or by all."""
    by_host: dict[str, list[bool]] = {}
    for outcome in outcomes:
        by_host.setdefault(outcome.host, []).append(outcome.accepted)
    return all(all(accepted) if with_all else any(accepted) for accepted in by_host.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it. Returns what to exit with."""
    options = _parser().parse_args(arguments)
    try:
        return asyncio.run(_main(options))
    except (ValueError, SourceFailed) as wrong:
        print(f"request-crawl: {wrong}", file=sys.stderr)
        return 2


async def _main(options: argparse.Namespace) -> int:
    names = list(options.names)
    if options.all != bool(options.service):
        raise ValueError("--all needs --service, and the other way round")
    if not options.all and not names:
        raise ValueError("name a host")
    host = None if options.all else _host(names.pop(0))
    relays = names or (os.environ.get("REQUEST_CRAWL_RELAYS") or RELAYS).split()
    retry = Retry(attempts=options.attempts, pause=options.pause, longest=options.longest)
    async with Registrar(relays, retry=retry, seconds=options.seconds) as registrar:
        hosts = await registrar.hosts_of(options.service, limits=Limits()) if host is None else [host]
        say = (lambda outcome: None) if options.json else _say
        outcomes = await registrar.request_crawl(hosts, say, starting=host is not None)
    if options.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
    elif host is None:
        accepted = sum(outcome.accepted for outcome in outcomes)
        print(f"{len(hosts)} hosts, {accepted} of {len(outcomes)} requests accepted", file=sys.stderr)
    return 0 if registered(outcomes, with_all=options.need == "all") else 1


def _host(text: str) -> str:
    host = bare_host(text)
    if host is None:
        raise ValueError(f"not a host: {shown(text)}")
    return host


def _say(outcome: Outcome) -> None:
    times = f" ({outcome.attempts} attempts)" if outcome.attempts > 1 else ""
    what = "accepted" if outcome.accepted else f"failed: {outcome.error}"
    print(f"{shown(outcome.host)} at {outcome.relay}: {what}{times}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="request-crawl",
        usage="%(prog)s [options] HOST [RELAY ...]\n       %(prog)s [options] --all --service URL [RELAY ...]",
        description="Asks relays and discovery services to crawl a host. One line for each of them.",
        epilog="Exit: 0 if each host was accepted by one relay (--need all: by all), 1 if not, 2 if the request was wrong.",
    )
    parser.add_argument(
        "names", nargs="*", metavar="HOST RELAY", help=f"RELAY: default $REQUEST_CRAWL_RELAYS, or {RELAYS}"
    )
    parser.add_argument("--all", action="store_true", help="all live hosts that --service lists, instead of HOST")
    parser.add_argument("--service", metavar="URL", help="with --all: whose com.atproto.sync.listHosts is read")
    parser.add_argument(
        "--need", choices=("one", "all"), default="one", help="relays that have to accept a host; default: one"
    )
    parser.add_argument("--attempts", type=int, default=_PATIENCE.attempts, help="default: %(default)s")
    parser.add_argument("--pause", type=float, default=_PATIENCE.pause, help="seconds after the first; then doubled")
    parser.add_argument(
        "--longest", type=float, default=_PATIENCE.longest, help="seconds of Retry-After that are waited"
    )
    parser.add_argument("--seconds", type=float, default=60, help="that one answer may take; default: %(default)s")
    parser.add_argument("--json", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
