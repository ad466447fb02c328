"""The models are those of the template that is deployed."""

from __future__ import annotations

from typing import Any

import pytest
from pynamodb.indexes import Index

from chalicelib.index.tables import Tables
from infra import provision

PREFIX = "atcr-discovery-dev"
TEMPLATE = provision.resources("data", "AWS::DynamoDB::Table", PREFIX)


def keys(attributes: dict[str, Any]) -> list[dict[str, str]]:
    """A key schema as the template writes it."""
    by_kind = {"HASH": "is_hash_key", "RANGE": "is_range_key"}
    return [
        {"AttributeName": attribute.attr_name, "KeyType": kind}
        for kind, flag in by_kind.items()
        for attribute in attributes.values()
        if getattr(attribute, flag)
    ]


def key_types(attributes: dict[str, Any]) -> set[tuple[str, str]]:
    return {
        (attribute.attr_name, attribute.attr_type)
        for attribute in attributes.values()
        if attribute.is_hash_key or attribute.is_range_key
    }


@pytest.mark.parametrize("table", TEMPLATE.values(), ids=lambda table: table["TableName"])
def test_a_model_has_the_keys_and_indexes_of_its_table(table: dict[str, Any]) -> None:
    model: Any = getattr(Tables(PREFIX), table["TableName"].removeprefix(f"{PREFIX}-"))
    assert model.Meta.table_name == table["TableName"]
    assert keys(model.get_attributes()) == table["KeySchema"]
    indexes = {name: index for name, index in vars(model).items() if isinstance(index, Index)}
    assert {
        name: (keys(index.Meta.attributes), index.Meta.projection.projection_type) for name, index in indexes.items()
    } == {
        index["IndexName"]: (index["KeySchema"], index["Projection"]["ProjectionType"])
        for index in table.get("GlobalSecondaryIndexes", [])
    }
    types = key_types(model.get_attributes()).union(*(key_types(index.Meta.attributes) for index in indexes.values()))
    assert types == {(one["AttributeName"], one["AttributeType"]) for one in table["AttributeDefinitions"]}


def test_there_is_a_model_for_each_table() -> None:
    assert len(TEMPLATE) == 5


def test_the_tables_share_one_client(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DEFAULT_REGION", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "any")
    tables = Tables("any")
    for model in (tables.hosts, tables.repos, tables.records, tables.listings, tables.state):
        assert model._get_connection().connection.client is tables.connection.client
