"""The description of the API (OpenAPI 3.1), made of the lexicons of what is served: ``python -m chalicelib.api.openapi``.

A new method needs its lexicon in ``lexicons/``, its line in ``methods.METHODS``, and this command. What is served is the file
that the command writes, as it is. Lexicons: https://atproto.com/specs/lexicon
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from chalice.app import Response

FILE: Final = Path(__file__).with_suffix(".json")
LEXICONS: Final = Path(__file__).parents[2] / "lexicons"

Object = dict[str, Any]


def served() -> Response:
    """The description, as it was written."""
    return Response(FILE.read_text(encoding="utf-8"), {"Content-Type": "application/json"}, 200)


@dataclass(frozen=True)
class Beyond:
    """Where a method is not just as its lexicon says. ``repeated``: how often a parameter may be given; ``elsewhere``: the
    caller is sent on to the repo's PDS."""

    errors: tuple[str, ...] = ()
    repeated: Mapping[str, int] = field(default_factory=dict)
    elsewhere: bool = False


_OF_REPOS: Final = ("RepoNotFound", "RepoTakendown", "RepoSuspended", "RepoDeactivated")
_OF_COLLECTIONS: Final = ("CollectionNotIndexed", "CollectionIncomplete")
BEYOND: Final[Mapping[str, Beyond]] = {
    "com.atproto.repo.describeRepo": Beyond(_OF_REPOS),
    "com.atproto.repo.getRecord": Beyond((*_OF_REPOS, *_OF_COLLECTIONS)),
    "com.atproto.repo.listRecords": Beyond((*_OF_REPOS, *_OF_COLLECTIONS)),
    "com.atproto.sync.getRecord": Beyond(elsewhere=True),
    "com.atproto.sync.getRepo": Beyond(elsewhere=True),
    "com.atproto.sync.listReposByCollection": Beyond(_OF_COLLECTIONS, repeated={"collection": 10}),
    "com.atproto.sync.requestCrawl": Beyond(("HostNotFound",)),
}


