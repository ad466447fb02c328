"""com.atproto.sync.requestCrawl: the body, and what is answered to it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.api.crawling import MAX_BODY
from chalicelib.atproto.errors import InvalidSyntax
from chalicelib.crawl import admission
from chalicelib.crawl.admission import AdmissionRefused, HostBanned, HostNotFound, RateLimitExceeded
from chalicelib.crawl.budgets import OverBudget
from chalicelib.index.tables import Tables
from simulator import SimulatorThread
from tests.api.conftest import Api
from tests.conftest import Stack

GOOD = '{"hostname":"hold01.atcr.io"}'


@pytest.fixture
def admitted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Everybody is let in; the hostnames as they were passed on."""
    hostnames: list[str] = []
    monkeypatch.setattr(admission, "request_crawl", lambda _, hostname, **__: hostnames.append(hostname))
    return hostnames


# -- the body


def test_a_host_is_let_in_with_zero_bytes(bare_api: Api, admitted: list[str]) -> None:
    answer = bare_api.announce(GOOD)
    assert (answer.status, answer.text) == (200, "")
    assert admitted == ["hold01.atcr.io"]


def test_other_fields_are_ignored(bare_api: Api, admitted: list[str]) -> None:
    assert bare_api.announce('{"hostname":"a.example.org","$type":"x","force":[true]}').status == 200
    assert admitted == ["a.example.org"]


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8 ",
    ],
)
def test_json_by_its_name_or_by_none_is_read(bare_api: Api, admitted: list[str], content_type: str | None) -> None:
    assert bare_api.announce(GOOD, content_type).status == 200
    assert admitted == ["hold01.atcr.io"]


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "application/cbor", "*/*"]
)
def test_any_other_type_is_415(bare_api: Api, admitted: list[str], content_type: str) -> None:
    answer = bare_api.announce(GOOD, content_type)
    assert (answer.status, answer.error) == (415, "UnsupportedMediaType")
    assert "application/json" in answer.json["message"]
    assert not admitted


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (None, "must be JSON"),
        ("", "must be JSON"),
        ("hostname=hold01.atcr.io", "must be JSON"),
        ('{"hostname":', "must be JSON"),
        (GOOD + GOOD, "must be JSON"),
        ("[" * 8000, "must be JSON"),
        ("9" * 8000, "must be JSON"),
        ("null", "not null"),
        ("[]", "not an array"),
        ("5", "not a number"),
        ('"hold01.atcr.io"', "not a string"),
        ("{}", "hostname is missing"),
        ('{"Hostname":"hold01.atcr.io"}', "hostname is missing"),
        ('{"hostname":null}', "not null"),
        ('{"hostname":["hold01.atcr.io"]}', "not an array"),
        ('{"hostname":{}}', "not an object"),
        ('{"hostname":true}', "not a boolean"),
        ('{"hostname":5.5}', "not a number"),
    ],
)
def test_a_body_without_a_hostname_is_refused(bare_api: Api, admitted: list[str], body: str | None, says: str) -> None:
    answer = bare_api.announce(body)
    assert (answer.status, answer.error) == (400, "InvalidRequest")
    assert says in answer.json["message"]
    assert not admitted


def test_a_body_may_have_8192_bytes(bare_api: Api, admitted: list[str]) -> None:
    assert bare_api.announce(GOOD.ljust(MAX_BODY)).status == 200
    answer = bare_api.announce(GOOD.ljust(MAX_BODY + 1))
    assert (answer.status, answer.error) == (400, "InvalidRequest")
    assert "8192" in answer.json["message"]
    assert len(admitted) == 1


