"""What several pages are made of: tables, moments, states, pairs of names and values."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from chalicelib.api.health import longest_silence
from chalicelib.index.clock import now_ms
from chalicelib.index.reader import Reader
from chalicelib.index.rows import Row
from chalicelib.index.state import SUBSCRIBER
from chalicelib.pages.frame import Site
from chalicelib.pages.markup import Content, Html, element, theirs

NOTHING: Final = element("span", "–", class_="quiet")
"""Where there is nothing to show."""
INSECURE: Final = "http://"
"""How the keys of hosts without TLS begin, in development. Their pages go without: a slash would part the path."""
_UNITS: Final = (("day", 86_400), ("hour", 3_600), ("minute", 60))
_MOODS: Final = {
    **dict.fromkeys(("active", "connected", "public", "synced"), "good"),
    "private": "quiet",
    **dict.fromkeys(("offline", "desynchronized", "idle", "new"), "fair"),
    **dict.fromkeys(("banned", "refused", "takendown", "suspended", "deactivated", "deleted"), "poor"),
}


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[Content]]) -> Html:
    """A table that becomes a list where there is no room beside each other. The first column names the row."""
    # Where CSS has made blocks of rows, browsers take them to be a table only by their roles.
    head = element("tr", (element("th", name, scope="col", role="columnheader") for name in columns), role="row")
    body = (
        element(
            "tr",
            element("th", row[0], scope="row", role="rowheader"),
            (
                element("td", cell or NOTHING, role="cell", data_label=name)
                for name, cell in zip(columns[1:], row[1:], strict=True)
            ),
            role="row",
        )
        for row in rows
    )
    return element(
        "table",
        element("caption", caption),
        element("thead", head, role="rowgroup"),
        element("tbody", body, role="rowgroup"),
        role="table",
    )


def section(title: str, *content: Content | Iterable[Content], id: str | None = None, note: Content = None) -> Html:
    """A part of a page under a heading of its own."""
    heading = element("h2", title, id=id)
    return element("section", heading, element("p", note, class_="quiet") if note else None, *content)


def pairs(named: Mapping[str, Content]) -> Html:
    """Names and values, those without a value left out."""
    return element(
        "dl", (element("div", element("dt", name), element("dd", value)) for name, value in named.items() if value)
    )


def state(name: str) -> Html:
    """The name of a state, with a mark of its colour beside it."""
    return element("span", name, class_=f"state {_MOODS.get(name, 'fair')}")


def moment(milliseconds: float | None) -> Html | None:
    """How long ago, or ahead, a moment in UTC ms is."""
    if milliseconds is None:
        return None
    away = (now_ms() - int(milliseconds)) / 1000
    unit, size = next(((unit, size) for unit, size in _UNITS if abs(away) >= size), ("", 0))
    count = int(abs(away) // size) if size else 0
    words = f"{count} {unit}{'s' * (count != 1)}" if unit else ""
    shown = (f"{words} ago" if away >= 0 else f"in {words}") if words else ("just now" if away >= 0 else "in a moment")
    at = datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
    return element("time", shown, datetime=f"{at:%Y-%m-%dT%H:%M:%SZ}", title=f"{at:%Y-%m-%d %H:%M:%S} UTC")


def alive(reader: Reader) -> dict[str, Row]:
    """The heartbeats of the subscribers that are alive, by their ids."""
    beats, since = reader.state(SUBSCRIBER), now_ms() - 1000 * longest_silence()
    return {id: beat for id, beat in beats.items() if beat["at"] >= since}


def last_seen(host: Row, subscribers: Container[str]) -> Html | None:
    """When a host last answered or sent something, as far as its row has it. ``subscribers``: those that are alive."""
    if "connected_at" in host and "stream_error" not in host and host.get("owner") in subscribers:
        return state("connected")
    return moment(
        max((host[name] for name in ("connected_at", "cursor_at", "crawled_at") if name in host), default=None)
    )


def host_link(site: Site, key: str, most: int) -> Html:
    """A host's name, with the way to its page."""
    return site.link("hosts", key.removeprefix(INSECURE), theirs(key, most))


def repo_link(site: Site, did: str, most: int = 80) -> Html:
    """A DID, with the way to its repo's page."""
    return site.link("repos", did, theirs(did, most))


def command(text: str) -> Html:
    """What to type into a shell."""
    return element("pre", element("code", text))


def paragraph(*content: Content) -> Html:
    """A paragraph."""
    return element("p", *content)


def code(text: str) -> Html:
    """A name from a program."""
    return element("code", text)


def onward(href: str, text: str) -> Html:
    """The way to what comes next."""
    return element("p", element("a", text, href=href), class_="onward")


def nothing_yet(text: str) -> Html:
    """What is said where a table would be empty."""
    return element("p", text, class_="empty")
