"""How each kind of source is asked: a service, page by page and for no more than is new; a file, by path or URL."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from discovery_client import entries
from discovery_client.cache import Kept
from discovery_client.entries import Entry
from discovery_client.errors import BadAnswer, Refused, Unreachable
from discovery_client.web import Web

PAGE = 2_000
"""DIDs: the most that the lexicon allows."""


@dataclass
class Question:
    """What a source is asked. ``so_far`` gets what it says, page by page: what is left of an answer that breaks off."""

    collection: str
    kept: Kept | None
    """Its last whole answer."""
    only_new: bool
    """Whether it may be asked for no more than what was listed since."""
    now: float
    most_pages: int
    so_far: list[Entry]


class Source(Protocol):
    """Somebody who knows repos."""

    @property
    def name(self) -> str: ...

    async def ask(self, web: Web, question: Question) -> Kept:
        """The whole answer. Raises SourceFailed."""


@dataclass(frozen=True)
class Service:
    """A discovery service, at ``https://name`` or the like."""

    name: str

    @classmethod
    def at(cls, text: str) -> Service:
        """``discovery.example``, or a URL, also with a path. Raises ValueError."""
        url = text if "://" in text else f"https://{text}"
        if not re.fullmatch(r"https?://[^\s/?#@\\][^\s?#@\\]*", url):
            raise ValueError(f"not the address of a service: {entries.shown(text)}")
        return cls(url.rstrip("/"))

    async def ask(self, web: Web, question: Question) -> Kept:
        kept = question.kept
        if kept and question.only_new and kept.cursor:
            try:
                return await self._walk(web, question, kept.cursor, kept.etag)
            except Refused as refused:
                if refused.status != 400:
                    raise
                # It does not know its cursor any more: all of it, then.
                question.so_far.clear()
        return await self._walk(web, question, None, kept.etag if kept and not kept.cursor else None)

    async def _walk(self, web: Web, question: Question, since: str | None, etag: str | None) -> Kept:
        """From the cursor ``since`` to the end. ``etag``: of what was answered to it last."""
        before = question.kept if since else None
        whole_at = before.whole_at if before else question.now
        url = f"{self.name}/xrpc/com.atproto.sync.listReposByCollection"
        what: dict[str, str | int] = {"collection": question.collection, "limit": PAGE}
        pages = web.pages(url, what, entries.page, most=question.most_pages, cursor=since, etag=etag)
        async for cursor, answer, found in pages:
            if question.kept and answer.status == 304:
                return Kept(question.kept.entries, cursor, etag, whole_at, question.now)
            question.so_far.extend(found)
        known = merged(before.entries if before else (), question.so_far)
        return Kept(known, cursor, answer.etag, whole_at, question.now)


@dataclass(frozen=True)
class File:
    """A list that somebody keeps: a path, or a URL such as ``https://discovery.example/.well-known/holds.json``."""

    name: str

    async def ask(self, web: Web, question: Question) -> Kept:
        kept, etag = question.kept, None
        if self.name.startswith(("https://", "http://")):
            answer = await web.get(self.name, etag=kept.etag if kept else None)
            if kept and answer.status == 304:
                return Kept(kept.entries, None, kept.etag, question.now, question.now)
            content, etag = answer.body, answer.etag
        else:
            content = await asyncio.to_thread(self._read, web.bytes_left)
        found = entries.listed(content, question.collection)
        return Kept(merged(found), None, etag, question.now, question.now)

    def _read(self, most: int) -> bytes:
        try:
            with Path(self.name).expanduser().open("rb") as file:
                content = file.read(most + 1)
        except OSError as error:
            raise Unreachable(f"it cannot be read ({error.strerror})") from error
        if len(content) > most:
            raise BadAnswer("it has more bytes than are allowed")
        return content


def merged(*lists: Iterable[Entry]) -> tuple[Entry, ...]:
    """Each DID once, where it came first, with what is told of it first."""
    found: dict[str, Entry] = {}
    for entry in (entry for entries_ in lists for entry in entries_):
        known = found.get(entry.did)
        if known is None:
            found[entry.did] = entry
        elif (known.host, known.record) != (entry.host, entry.record):
            found[entry.did] = Entry(entry.did, known.host or entry.host, known.record or entry.record)
    return tuple(found.values())
