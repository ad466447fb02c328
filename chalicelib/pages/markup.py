"""HTML as values: text is escaped wherever it is put, so that what a stranger wrote never becomes markup.

    element("a", "what is shown", href="hosts")  ->  <a href="hosts">what is shown</a>

A plain string is text; only ``Html`` is markup, and only ``element`` and ``joined`` make it.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

_VOID = frozenset({"br", "input", "link", "meta"})
_UNSEEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
"""Unicode categories: controls, format characters (which turn the direction of text), unassigned, private, surrogates."""


@dataclass(frozen=True)
class Html:
    """Markup, already escaped."""

    source: str


Content = Html | str | None
"""A string is text. ``None`` is nothing."""


def element(name: str, /, *content: Content | Iterable[Content], **attributes: str | bool | None) -> Html:
    """An element. An attribute that is ``None`` or ``False`` is left out; ``class_`` and ``data_label`` are written without
    their final underscore, and with hyphens."""
    written = "".join(map(_attribute, attributes.items()))
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{joined(*content).source}</{name}>")


def joined(*content: Content | Iterable[Content]) -> Html:
    """One after the other."""
    return Html("".join(map(_source, content)))


def _source(content: Content | Iterable[Content]) -> str:
    match content:
        case None:
            return ""
        case Html(source):
            return source
        case str(text):
            return html.escape(visible(text), quote=False)
    return "".join(map(_source, content))


def _attribute(named: tuple[str, str | bool | None]) -> str:
    name, value = named[0].rstrip("_").replace("_", "-"), named[1]
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{html.escape(visible(value))}"'


# -- what strangers wrote


def visible(text: str) -> str:
    """The text with every character that cannot be seen, or that changes how others are seen, as ``U+202E``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        f"U+{ord(each):04X}" if each != "\n" and unicodedata.category(each) in _UNSEEN else each for each in text
    )


def theirs(text: str, most: int) -> Html:
    """A stranger's text, ``most`` characters of it, apart from the direction of what stands around it."""
    shown = visible(text[: most + 1])
    return element("bdi", shown if len(shown) <= most else f"{shown[: most - 1]}…")


def outside(url: str, *content: Content) -> Html:
    """A link to another site, where the URL is one of HTTP; else its content alone."""
    if urlsplit(url).scheme not in ("http", "https"):
        return joined(*content)
    return element("a", *content, href=url, rel="nofollow noopener noreferrer")
