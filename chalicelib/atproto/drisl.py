"""Strict DAG-CBOR, also called DRISL: a value has exactly one encoding, and only that one is accepted.

cbor2 decodes. What it lets pass is caught in two steps: hooks refuse every tag but the link, keys that are not
strings, and keys out of order; and the value is encoded again, in its one form, and compared with what came in,
which leaves no room for long forms, other floats, simple values or trailing bytes.

Specification: https://dasl.ing/drisl.html, https://atproto.com/specs/data-model
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeAlias, cast

import cbor2

from chalicelib.atproto.cid import CID_LENGTH, CID_PREFIXES, cid_from_text, cid_to_text
from chalicelib.atproto.errors import InvalidSyntax, MalformedCbor, MalformedData

MAX_DEPTH: Final = 64
"""Containers and links within each other. Real records stay below ten; the bound keeps a hostile one off the stack."""
MAX_ITEMS: Final = 100_000
"""Values within one value. An empty list is one byte here and 64 in memory: a frame full of them took ten seconds."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link to a block: tag 42. ``cid`` is its 36 bytes."""

    cid: bytes


Value: TypeAlias = "bool | int | float | str | bytes | Link | list[Value] | dict[str, Value] | None"
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


def decode(data: bytes | memoryview) -> Value:
    """The value of one whole item. Raises MalformedCbor for all that is not its one canonical encoding."""
    value, end = decode_prefix(data)
    if end != len(data):
        raise MalformedCbor(f"followed by {len(data) - end} other bytes")
    return value


def decode_prefix(data: bytes | memoryview, offset: int = 0) -> tuple[Value, int]:
    """The item that starts at ``offset``, as strictly as ``decode``, and where the bytes after it start."""
    data = bytes(data)  # no copy of bytes; a memoryview would be compared one byte at a time
    value = _loads(memoryview(data)[offset:])
    encoded = _dumps(value)
    if not data.startswith(encoded, offset):
        raise MalformedCbor("not in canonical form")
    return value, offset + len(encoded)


def encode(value: Value) -> bytes:
    """The one encoding of a value; keys are put in order. Raises MalformedCbor for floats and text that have none."""
    return _dumps(value, canonical=True)


def to_json(value: Value) -> Json:
    """The JSON form of the atproto data model: ``{"$link": text}``, ``{"$bytes": base64 without padding}``."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, Link):
        return {"$link": cid_to_text(value.cid)}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).rstrip(b"=").decode()}
    return value


def from_json(value: Json) -> Value:
    """The value whose JSON form is an object. Raises MalformedData for what the data model doesn't allow.

    Stricter than ``decode``, as it is for what is made here: numbers are whole, a ``$type`` is text that is not empty,
    and a blob has its fields.
    """
    if not isinstance(value, dict):
        raise MalformedData("not a JSON object")
    return _from_json(value, MAX_DEPTH)


def _from_json(value: Json, depth: int) -> Value:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, float) or (isinstance(value, int) and not -(1 << 63) <= value < 1 << 63):
        raise MalformedData("a number that is not whole, or has more than 64 bits")
    if not isinstance(value, list | dict):
        return value
    if not depth:
        raise MalformedData(f"more than {MAX_DEPTH} levels")
    if isinstance(value, list):
        return [_from_json(item, depth - 1) for item in value]
    if "$link" in value or "$bytes" in value:
        return _from_form(value)
    fields = {key: _from_json(item, depth - 1) for key, item in value.items()}
    type_ = fields.get("$type", "none")
    if not type_ or not isinstance(type_, str):
        raise MalformedData("a $type that is not a text, or empty")
    if type_ == "blob" and [type(fields.get(name)) for name in ("ref", "mimeType", "size")] != [Link, str, int]:
        raise MalformedData("a blob without its ref, mimeType and size")
    return fields


def _from_form(value: dict[str, Json]) -> Link | bytes:
    try:
        match value:
            case {"$link": str(text), **rest} if not rest:
                return Link(cid_from_text(text))
            case {"$bytes": str(text), **rest} if not rest:
                return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
    except (InvalidSyntax, ValueError) as error:
        raise MalformedData(str(error)) from error
    raise MalformedData("a $link or $bytes that is not one text alone")


def _loads(data: memoryview) -> Value:
    if len(data) > MAX_ITEMS:
        _check_count(data)
    try:
        return cast(
            Value,
            cbor2.loads(
                data,
                semantic_decoders=_TAGS,
                object_hook=_check_keys,
                max_depth=MAX_DEPTH,
                allow_indefinite=False,
                allow_duplicate_keys=False,
            ),
        )
    except cbor2.CBORDecodeError as error:
        raise MalformedCbor(f"{error}: {error.__cause__}" if error.__cause__ else str(error)) from error


def _check_count(data: memoryview) -> None:
    """Raises MalformedCbor where the item at the start has more than MAX_ITEMS in it; all other faults are cbor2's."""
    at, expected = 0, 1
    for _ in range(MAX_ITEMS):
        if not expected or at >= len(data):
            return
        kind, size = data[at] >> 5, data[at] & 31
        at += 1
        if size > 27:
            return
        if size > 23:
            width = 1 << (size - 24)
            size = int.from_bytes(data[at : at + width], "big")
            at += width
        expected += {4: size, 5: 2 * size, 6: 1}.get(kind, 0) - 1
        if kind in (2, 3):
            at += size
    if expected:
        raise MalformedCbor(f"more than {MAX_ITEMS} values")


