"""A DynamoDB in this process, of what the service uses and no more: a call of boto is carried out in a tenth of a millisecond.

Items are plain mappings in DynamoDB's own JSON and are never changed in place. Whatever is not known here fails the test that
uses it. ``test_engine.py`` has whole histories answered by this engine and by a real one, call by call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, lru_cache
from operator import eq, ge, gt, le, lt
from typing import Any

from botocore.client import BaseClient
from botocore.exceptions import ClientError

from infra import provision

PREFIX = "oracle"
Item = Mapping[str, Any]
Key = tuple[Any, ...]
Call = Callable[[str, dict[str, Any]], dict[str, Any]]
"""An operation of DynamoDB with its parameters."""


class NotUnderstood(BaseException):
    """A call that this engine does not know. Not an ``Exception``: the service must not get over it."""


class _Refused(Exception):
    def __init__(self, code: str, message: str = "", **more: Any) -> None:
        super().__init__(code, message)
        self.code, self.message, self.more = code, message, more


class _ConditionFailed(_Refused):
    def __init__(self) -> None:
        super().__init__("ConditionalCheckFailedException", "The conditional request failed")


@dataclass
class _Table:
    key: tuple[str, ...]
    types: dict[str, str]
    """Of the attributes of all keys."""
    indexes: dict[str, tuple[str, ...]]
    items: dict[Key, Item]


_tables: dict[str, _Table] = {}


def call(operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Carry out one operation. Raises ``ClientError``."""
    try:
        return _OPERATIONS[operation](parameters)
    except _Refused as refused:
        answer: Any = {"Error": {"Code": refused.code, "Message": refused.message}, **refused.more}
        raise ClientError(answer, operation) from None
    except Exception as error:
        raise NotUnderstood(f"{operation} {parameters}") from error