def document() -> Object:
    """The description, anew."""
    from chalicelib.api import methods
    from chalicelib.settings import VERSION

    nsids = [name for name in methods.METHODS if name != "_health"]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "atcr-discovery",
            "version": VERSION,
            "description": "Finds the holds of ATCR, and any other repos on the AT Protocol that have records of a collection.",
        },
        "servers": [{"url": "."}],  # where this document is
        "tags": [{"name": "xrpc"}, {"name": "admin", "description": "For operators, who have the token."}],
        "paths": {
            **{f"/xrpc/{nsid}": _method(nsid, methods.METHODS[nsid].verb) for nsid in nsids},
            "/xrpc/_health": {"get": _health()},
            **{path: {"get": operation} for path, operation in _documents().items()},
            **_admin(),
        },
        "components": {
            "schemas": {
                "Error": _ERROR,
                **_operators_schemas(),
                **{name: schema for nsid in nsids for name, schema in _schemas(nsid)},
            },
            "responses": dict(_COMMON),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


# -- lexicons


@cache
def lexicon(nsid: str) -> Mapping[str, Any]:
    """The lexicon of that name. Raises ``FileNotFoundError``."""
    found: Mapping[str, Any] = json.loads((LEXICONS / f"{nsid.replace('.', '/')}.json").read_text(encoding="utf-8"))
    return found


def _method(nsid: str, verb: str) -> Object:
    main, beyond = lexicon(nsid)["defs"]["main"], BEYOND.get(nsid, Beyond())
    names = [error["name"] for error in main.get("errors", [])] + list(beyond.errors)
    operation: Object = {
        "operationId": nsid,
        "tags": ["xrpc"],
        "description": main.get("description", ""),
        "responses": {**_success(nsid, main, beyond), "400": _refusal(names), **_common("429", "5XX")},
    }
    if parameters := main.get("parameters"):
        operation["parameters"] = list(_parameters(nsid, parameters, beyond))
    if body := main.get("input"):
        content = {body["encoding"]: {"schema": _schema(nsid, body["schema"])}}
        operation["requestBody"] = {"required": True, "content": content}
        operation["responses"] |= _common("415")
    return {verb.lower(): operation}


def _success(nsid: str, main: Mapping[str, Any], beyond: Beyond) -> Object:
    if beyond.elsewhere:
        location = {"required": True, "schema": {"type": "string", "format": "uri"}}
        return {"302": {"description": "Ask there: the repo's PDS has it.", "headers": {"Location": location}}}
    if "output" not in main:
        return {"200": {"description": "Done. There is no body."}}
    return {"200": _json(_schema(nsid, main["output"]["schema"]))}


def _parameters(nsid: str, parameters: Mapping[str, Any], beyond: Beyond) -> Iterator[Object]:
    for name, definition in parameters["properties"].items():
        schema = _schema(nsid, definition)
        if most := beyond.repeated.get(name):
            schema = {"type": "array", "items": schema, "minItems": 1, "maxItems": most}
        yield _parameter(name, schema, required=name in parameters.get("required", ()))


def _parameter(name: str, schema: Object, *, required: bool = False) -> Object:
    return {"name": name, "in": "query", "required": required, "schema": schema}


def _schemas(nsid: str) -> Iterator[tuple[str, Object]]:
    """The definitions of a lexicon but for the method, and those that they name in other lexicons."""
    for name, definition in lexicon(nsid)["defs"].items():
        for other in _named(definition):
            if not other.startswith("#") and other.partition("#")[0] != nsid:
                yield from _schemas(other.partition("#")[0])
        if name != "main":
            yield f"{nsid}.{name}", _schema(nsid, definition)


def _named(definition: Any) -> Iterator[str]:
    if isinstance(definition, dict):
        if definition.get("type") == "ref":
            yield definition["ref"]
        for part in definition.values():
            yield from _named(part)


_KEPT: Final = ("description", "default", "minimum", "maximum", "minLength", "maxLength", "enum", "const")
_FORMATS: Final[Mapping[str, Object]] = {
    "at-uri": {"pattern": "^at://"},
    "cid": {"pattern": "^b[a-z2-7]+$"},
    "datetime": {"format": "date-time"},
    "did": {"pattern": "^did:[a-z]+:[a-zA-Z0-9._:%-]*[a-zA-Z0-9._-]$", "maxLength": 2048},
    "nsid": {"pattern": r"^[a-zA-Z][a-zA-Z0-9-]*(\.[a-zA-Z0-9-]+)+\.[a-zA-Z][a-zA-Z0-9]*$", "maxLength": 317},
    "record-key": {"pattern": "^[a-zA-Z0-9_~.:-]{1,512}$"},
    "tid": {"pattern": "^[2-7a-j][2-7a-z]{12}$"},
}


def _schema(nsid: str, definition: Mapping[str, Any]) -> Object:
    """A lexicon's definition as JSON Schema. Raises ``ValueError`` for a type that no method here has needed yet."""
    found: Object = {name: definition[name] for name in _KEPT if name in definition}
    match definition["type"]:
        case "string":
            form = {"format": definition["format"]} if "format" in definition else {}
            known = {"examples": definition["knownValues"]} if "knownValues" in definition else {}
            return {"type": "string"} | form | _FORMATS.get(definition.get("format", ""), {}) | known | found
        case "integer" | "boolean" as kind:
            return {"type": kind} | found
        case "unknown":
            return {"type": "object"} | found
        case "array":
            return {"type": "array", "items": _schema(nsid, definition["items"])} | found
        case "object":
            properties = {name: _schema(nsid, part) for name, part in definition.get("properties", {}).items()}
            required = {"required": definition["required"]} if definition.get("required") else {}
            return {"type": "object", "properties": properties} | required | found
        case "ref":
            where, _, name = definition["ref"].partition("#")
            return {"$ref": f"#/components/schemas/{where or nsid}.{name or 'main'}"}
    raise ValueError(f"{nsid}: {definition['type']}")


# -- answers


def _json(schema: Object, description: str = "Done.") -> Object:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _refusal(names: list[str]) -> Object:
    known = ["InvalidRequest", *dict.fromkeys(names)]
    schema = {"allOf": [_REF_ERROR, {"properties": {"error": {"enum": known}}}]}
    return _json(schema, "Refused: the message says what would be right.")


def _common(*statuses: str) -> Object:
    return {status: {"$ref": f"#/components/responses/{status}"} for status in statuses}


_REF_ERROR: Final = {"$ref": "#/components/schemas/Error"}
_ERROR: Final[Object] = {
    "type": "object",
    "required": ["error", "message"],
    "properties": {
        "error": {"type": "string", "minLength": 1, "description": "What a program goes by."},
        "message": {"type": "string", "minLength": 1, "description": "What a person goes by."},
    },
}
_COMMON: Final[Mapping[str, Object]] = {
    "401": _json(_REF_ERROR, "The token is missing or wrong."),
    "415": _json(_REF_ERROR, "The body is of another type."),
    "429": _json(_REF_ERROR, "Too many requests: try again after so many seconds as Retry-After says."),
    "5XX": _json(_REF_ERROR, "Something is wrong here: try again later."),
}


# -- what has no lexicon


def _health() -> Object:
    subscriber = _object({"age": {"type": ["number", "null"]}, "alive": _COUNT, "hosts": _COUNT, "open": _COUNT})
    schema = _object({"version": _TEXT, "subscriber": subscriber, "problems": _list(_TEXT)})
    return {
        "operationId": "_health",
        "tags": ["xrpc"],
        "description": "Whether the tables can be read and a subscriber is alive.",
        "responses": {"200": _json(schema), **_common("429", "5XX")},
    }


def _documents() -> Object:
    """What is served beside the methods, by path."""
    numbers = {"type": "object", "additionalProperties": _COUNT}
    limit = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 500}
    only = {"type": "array", "items": _TEXT, "maxItems": 50}
    collections = {"collections": numbers, "records": numbers, "countedAt": _TIME, "cursor": _TEXT}
    hold = {"did": _TEXT, "host": _TEXT, "record": {"type": "object"}, "cid": _TEXT, "rev": _TEXT, "indexedAt": _TIME}
    holds = {"version": {"const": 1}, "generatedAt": _TIME, "holds": _list(_object(hold, needed=("did",)))}
    found: Object = {
        "/.well-known/holds.json": {
            "operationId": "holds",
            "description": "All holds in one document.",
            "responses": {"200": _json(_object(holds)), "400": _refusal(["CollectionNotIndexed"])},
        },
        "/openapi.json": {
            "operationId": "openapi",
            "description": "The description of the API.",
            "responses": {"200": _json({"type": "object"}, "This document.")},
        },
        "/v1/listCollections": {
            "operationId": "listCollections",
            "description": "How many repos have records in each collection, and how many records.",
            "parameters": [_parameter("limit", limit), _parameter("cursor", _TEXT), _parameter("c", only)],
            "responses": {"200": _json(_object(collections)), "400": _refusal([])},
        },
    }
    for operation in found.values():
        operation["responses"] |= _common("429", "5XX")
    return found


