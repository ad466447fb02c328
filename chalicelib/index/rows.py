"""Rows of the tables as plain values, read through the plain DynamoDB client: who answers requests starts cold often, and
needs neither PynamoDB nor what crawls. What the attributes mean is in ``tables``. Botocore's errors are raised as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from chalicelib.index.clock import now_ms
from chalicelib.index.state import LISTING_HEAD

Row = dict[str, Any]
MAX_BATCH = 100
"""Rows in one BatchGetItem."""
HOST_KINDS = ("named", "pds", "relay")
"""In the order in which ``hosts`` gives them."""
HostPosition = tuple[str, int, str]
"""``kind``, ``first_seen_at`` and ``origin`` of the last host that was passed."""

_JSON = frozenset({"changed", "collections", "content", "listed"})
_SHARD = "0"


class Rows:
    """Reads rows. ``client`` is a botocore DynamoDB client, ``prefix`` the beginning of the tables' names."""

    def __init__(self, client: Any, prefix: str) -> None:
        self._client = client
        self._prefix = prefix

    # -- repos

    def repo(self, did: str) -> Row | None:
        """The row of a repo by its canonical DID."""
        return self._row("repos", {"did": did})

    def repos(self, dids: Iterable[str], *attributes: str) -> dict[str, Row]:
        """The rows that there are of these canonical DIDs, by DID: all of each, or only these attributes."""
        rows = self._batch(
            "repos", ({"did": did} for did in sorted(set(dids))), ("did", *attributes) if attributes else ()
        )
        return {row["did"]: row for row in rows}

    def in_scope(self, *, after: str, limit: int) -> list[str]:
        """The DIDs of which something is indexed, in their own order (eventually consistent)."""
        found = self._query("repos", "scope_shard", _SHARD, index="in_scope", sort=("did", after), limit=limit)
        return [row["did"] for row in found]

    # -- hosts

    def host(self, key: str) -> Row | None:
        """The row of a host by its key."""
        return self._row("hosts", {"origin": key})

    def hosts(self, *, after: HostPosition | None, limit: int) -> tuple[list[Row], HostPosition | None]:
        """Hosts, of each kind in the order in which they were first seen, and where the next ones begin, if there are more
        (eventually consistent)."""
        found: list[Row] = []
        for kind in HOST_KINDS:
            if after is not None and kind < after[0]:
                continue
            start = None
            if after is not None and kind == after[0]:
                start = {"kind": {"S": kind}, "first_seen_at": {"N": str(after[1])}, "origin": {"S": after[2]}}
            found += self._query("hosts", "kind", kind, index="by_kind", start=start, limit=limit + 1 - len(found))
            if len(found) > limit:
                last = found[limit - 1]
                return self._whole_hosts(found[:limit]), (last["kind"], last["first_seen_at"], last["origin"])
        return self._whole_hosts(found), None

    def hosts_of(self, keys: Iterable[str]) -> dict[str, Row]:
        """The rows that there are of the hosts with these keys, by key."""
        return {row["origin"]: row for row in self._batch("hosts", ({"origin": key} for key in sorted(set(keys))))}

    def _whole_hosts(self, keys: Sequence[Row]) -> list[Row]:
        rows = self.hosts_of(key["origin"] for key in keys)
        return [rows[key["origin"]] for key in keys if key["origin"] in rows]

    # -- records

    def record(self, did: str, path: str) -> Row | None:
        """A record of a canonical DID by its path ``collection/rkey``."""
        return self._row("records", {"did": did, "path": path})

    def records_at(self, dids: Iterable[str], path: str) -> dict[str, Row]:
        """The record at one path of each of these canonical DIDs that has it, by DID."""
        rows = self._batch("records", ({"did": did, "path": path} for did in sorted(set(dids))))
        return {row["did"]: row for row in rows}

    def records(
        self, did: str, collection: str, *, limit: int, after: str | None = None, backwards: bool = False
    ) -> list[Row]:
        """Records of a canonical DID in a collection, in the order of their keys or backwards, after the key ``after``."""
        first, beyond = f"{collection}/", f"{collection}0"  # "0" comes after "/"
        start = None if after is None else {"did": {"S": did}, "path": {"S": first + after}}
        return self._query(
            "records", "did", did, between=("path", first, beyond), start=start, limit=limit, backwards=backwards
        )

    # -- the rest

    def head(self, collection: str) -> int:
        """The last position of a collection's listing and of its feed of changes; 0 where nobody was ever listed."""
        row = self._row("state", {"kind": LISTING_HEAD, "id": collection})
        return 0 if row is None else int(row["number"])

    def state(self, kind: str) -> dict[str, Row]:
        """What stands in the rows of a kind that have not expired, by id; for kinds of which there are few."""
        rows = self._query("state", "kind", kind)
        return {row["id"]: row["content"] for row in rows if "content" in row and not _has_expired(row)}

    def state_of(self, kind: str, id: str) -> Row | None:
        """What stands in one row, unless it has expired."""
        row = self._row("state", {"kind": kind, "id": id})
        return None if row is None or _has_expired(row) else row["content"]

    # -- parts

    def _row(self, table: str, key: dict[str, str]) -> Row | None:
        answer = self._client.get_item(TableName=self._name(table), Key=_key(key), ConsistentRead=True)
        return _plain(answer["Item"]) if "Item" in answer else None

    def _batch(self, table: str, keys: Iterable[dict[str, str]], attributes: Sequence[str] = ()) -> Iterator[Row]:
        name, left = self._name(table), [_key(key) for key in keys]
        projection = {"ProjectionExpression": ", ".join(attributes)} if attributes else {}
        while left:
            wanted: Any = {name: {"Keys": left[:MAX_BATCH], "ConsistentRead": True, **projection}}
            left = left[MAX_BATCH:]
            while wanted:
                answer = self._client.batch_get_item(RequestItems=wanted)
                yield from map(_plain, answer["Responses"].get(name, []))
                wanted = answer.get("UnprocessedKeys")

    def _query(
        self,
        table: str,
        name: str,
        value: str,
        *,
        index: str | None = None,
        sort: tuple[str, str] | None = None,
        between: tuple[str, str, str] | None = None,
        start: Any = None,
        limit: int | None = None,
        backwards: bool = False,
    ) -> list[Row]:
        """The rows under a hash key: with a sort key beyond one, or from one up to another; after the key ``start``."""
        names, values, condition = {"#h": name}, {":h": {"S": value}}, "#h = :h"
        if sort is not None:
            names["#s"], values[":s"], condition = sort[0], {"S": sort[1]}, f"{condition} AND #s > :s"
        if between is not None:
            names["#s"], condition = between[0], f"{condition} AND #s BETWEEN :a AND :b"
            values |= {":a": {"S": between[1]}, ":b": {"S": between[2]}}
        request: dict[str, Any] = {
            "TableName": self._name(table),
            "KeyConditionExpression": condition,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
            "ScanIndexForward": not backwards,
            "ConsistentRead": index is None,
            **({} if index is None else {"IndexName": index}),
        }
        found: list[Row] = []
        while True:
            if limit is not None:
                request["Limit"] = limit - len(found)
            answer = self._client.query(**request, **({} if start is None else {"ExclusiveStartKey": start}))
            found += map(_plain, answer["Items"])
            start = answer.get("LastEvaluatedKey")
            if start is None or (limit is not None and len(found) >= limit):
                return found

    def _name(self, table: str) -> str:
        return f"{self._prefix}-{table}"


def _key(key: dict[str, str]) -> dict[str, Any]:
    return {name: {"S": value} for name, value in key.items()}


def _plain(item: dict[str, dict[str, Any]]) -> Row:
    return {name: _value(name, *value.items()) for name, value in item.items()}


def _value(name: str, typed: tuple[str, Any]) -> Any:
    kind, content = typed
    if name in _JSON:
        return json.loads(content)
    return int(content) if kind == "N" else content


def _has_expired(row: Row) -> bool:
    return "expires_at" in row and row["expires_at"] * 1000 <= now_ms()
