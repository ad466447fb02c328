"""The API for people to read: its OpenAPI description as a page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from chalice.app import Request

from chalicelib.api import openapi
from chalicelib.pages.frame import Page, Site
from chalicelib.pages.markup import Html, element, joined
from chalicelib.pages.parts import code, command, paragraph, section

Object = Mapping[str, Any]

_GROUPS: Final = {"xrpc": "Methods", "admin": "For operators", "": "Besides"}
_DEEP: Final = 4
"""Levels of an answer's shape that are written out."""


def docs(request: Request, site: Site) -> Page:
    """What stands at ``/docs``."""
    about = paragraph(
        "JSON over HTTP; methods are called at ",
        code(f"{site.url}/xrpc/NSID"),
        ". Errors are ",
        code('{"error": Name, "message": text}'),
        "; reads allow any origin, and need no key. The same for programs: the ",
        element("a", "OpenAPI description", href=site.place("openapi.json")),
        ".",
    )
    return Page("The API", joined(about, _content()), "docs")


@cache
def _content() -> Html:
    document = json.loads(openapi.FILE.read_text(encoding="utf-8"))
    groups: dict[str, list[tuple[str, str, Object]]] = {name: [] for name in _GROUPS}
    for path, operations in document["paths"].items():
        for verb, operation in operations.items():
            tag = next(iter(operation.get("tags", ())), "")
            groups.setdefault(tag, []).append((verb.upper(), path, operation))
    known = {tag["name"]: tag.get("description") for tag in document["tags"]}
    return joined(
        section(
            _GROUPS.get(tag, tag),
            _index(operations),
            (_operation(document, *operation) for operation in operations),
            note=known.get(tag),
        )
        for tag, operations in groups.items()
        if operations
    )


def _index(operations: list[tuple[str, str, Object]]) -> Html:
    links = (element("a", _name(path), href=f"#{_name(path)}") for _, path, _ in operations)
    return element("ul", (element("li", link) for link in links), class_="index")


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _operation(document: Object, verb: str, path: str, operation: Object) -> Html:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    return element(
        "article",
        element("h3", element("span", verb, class_="verb"), " ", code(path)),
        paragraph(operation.get("description")),
        _parameters(document, operation.get("parameters", ())),
        joined(paragraph("Body"), command(_shape(document, body["schema"]))) if body else None,
        _answers(document, operation["responses"]),
        id=_name(path),
    )


def _parameters(document: Object, parameters: Any) -> Html | None:
    if not parameters:
        return None
    rows = (
        element(
            "div",
            element("dt", code(each["name"]), element("span", "" if each["required"] else " optional", class_="quiet")),
            element("dd", _about(document, each["schema"])),
        )
        for each in parameters
    )
    return element("dl", rows)


def _about(document: Object, schema: Object) -> Html:
    bounds = [
        *([f"{schema['minimum']} to {schema['maximum']}"] if {"minimum", "maximum"} <= schema.keys() else []),
        *([f"default {json.dumps(schema['default'])}"] if "default" in schema else []),
        *([f"up to {schema['maxItems']} times"] if "maxItems" in schema else []),
    ]
    kind = _shape(document, schema["items"] if "maxItems" in schema else schema)
    return joined(code(kind), element("span", "".join(f", {bound}" for bound in bounds)), _described(schema))


def _described(schema: Object) -> Html | None:
    text = schema.get("description")
    return element("span", f". {text}", class_="quiet") if text else None


def _answers(document: Object, responses: Object) -> Html:
    done = next(status for status in responses if status.startswith(("2", "3")))
    found = responses[done]
    schema = found.get("content", {}).get("application/json", {}).get("schema")
    shape = _shape(document, schema) if schema else ""
    errors = list(_errors(responses))
    return joined(
        paragraph(element("span", done, class_="verb"), " ", found.get("description")),
        command(shape) if shape not in ("", "object") else None,
        paragraph("Errors: ", _listed(errors)) if errors else None,
    )


def _errors(responses: Object) -> Iterator[str]:
    schema = responses.get("400", {}).get("content", {}).get("application/json", {}).get("schema", {})
    for part in schema.get("allOf", ()):
        yield from part.get("properties", {}).get("error", {}).get("enum", ())


def _listed(names: list[str]) -> Html:
    return joined(joined(", " if place else None, code(name)) for place, name in enumerate(names))


# -- shapes


def _shape(document: Object, schema: Object, depth: int = 0) -> str:
    """A schema as it reads in JSON: ``{did: did, rev?: tid}``; what may be absent has a question mark."""
    if "$ref" in schema:
        return _shape(document, _resolved(document, schema["$ref"]), depth)
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " | ".join(map(json.dumps, schema["enum"]))
    kind = schema.get("type", "any")
    if isinstance(kind, list):
        return " | ".join(kind)
    if kind == "array":
        return f"[{_shape(document, schema.get('items', {}), depth)}]"
    if kind != "object" or not schema.get("properties") or depth == _DEEP:
        return str(schema.get("format", kind))
    needed, indent = schema.get("required", ()), "  " * (depth + 1)
    members = (
        f"{indent}{name}{'' if name in needed else '?'}: {_shape(document, part, depth + 1)}"
        for name, part in schema["properties"].items()
    )
    return "{\n" + ",\n".join(members) + "\n" + "  " * depth + "}"


def _resolved(document: Object, reference: str) -> Object:
    found: Any = document
    for name in reference.removeprefix("#/").split("/"):
        found = found[name]
    return dict(found)
