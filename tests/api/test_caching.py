"""What callers and a CDN may keep."""

from __future__ import annotations

import pytest

from chalicelib.index.tables import Tables
from infra.local.http import COMPRESSED_FROM
from tests.api.conftest import Api
from tests.conftest import ROOT

LISTING, CAPTAIN = "/xrpc/com.atproto.sync.listReposByCollection", [("collection", "io.atcr.hold.captain")]


def enter(tables: Tables, number: int) -> None:
    tables.listings("io.atcr.hold.captain", f"{number:016d}#did:plc:{number:024d}").save()


def test_who_has_the_answer_is_told_so_without_it(api: Api, tables: Tables) -> None:
    enter(tables, 1)
    first = api.get(LISTING, CAPTAIN)
    tag = first.headers["ETag"]
    assert (first.status, first.headers["Cache-Control"]) == (200, "public, max-age=5")
    for asked in (tag, tag.removeprefix("W/"), f'"other", {tag}', "*"):
        again = api.get(LISTING, CAPTAIN, headers={"If-None-Match": asked})
        assert (again.status, again.text) == (304, "")
        assert again.headers["ETag"] == tag
        assert again.headers["Access-Control-Allow-Origin"] == "*"


def test_who_has_an_older_one_gets_the_new_one(api: Api, tables: Tables) -> None:
    enter(tables, 1)
    tag = api.get(LISTING, CAPTAIN).headers["ETag"]
    enter(tables, 2)
    for asked in (tag, '"', "W/", tag[:-2], "x" * 10_000):
        answer = api.get(LISTING, CAPTAIN, headers={"If-None-Match": asked})
        assert (answer.status, len(answer.json["repos"])) == (200, 2)
        assert answer.headers["ETag"] != tag


@pytest.mark.parametrize("path", ["/xrpc/_health", f"{LISTING}?", "/xrpc/com.example.thing"])
def test_what_is_only_so_now_or_an_error_has_no_tag(api: Api, path: str) -> None:
    answer = api.get(path.rstrip("?"))
    assert answer.status != 200
    assert "ETag" not in answer.headers
    assert "public" not in answer.headers.get("Cache-Control", "")


def test_the_gateway_compresses_from_the_size_that_the_local_one_does() -> None:
    config = (ROOT / ".chalice" / "config.json").read_text()
    assert f'"minimum_compression_size": {COMPRESSED_FROM}' in config
