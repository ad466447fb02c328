"""The XRPC client: what it asks, and what it makes of any answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chalicelib.atproto.client import MAX_ANSWER, MAX_PAGE, DidPage, ListedRepo, PdsClient, RepoPage, RepoStatus
from chalicelib.atproto.errors import BadResponse, BudgetExceeded, Unreachable, XrpcError
from chalicelib.atproto.net import Door
from chalicelib.atproto.syntax import Did, Origin, Tid, parse_origin
from simulator.scripted import Reply, ScriptedServer, http

DID = Did("did:plc:ewvi7nxzyoun6zhxrhs64oiz")
REV = Tid("3jzfcijpj2z2a")
HEAD = "bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm"


class Host:
    """A server that gives the same reply to every request."""

    def __init__(self) -> None:
        self.reply: Reply = http()
        self.server = ScriptedServer(lambda request: self.reply)

    def says(self, value: Any, status: int = 200, **headers: str) -> None:
        self.reply = http(status, json.dumps(value).encode(), **headers)

    @property
    def asked(self) -> str:
        return self.server.requests[-1].target


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    host = Host()
    with host.server:
        yield host


@pytest.fixture(scope="module")
def client(host: Host) -> Iterator[PdsClient]:
    with Door(allow_private=True) as door:
        yield PdsClient(door, parse_origin(host.server.url, allow_private=True))


# describeServer


def test_a_pds_describes_itself(host: Host, client: PdsClient) -> None:
    host.says({"did": "did:web:localhost:2583", "availableUserDomains": [".atcr.io", 7], "more": {}})
    described = client.describe_server()
    assert host.asked == "/xrpc/com.atproto.server.describeServer"
    assert (described.did, described.user_domains) == ("did:web:localhost%3A2583", (".atcr.io",))


def test_a_sparse_description_is_enough(host: Host, client: PdsClient) -> None:
    for more in ({}, {"availableUserDomains": None}):
        host.says({"did": DID} | more)
        assert client.describe_server().user_domains == ()


@pytest.mark.parametrize(
    "value", [{}, [], None, 7, "did", {"did": None}, {"did": ""}, {"did": "did:web:"}, {"did": [DID]}]
)
def test_a_server_without_a_did_is_no_pds(value: Any, host: Host, client: PdsClient) -> None:
    host.says(value)
    with pytest.raises(BadResponse):
        client.describe_server()


def test_a_web_page_is_no_pds(host: Host, client: PdsClient) -> None:
    host.reply = http(200, b"<!doctype html><html>", content_type="text/html")
    with pytest.raises(BadResponse, match="not JSON"):
        client.describe_server()
    host.reply = http(200, b"x" * (MAX_ANSWER + 1))
    with pytest.raises(BudgetExceeded):
        client.describe_server()


# listRepos


def entry(**changes: Any) -> dict[str, Any]:
    return {"did": DID, "head": HEAD, "rev": REV} | changes


def test_a_page_of_repos_is_read(host: Host, client: PdsClient) -> None:
    host.says({"repos": [entry(), entry(active=False, status="takendown")], "cursor": "next", "more": 1})
    page = client.list_repos()
    assert host.asked == "/xrpc/com.atproto.sync.listRepos?limit=500"
    assert page == RepoPage(
        (ListedRepo(DID, REV, HEAD, True, None), ListedRepo(DID, REV, HEAD, False, "takendown")), "next"
    )


def test_a_cursor_is_sent_as_it_came(host: Host, client: PdsClient) -> None:
    host.says({"repos": []})
    client.list_repos("2024-01-01T00:00Z::a b+c&d=e%2F/ü", limit=1000)
    assert host.asked == (
        "/xrpc/com.atproto.sync.listRepos?limit=1000&cursor=2024-01-01T00%3A00Z%3A%3Aa+b%2Bc%26d%3De%252F%2F%C3%BC"
    )


@pytest.mark.parametrize("cursor", ["", None, 7, [], {}])
def test_the_last_page_has_no_cursor(cursor: Any, host: Host, client: PdsClient) -> None:
    host.says({"repos": [], "cursor": cursor})
    assert client.list_repos() == RepoPage((), None)


@pytest.mark.parametrize("cursor", ["x" * 5000, "a\nb", "\x00", "\ud800"])
def test_a_cursor_that_cannot_be_kept_is_refused(cursor: str, host: Host, client: PdsClient) -> None:
    host.says({"repos": [], "cursor": cursor})
    with pytest.raises(BadResponse, match="cursor"):
        client.list_repos()


@pytest.mark.parametrize(
    "bad",
    [
        None,
        7,
        [],
        "did:plc:x",
        {},
        entry(did=None),
        entry(did="did:PLC:x"),
        entry(did="did:plc:a#b"),
        entry(did="did:plc:" + "a" * 3000),
        entry(did="\ud800"),
        entry(rev=None),
        entry(rev=""),
        entry(rev="2024"),
        entry(rev="zzzzzzzzzzzzz"),
        entry(active="yes"),
        entry(active=None),
    ],
)
def test_a_bad_entry_is_dropped_and_counted(bad: Any, host: Host, client: PdsClient) -> None:
    host.says({"repos": [entry(), bad, entry()]})
    page = client.list_repos()
    assert (len(page.repos), page.dropped) == (2, 1)


def test_what_an_entry_says_beyond_did_and_rev_is_not_vital(host: Host, client: PdsClient) -> None:
    odd = [entry(head=None), entry(head="../etc"), entry(head=7), entry(status=7), entry(status="a b\n")]
    host.says({"repos": odd})
    page = client.list_repos()
    assert (page.dropped, [repo.head for repo in page.repos][:3]) == (0, [None, None, None])
    assert {repo.status for repo in page.repos} == {None}


def test_each_spelling_of_a_port_is_the_same_did(host: Host, client: PdsClient) -> None:
    spellings = ("did:web:localhost%3A80", "did:web:localhost%3a80", "did:web:localhost:80")
    host.says({"repos": [entry(did=did) for did in spellings]})
    assert {repo.did for repo in client.list_repos().repos} == {"did:web:localhost%3A80"}


@pytest.mark.parametrize("value", [{}, {"repos": None}, {"repos": {}}, {"repos": "x"}, [], None])
def test_an_answer_without_repos_is_a_bad_response(value: Any, host: Host, client: PdsClient) -> None:
    host.says(value)
    with pytest.raises(BadResponse):
        client.list_repos()


def test_a_page_is_bounded(host: Host, client: PdsClient) -> None:
    host.says({"repos": [], "x": "y" * MAX_PAGE})
    with pytest.raises(BudgetExceeded):
        client.list_repos()


# listReposByCollection


def test_a_page_of_those_who_have_a_collection_is_read(host: Host, client: PdsClient) -> None:
    strange = [{}, [], None, 7, DID, {"did": None}, {"did": "did:web:"}, {"did": "at://x"}]
    host.says({"repos": [{"did": DID}, *strange, {"did": "did:web:localhost:80", "more": 1}], "cursor": "next"})
    page = client.list_repos_by_collection("io.atcr.tag", "last")
    assert host.asked == "/xrpc/com.atproto.sync.listReposByCollection?collection=io.atcr.tag&limit=500&cursor=last"
    assert page == DidPage((DID, Did("did:web:localhost%3A80")), "next", dropped=len(strange))


@pytest.mark.parametrize("value", [{}, [], {"repos": None}, {"repos": {}}, {"repos": [], "cursor": "a" * 3000}])
def test_a_strange_page_of_a_collection_is_refused(value: Any, host: Host, client: PdsClient) -> None:
    host.says(value)
    with pytest.raises(BadResponse, match="listReposByCollection"):
        client.list_repos_by_collection("io.atcr.tag")


# getRepoStatus


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"active": True, "rev": REV}, RepoStatus(True, None, REV)),
        ({"active": False, "status": "deactivated"}, RepoStatus(False, "deactivated", None)),
        ({}, RepoStatus(True, None, None)),
        ({"active": True, "rev": "x", "status": 7}, RepoStatus(True, None, None)),
    ],
)
def test_a_status_is_read(answer: dict[str, Any], status: RepoStatus, host: Host, client: PdsClient) -> None:
    host.says({"did": DID} | answer)
    assert client.get_repo_status(DID) == status


def test_a_did_is_escaped_whole(host: Host, client: PdsClient) -> None:
    host.says({"did": "did:web:localhost:2583", "active": True})
    assert client.get_repo_status(Did("did:web:localhost%3A2583")).active
    assert host.asked == "/xrpc/com.atproto.sync.getRepoStatus?did=did%3Aweb%3Alocalhost%253A2583"


def test_a_status_under_the_other_spelling_of_the_did_is_about_the_same(host: Host, client: PdsClient) -> None:
    host.says({"did": "did:web:localhost%3A2583", "active": True})
    assert client.get_repo_status(Did("did:web:localhost:2583")).active


@pytest.mark.parametrize("answer", [{}, {"did": None}, {"did": "did:web:evil.com"}, {"did": DID, "active": "no"}])
def test_a_status_of_another_did_or_none_is_a_bad_response(answer: Any, host: Host, client: PdsClient) -> None:
    host.says(answer)
    with pytest.raises(BadResponse):
        client.get_repo_status(DID)


# getRepo, getRecord


def test_a_repo_comes_in_chunks(host: Host, client: PdsClient) -> None:
    host.reply = http(200, b"x" * 200_000)
    with client.repo_car(DID) as chunks:
        assert sum(map(len, chunks)) == 200_000
    assert host.asked == "/xrpc/com.atproto.sync.getRepo?did=did%3Aplc%3Aewvi7nxzyoun6zhxrhs64oiz"
    assert host.server.requests[-1].headers["accept"] == "application/vnd.ipld.car"
    with client.repo_car(DID, since=REV):
        assert host.asked.endswith(f"&since={REV}")


def test_an_empty_repo_is_no_error_here(host: Host, client: PdsClient) -> None:
    host.reply = http(200)
    with client.repo_car(DID) as chunks:
        assert list(chunks) == []


def test_a_repo_is_bounded(host: Host, client: PdsClient) -> None:
    host.reply = http(200, b"x" * 200_000)
    with client.repo_car(DID, max_bytes=199_999) as chunks, pytest.raises(BudgetExceeded):
        list(chunks)


def test_a_repo_that_is_cut_off_is_not_whole(host: Host, client: PdsClient) -> None:
    host.reply = [http(200, b"x" * 200_000)[:-1]]
    with client.repo_car(DID) as chunks, pytest.raises(Unreachable):
        list(chunks)


@pytest.mark.parametrize("name", ["RepoNotFound", "RepoTakendown", "RepoSuspended", "RepoDeactivated"])
def test_the_errors_of_a_repo_arrive_by_name(name: str, host: Host, client: PdsClient) -> None:
    host.says({"error": name, "message": "no such repo"}, 400)
    with pytest.raises(XrpcError, match=f"400 {name}: no such repo") as error, client.repo_car(DID):
        pass
    assert (error.value.status, error.value.name) == (400, name)


def test_a_proof_comes_whole_and_bounded(host: Host, client: PdsClient) -> None:
    host.reply = http(200, b"proof")
    assert client.get_record_car(DID, "io.atcr.hold.captain", "self:1~2") == b"proof"
    assert host.asked.endswith("&collection=io.atcr.hold.captain&rkey=self%3A1~2")
    host.reply = http(200, b"x" * 5_000_000)
    with pytest.raises(BudgetExceeded):
        client.get_record_car(DID, "io.atcr.hold.captain", "self")


# Errors


def every_call(client: PdsClient) -> list[Callable[[], object]]:
    def repo() -> None:
        with client.repo_car(DID) as chunks:
            list(chunks)

    return [
        client.describe_server,
        client.list_repos,
        lambda: client.get_repo_status(DID),
        repo,
        lambda: client.get_record_car(DID, "io.atcr.hold.captain", "self"),
    ]


def test_every_call_says_how_long_to_wait(host: Host, client: PdsClient) -> None:
    host.says({"error": "RateLimitExceeded", "message": "Rate Limit Exceeded"}, 429, retry_after="30")
    for call in every_call(client):
        with pytest.raises(XrpcError) as error:
            call()
        assert (error.value.name, error.value.retry_after) == ("RateLimitExceeded", 30)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>502</html>",
        b"<" * 1_000_000,
        b"[]",
        b"null",
        b"{}",
        b'{"error": 7}',
        b'{"error": ""}',
        b'{"error": "a b\\n"}',
        b'{"error": "\\ud800"}',
        b'{"error": {}, "message": []}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_an_error_that_is_not_xrpcs_has_a_name_too(body: bytes, host: Host, client: PdsClient) -> None:
    host.reply = http(502, body)
    for call in every_call(client):
        with pytest.raises(XrpcError) as error:
            call()
        assert (error.value.status, error.value.name) == (502, "HttpError")


def test_the_message_of_an_error_is_fit_to_be_logged(host: Host, client: PdsClient) -> None:
    host.says({"error": "Oops", "message": "\x1b[2J\ud800" + "x" * 1000 + "\nsecond line"}, 500)
    with pytest.raises(XrpcError) as error:
        client.describe_server()
    assert str(error.value).startswith("500 Oops: ?[2J?xxx")
    assert len(str(error.value)) < 250
    assert str(error.value).isprintable()


def test_an_unreachable_host_is_unreachable_in_every_call() -> None:
    with ScriptedServer(lambda request: None) as server:
        pass
    with Door(allow_private=True) as door:
        for call in every_call(PdsClient(door, Origin("127.0.0.1", server.port, secure=False))):
            with pytest.raises(Unreachable):
                call()
