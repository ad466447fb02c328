"""Asks all sources, and puts together what they said."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self, TypedDict, TypeVar, Unpack

import httpx

from discovery_client import entries, web
from discovery_client.cache import Cache, Kept
from discovery_client.entries import HOLDS, Entry
from discovery_client.errors import NoAnswer, SourceFailed, Unreachable
from discovery_client.sources import File, Question, Service, Source, merged
from discovery_client.web import Limits, Retry, Web

T = TypeVar("T")
_LIMITS, _RETRY = Limits(), Retry()
REGISTERED = "registered"
"""The name of the source of what was registered by hand."""


class Mode(StrEnum):
    UNION = "union"
    """All are asked at the same time; what any of them says counts."""
    FIRST = "first"
    """One after the other, until one has answered."""


class State(StrEnum):
    FRESH = "fresh"
    """It has answered."""
    PARTIAL = "partial"
    """Its answer broke off; what was said counts, together with its last whole answer."""
    CACHED = "cached"
    """It did not answer; its last whole answer counts."""
    FAILED = "failed"
    """It did not answer, and nothing is known of it."""


@dataclass(frozen=True)
class Report:
    """What one source did."""

    source: str
    state: State
    repos: int
    """How many it knows, or knew."""
    asked_at: float | None
    """When it gave this answer, in seconds since 1970; None where there is none."""
    requests: int
    seconds: float
    error: str | None = None
    """Why it is not fresh; or, where it is, why that was not cached."""


@dataclass(frozen=True)
class Repo:
    """``sources``: who knows of it. ``host`` and ``record`` are what the first of them who tells them tells, unverified."""

    did: str
    sources: tuple[str, ...]
    host: str | None = None
    record: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Discovered:
    """The repos in the order of the sources, and in each source's own order; each once."""

    collection: str
    repos: tuple[Repo, ...]
    reports: tuple[Report, ...]
    complete: bool
    """Whether all have answered; in the mode FIRST, whether one has."""

    @property
    def dids(self) -> tuple[str, ...]:
        return tuple(repo.did for repo in self.repos)


@dataclass(frozen=True)
class Comparison:
    """What two services answer differently, each in its own order."""

    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    both: int

    @property
    def same(self) -> bool:
        return not (self.only_first or self.only_second)


@dataclass(frozen=True)
class _Said:
    report: Report
    entries: tuple[Entry, ...]


