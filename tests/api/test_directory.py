"""What others offer in their own forms: collectiondir's count of collections, and the list of holds in one file."""

from __future__ import annotations

import json
import time
from typing import Any

import jsonschema
import pytest

from chalicelib import process, settings
from chalicelib.api import collections, holds
from chalicelib.crawl.survey import count
from chalicelib.index.tables import Tables
from tests.api.conftest import Api
from tests.conftest import ROOT

CAPTAIN, TAG = "io.atcr.hold.captain", "io.atcr.tag"


def store(tables: Tables, number: int, **collections: int) -> str:
    """A repo as the writer leaves it: records by the last part of the collection's name."""
    did, names = f"did:plc:{number:024d}", {f"io.atcr.{name}": records for name, records in collections.items()}
    key = f"{number:016d}"
    tables.repos(
        did,
        sync="synced",
        host=f"hold{number}.example.com",
        scope_shard="0",
        collections=names,
        listed=dict.fromkeys(names, key),
    ).save()
    for name in names:
        tables.listings(name, f"{key}#{did}").save()
    return did


def listed(api: Api, *query: tuple[str, str]) -> dict[str, Any]:
    answer = api.get("/v1/listCollections", query)
    assert answer.status == 200
    return dict(answer.json)


# -- collections


def test_collections_are_counted_as_collectiondir_does(api: Api, tables: Tables) -> None:
    store(tables, 1, tag=3, manifest=2)
    store(tables, 2, tag=4)
    found = listed(api)
    assert found["collections"] == {"io.atcr.manifest": 1, "io.atcr.tag": 2}
    assert found["records"] == {"io.atcr.manifest": 2, "io.atcr.tag": 7}
    assert found["cursor"] == ""
    assert listed(api, ("c", "io.atcr.tag"), ("c", "io.atcr.none"))["collections"] == {"io.atcr.tag": 2}
    first = listed(api, ("limit", "1"))
    assert (first["collections"], first["cursor"]) == ({"io.atcr.manifest": 1}, "io.atcr.manifest")
    assert listed(api, ("limit", "1"), ("cursor", first["cursor"]))["collections"] == {"io.atcr.tag": 2}
    assert api.get("/v1/listCollections", [("limit", "0")]).error == "InvalidRequest"


def test_a_repo_that_is_not_listed_is_not_counted(api: Api, tables: Tables) -> None:
    store(tables, 1, tag=3)
    tables.repos("did:plc:hidden", sync="synced", scope_shard="0", collections={"io.atcr.tag": 5}).save()
    assert listed(api)["collections"] == {"io.atcr.tag": 1}


def test_many_repos_are_counted_by_the_survey(api: Api, tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        store(tables, number, tag=2)
    monkeypatch.setattr(collections, "COUNTED_NOW", 2)
    assert listed(api)["collections"] == {}
    count(process.context())
    found = listed(api)
    assert (found["collections"], found["records"]) == ({"io.atcr.tag": 3}, {"io.atcr.tag": 6})
    store(tables, 9, tag=1)
    assert listed(api)["collections"] == {"io.atcr.tag": 3}
    monkeypatch.setattr(collections, "COUNTED_NOW", 4)
    assert listed(api)["collections"] == {"io.atcr.tag": 4}


# -- holds


def test_the_list_of_holds_is_as_its_schema_says(api: Api, tables: Tables) -> None:
    did = store(tables, 1, **{"hold.captain": 1, "tag": 1})
    other = store(tables, 2, **{"hold.captain": 1})
    store(tables, 3, tag=1)
    row = {"cid": "bafyrecord", "rev": "3mbd3542kzc22", "indexed_at": 1_800_000_000_000}
    tables.records(did, f"{CAPTAIN}/self", value='{"$type":"io.atcr.hold.captain","public":true}', **row).save()
    tables.records(other, f"{CAPTAIN}/self", problem="too large", **row).save()
    answer = api.get("/.well-known/holds.json")
    document = answer.json
    jsonschema.validate(document, json.loads((ROOT / "docs" / "holds.schema.json").read_text()))
    first, second = document["holds"]
    assert first["did"] == did
    assert first["host"] == "hold1.example.com"
    assert first["record"] == {"$type": CAPTAIN, "public": True}
    assert (second["did"], "record" in second, second["cid"]) == (other, False, "bafyrecord")
    assert answer.headers["Cache-Control"] == "public, max-age=300"


def test_it_is_the_same_for_five_minutes(api: Api, tables: Tables) -> None:
    store(tables, 1, **{"hold.captain": 1})
    began = time.time() // holds.FRESH_SECONDS * holds.FRESH_SECONDS
    scope = settings.current().answered
    document = [holds.document(process.reader(), scope, began + seconds) for seconds in (0, 299, 300)]
    assert document[0] == document[1] != document[2]


def test_a_long_list_goes_without_records_and_one_that_is_too_long_is_refused(
    api: Api, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 3):
        did = store(tables, number, **{"hold.captain": 1})
        tables.records(
            did, f"{CAPTAIN}/self", cid="x", rev="y", indexed_at=1, value=json.dumps({"long": "x" * 500})
        ).save()
    monkeypatch.setattr(holds, "MAX_BYTES", 600)
    assert [hold.keys() for hold in api.get("/.well-known/holds.json").json["holds"]] == [{"did", "host"}] * 3
    monkeypatch.setattr(holds, "MAX_HOLDS", 2)
    refused = api.get("/.well-known/holds.json")
    assert (refused.status, refused.error) == (503, "TooManyHolds")
