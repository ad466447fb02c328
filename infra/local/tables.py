"""The tables of the embedded AWS: moto's DynamoDB with its items in order, a journal of each call, and a file behind it.

call --> moto changes items --> journal: how each was before
             |                      |
         answer >= 400: undo    answer < 400: one SQLite transaction, then the orders, then the answer
"""

from __future__ import annotations

import copy
import sqlite3
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import cbor2
from moto.dynamodb import models, responses
from moto.dynamodb.exceptions import InvalidAttributeTypeError, ItemSizeTooLarge
from moto.dynamodb.models import DynamoDBBackend, dynamodb_backends
from moto.dynamodb.models import table as table_module
from moto.dynamodb.models.dynamo_type import DynamoType, Item
from moto.dynamodb.models.table import RESULT_SIZE_LIMIT, Table
from moto.dynamodb.models.utilities import dynamo_json_dump
from moto.dynamodb.responses import DynamoHandler, DynamoResult
from werkzeug.test import Client

from infra.local.holding import hold, lock_of

ACCOUNT, REGION = "123456789012", "us-east-1"
DEFINITIONS = {
    "CreateTable",
    "DeleteTable",
    "UpdateTable",
    "UpdateTimeToLive",
    "UpdateContinuousBackups",
    "TagResource",
}
"""Operations that are kept as they came, and carried out again at the start."""

MAX_ITEM_BYTES = 405_000
"""As moto has it; AWS says 400 KB."""

Key = tuple[DynamoType, DynamoType | None]
Entry = tuple[Any, ...]
"""Where an item stands in an order: (value of the hash attribute, values of the sort attributes...)."""


class Order:
    """The items of a table in the order of its own key or of one index: a sorted list for each value of the hash key."""

    def __init__(self, attributes: list[str], types: dict[str, str]) -> None:
        self.hash, *self.sort = attributes
        self.types = {name: types[name] for name in attributes}
        self.partitions: dict[Any, list[Any]] = {}

    def entry(self, attributes: dict[str, DynamoType]) -> Entry | None:
        """The entry of an item; None where it lacks an attribute of the key and so is not in this order."""
        if not all(name in attributes for name in self.types):
            return None
        for name, expected in self.types.items():
            if attributes[name].type != expected:  # AWS refuses it; moto does not
                raise InvalidAttributeTypeError(name, expected_type=expected, actual_type=attributes[name].type)
        return tuple(attributes[name].cast_value for name in (self.hash, *self.sort))

    def add(self, entry: Entry, item: Item) -> None:
        partition = self.partitions.setdefault(entry[0], [])
        partition.insert(bisect_left(partition, entry[1:]), (*entry[1:], item))

    def remove(self, entry: Entry) -> None:
        partition = self.partitions[entry[0]]
        del partition[bisect_left(partition, entry[1:])]
        if not partition:
            del self.partitions[entry[0]]

    def page(
        self, hash_value: Any, comparison: str, values: list[Any], start: Any, limit: int, forward: bool
    ) -> list[Item]:
        """What a query may answer with, and one item more: the items of ``hash_value`` that fit the condition on the first
        sort attribute, after the key ``start``, up to ``limit`` (0: none) and the size of a page."""
        return _page(self._found(hash_value, comparison, values, start, forward), limit)

    def page_of_all(self, start: Any, limit: int, segments: Any) -> list[Item]:
        """The same for a scan: the items of all hash keys in their order, after ``start``, that are of a segment."""
        first = DynamoType(start[self.hash]).cast_value if start else None
        rest = sorted(value for value in self.partitions if first is None or value >= first)
        items = (item for value in rest for item in self._found(value, "", [], start if value == first else None, True))
        return _page((item for item in items if item.is_within_segment(segments)), limit)

    def _found(self, hash_value: Any, comparison: str, values: list[Any], start: Any, forward: bool) -> Iterator[Item]:
        entries = self.partitions.get(hash_value, [])
        low, high = 0, len(entries)
        if comparison in ("=", ">=", "BETWEEN", "BEGINS_WITH"):
            low = bisect_left(entries, (values[0],))
        elif comparison == ">":
            low = bisect_right(entries, values[0], key=lambda entry: entry[0])
        if comparison in ("=", "<=", "BETWEEN"):
            high = bisect_right(entries, values[-1], key=lambda entry: entry[0])
        elif comparison == "<":
            high = bisect_left(entries, (values[0],))
        elif comparison == "BEGINS_WITH":
            high = bisect_right(entries, values[0], key=lambda entry: entry[0][: len(values[0])])
        if start:
            position = tuple(DynamoType(start[name]).cast_value for name in self.sort)
            if forward:
                low = max(low, bisect_right(entries, position, key=lambda entry: entry[:-1]))
            else:
                high = min(high, bisect_left(entries, position))
        for index in range(low, high) if forward else range(high - 1, low - 1, -1):
            yield entries[index][-1]