class AsyncClient:
    """``services``: addresses; ``files``: paths and URLs of lists; ``registered``: DIDs and hosts that are known anyway.

    ``cache``: a folder, in which each source's last whole answer is kept. ``whole_every``: seconds after which a service is
    asked for everything again, and not only for what is new: until then, those who left its listing are not noticed. 0 for
    always. Raises ValueError.
    """

    def __init__(
        self,
        services: Sequence[str] = (),
        *,
        files: Sequence[str | Path] = (),
        registered: Sequence[str] = (),
        mode: Mode = Mode.UNION,
        cache: str | Path | None = None,
        whole_every: float = 3600,
        limits: Limits = _LIMITS,
        retry: Retry = _RETRY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        sources: list[Source] = [Service.at(text) for text in services]
        sources += [File(str(text)) for text in files]
        self._sources = tuple({source.name: source for source in sources}.values())
        self._registered = merged(entries.registered(text) for text in registered)
        if not self._sources and not self._registered:
            raise ValueError("name a service, a file or somebody who is registered")
        self._mode, self._limits, self._retry, self._clock = Mode(mode), limits, retry, clock
        self._cache = None if cache is None else Cache(Path(cache).expanduser())
        self._whole_every = whole_every
        self._http: httpx.AsyncClient

    async def __aenter__(self) -> Self:
        self._http = web.client(min(15, self._limits.seconds))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def discover(self, collection: str = HOLDS, *, whole: bool = False) -> Discovered:
        """Everyone who has records in ``collection``, as far as the sources know. ``whole``: with those who left, now.

        Raises NoAnswer where not one source had anything to say, and nobody is registered.
        """
        if self._mode is Mode.UNION:
            said = list(await asyncio.gather(*(self._ask(source, collection, whole) for source in self._sources)))
            counted = said
        else:
            said = await self._ask_in_order(collection, whole)
            counted = [max(said, key=_worth)] if said else []
        if not self._registered and all(one.report.state is State.FAILED for one in said):
            raise NoAnswer([one.report for one in said])
        by_hand = [(REGISTERED, self._registered)] if self._registered else []
        repos = _repos([(one.report.source, one.entries) for one in counted] + by_hand)
        complete = all(one.report.state is State.FRESH for one in counted)
        return Discovered(collection, repos, tuple(one.report for one in said), complete)

    async def compare(self, collection: str = HOLDS) -> Comparison:
        """What the two services of this client answer differently, asked for everything now. Raises SourceFailed where one of
        them does not answer, ValueError where there are not two."""
        if len(self._sources) != 2:
            raise ValueError("two different services can be compared")
        first, second = await asyncio.gather(*(self._ask(source, collection, True) for source in self._sources))
        for one in (first, second):
            if one.report.state is not State.FRESH:
                raise SourceFailed(f"{one.report.source}: {one.report.error}")
        known = ({entry.did for entry in first.entries}, {entry.did for entry in second.entries})
        return Comparison(
            tuple(entry.did for entry in first.entries if entry.did not in known[1]),
            tuple(entry.did for entry in second.entries if entry.did not in known[0]),
            len(known[0] & known[1]),
        )

    async def _ask_in_order(self, collection: str, whole: bool) -> list[_Said]:
        said: list[_Said] = []
        for source in self._sources:
            said.append(await self._ask(source, collection, whole))
            if said[-1].report.state is State.FRESH:
                break
        return said

    async def _ask(self, source: Source, collection: str, whole: bool) -> _Said:
        now, began = self._clock(), time.monotonic()
        kept = self._cache.load(source.name, collection) if self._cache else None
        only_new = kept is not None and not whole and 0 <= now - kept.whole_at < self._whole_every
        question = Question(collection, kept, only_new, now, self._limits.pages, [])
        asking = Web(self._http, self._retry, self._limits.bytes)

        def report(state: State, known: Sequence[Entry], asked_at: float | None, error: str | None) -> _Said:
            spent = time.monotonic() - began
            return _Said(Report(source.name, state, len(known), asked_at, asking.attempts, spent, error), tuple(known))

        try:
            async with asyncio.timeout(self._limits.seconds):
                found = await source.ask(asking, question)
        except TimeoutError:
            failure: SourceFailed = Unreachable(f"no whole answer within {self._limits.seconds:g} s")
        except SourceFailed as failed:
            failure = failed
        else:
            return report(State.FRESH, found.entries, found.asked_at, self._keep(source, collection, found))
        known = merged(kept.entries if kept else (), question.so_far)
        state = State.PARTIAL if question.so_far else State.CACHED if kept else State.FAILED
        asked_at = now if question.so_far else kept.asked_at if kept else None
        return report(state, known, asked_at, str(failure))

    def _keep(self, source: Source, collection: str, found: Kept) -> str | None:
        if self._cache is None:
            return None
        try:
            self._cache.save(source.name, collection, found)
        except OSError as error:
            return f"its answer could not be cached ({error.strerror})"
        return None


class Options(TypedDict, total=False):
    """Those of AsyncClient."""

    files: Sequence[str | Path]
    registered: Sequence[str]
    mode: Mode
    cache: str | Path | None
    whole_every: float
    limits: Limits
    retry: Retry
    clock: Callable[[], float]


class Client:
    """As AsyncClient, without an event loop of the caller's; its calls may also be made where one runs."""

    def __init__(self, services: Sequence[str] = (), **options: Unpack[Options]) -> None:
        self._client = AsyncClient(services, **options)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="discovery")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def discover(self, collection: str = HOLDS, *, whole: bool = False) -> Discovered:
        """See AsyncClient."""
        return self._run(lambda client: client.discover(collection, whole=whole))

    def compare(self, collection: str = HOLDS) -> Comparison:
        """See AsyncClient."""
        return self._run(lambda client: client.compare(collection))

    def _run(self, call: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> T:
        async def main() -> T:
            async with self._client as client:
                return await call(client)

        return self._pool.submit(asyncio.run, main()).result()


def _worth(said: _Said) -> int:
    """Who counts where one does: who is whole, and of those who is fresh. (Of equals, ``max`` takes the first.)"""
    return [State.FAILED, State.PARTIAL, State.CACHED, State.FRESH].index(said.report.state)


def _repos(lists: Iterable[tuple[str, Iterable[Entry]]]) -> tuple[Repo, ...]:
    lists = [(name, tuple(found)) for name, found in lists]
    sources: dict[str, list[str]] = {}
    for name, found in lists:
        for entry in found:
            sources.setdefault(entry.did, []).append(name)
    together = merged(*(found for _, found in lists))
    return tuple(Repo(entry.did, tuple(sources[entry.did]), entry.host, entry.record) for entry in together)
