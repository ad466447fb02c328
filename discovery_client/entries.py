"""What a source says of one repo, and how it is read: pages of listReposByCollection, holds.json, lines of DIDs and hosts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from discovery_client.errors import BadAnswer

HOLDS = "io.atcr.hold.captain"
"""The collection of which a holds.json is."""

_DID = re.compile(r"did:[a-z]+:[a-zA-Z0-9._:%-]*[a-zA-Z0-9._-]")
_DID_WEB_PORT = re.compile(r"(did:web:[^:%]+)(?::|%3[aA])([0-9]{1,5})")
_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?:http://)?{_LABEL}(?:\.{_LABEL})*(?::[0-9]{{1,5}})?")


@dataclass(frozen=True)
class Entry:
    """``host`` and ``record``, of the collection, where the source tells them."""

    did: str
    host: str | None = None
    record: Mapping[str, Any] | None = None


def canonical_did(text: object) -> str | None:
    """A DID, one spelling for the port of a did:web; None for what is none."""
    if not isinstance(text, str) or len(text) > 2048 or not _DID.fullmatch(text):
        return None
    port = _DID_WEB_PORT.fullmatch(text)
    return f"{port[1]}%3A{port[2]}" if port else text


def bare_host(text: object) -> str | None:
    """``hold01.atcr.io``; ``http://localhost:8080`` where somebody develops; None for what is no host."""
    if not isinstance(text, str):
        return None
    host = re.sub(r"^https://|/$", "", text.lower())
    return host if _HOST.fullmatch(host) and len(host) <= 259 else None


def registered(text: str) -> Entry:
    """Who was registered by hand: a DID, or a host, whose did:web it is. Raises ValueError."""
    text = text.strip()
    if text.startswith("did:"):
        did, host = canonical_did(text), None
    else:
        host = bare_host(text)
        did = host and f"did:web:{host.removeprefix('http://').replace(':', '%3A')}"
    if did is None:
        raise ValueError(f"neither a DID nor a host: {shown(text)}")
    return Entry(did, host)


def page(body: bytes) -> tuple[tuple[Entry, ...], str | None]:
    """A page of listReposByCollection, and the cursor. What is no DID in it is passed over. Raises BadAnswer."""
    items, cursor = _page(body, "repos")
    return _entries(items), cursor


def hosts_page(body: bytes) -> tuple[list[tuple[str, str]], str | None]:
    """A page of listHosts: hostnames with their status (empty: not told), and the cursor. Raises BadAnswer."""
    items, cursor = _page(body, "hosts")
    known = [(bare_host(item.get("hostname")), item.get("status")) for item in items if isinstance(item, dict)]
    return [(name, status if isinstance(status, str) else "") for name, status in known if name], cursor


def listed(content: bytes, collection: str) -> tuple[Entry, ...]:
    """A file: holds.json, or lines with a DID or a host each (``#`` begins a comment). Raises BadAnswer."""
    if not content.lstrip().startswith(b"{"):
        return _lines(content)
    match _json(content):
        case {"version": 1, "holds": list(items)}:
            if collection != HOLDS:
                raise BadAnswer(f"it is a list of holds, and has nothing about {collection}")
            return _entries(items)
        case {"version": version, "holds": list()}:
            raise BadAnswer(f"it is a list of holds in version {shown(str(version))}; 1 is known here")
    raise BadAnswer("it is neither a list of holds nor lines with a DID or a host each")


def read_entry(value: object) -> Entry | None:
    """``{"did": ...}`` of a page, with more in holds.json, or as ``to_json`` wrote it; None for anything else."""
    if not isinstance(value, dict) or (did := canonical_did(value.get("did"))) is None:
        return None
    record = value.get("record")
    return Entry(
        did, bare_host(value.get("host")), record if isinstance(record, dict) and _is_shallow(record) else None
    )


def to_json(entry: Entry) -> dict[str, Any]:
    values = {"did": entry.did, "host": entry.host, "record": entry.record}
    return {name: value for name, value in values.items() if value is not None}


def error(body: bytes) -> tuple[str, str]:
    """Name and message of an XRPC error, to be shown; empty where there are none."""
    try:
        said = _json(body)
    except BadAnswer:
        return "", ""
    if not isinstance(said, dict):
        return "", ""
    name, message = (said.get(key) for key in ("error", "message"))
    return (name if isinstance(name, str) and re.fullmatch(r"\w{1,60}", name) else ""), shown(message or "")


def shown(text: object) -> str:
    """Some other's text on a terminal: one line, no control characters, not long."""
    line = "".join(character if character.isprintable() else "�" for character in str(text))
    return line if len(line) <= 200 else f"{line[:200]}…"


def _entries(items: list[object]) -> tuple[Entry, ...]:
    return tuple(entry for item in items if (entry := read_entry(item)))


def _lines(content: bytes) -> tuple[Entry, ...]:
    try:
        lines = [line.partition("#")[0].strip() for line in content.decode().splitlines()]
        return tuple(registered(line) for line in lines if line)
    except ValueError as wrong:  # UnicodeDecodeError is one
        raise BadAnswer(shown(wrong)) from None


def _json(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise BadAnswer("it answers something else than JSON") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _is_shallow(value: object, levels: int = 64) -> bool:
    """Whether it can be copied and written again without fear for the stack."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_is_shallow(item, levels - 1) for item in inside)


def _page(body: bytes, name: str) -> tuple[list[object], str | None]:
    """The list called ``name`` and the cursor."""
    content = _json(body)
    items = content.get(name) if isinstance(content, dict) else None
    if not isinstance(items, list):
        raise BadAnswer(f"it answers something else than a page of {name}")
    match content.get("cursor"):
        case None | "":
            return items, None
        case str(cursor) if cursor.isascii() and cursor.isprintable():
            return items, cursor
    raise BadAnswer("its cursor is no plain text")