def _page(items: Iterable[Item], limit: int) -> list[Item]:
    found: list[Item] = []
    size = 0
    for item in items:
        found.append(item)
        size += item.size()
        if size > RESULT_SIZE_LIMIT or 0 < limit < len(found):
            break
    return found


class KeptItem(Item):
    """moto's item at the cost of its own size. (moto sizes a whole item at each attribute of it, and to give out two of its
    attributes it converts all of them.)"""

    def __init__(self, hash_key: DynamoType, range_key: DynamoType | None, attrs: dict[str, Any]) -> None:
        super().__init__(hash_key, range_key, {})
        for name, value in attrs.items():
            dict.__setitem__(self.attrs, name, DynamoType(value))
        if self.size() > MAX_ITEM_BYTES:
            raise ItemSizeTooLarge

    def size(self) -> int:
        if "bytes" not in vars(self):
            self.bytes = super().size()
        return self.bytes

    def project(self, projection_expressions: list[list[str]]) -> Item:
        if any(len(path) > 1 or "[" in path[0] for path in projection_expressions):
            return super().project(projection_expressions)
        item = KeptItem(self.hash_key, self.range_key, {})
        for (name,) in projection_expressions:
            if name in self.attrs:
                dict.__setitem__(item.attrs, name, self.attrs[name])
        return item


