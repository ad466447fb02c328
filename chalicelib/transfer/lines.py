"""The lines of an export: a JSON object each, with one member, whose name is the line's kind.

    {"export":{"format":1}}                                            first
    {"host":{"origin":"hold01.atcr.io","status":"active",...}}         all hosts
    {"repo":{"did":"did:web:hold01.atcr.io","rev":"3l...",...}}        each repo, and after it
    {"record":{"did":...,"path":"io.atcr.hold.captain/self","cid":...,"rev":...,"value":{...}}}
    {"listing":{"collection":...,"key":...}}                           its records and its places in listings
    {"state":{"kind":"ban","id":"example.net",...}}                    banned domains, heads of listings
    {"end":{"lines":5}}                                                last: how many there are before it

Members are the attributes of the rows (``index.tables``), without those that are absent, the keys first. Left out is what belongs
to processes: who follows a host, jobs, budgets, caches, progress at other services, and the audit log: one that can be brought
in from a file would prove nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import IO, Any, Final

from pynamodb.attributes import BooleanAttribute, JSONAttribute, NumberAttribute
from pynamodb.models import Model

from chalicelib.crawl.bans import BAN
from chalicelib.index.state import LISTING_HEAD
from chalicelib.index.tables import NOBODY, HostRow, ListingRow, RecordRow, RepoRow, StateRow

FORMAT: Final = 1
"""Rises when an earlier version could not read the lines, or would read them wrongly."""
FIRST, LAST = "export", "end"
STATES: Final = (BAN, LISTING_HEAD)
"""Kinds of the state rows that move."""
MAX_LINE: Final = 2_000_000
"""Bytes. An item of DynamoDB has 400 KB, of which JSON may make a multiple."""
MODELS: Final[Mapping[str, type[Model]]] = {
    "host": HostRow,
    "repo": RepoRow,
    "record": RecordRow,
    "listing": ListingRow,
    "state": StateRow,
}
_LEFT_OUT: Final = {
    "host": frozenset({"attention_at", "connected_at", "crawl_job", "crawl_until", "stream_error"}),
    "repo": frozenset({"job", "job_until"}),
}
KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "host": ("origin",),
    "repo": ("did",),
    "record": ("did", "path"),
    "listing": ("collection", "key"),
    "state": ("kind", "id"),
}


class ForeignLine(Exception):
    """Not a line of an export that this version can read; the message says why."""


def to_line(kind: str, content: Mapping[str, Any]) -> bytes:
    """A line, with its end."""
    return json.dumps({kind: content}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def line_of(kind: str, row: Model) -> bytes:
    """The line of a row."""
    keys, left_out = KEYS[kind], _LEFT_OUT.get(kind, frozenset())
    values = {name: value for name, value in row.attribute_values.items() if value is not None and name not in left_out}
    if kind == "host" and "owner" in values:
        values["owner"] = NOBODY
    if kind == "record" and "value" in values:
        values["value"] = json.loads(values["value"])
    return to_line(kind, {name: values[name] for name in (*keys, *sorted(values.keys() - set(keys)))})


def read(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file; of one that is too long, no more than shows that."""
    return iter(partial(file.readline, MAX_LINE + 1), b"")


def parse(line: bytes) -> tuple[str, dict[str, Any]]:
    """Kind and content of a line. Raises ``ForeignLine``."""
    if len(line) > MAX_LINE:
        raise ForeignLine(f"it has more than {MAX_LINE} bytes")
    if not line.endswith(b"\n"):
        raise ForeignLine("it is cut off")
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ForeignLine(f"no JSON: {error}") from error
    match found:
        case dict() if len(found) == 1:
            ((kind, content),) = found.items()
            if isinstance(content, dict) and (kind in MODELS or kind in (FIRST, LAST)):
                return kind, content
            raise ForeignLine(f"there are no lines of the kind {kind[:40]!r}")
        case _:
            raise ForeignLine("no object with one member, whose name is the kind of the line")


def row_of(kind: str, content: Mapping[str, Any], *, now: int) -> Model:
    """The row of a line, as somebody finds it who begins at ``now``, UTC ms. Raises ``ForeignLine``."""
    model = MODELS[kind]
    attributes = model.get_attributes()
    for name, value in content.items():
        if name not in attributes or name in _LEFT_OUT.get(kind, frozenset()):
            raise ForeignLine(
                f"a {kind} has no {name[:40]!r} here: the line is of a later version, or of something else"
            )
        if not _fits(kind, name, attributes[name], value):
            raise ForeignLine(f"{name} of a {kind} cannot be {json.dumps(value)[:60]}")
    if missing := [
        name for name, one in attributes.items() if not one.null and one.default is None and name not in content
    ]:
        raise ForeignLine(f"a {kind} without {', '.join(sorted(missing))}")
    values = dict(content)
    if kind == "host" and "owner" in values:
        if values["owner"] != NOBODY:
            raise ForeignLine(f"a host's owner is {NOBODY!r}, or absent")
        values["attention_at"] = now
    if kind == "record" and "value" in values:
        values["value"] = json.dumps(values["value"], ensure_ascii=False, separators=(",", ":"))
    if kind == "state" and values["kind"] not in STATES:
        raise ForeignLine(f"a state of the kind {values['kind'][:40]!r} does not move")
    return model(**values)


def _fits(kind: str, name: str, attribute: Any, value: Any) -> bool:
    if (kind, name) == ("record", "value"):
        return isinstance(value, dict)
    if isinstance(attribute, JSONAttribute):
        return isinstance(value, dict | list)
    if isinstance(attribute, BooleanAttribute):
        return isinstance(value, bool)
    if isinstance(attribute, NumberAttribute):
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, str) and bool(value or name not in KEYS[kind])