class InProcess:
    """While entered, every boto client for DynamoDB talks to this engine, through ``gate``."""

    def __init__(self, gate: Callable[[str, dict[str, Any], Call], dict[str, Any]]) -> None:
        self._gate = gate

    def __enter__(self) -> InProcess:
        self._real = real = BaseClient._make_api_call  # type: ignore[attr-defined]
        gate = self._gate

        def make_api_call(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
            if client.meta.service_model.service_name != "dynamodb":
                return real(client, operation, parameters)
            return gate(operation, parameters, call)

        BaseClient._make_api_call = make_api_call  # type: ignore[attr-defined]
        return self

    def __exit__(self, *_: object) -> None:
        BaseClient._make_api_call = self._real  # type: ignore[attr-defined]


@cache
def definitions() -> tuple[dict[str, Any], ...]:
    """The five tables, as CreateTable takes them."""
    left_out = {"DeletionProtectionEnabled", "PointInTimeRecoverySpecification", "SSESpecification"}
    left_out |= {"TimeToLiveSpecification"}
    found = provision.resources("data", "AWS::DynamoDB::Table", PREFIX).values()
    return tuple({key: value for key, value in table.items() if key not in left_out} for table in found)


def empty_tables() -> None:
    """Make the five tables anew, empty."""
    _tables.clear()
    for table in definitions():
        _tables[table["TableName"]] = _Table(
            key=_names(table),
            types={each["AttributeName"]: each["AttributeType"] for each in table["AttributeDefinitions"]},
            indexes={index["IndexName"]: _names(index) for index in table.get("GlobalSecondaryIndexes", ())},
            items={},
        )


def rows(table: str) -> list[dict[str, Any]]:
    """All rows of a table, as plain values."""
    return [{name: _comparable(value) for name, value in item.items()} for item in raw_rows(table)]


def raw_rows(table: str) -> list[Item]:
    """All rows of a table, as DynamoDB has them."""
    found = _tables[f"{PREFIX}-{table}"]
    return [found.items[key] for key in sorted(found.items)]


def _names(schema: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(each["AttributeName"] for each in sorted(schema["KeySchema"], key=lambda each: each["KeyType"]))


# -- operations


def _get(parameters: Any) -> Any:
    table = _table(parameters)
    found = table.items.get(_key(table, parameters["Key"]))
    return {} if found is None else {"Item": dict(found)}


def _put(parameters: Any) -> Any:
    _write([("Put", parameters)])
    return {}


def _delete(parameters: Any) -> Any:
    _write([("Delete", parameters)])
    return {}


def _update(parameters: Any) -> Any:
    (updated,) = _write([("Update", parameters)])
    assert parameters.get("ReturnValues", "ALL_NEW") == "ALL_NEW"
    return {"Attributes": dict(updated)}


def _transact_write(parameters: Any) -> Any:
    requests = [request for item in parameters["TransactItems"] for request in item.items()]
    if len(requests) > 100:
        raise _Refused("ValidationException", "more than 100 items in a transaction")
    places = [(request["TableName"], _place(*each)) for each in requests for request in each[1:]]
    if len(set(places)) < len(places):
        raise _Refused("ValidationException", "Transaction request cannot include multiple operations on one item")
    failed = [not _holds(*request) for request in requests]
    if any(failed):
        reasons = [{"Code": "ConditionalCheckFailed" if each else "None"} for each in failed]
        message = f"Transaction cancelled, please refer cancellation reasons {[each['Code'] for each in reasons]}"
        raise _Refused("TransactionCanceledException", message, CancellationReasons=reasons)
    _write(requests)
    return {}


def _batch_get(parameters: Any) -> Any:
    responses: dict[str, list[Item]] = {}
    for name, request in parameters["RequestItems"].items():
        table = _tables[name]
        places = [_key(table, key) for key in request["Keys"]]
        if len(set(places)) < len(places) or not 1 <= len(places) <= 100:
            raise _Refused("ValidationException", "the keys are none, more than 100, or not distinct")
        found = [table.items[place] for place in places if place in table.items]
        responses[name] = [_projected(item, request) for item in found]
    return {"Responses": responses, "UnprocessedKeys": {}}


def _query(parameters: Any) -> Any:
    table = _table(parameters)
    key, only = table.key, None
    if "IndexName" in parameters:
        assert not parameters.get("ConsistentRead"), "an index is only ever eventually consistent"
        own, key = key, table.indexes[parameters["IndexName"]]
        only, key = {*own, *key}, (*key, *(name for name in own if name not in key))
    assert parameters.get("ScanIndexForward", True)
    holds = _condition(parameters["KeyConditionExpression"])
    names, values = parameters.get("ExpressionAttributeNames", {}), parameters.get("ExpressionAttributeValues", {})
    after = parameters.get("ExclusiveStartKey")
    start = () if after is None else _order(key, after)
    found = sorted(
        ((_order(key, item), item) for item in table.items.values() if key[0] in item and holds(item, names, values)),
        key=lambda entry: entry[0],
    )
    if start:
        found = [entry for entry in found if entry[0] > start]
    limit = parameters.get("Limit")
    page = [item for _, item in found[:limit]]
    if only is not None:
        page = [{name: item[name] for name in item if name in only} for item in page]
    items = [_projected(item, parameters) for item in page]
    answer: dict[str, Any] = {"Items": items, "Count": len(items), "ScannedCount": len(items)}
    if limit is not None and len(page) == limit:
        answer["LastEvaluatedKey"] = {name: page[-1][name] for name in key}
    return answer


def _scan(parameters: Any) -> Any:
    found = list(_table(parameters).items.values())
    names, values = parameters.get("ExpressionAttributeNames", {}), parameters.get("ExpressionAttributeValues", {})
    if "FilterExpression" in parameters:
        holds = _condition(parameters["FilterExpression"])
        found = [item for item in found if holds(item, names, values)]
    return {"Items": [_projected(item, parameters) for item in found], "Count": len(found), "ScannedCount": len(found)}


_OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "GetItem": _get,
    "PutItem": _put,
    "DeleteItem": _delete,
    "UpdateItem": _update,
    "TransactWriteItems": _transact_write,
    "BatchGetItem": _batch_get,
    "Query": _query,
    "Scan": _scan,
}


# -- items


def _table(parameters: Any) -> _Table:
    return _tables[parameters["TableName"]]


def _key(table: _Table, item: Item) -> Key:
    try:
        key = tuple(item[name][table.types[name]] for name in table.key)
    except KeyError:
        raise _Refused("ValidationException", "One or more parameter values were invalid") from None
    if "" in key:
        raise _Refused("ValidationException", "a key is not empty")
    return key


def _place(kind: str, request: Any) -> Key:
    return _key(_table(request), request["Item"] if kind == "Put" else request["Key"])


def _order(key: Sequence[str], item: Item) -> tuple[Any, ...]:
    return tuple(_comparable(item[name]) for name in key if name in item)


def _holds(kind: str, request: Any) -> bool:
    expression = request.get("ConditionExpression")
    if expression is None:
        return True
    item = _table(request).items.get(_place(kind, request), {})
    names, values = request.get("ExpressionAttributeNames", {}), request.get("ExpressionAttributeValues", {})
    return _condition(expression)(item, names, values)


def _write(requests: Sequence[tuple[str, Any]]) -> list[Item]:
    """All of the requests, or none of them. Returns the items that were written."""
    written: list[tuple[_Table, Key, Item | None]] = []
    for kind, request in requests:
        if len(requests) == 1 and not _holds(kind, request):
            raise _ConditionFailed
        table, place = _table(request), _place(kind, request)
        if kind == "Put":
            written.append((table, place, _checked(table, dict(request["Item"]))))
        elif kind == "Delete":
            written.append((table, place, None))
        elif kind == "Update":
            before = table.items.get(place, request["Key"])
            written.append((table, place, _checked(table, _updated(before, request))))
        else:
            assert kind == "ConditionCheck", kind
    for table, place, item in written:
        if item is None:
            table.items.pop(place, None)
        else:
            table.items[place] = item
    return [item for _, _, item in written if item is not None]


def _checked(table: _Table, item: Item) -> Item:
    """As DynamoDB refuses what does not fit into an index, or is too large."""
    for name, kind in table.types.items():
        if name in item and (kind not in item[name] or item[name][kind] == ""):
            raise _Refused("ValidationException", f"{name} is not of type {kind}, or empty")
    if len(json.dumps(item)) > 400_000:
        raise _Refused("ValidationException", "Item size has exceeded the maximum allowed size")
    return item


def _projected(item: Item, request: Any) -> Item:
    expression = request.get("ProjectionExpression")
    if expression is None:
        return dict(item)
    names = request.get("ExpressionAttributeNames", {})
    wanted = [names.get(name, name) for name in re.split(r"\s*,\s*", expression)]
    return {name: item[name] for name in wanted if name in item}


def _comparable(value: Any) -> Any:
    ((kind, content),) = value.items()
    if kind == "N":
        return int(content) if content.lstrip("-").isdigit() else Decimal(content)
    return content


# -- expressions

_Holds = Callable[[Item, Mapping[str, str], Mapping[str, Any]], bool]
_COMPARE = {"=": eq, "<": lt, "<=": le, ">": gt, ">=": ge}
_TOKEN = re.compile(r"\s*(<=|>=|[=<>(),]|[#:]?[A-Za-z0-9_]+)")


@lru_cache(1000)
def _condition(text: str) -> _Holds:
    tokens = _TOKEN.findall(text)
    assert "".join(tokens) == "".join(text.split()), f"not understood: {text}"
    reading = iter([*tokens, ""])
    condition, end = _either(reading, next(reading))
    assert end == "", f"not understood: {text}"
    return condition


def _either(reading: Iterator[str], token: str) -> tuple[_Holds, str]:
    condition, token = _both(reading, token)
    while token == "OR":
        left, (right, token) = condition, _both(reading, next(reading))
        condition = _joined(left, right, any)
    return condition, token


def _both(reading: Iterator[str], token: str) -> tuple[_Holds, str]:
    condition, token = _one(reading, token)
    while token == "AND":
        left, (right, token) = condition, _one(reading, next(reading))
        condition = _joined(left, right, all)
    return condition, token


def _joined(left: _Holds, right: _Holds, how: Callable[[Any], bool]) -> _Holds:
    return lambda item, names, values: how(each(item, names, values) for each in (left, right))


def _one(reading: Iterator[str], token: str) -> tuple[_Holds, str]:
    if token == "(":
        condition, end = _either(reading, next(reading))
        assert end == ")"
        return condition, next(reading)
    if token in ("attribute_exists", "attribute_not_exists"):
        opened, name, closed = next(reading), next(reading), next(reading)
        assert (opened, closed) == ("(", ")")
        wanted = token == "attribute_exists"
        return lambda item, names, values: (names.get(name, name) in item) is wanted, next(reading)
    assert re.match("[#A-Za-z]", token), token
    compare, operand = _COMPARE[next(reading)], next(reading)
    assert operand.startswith(":")

    def holds(item: Item, names: Mapping[str, str], values: Mapping[str, Any]) -> bool:
        value, other = item.get(names.get(token, token)), values[operand]
        same_type = value is not None and value.keys() == other.keys()
        return bool(same_type and compare(_comparable(value), _comparable(other)))

    return holds, next(reading)


_SET = re.compile(r"(#\w+) = (?:if_not_exists \((#\w+), (:\w+)\)|(:\w+))(?:, |$)")


@lru_cache(1000)
def _clauses(text: str) -> tuple[tuple[tuple[str, str, str], ...], tuple[str, ...], tuple[str, ...]]:
    """(attribute, attribute whose value it keeps if there is one, value) of SET, the attributes of REMOVE, and the attribute
    and number of ADD."""
    match = re.fullmatch(r"(?:SET (.*?))? ?(?:REMOVE (.*?))? ?(?:ADD (#\w+) (:\w+))?", text)
    assert match, text
    sets, removed = match[1] or "", match[2] or ""
    assert _SET.sub("", sets) == "", f"not understood: {text}"
    found = tuple((name, kept, value or other) for name, kept, other, value in _SET.findall(sets))
    return found, tuple(removed.split(", ")) if removed else (), (match[3], match[4]) if match[3] else ()


def _updated(before: Item, request: Any) -> Item:
    names, values = request.get("ExpressionAttributeNames", {}), request.get("ExpressionAttributeValues", {})
    sets, removed, added = _clauses(request["UpdateExpression"])
    item = dict(before)
    for name, kept, value in sets:
        item[names[name]] = before.get(names[kept], values[value]) if kept else values[value]
    for name in removed:
        item.pop(names[name], None)
    if added:
        name, number = names[added[0]], values[added[1]]
        item[name] = {"N": str(_comparable(before.get(name, {"N": "0"})) + _comparable(number))}
    assert not item.keys() & request["Key"].keys() - before.keys()
    return item