class KeptTable(Table):
    """moto's table, with its items in order as well, and a journal of what the call in progress changes."""

    journal: ClassVar[dict[tuple[str, Key], tuple[KeptTable, Item | None, Any]]] = {}
    """Of all tables: the items that the call has touched, with the attributes that they had before it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        types = {attribute["AttributeName"]: attribute["AttributeType"] for attribute in self.attr}
        self.orders: dict[str | None, Order] = {None: Order(self.table_key_attrs, types)}
        for index in self.all_indexes():
            self.orders[index.name] = Order([*index.schema_key_attrs, *self.table_key_attrs], types)
        self.candidates: list[Item] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> KeptTable:
        return self  # moto copies its tables before a transaction, to put them back if it fails: the journal does that

    def key(self, attributes: dict[str, Any]) -> Key:
        hash_key, *rest = (DynamoType(attributes[name]) for name in self.table_key_attrs)
        return hash_key, (rest[0] if rest else None)

    def at(self, key: Key) -> Any:
        """The item at ``key``, or None."""
        partition: Any = self.items.get(key[0])
        return partition if partition is None or self.range_key_attr is None else partition.get(key[1])

    def set(self, key: Key, item: Item | None) -> None:
        """Put ``item`` in the place of what is at ``key``; None: nothing is there any more."""
        if item is None:
            super().delete_item(*key)
        elif self.range_key_attr:
            self.items[key[0]][key[1]] = item
        else:
            self.items[key[0]] = item  # type: ignore[assignment]

    def note(self, key: Key, mutated: bool = False) -> None:
        """Before the item at ``key`` is replaced or removed, or ``mutated`` in place: remember how it is."""
        item = self.at(key)
        if item is not None:
            vars(item).pop("bytes", None)
        attributes = item and (copy.deepcopy(item).attrs if mutated else item.attrs)
        self.journal.setdefault((self.name, key), (self, item, attributes))

    def entries(self, attributes: dict[str, DynamoType] | None) -> list[tuple[Order, Entry]]:
        return [(order, entry) for order in self.orders.values() if attributes and (entry := order.entry(attributes))]

    def get_item(
        self, hash_key: DynamoType, range_key: DynamoType | None = None, *args: Any, **kwargs: Any
    ) -> Item | None:
        if range_key and hash_key not in self.items:
            return None  # moto would leave an empty partition behind
        return super().get_item(hash_key, range_key, *args, **kwargs)

    def put_item(self, item_attrs: dict[str, Any], *args: Any, **kwargs: Any) -> Item:
        if all(name in item_attrs for name in self.table_key_attrs):
            self.note(self.key(item_attrs))
        return super().put_item(item_attrs, *args, **kwargs)

    def delete_item(self, hash_key: DynamoType, range_key: DynamoType | None) -> Item | None:
        self.note((hash_key, range_key))
        return super().delete_item(hash_key, range_key)

    def query(self, *args: Any, **kwargs: Any) -> Any:
        hash_key, comparison, values, limit, start, forward, _, index_name = args[:8]
        order = self.orders.get(index_name)
        if order and hash_key and not kwargs.keys() - {"hash_key_conditions", "range_key_conditions"}:  # no old filter
            bounds = [value.cast_value for value in values]
            self.candidates = order.page(
                hash_key.cast_value, comparison or "", bounds, start, limit or 0, forward is not False
            )
        try:
            return super().query(*args, **kwargs)
        finally:
            self.candidates = None

    def scan(self, *args: Any, **kwargs: Any) -> Any:
        filters, limit, start, _, index_name = args[:5]
        if not filters and not index_name:  # an old filter counts differently
            self.candidates = self.orders[None].page_of_all(start, limit or 0, kwargs["segments"])
        try:
            return super().scan(*args, **kwargs)
        finally:
            self.candidates = None

    def all_items(self) -> list[Item]:
        return super().all_items() if self.candidates is None else self.candidates


class Store:
    """The file: the operations that define tables, as they came, and the items. One engine has it at a time; others may
    read it meanwhile (``infra.local.backup`` does)."""

    def __init__(self, path: str, backend: DynamoDBBackend) -> None:
        self.backend = backend
        if path != ":memory:":
            hold(lock_of(Path(path)))
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.connection.executescript("""
            PRAGMA journal_mode = WAL;
            PRAGMA synchronous = NORMAL;
            CREATE TABLE IF NOT EXISTS definition (number INTEGER PRIMARY KEY, operation TEXT NOT NULL, body BLOB NOT NULL);
            CREATE TABLE IF NOT EXISTS item (
                table_name TEXT, hash_key, range_key, attributes BLOB NOT NULL,
                PRIMARY KEY (table_name, hash_key, range_key)
            );
        """)

    def load(self, app: Any) -> None:
        """Carry out the definitions again and put the items back."""
        for operation, body in self.connection.execute(
            "SELECT operation, body FROM definition ORDER BY number"
        ).fetchall():
            headers = {
                "Content-Type": "application/x-amz-json-1.0",
                "X-Amz-Target": f"DynamoDB_20120810.{operation}",
                "Authorization": f"AWS4-HMAC-SHA256 Credential=local/20260101/{REGION}/dynamodb/aws4_request,",
            }
            answer = Client(app).post("/", data=body, headers=headers)
            if answer.status_code != 200:
                raise RuntimeError(f"the engine's file cannot be read back: {operation}: {answer.text}")
        order = "ORDER BY table_name, hash_key, range_key"
        for name, content in self.connection.execute(f"SELECT table_name, attributes FROM item {order}"):  # noqa: S608
            table: Any = self.backend.tables[name]
            attributes = cbor2.loads(content)
            key = table.key(attributes)
            table.set(key, item := KeptItem(key[0], key[1], attributes))
            for place, entry in table.entries(item.attrs):
                place.add(entry, item)

    def commit(self, operation: str, body: bytes) -> None:
        """Write what the call in progress has changed, and then let queries see it."""
        changes = []
        for (name, key), (table, _, old) in KeptTable.journal.items():
            new = table.at(key)
            changes.append((name, key, table.entries(old), table.entries(new and new.attrs), new))
        if not changes and operation not in DEFINITIONS:
            return
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            for name, key, _, _, new in changes:
                columns = (name, *("" if part is None else _column(part) for part in key))
                if new is None:
                    execute("DELETE FROM item WHERE table_name = ? AND hash_key = ? AND range_key = ?", columns)
                else:
                    execute("INSERT OR REPLACE INTO item VALUES (?, ?, ?, ?)", (*columns, _serialised(new)))
            if operation in DEFINITIONS:
                execute("INSERT INTO definition (operation, body) VALUES (?, ?)", (operation, body))
            if operation == "DeleteTable":
                gone = {
                    name for (name,) in execute("SELECT DISTINCT table_name FROM item")
                } - self.backend.tables.keys()
                self.connection.executemany("DELETE FROM item WHERE table_name = ?", [(name,) for name in gone])
            execute("COMMIT")
        except BaseException:
            execute("ROLLBACK")
            raise
        for name, key, before, after, new in changes:
            for order, entry in before:
                order.remove(entry)
            for order, entry in after:
                order.add(entry, new)
            if not self.backend.tables[name].items.get(key[0]):
                self.backend.tables[name].items.pop(key[0], None)

    def undo(self) -> None:
        """Put back what the call in progress has touched."""
        for (_, key), (table, item, attributes) in KeptTable.journal.items():
            if item is not None:
                item.attrs = attributes
            table.set(key, item)


def _column(part: DynamoType) -> Any:
    return str(part.cast_value.normalize()) if part.is_number() else part.cast_value


def _serialised(item: Item) -> bytes:
    content: bytes = cbor2.dumps(item.attrs, default=lambda encoder, value: encoder.encode({value.type: value.value}))
    return content


def install(path: str, app: Any) -> None:
    """Let moto's DynamoDB, as ``app`` serves it, use these tables and the file at ``path``. Once a process."""
    backend = dynamodb_backends[ACCOUNT][REGION]
    lock, carry_out, update = threading.RLock(), DynamoHandler.call_action, DynamoDBBackend.update_item

    def update_item(self: DynamoDBBackend, table_name: str, key: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        table: Any = self.get_table(table_name)
        if all(name in key for name in table.table_key_attrs):
            table.note(table.key(key), mutated=True)
        return update(self, table_name, key, *args, **kwargs)

    def call_action(self: DynamoHandler) -> Any:
        with lock:
            KeptTable.journal.clear()
            try:
                answer = carry_out(self)
                if int(answer[0]) >= 400:
                    store.undo()
                else:
                    store.commit(self._get_action(), self.raw_body)
            except BaseException:
                store.undo()
                raise
            return answer

    def execute_result(self: DynamoResult, context: Any) -> Any:
        # moto's serializer tries a dozen names for each attribute of each item.
        return 200, {"Content-Type": "application/x-amz-json-1.0"}, dynamo_json_dump(self.result)

    for owner, name, replacement in (
        (models, "Table", KeptTable),
        (table_module, "Item", KeptItem),
        (responses, "TRANSACTION_MAX_ITEMS", 100),
        (DynamoHandler, "dynamodb_backend", property(lambda self: backend)),
        (DynamoResult, "execute_result", execute_result),
        (DynamoDBBackend, "update_item", update_item),
    ):
        setattr(owner, name, replacement)
    store = Store(path, backend)
    store.load(app)
    DynamoHandler.call_action = call_action  # type: ignore[method-assign]
