"""The service as the demonstration sees it: over HTTP, each request told and each answer checked."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any
from urllib.parse import urlencode

import aiohttp

from simulator.demo.narrator import Narrator, StepFailed
from simulator.host import Host

PAUSE = 0.1
"""Seconds between two looks at what is to come about."""
CRAWL = "com.atproto.sync.requestCrawl"
LIST = "com.atproto.sync.listReposByCollection"

Query = Sequence[tuple[str, str]]


class Service:
    """Asks the service at ``url``, and waits at most ``patience`` seconds for what it should come to say.

    ``names`` are what the story calls the DIDs. All that checks raises ``StepFailed``.
    """

    def __init__(self, url: str, narrator: Narrator, session: aiohttp.ClientSession, *, patience: float) -> None:
        self.url = url
        self.names: dict[str, str] = {}
        self._narrator = narrator
        self._session = session
        self._patience = patience

    async def admits(self, host: Host) -> None:
        """``host`` announces itself, by a request of its own, and is let in: 200 with zero bytes."""
        began = time.monotonic()
        self._tell_request_crawl(host.hostname)
        status, body = await host.request_crawl(self.url)
        self._narrator.answer(status, body)
        if (status, body) != (200, ""):
            raise StepFailed(f"{host.hostname} was to be let in, with 200 and zero bytes")
        self._narrator.right("let in", time.monotonic() - began)

    async def refuses_host(self, hostname: str) -> None:
        """A requestCrawl for ``hostname`` is refused as ``InvalidRequest``, with a message."""
        began = time.monotonic()
        self._tell_request_crawl(hostname)
        async with self._session.post(f"{self.url}/xrpc/{CRAWL}", json={"hostname": hostname}) as response:
            self._refused(response.status, await response.text(), "InvalidRequest", began)

    async def refuses_listing(self, error: str, **query: str) -> None:
        """A listReposByCollection with ``query`` is refused as ``error``, with a message."""
        began = time.monotonic()
        self._refused(*await self._get(LIST, tuple(query.items()), tell=True), error, began)

    async def page(self, expected: Sequence[str], *, more: bool, **query: str) -> str:
        """One page has just the DIDs ``expected``, in this order, and a cursor if there is ``more``. Returns the cursor."""
        began = time.monotonic()
        status, body = await self._get(LIST, tuple(query.items()), tell=True)
        self._narrator.answer(status, body)
        page = _object(body)
        if status != 200 or _dids(body) != list(expected) or ("cursor" in page) != more:
            raise StepFailed(f"expected were {self.called(expected)}, and {'a' if more else 'no'} cursor")
        end = "a cursor to go on from" if more else "no cursor: the last page"
        self._narrator.right(f"{self.called(expected)}; {end}", time.monotonic() - began)
        return str(page.get("cursor", ""))

    async def lists(self, collection: str, expected: Sequence[str], *, in_order: bool = True) -> None:
        """The listing of ``collection`` comes to be the DIDs ``expected``."""
        ordered = list if in_order else sorted

        def as_expected(status: int, body: str) -> bool:
            return status == 200 and ordered(_dids(body)) == ordered(expected)

        await self._until(LIST, [("collection", collection)], as_expected, f"listed: {self.called(expected)}")

    async def lists_union(self, collections: Iterable[str], expected: AbstractSet[str]) -> None:
        """One request for several collections is answered with each DID once."""

        def as_expected(status: int, body: str) -> bool:
            return status == 200 and sorted(_dids(body)) == sorted(expected)

        await self._until(LIST, [("collection", name) for name in collections], as_expected, "each of them once")

    async def follows(self, streams: int) -> None:
        """The subscriber comes to have so many streams open."""

        def as_expected(status: int, body: str) -> bool:
            return status == 200 and _object(body).get("subscriber", {}).get("open") == streams

        await self._until("_health", (), as_expected, f"{streams} streams are open")

    async def is_well(self, ended: Callable[[], str | None]) -> None:
        """The service comes to say that it is healthy. ``ended`` says why there is no use in waiting any more."""
        await self._until("_health", (), lambda status, _: status == 200, "ready", ended)

    async def dids(self, collection: str) -> list[str]:
        """Who is listed in ``collection`` now; told to nobody."""
        return _dids((await self._get(LIST, [("collection", collection)]))[1])

    def called(self, dids: Sequence[str]) -> str:
        """The DIDs by the names that the story has for them."""
        return ", ".join(self.names.get(did, did) for did in dids) or "nobody"

    async def _until(
        self,
        method: str,
        query: Query,
        as_expected: Callable[[int, str], bool],
        what: str,
        ended: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Ask until the answer is ``as_expected``; the request is told once, and the last answer."""
        began, tell = time.monotonic(), True
        while True:
            try:
                status, body = await self._get(method, query, tell=tell)
            except aiohttp.ClientConnectionError as error:
                status, body = 0, str(error)
            seconds, tell = time.monotonic() - began, False
            reason = ended() or (f"not within {self._patience:g} s" if seconds > self._patience else None)
            if as_expected(status, body) or reason:
                break
            await asyncio.sleep(PAUSE)
        self._narrator.answer(status, body)
        if not as_expected(status, body):
            raise StepFailed(f'expected was "{what}": {reason}')
        self._narrator.right(what, seconds)

    async def _get(self, method: str, query: Query, *, tell: bool = False) -> tuple[int, str]:
        url = f"{self.url}/xrpc/{method}" + (f"?{urlencode(query)}" if query else "")
        if tell:
            self._narrator.request(f"curl '{url}'")
        async with self._session.get(url) as response:
            return response.status, await response.text()

    def _tell_request_crawl(self, hostname: str) -> None:
        body = json.dumps({"hostname": hostname})
        self._narrator.request(f"curl '{self.url}/xrpc/{CRAWL}' -H 'content-type: application/json' -d '{body}'")

    def _refused(self, status: int, body: str, error: str, began: float) -> None:
        self._narrator.answer(status, body)
        answer = _object(body)
        if status != 400 or answer.get("error") != error or not answer.get("message"):
            raise StepFailed(f"expected was a refusal: 400 {error}, with a message")
        self._narrator.right("refused, and told why", time.monotonic() - began)


def _object(body: str) -> dict[str, Any]:
    """The JSON object in ``body``; an empty one where there is none."""
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _dids(body: str) -> list[str]:
    return [repo["did"] for repo in _object(body).get("repos", ())]