def test_bytes_are_counted_not_characters(bare_api: Api, admitted: list[str]) -> None:
    assert (
        bare_api.announce(json.dumps({"x": "é" * (MAX_BODY // 2), "hostname": "a.b"}, ensure_ascii=False)).status == 400
    )
    assert not admitted


def test_a_body_that_the_gateway_encoded_is_read(bare_api: Api, admitted: list[str]) -> None:
    event = bare_api.event("POST", "/xrpc/com.atproto.sync.requestCrawl", body=base64.b64encode(GOOD.encode()).decode())
    assert bare_api.app(event | {"isBase64Encoded": True}, None)["statusCode"] == 200
    assert admitted == ["hold01.atcr.io"]


# -- hostnames


@pytest.mark.parametrize(
    "hostname",
    [
        "",
        "localhost",
        "hold",
        "127.0.0.1",
        "[::1]",
        "http://hold01.atcr.io",
        "hold01.atcr.io/x",
        "a@hold01.atcr.io",
        "hold01.atcr.io:8443",
        "höld.example.org",
        "hold.local",
        "a" * 254,
        "a#b.example.org",
        "did:web:hold01.atcr.io",
        "\0",
    ],
)
def test_a_hostname_that_is_not_public_is_refused(bare_api: Api, hostname: str) -> None:
    answer = bare_api.announce(json.dumps({"hostname": hostname}))
    assert (answer.status, answer.error) == (400, "InvalidRequest")


# -- what admission says


@pytest.mark.parametrize(
    ("refusal", "status", "error"),
    [
        (InvalidSyntax("no"), 400, "InvalidRequest"),
        (HostNotFound("no"), 400, "HostNotFound"),
        (HostBanned("no"), 400, "HostBanned"),
        (AdmissionRefused("no"), 400, "InvalidRequest"),
    ],
)
def test_a_refusal_is_told_as_it_is(
    bare_api: Api, monkeypatch: pytest.MonkeyPatch, refusal: Exception, status: int, error: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise refusal

    monkeypatch.setattr(admission, "request_crawl", refuse)
    answer = bare_api.announce(GOOD)
    assert (answer.status, answer.error, answer.json["message"]) == (status, error, "no")
    assert "Retry-After" not in answer.headers


def test_a_refusal_says_when_to_come_again(bare_api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RateLimitExceeded(OverBudget("too many", 59.5))

    monkeypatch.setattr(admission, "request_crawl", refuse)
    answer = bare_api.announce(GOOD)
    assert (answer.status, answer.error, answer.headers["Retry-After"]) == (429, "RateLimitExceeded", "60")


# -- the whole way


@pytest.fixture
def sim() -> Iterator[SimulatorThread]:
    with SimulatorThread() as running:
        yield running


def test_a_pds_that_answers_is_written_down_and_queued(
    api: Api, tables: Tables, stack_env: Stack, sim: SimulatorThread
) -> None:
    hold = sim.call(sim.net.add_hold())
    answer = api.announce(json.dumps({"hostname": hold.url}))
    assert (answer.status, answer.text) == (200, "")
    assert tables.hosts.get(hold.url).status == "active"
    messages = stack_env.sqs.receive_message(QueueUrl=stack_env.queue_url, WaitTimeSeconds=1)["Messages"]
    assert [json.loads(message["Body"]) for message in messages] == [{"host": hold.url}]


def test_a_host_that_is_down_is_told_so_and_remembered(
    api: Api, tables: Tables, stack_env: Stack, sim: SimulatorThread
) -> None:
    hold = sim.call(sim.net.add_hold())
    sim.call(hold.stop())
    answer = api.announce(json.dumps({"hostname": hold.url}))
    assert (answer.status, answer.error) == (400, "HostNotFound")
    assert tables.hosts.get(hold.url).status == "unconfirmed"


def test_a_caller_that_is_over_its_budget_is_told_when_to_ask_again_whatever_it_claims_to_be(
    api: Api, tables: Tables, sim: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISCOVERY_MAX_ADDRESS_REQUESTS", "1")
    first, second = (sim.call(sim.net.add_hold()) for _ in range(2))
    assert api.announce(json.dumps({"hostname": first.url})).status == 200
    headers = {"content-type": "application/json", "X-Forwarded-For": "203.0.113.5", "X-Real-IP": "203.0.113.5"}
    body = json.dumps({"hostname": second.url})
    answer = api.call("POST", "/xrpc/com.atproto.sync.requestCrawl", headers=headers, body=body)
    assert (answer.status, answer.error) == (429, "RateLimitExceeded")
    assert 1 <= int(answer.headers["Retry-After"]) <= 3600
    assert "198.51.100.7" in answer.json["message"]
    assert [row.origin for row in tables.hosts.scan()] == [first.url]
