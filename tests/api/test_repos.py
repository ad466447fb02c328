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


# -- the others of the sync namespace


def of(api: Api, method: str, **parameters: Any) -> Answer:
    return api.get(f"/xrpc/com.atproto.sync.{method}", [(name, str(value)) for name, value in parameters.items()])


def test_repos_in_scope_are_listed_in_pages_by_did(api: Api, tables: Tables) -> None:
    for number, letter in enumerate("gfedcba"):
        status = {"active": False, "status": "deactivated"} if letter == "c" else {}
        wanted = {} if letter == "d" else {"scope_shard": "0", "scope_host": "pds.example.com"}
        name = f"did:plc:{letter * 24}"
        tables.repos(
            name, sync="synced", rev=REV, head=f"bafy{number}", host="x.example.com", **wanted, **status
        ).save()
    found, more = list[dict[str, Any]](), dict[str, Any]()
    while True:
        page = of(api, "listRepos", limit=2, **more).json
        found += page["repos"]
        if "cursor" not in page:
            break
        more = {"cursor": page["cursor"]}
    assert [repo["did"][-1] for repo in found] == list("abcefg")
    assert found[0] == {"did": f"did:plc:{'a' * 24}", "head": "bafy6", "rev": REV, "active": True}
    assert found[2] == {
        "did": f"did:plc:{'c' * 24}", "head": "bafy4", "rev": REV, "active": False, "status": "deactivated"
    }  # fmt: skip


def test_the_latest_commit_is_the_one_that_is_indexed(api: Api, tables: Tables) -> None:
    assert of(api, "getLatestCommit", did=DID).error == "RepoNotFound"
    store(tables, head="bafyhead")
    tables.repos("did:plc:bbbbbbbbbbbbbbbbbbbbbbbb", sync="new").save()
    assert of(api, "getLatestCommit", did="did:plc:bbbbbbbbbbbbbbbbbbbbbbbb").error == "RepoNotFound"
    assert of(api, "getLatestCommit", did=DID).json == {"cid": "bafyhead", "rev": REV}


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"active": False, "status": "takendown"}, "RepoTakendown"),
        ({"active": False, "status": "suspended"}, "RepoSuspended"),
        ({"host_banned": True}, "RepoSuspended"),
        ({"active": False, "status": "deactivated"}, "RepoDeactivated"),
        ({"active": False, "status": "deleted"}, "RepoNotFound"),
        ({"sync": "refused"}, "RepoNotFound"),
    ],
)
def test_a_repo_that_nobody_may_have_says_why(api: Api, tables: Tables, row: dict[str, Any], error: str) -> None:
    store(tables, head="bafyhead", **row)
    for method in ("getLatestCommit", "getRepo"):
        assert of(api, method, did=DID).error == error
    assert of(api, "getRecord", did=DID, collection="io.atcr.tag", rkey="x").error == error


def test_the_repo_and_its_records_are_had_from_its_pds(api: Api, tables: Tables) -> None:
    store(tables)
    whole = of(api, "getRepo", did=DID, since=REV)
    assert whole.status == 302
    assert whole.headers["Location"] == (
        f"https://pds.example.com/xrpc/com.atproto.sync.getRepo?did=did%3Aplc%3A{'a' * 24}&since={REV}"
    )
    record = of(api, "getRecord", did=DID, collection="io.atcr.tag", rkey="a:b")
    assert record.headers["Location"].endswith("/xrpc/com.atproto.sync.getRecord?did="
        f"did%3Aplc%3A{'a' * 24}&collection=io.atcr.tag&rkey=a%3Ab")  # fmt: skip
    assert of(api, "getRepo", did=DID, since="yesterday").error == "InvalidRequest"
    assert of(api, "getRecord", did=DID, collection="io.atcr.tag", rkey="a/b").error == "InvalidRequest"
