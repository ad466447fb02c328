"""What all methods have in common: verbs, errors in one shape, CORS, nothing told of our own faults."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from chalice.app import Response
from chalice.deploy.validate import validate_routes
from chalice.test import Client

from chalicelib.api import listing, methods, xrpc
from chalicelib.api.xrpc import XrpcFailure
from tests.api.conftest import Api

CAPTAIN = [("collection", "io.atcr.hold.captain")]
LISTING = "/xrpc/com.atproto.sync.listReposByCollection"
CRAWL = "/xrpc/com.atproto.sync.requestCrawl"
HEALTH = "/xrpc/_health"


def view_that(api: Api, monkeypatch: pytest.MonkeyPatch, raises: Exception) -> None:
    """Make the listing fail."""

    def fail(*_: Any, **__: Any) -> Response:
        raise raises

    monkeypatch.setattr(listing, "list_repos_by_collection", fail)


# -- verbs


@pytest.mark.parametrize(
    ("path", "verb", "wrong"), [(LISTING, "GET", "POST"), (HEALTH, "GET", "POST"), (CRAWL, "POST", "GET")]
)
def test_the_other_verb_is_405_and_says_which_one_is_right(bare_api: Api, path: str, verb: str, wrong: str) -> None:
    answer = bare_api.call(wrong, path, CAPTAIN, body="{}")
    assert (answer.status, answer.error) == (405, "MethodNotAllowed")
    assert f"with {verb}, not {wrong}" in answer.json["message"]
    assert answer.headers["Allow"] == f"{verb}, OPTIONS"


@pytest.mark.parametrize("path", [LISTING, CRAWL, HEALTH, "/xrpc/com.example.thing"])
@pytest.mark.parametrize("verb", ["PUT", "DELETE", "PATCH", "HEAD", "get", "BREW"])
def test_a_verb_that_xrpc_does_not_have_is_405(bare_api: Api, path: str, verb: str) -> None:
    answer = bare_api.call(verb, path)
    assert (answer.status, answer.error) == (405, "MethodNotAllowed")
    assert answer.headers["Allow"] == "GET, POST, OPTIONS"


@pytest.mark.parametrize("verb", ["GET", "POST"])
@pytest.mark.parametrize(
    "nsid", ["com.atproto.sync.getBlob", "com.atproto.sync.requestcrawl", "x", "_healthy", "a" * 5000, "\0"]
)
def test_a_method_that_there_is_not_is_501(bare_api: Api, verb: str, nsid: str) -> None:
    answer = bare_api.call(verb, f"/xrpc/{nsid}")
    assert (answer.status, answer.error) == (501, "MethodNotImplemented")
    assert len(answer.text) < 500


def test_a_path_that_there_is_not_is_404(bare_api: Api) -> None:
    event = bare_api.event("GET", "/nowhere") | {"resource": "/nowhere", "pathParameters": None}
    event["requestContext"]["resourcePath"] = "/nowhere"
    got = bare_api.app(event, None)
    assert got["statusCode"] == 404
    assert json.loads(got["body"])["error"] == "NotFound"


# -- CORS


@pytest.mark.parametrize("query", [CAPTAIN, [], [("collection", "x")], [("collection", "app.bsky.feed.post")]])
def test_every_answer_of_a_read_may_be_read_by_any_site(api: Api, query: list[tuple[str, str]]) -> None:
    assert api.get(LISTING, query).headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("path", [HEALTH, "/xrpc/com.example.thing"])
def test_so_may_the_answers_of_the_other_reads(api: Api, path: str) -> None:
    assert api.get(path).headers["Access-Control-Allow-Origin"] == "*"


def test_and_our_own_faults(bare_api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    view_that(bare_api, monkeypatch, raises=KeyError("lost"))
    assert bare_api.get(LISTING).headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("path", [LISTING, HEALTH, "/xrpc/com.example.thing"])
def test_a_preflight_of_a_read_is_answered(bare_api: Api, path: str) -> None:
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}
    answer = bare_api.call("OPTIONS", path, headers=headers)
    assert (answer.status, answer.text) == (204, "")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Access-Control-Allow-Methods"] == "GET, OPTIONS"
    assert "Access-Control-Allow-Headers" in answer.headers


def test_other_sites_may_not_call_the_procedure(bare_api: Api) -> None:
    answer = bare_api.call("OPTIONS", CRAWL, headers={"Origin": "https://app.example"})
    assert (answer.status, answer.headers["Allow"]) == (204, "POST, OPTIONS")
    assert not [name for name in answer.headers if name.startswith("Access-Control")]
    assert "Access-Control-Allow-Origin" not in bare_api.announce("").headers


# -- errors


def test_our_own_fault_is_logged_and_not_told(
    bare_api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    view_that(bare_api, monkeypatch, raises=RuntimeError("the password is swordfish"))
    with caplog.at_level(logging.ERROR):
        answer = bare_api.get(LISTING, CAPTAIN)
    assert (answer.status, answer.error) == (500, "InternalServerError")
    assert "swordfish" not in answer.text
    assert "RuntimeError" not in answer.text
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.exc_info is not None
    assert "swordfish" in str(record.exc_info[1])


def test_an_event_that_is_no_request_is_our_own_fault(bare_api: Api) -> None:
    got = bare_api.app({"requestContext": {}}, None)
    assert got["statusCode"] == 500
    assert json.loads(got["body"])["error"] == "InternalServerError"


def test_a_failure_is_answered_with_its_headers(bare_api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    view_that(bare_api, monkeypatch, raises=XrpcFailure(429, "RateLimitExceeded", "later", xrpc.retry_after(1.2)))
    answer = bare_api.get(LISTING)
    assert (answer.status, answer.error, answer.headers["Retry-After"]) == (429, "RateLimitExceeded", "2")
    assert answer.text == '{"error":"RateLimitExceeded","message":"later"}'


@pytest.mark.parametrize("length", [xrpc.MAX_MESSAGE, xrpc.MAX_MESSAGE + 1])
def test_a_message_has_1000_characters_at_most(bare_api: Api, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    view_that(bare_api, monkeypatch, raises=xrpc.invalid_request("x" * length))
    assert len(bare_api.get(LISTING).json["message"]) == xrpc.MAX_MESSAGE


def test_a_type_of_content_that_chalice_refuses_is_415_in_our_shape() -> None:
    refused = Response({"Code": "UnsupportedMediaType", "Message": "Unsupported media type: text/plain"}, None, 415)
    assert json.loads(xrpc.answered(None, lambda _: refused).body) == {
        "error": "UnsupportedMediaType",
        "message": "Unsupported media type: text/plain",
    }


def test_the_type_of_content_of_a_read_does_not_matter(api: Api) -> None:
    assert api.get(LISTING, CAPTAIN, headers={"Content-Type": "text/plain"}).status == 200


# -- deployed


def test_chalice_deploys_these_routes(bare_api: Api) -> None:
    routes = {path: methods for path, methods in bare_api.app.routes.items() if methods}
    validate_routes(routes)
    assert routes.keys() >= {
        "/xrpc/{nsid}",
        "/admin/{name}",
        "/openapi.json",
        "/v1/listCollections",
        "/.well-known/holds.json",
    }


@pytest.mark.parametrize("nsid", methods.METHODS)
def test_every_method_has_a_view(nsid: str) -> None:
    method = methods.METHODS[nsid]
    assert method.verb in ("GET", "POST")
    assert callable(method.load())


def test_it_works_in_the_test_client_of_chalice(api: Api) -> None:
    with Client(api.app, stage_name="dev", project_dir="tests/api") as client:
        assert client.http.get(f"{LISTING}?collection=io.atcr.hold.captain&limit=5").json_body == {"repos": []}
        assert client.http.get(f"{LISTING}?collection=io.atcr.tag&collection=x").json_body["error"] == "InvalidRequest"
        assert client.http.get("/xrpc/com.example.thing").status_code == 501
        assert client.http.post(CRAWL, headers={"Content-Type": "application/json"}, body=b"{}").status_code == 400
        assert client.http.options(LISTING).status_code == 204
        assert client.http.get(HEALTH).status_code == 503