def _dumps(value: Value, canonical: bool = False) -> bytes:
    try:
        return cbor2.dumps(value, canonical=canonical, encoders=_ENCODERS)
    except (cbor2.CBOREncodeError, UnicodeEncodeError) as error:
        raise MalformedCbor(str(error)) from error


def _check_keys(items: Mapping[Any, Any], immutable: bool) -> Mapping[Any, Any]:
    if not {*map(type, items)} <= {str}:
        raise MalformedCbor("a map key is not a string")
    keys = [key.encode() for key in items]
    if keys != sorted(sorted(keys), key=len):
        raise MalformedCbor("map keys are not in order")
    return items


def _read_link(value: Any, immutable: bool) -> Link:
    if type(value) is not bytes or len(value) != CID_LENGTH + 1 or value[:5] not in _LINK_PREFIXES:
        raise MalformedCbor("a link that is not a zero byte and the CID of a dag-cbor or raw block")
    return Link(value[1:])


def _refuse_tag(value: Any, immutable: bool) -> NoReturn:
    raise MalformedCbor("a tag other than 42")


class _OnlyLinks(dict[int, Any]):
    """Answers for every tag number, so that cbor2's own readings of tags (dates, patterns, shared values) never run."""

    def __missing__(self, tag: int) -> Any:
        return _refuse_tag


def _write_link(encoder: cbor2.CBOREncoder, link: Link) -> None:
    encoder.write(b"\xd8\x2a\x58\x25\x00" + link.cid)


def _write_float(encoder: cbor2.CBOREncoder, value: float) -> None:
    if not math.isfinite(value) or (value == 0 and math.copysign(1, value) < 0):
        raise MalformedCbor("a float that is not a number, infinite, or minus zero")
    encoder.write(struct.pack(">Bd", 0xFB, value))


def _refuse_value(encoder: cbor2.CBOREncoder, value: Any) -> NoReturn:
    raise MalformedCbor(f"a value that the data model does not have: {value!r}")


_LINK_PREFIXES: Final = frozenset(b"\0" + prefix for prefix in CID_PREFIXES)
_TAGS: Final = _OnlyLinks({42: _read_link})
_ENCODERS: Final[dict[type, cbor2.EncoderHook]] = {
    Link: _write_link,
    float: _write_float,
    cbor2.CBORSimpleValue: _refuse_value,
    type(cbor2.undefined): _refuse_value,
}
