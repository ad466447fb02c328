"""What all pages have around them: the head, the way to the others, and the headers under which no script runs."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import quote

from chalice.app import Request, Response

from chalicelib import settings
from chalicelib.atproto.errors import InvalidSyntax
from chalicelib.atproto.syntax import parse_origin
from chalicelib.pages.markup import Content, Html, element, joined

NAME: Final = "atcr-discovery"
FRESH_SECONDS: Final = 30
"""How long a page may be shown without asking again."""
MAX_LINKED: Final = 256
"""Characters of a name that gets a page of its own; longer ones are shown without a link."""

_ICON = (
    "data:image/svg+xml,"
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><circle cx='8' cy='8' r='6' fill='none' stroke='%230f7b6c'"
    " stroke-width='2.5'/><circle cx='8' cy='8' r='2' fill='%230f7b6c'/></svg>"
)


@dataclass(frozen=True)
class Page:
    """A page. ``title`` is its first heading as well; ``here`` is the folder of the way that leads to it."""

    title: str
    content: Html
    here: str | None = None
    status: int = 200


class Site:
    """Where this site is, as seen from the page that was asked for."""

    def __init__(self, request: Request) -> None:
        context = request.context
        path = str(context.get("path") or context["resourcePath"])
        segments = [part for part in path.split("/") if part]
        own = len([part for part in context["resourcePath"].split("/") if part])
        self._before = segments[: len(segments) - own]
        self._domain = str(context.get("domainName") or "")
        # Links are relative: what a CDN has put before the path, or taken from it, does not have to be known.
        up = own - (not path.endswith("/"))
        self.root = "../" * up if up > 0 else "./" if up == 0 else f"./{quote(segments[-1])}/"

    @property
    def url(self) -> str:
        """The URL of this service as its caller knows it, without a slash at the end."""
        try:
            # Nobody is behind a plain name or address but a developer: all others are reached through TLS.
            url = parse_origin(self._domain, allow_private=True).url
        except InvalidSyntax:
            url = "https://SERVICE"
        return "/".join([url, *self._before])

    def link(self, folder: str, name: str, *content: Content) -> Html:
        """A link to the page of one host, repo or collection."""
        if len(name) > MAX_LINKED:
            return joined(*content)
        return element("a", *content, href=self.place(folder, name))

    def place(self, folder: str, name: str = "") -> str:
        """The relative URL of a page."""
        return f"{self.root}{folder}" + (f"/{quote(name, safe=':')}" if name else "")


def response(site: Site, page: Page) -> Response:
    """The page as it is sent."""
    sent = headers()
    if page.status >= 500:
        sent["Cache-Control"] = "no-store"
    return Response(_document(site, page), sent, page.status)


def headers() -> dict[str, str | list[str]]:
    """Of every page: nothing is loaded, nothing runs, nobody frames it."""
    return {
        "Content-Type": "text/html; charset=utf-8",
        "Cache-Control": f"public, max-age={FRESH_SECONDS}",
        "Content-Security-Policy": (
            f"default-src 'none'; style-src '{_style_hash()}'; img-src data:; form-action 'self'; base-uri 'none'; "
            "frame-ancestors 'none'"
        ),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


# -- the document


def _document(site: Site, page: Page) -> str:
    title = NAME if page.title == NAME else f"{page.title} · {NAME}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("title", title),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href=_ICON),
        Html(f"<style>{_style()}</style>"),
    )
    body = element(
        "body",
        element("a", "Skip to content", class_="skip", href="#content"),
        element("header", element("div", _brand(site), _ways(site, page.here), _search(site), class_="wide")),
        element("main", element("h1", page.title), page.content, id="content"),
        element(
            "footer", element("p", f"{NAME} {settings.VERSION}. Names and fields are what hosts say of themselves.")
        ),
    )
    return f'<!doctype html>\n<html lang="en">{head.source}\n{body.source}</html>\n'


def _brand(site: Site) -> Html:
    return element("a", NAME, href=site.root, class_="brand")


def _search(site: Site) -> Html:
    field = element(
        "input",
        type="search",
        name="q",
        aria_label="DID, hostname or collection",
        placeholder="DID, hostname or collection",
        maxlength="2048",
        required=True,
        spellcheck="false",
        autocapitalize="none",
    )
    return element("form", field, element("button", "Find"), role="search", action=site.place("search"))


def _ways(site: Site, here: str | None) -> Html:
    ways = {"": "Overview", "hosts": "Hosts", "docs": "API"}
    links = (
        element("a", text, href=site.place(folder), aria_current="page" if folder == here else None)
        for folder, text in ways.items()
    )
    return element("nav", links, aria_label="Pages")


@cache
def _style() -> str:
    return Path(__file__).with_name("style.css").read_text(encoding="utf-8").strip()


@cache
def _style_hash() -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()}"
