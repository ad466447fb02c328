"""The API's local server makes the events of API Gateway."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Thread
from typing import Any

import httpx
import pytest
import waitress

from infra.local.http import BEHIND_PROXY, COMPRESSED_FROM, Gateway, proxy_event
from tests.infra import tiny_app


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as url:
        yield url


@contextmanager
def serving(**options: Any) -> Iterator[str]:
    server: Any = waitress.create_server(Gateway(tiny_app.app), map={}, host="127.0.0.1", port=0, threads=8, **options)
    thread = Thread(target=server.run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.effective_port}/xrpc"
    finally:
        server.close()
        thread.join()


def caller(url: str, headers: dict[str, str]) -> str:
    """The address in the event of a request."""
    answer = httpx.get(f"{url}/echo", headers=headers)
    return str(answer.json()["context"]["identity"]["sourceIp"])


CLAIMS = {
    "203.0.113.9": "203.0.113.9",
    "203.0.113.9, 198.51.100.4": "198.51.100.4",
    "198.51.100.4,127.0.0.1,2001:db8::7": "2001:db8::7",
    "x, 192.0.2.1:555": "192.0.2.1",
    "garbage": "garbage",
}
"""X-Forwarded-For, and the address of its last hop."""


@pytest.mark.parametrize("claim", CLAIMS)
def test_what_a_caller_claims_of_its_address_means_nothing(url: str, claim: str) -> None:
    for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):
        value = f"for={claim}" if name == "Forwarded" else claim
        assert caller(url, {name: value}) == "127.0.0.1"


@pytest.mark.parametrize(("header", "address"), CLAIMS.items())
def test_behind_a_proxy_the_last_address_is_the_callers(behind_proxy: str, header: str, address: str) -> None:
    assert caller(behind_proxy, {"X-Forwarded-For": header}) == address


def test_behind_a_proxy_no_other_header_is_believed(behind_proxy: str) -> None:
    for headers in ({"Forwarded": "for=203.0.113.9"}, {"X-Real-IP": "203.0.113.9"}, {}):
        assert caller(behind_proxy, headers) == "127.0.0.1"


@pytest.fixture(scope="module")
def behind_proxy() -> Iterator[str]:
    with serving(**BEHIND_PROXY) as url:
        yield url


def environ(**changes: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "REMOTE_ADDR": "192.0.2.7",
        "wsgi.input": io.BytesIO(changes.pop("body", b"")),
    } | changes


def test_a_request_becomes_a_proxy_event() -> None:
    made = proxy_event(
        environ(QUERY_STRING="a=1&b=x%20y&a=2&c=", HTTP_USER_AGENT="curl", CONTENT_TYPE="application/json", body=b"{}"),
        "POST",
        "/xrpc/x",
        "/xrpc/{nsid}",
        {"nsid": "x"},
        lambda kind: False,
    )
    assert made["queryStringParameters"] == {"a": "2", "b": "x y", "c": ""}
    assert made["multiValueQueryStringParameters"] == {"a": ["1", "2"], "b": ["x y"], "c": [""]}
    assert made["headers"]["Content-Type"] == "application/json"
    assert made["multiValueHeaders"]["User-Agent"] == ["curl"]
    assert made["headers"]["X-Forwarded-For"] == "192.0.2.7"
    assert made["requestContext"]["identity"] == {"sourceIp": "192.0.2.7", "userAgent": "curl"}
    assert made["requestContext"]["resourcePath"] == made["resource"] == "/xrpc/{nsid}"
    assert made["requestContext"]["httpMethod"] == made["httpMethod"] == "POST"
    assert made["pathParameters"] == {"nsid": "x"}
    assert (made["body"], made["isBase64Encoded"]) == ("{}", False)


def test_what_is_not_there_is_null_as_the_gateway_has_it() -> None:
    made = proxy_event(environ(), "GET", "/a", "/a", {}, lambda kind: False)
    for name in (
        "queryStringParameters",
        "multiValueQueryStringParameters",
        "pathParameters",
        "stageVariables",
        "body",
    ):
        assert made[name] is None


def test_repeated_parameters_reach_the_app(url: str) -> None:
    assert httpx.get(f"{url}/echo?many=a&many=b").json()["many"] == ["a", "b"]


def test_a_binary_body_reaches_the_app_byte_for_byte(url: str) -> None:
    body = bytes(range(256))
    for kind in ("application/vnd.ipld.car", "application/octet-stream"):
        answer = httpx.post(f"{url}/echo", content=body, headers={"content-type": kind})
        assert answer.json()["body"] == body.decode("latin-1")


def test_a_binary_answer_reaches_the_caller(url: str) -> None:
    answer = httpx.get(f"{url}/bytes", headers={"accept": "application/octet-stream"})
    assert answer.content == b"\x00\xff"


def test_a_literal_route_wins_over_a_parameter(url: str) -> None:
    assert httpx.get(f"{url}/_health").json() == {"status": "fine"}
    assert httpx.get(f"{url}/_health/").json() == {"status": "fine"}
    other = httpx.get(f"{url}/com.example.other")
    assert (other.status_code, other.json()["message"]) == (501, "com.example.other")


def test_a_path_without_a_resource_is_a_404_in_the_format_of_xrpc(url: str) -> None:
    answer = httpx.get(f"{url}/a/b/c")
    assert answer.status_code == 404
    assert set(answer.json()) == {"error", "message"}


def test_head_is_get_without_a_body(url: str) -> None:
    answer = httpx.head(f"{url}/_health")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(httpx.get(f"{url}/_health").content))


def test_a_preflight_is_answered_as_the_gateway_does(url: str) -> None:
    answer = httpx.options(f"{url}/echo", headers={"origin": "https://example.com"})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-methods"] == "GET,OPTIONS,POST"


def test_another_method_is_for_the_app_to_refuse(url: str) -> None:
    assert httpx.delete(f"{url}/echo").status_code == 405


def test_the_context_says_how_much_time_is_left(url: str) -> None:
    assert 28_000 < httpx.get(f"{url}/echo").json()["remaining"] <= 29_000


def test_requests_at_the_same_time_do_not_see_each_other(url: str) -> None:
    names = [f"n{number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda name: httpx.get(f"{url}/paired/{name}").json(), names))
    assert answers == [{"name": name, "argument": name} for name in names]


@pytest.mark.parametrize(("path", "coding"), [("_health", None), (f"{'x' * COMPRESSED_FROM}", "gzip")])
def test_a_long_answer_is_compressed_for_who_takes_that(url: str, path: str, coding: str | None) -> None:
    answer = httpx.get(f"{url}/{path}", headers={"Accept-Encoding": "br, gzip"})
    plain = httpx.get(f"{url}/{path}", headers={"Accept-Encoding": "identity"})
    assert (answer.headers.get("content-encoding"), plain.headers.get("content-encoding")) == (coding, None)
    assert answer.json() == plain.json()