def _admin() -> Object:
    """The operators' methods, by path."""
    from chalicelib.api.admin import methods, reads
    from chalicelib.crawl import orders
    from chalicelib.index.hosts import STATUSES

    order, host = ({"$ref": f"#/components/schemas/{name}"} for name in ("Order", "Host"))
    limit = {"type": "integer", "minimum": 1, "maximum": reads.MAX_LIMIT, "default": reads.DEFAULT_LIMIT}
    paging = [_parameter("limit", limit), _parameter("cursor", _TEXT)]
    letter = _object({"body": _TEXT, "sentAt": _TIME})
    questions: dict[str, tuple[str, list[Object], Object, list[str]]] = {
        "getHost": ("All that is known of a host.", [_one("hostname")], host, ["HostNotFound"]),
        "getOrder": ("What came of an order.", [_one("id")], order, []),
        "getRepo": ("All that is known of a repo.", [_one("did")], _object({"did": _TEXT}), ["RepoNotFound"]),
        "listAudit": ("What was ordered, the newest first.", paging, _page("entries", order), []),
        "listBans": ("The banned domains.", [], _object({"bans": _list(_object({"domain": _TEXT, "why": _TEXT}))}), []),
        "listDeadLetters": (
            "How many messages were given up, and some of them.",
            [],
            _object({"messages": _COUNT, "some": _list(letter)}),
            [],
        ),
        "listHosts": (
            "The hosts, in no order.",
            [_parameter("status", {"enum": list(STATUSES)}), *paging],
            _page("hosts", host),
            [],
        ),
    }
    found: Object = {}
    for name, (description, parameters, schema, errors) in questions.items():
        found[name] = {
            "description": description,
            "parameters": parameters,
            "responses": {"200": _json(schema), "400": _refusal(errors)},
        }
    sent = _json(_object({"id": _TEXT, "status": {"const": "sent"}}), "Sent. getOrder tells what came of it.")
    for name, action in orders.ACTIONS.items():
        who, why = ({"type": "string", "minLength": 1, "maxLength": most} for most in (orders.MAX_WHO, orders.MAX_WHY))
        target = {"target": {"type": "string", "description": " or ".join(action.takes)}} if action.has_target else {}
        body = {"application/json": {"schema": _object({**target, "who": who, "why": why})}}
        found[name] = {
            "description": f"{action.does[0].upper()}{action.does[1:]}.",
            "requestBody": {"required": True, "content": body},
            "responses": {"202": sent, "400": _refusal([]), **_common("415")},
        }
    for name, operation in found.items():
        operation |= {"operationId": f"admin.{name}", "tags": ["admin"], "security": [{"token": []}]}
        operation["responses"] |= _common("401", "429", "5XX")
    return {f"/admin/{name}": {method.verb.lower(): found[name]} for name, method in methods.METHODS.items()}


def _operators_schemas() -> Object:
    from chalicelib.crawl import inspection, orders
    from chalicelib.index.hosts import STATUSES

    order = {
        **dict.fromkeys(("id", "action", "target", "who", "why", "via", "outcome"), _TEXT),
        "status": {"enum": [inspection.UNKNOWN, orders.BEGUN, orders.WAITS, orders.DONE, orders.REFUSED]},
        "orderedAt": _TIME,
        "at": _TIME,
    }
    host = {"origin": _TEXT, "status": {"enum": list(STATUSES)}}
    return {"Order": _object(order, needed=("id", "status")), "Host": _object(host)}


_TEXT: Final = {"type": "string"}
_TIME: Final = {"type": "string", "format": "date-time"}
_COUNT: Final = {"type": "integer", "minimum": 0}


def _one(name: str) -> Object:
    return _parameter(name, _TEXT, required=True)


def _list(items: Object) -> Object:
    return {"type": "array", "items": items}


def _page(name: str, items: Object) -> Object:
    return _object({name: _list(items), "cursor": _TEXT}, needed=(name,))


def _object(properties: Object, *, needed: Iterable[str] | None = None) -> Object:
    return {"type": "object", "required": list(properties if needed is None else needed), "properties": properties}


def main() -> None:
    """Write the description."""
    FILE.write_text(json.dumps(document(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
