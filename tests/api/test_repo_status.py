"""What the API says of one repo: the protocol's part of it, and the reasons."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from chalicelib.atproto.syntax import Did
from chalicelib.index.tables import Tables
from chalicelib.index.writer import Writer
from tests.api.conftest import Answer, Api

DID = Did("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
REV = "3m6cgqdmvdk2a"
NOW = 1_800_000_000_000


def asked(api: Api, did: str = DID, authority: str = "com.atproto.sync") -> Answer:
    return api.get(f"/xrpc/{authority}.getRepoStatus", [("did", did)])


def why(api: Api, did: str = DID) -> Answer:
    return asked(api, did, "io.atcr.discovery")


@pytest.fixture
def writer(tables: Tables) -> Writer:
    return Writer(tables, clock=lambda: NOW, jitter=random.Random(1))


def store(tables: Tables, **row: Any) -> None:
    tables.repos(DID, **{"sync": "synced", "rev": REV, "host": "pds.example.com"} | row).save()


def test_a_synced_repo_has_its_rev(api: Api, tables: Tables) -> None:
    store(tables, collections={"io.atcr.tag": 2, "io.atcr.manifest": 1}, crawled_at=NOW)
    assert asked(api).json == {"did": DID, "active": True, "rev": REV}
    assert why(api).json == {
        "did": DID,
        "active": True,
        "rev": REV,
        "host": "pds.example.com",
        "sync": "synced",
        "collections": [{"name": "io.atcr.manifest", "records": 1}, {"name": "io.atcr.tag", "records": 2}],
        "crawledAt": "2027-01-15T08:00:00.000Z",
    }


def test_a_desynchronized_repo_says_why_and_since_when(api: Api, tables: Tables, writer: Writer) -> None:
    store(tables)
    writer.ask(DID, desynchronized="prev-data-mismatch")
    assert asked(api).json == {"did": DID, "active": True, "status": "desynchronized", "rev": REV}
    answer = why(api).json
    assert (answer["sync"], answer["reason"]) == ("desynchronized", "prev-data-mismatch")
    assert answer["reasonSince"] == "2027-01-15T08:00:00.000Z"
    assert answer["nextAttemptAt"] >= answer["reasonSince"]


def test_an_account_that_is_not_active_has_its_status_and_no_rev(api: Api, tables: Tables) -> None:
    store(tables, active=False, status="takendown")
    assert asked(api).json == {"did": DID, "active": False, "status": "takendown"}


def test_a_failure_is_shown_with_the_next_attempt(api: Api, writer: Writer) -> None:
    job = writer.claim(DID, ask=True)
    assert job is not None
    writer.fail(job, "Unreachable: nobody answers")
    answer = why(api).json
    assert (answer["sync"], answer["lastError"]) == ("new", "Unreachable: nobody answers")
    assert answer["lastErrorAt"] < answer["nextAttemptAt"]


def test_a_repo_that_its_document_gives_to_another_host_is_not_known(api: Api, tables: Tables) -> None:
    store(tables, sync="refused", reason="its DID document names one, not two")
    assert (asked(api).status, asked(api).error) == (400, "RepoNotFound")
    assert why(api).json["reason"] == "its DID document names one, not two"


@pytest.mark.parametrize("authority", ["com.atproto.sync", "io.atcr.discovery"])
def test_a_repo_that_nobody_has_shown_is_not_known(api: Api, authority: str) -> None:
    answer = asked(api, authority=authority)
    assert (answer.status, answer.error) == (400, "RepoNotFound")


def test_each_spelling_of_a_did_finds_the_repo_and_the_answer_is_as_its_host_spells_it(
    api: Api, tables: Tables
) -> None:
    tables.repos("did:web:localhost%3A8080", verbatim="did:web:localhost:8080", sync="new").save()
    for did in ("did:web:localhost:8080", "did:web:localhost%3A8080"):
        assert asked(api, did).json["did"] == "did:web:localhost:8080"


@pytest.mark.parametrize("query", [[], ["x"], [""], [DID, DID], [f"did:x:{'y' * 3000}"]])
def test_what_is_no_did_is_refused(bare_api: Api, query: list[str]) -> None:
    answer = bare_api.get("/xrpc/com.atproto.sync.getRepoStatus", [("did", value) for value in query])
    assert (answer.status, answer.error) == (400, "InvalidRequest")
    assert re.search("did", answer.json["message"])
