"""Whatever a host writes into every field that it controls, the page is made of the same elements as for harmless values."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any
from unittest import mock

import pytest
from chalice.app import Request
from hypothesis import assume, given
from hypothesis import strategies as st

from chalicelib import process, settings
from chalicelib.index.reader import Entry
from chalicelib.pages import site
from chalicelib.pages.holds import MAX_RECORD
from tests.pages.conftest import Read

FRAGMENTS = [
    "<script>document.title='pwned'</script>",
    "</style></title><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' autofocus onfocus='alert(1)",
    "javascript:alert(1)",
    "&lt;b&gt;&#60;script&#62;",
    "<!--",
    "]]>",
    "\u202egnp.exe",
    "\x00\x1b[31m",
    "\ud800",
    "a\u0300" * 30,
    "x" * 5000,
]
HOSTILE = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=40), min_size=1, max_size=3).map("".join)
FIELDS = ("region", "provider", "owner", "deployedAt")
ODD = st.recursive(st.none() | st.booleans() | st.integers() | HOSTILE, lambda inner: st.lists(inner, max_size=3))
DID = "did:web:hold01.atcr.io"
HOST = "hold01.atcr.io"


class Told:
    """A reader that tells of one hold, whose host wrote these texts."""

    def __init__(self, captain: Any, error: str) -> None:
        captured = json.dumps(captain)
        self._record = {"did": DID, "path": "io.atcr.hold.captain/self", "value": captured}
        self._repo = {
            "did": DID,
            "host": HOST,
            "sync": "desynchronized",
            "reason": error,
            "last_error": error,
            "last_error_at": 1,
            "active": True,
            "collections": {"io.atcr.hold.captain": 1},
            "listed": {"io.atcr.hold.captain": "1"},
        }
        self._host = {
            "origin": HOST,
            "status": "offline",
            "first_seen_at": 1,
            "last_error": error,
            "stream_error": error,
            "owner": error,
        }

    def entries(self, collection: str, **rest: Any) -> tuple[list[Entry], bool]:
        return [Entry(1, collection, DID, DID)], False

    def repos(self, dids: Any, *attributes: str) -> dict[str, Any]:
        return {DID: self._repo}

    def repo(self, did: str) -> Any:
        return self._repo

    def record(self, did: str, path: str) -> Any:
        return self._record

    def records_at(self, dids: Any, path: str) -> dict[str, Any]:
        return {DID: self._record}

    def in_scope(self, **rest: Any) -> list[str]:
        return [DID]

    def host(self, key: str) -> Any:
        return self._host

    def hosts_of(self, keys: Any) -> dict[str, Any]:
        return {HOST: self._host}

    def hosts(self, **rest: Any) -> tuple[list[Any], None]:
        return [self._host], None

    def state(self, kind: str) -> dict[str, Any]:
        return {}


PAGES = {
    "/": (),
    "/hosts": (),
    "/hosts/{name}": (HOST,),
    "/repos/{did}": (DID,),
    "/collections/{nsid}": ("io.atcr.hold.captain",),
}


@pytest.fixture(scope="module", autouse=True)
def plain_settings() -> Any:
    with mock.patch.object(settings, "current", return_value=settings.read({})):
        yield


def source(resource: str, captain: Any, error: str) -> str:
    """A page about a hold whose host wrote these."""
    event = {"requestContext": {"resourcePath": resource, "path": resource, "httpMethod": "GET"}, "headers": {}}
    event |= {"multiValueQueryStringParameters": None, "pathParameters": None, "stageVariables": None}
    with mock.patch.object(process, "reader", return_value=Told(captain, error)):
        answer = site.answer(Request(event | {"body": None, "isBase64Encoded": False}), *PAGES[resource])
    assert answer.status_code == 200
    answer.body.encode()  # nothing that has no place in UTF-8
    return str(answer.body)


def made_of(page: str) -> list[tuple[str, list[str]]]:
    return [(tag, list(attributes)) for tag, attributes in Read(page).tags]


@given(st.fixed_dictionaries(dict.fromkeys(FIELDS, HOSTILE)), HOSTILE, st.sampled_from(sorted(PAGES)))
def test_hostile_text_adds_no_element_and_no_attribute(captain: dict[str, str], error: str, resource: str) -> None:
    written = {name: f"x{value}" for name, value in captain.items()} | {"public": True}
    assume(len(json.dumps(written)) <= MAX_RECORD)
    page = source(resource, written, error)
    assert made_of(page) == made_of(source(resource, dict.fromkeys(FIELDS, "x") | {"public": True}, "x"))
    assert not [each for each in page if each != "\n" and unicodedata.category(each) in ("Cc", "Cf", "Zl", "Zp")]


@given(st.dictionaries(st.sampled_from([*FIELDS, "public", "$type"]), ODD) | ODD)
def test_a_captain_of_any_shape_is_shown(captain: Any) -> None:
    for resource in ("/", "/repos/{did}"):
        read = Read(source(resource, captain, "x"))
        assert {tag for tag, _ in read.tags}.isdisjoint({"script", "img", "iframe", "object", "svg"})
        for _, attributes in read.tags:
            assert not [name for name in attributes if name.startswith("on")]
            assert re.match(r"\.|#|https?://|data:image/svg", attributes.get("href") or "#")
