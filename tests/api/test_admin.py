"""The operators' door: who is let in, what can be looked at, and what comes of an order."""

from __future__ import annotations

import hmac
import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import boto3
import httpx
import pytest
from botocore.client import BaseClient
from moto import mock_aws

from chalicelib import cli, metrics, process, remote, settings
from chalicelib.api import cursor as cursors
from chalicelib.api.admin import bearer, methods, token
from chalicelib.api.admin.token import KEEP_SECONDS, RETRY_SECONDS, AdminToken, TokenUnavailable
from chalicelib.atproto.syntax import Did, Origin
from chalicelib.crawl import inspection, jobs, orders
from chalicelib.crawl.queue import RepoJob, to_body
from infra.local.http import Gateway
from tests.api.conftest import Answer, Api
from tests.conftest import Stack

TOKEN = "5-a.fine~token_of+32/characters="
HOST = "hold01.atcr.io"
DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
Run = Callable[..., tuple[int, list[str]]]


def bearing(text: str = TOKEN, scheme: str = "Bearer") -> dict[str, str]:
    return {"Authorization": f"{scheme} {text}"}


@pytest.fixture
def token_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    monkeypatch.setenv("DISCOVERY_ADMIN_TOKEN_FROM", f"file:{file}")
    return file


@pytest.fixture
def door(bare_api: Api, token_file: Path, monkeypatch: pytest.MonkeyPatch) -> Api:
    """The door, with nothing behind it."""
    monkeypatch.setenv("DISCOVERY_ADMIN_TOKEN_FROM", f"file:{token_file}")
    settings.current.cache_clear()
    return bare_api


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The reasons that were counted."""
    counted: list[str] = []
    monkeypatch.setattr(metrics, "count", lambda name, Reason: counted.append(f"{name} {Reason}"))
    return counted


# -- who is let in


@pytest.mark.parametrize("verb", ["GET", "POST"])
@pytest.mark.parametrize("name", ["listHosts", "ban", "nothing", "__init__", "..", "%00", "x" * 5000])
@pytest.mark.parametrize(
    "headers", [{}, bearing("a-token-that-is-not-the-one"), bearing(TOKEN[:-1]), bearing(TOKEN + "=")]
)
def test_without_the_token_every_method_answers_the_same_be_it_there_or_not(
    door: Api, verb: str, name: str, headers: dict[str, str]
) -> None:
    answer = door.call(verb, f"/admin/{name}", headers=headers, body='{"target": "x"}')
    known = door.call("GET", "/admin/listBans", headers=headers)
    assert (answer.status, answer.error) == (401, "AuthenticationRequired")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert (answer.text, answer.headers) == (known.text, known.headers)
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    "header",
    [
        *("", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}", f"Digest {TOKEN}", f"Bearer{TOKEN}", f"Bearer\t{TOKEN}"),
        *(f"Bearer {TOKEN} {TOKEN}", f"Bearer {TOKEN}, Bearer {TOKEN}", f"Bearer {TOKEN}\n", f"Bearer {TOKEN}\x00"),
        *(
            f'Bearer "{TOKEN}"',
            f"Bearer {TOKEN.upper()}",
            f"Bearer {TOKEN.swapcase()}",
            "Bearer \ud800",
            "Bearer é" * 9,
        ),
        *("Bearer " + "a" * 8_000, "Bearer " + "a" * 500_000, "Bearer " + " " * 500_000, "Bearer None", "Bearer =="),
    ],
)
def test_a_header_that_is_not_quite_it_is_refused(door: Api, refusals: list[str], header: str) -> None:
    if header == f"Bearer {TOKEN}\n":
        header = f"Bearer {TOKEN}\nX"  # white space at its ends is not part of a header's value (RFC 9110, 5.5)
    answer = door.get("/admin/nothing", headers={"Authorization": header})
    assert (answer.status, answer.error) == (401, "AuthenticationRequired")
    assert refusals in (["AdminRefused no token"], ["AdminRefused wrong token"])


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION"])
def test_the_token_is_let_in(door: Api, refusals: list[str], scheme: str, name: str) -> None:
    answer = door.get("/admin/nothing", headers={name: f"{scheme} {TOKEN}"})
    assert (answer.status, answer.error) == (501, "MethodNotImplemented")
    assert refusals == []


@pytest.mark.parametrize("second", [bearing()["Authorization"], "Bearer something-else-of-16", ""])
def test_of_two_headers_none_counts(door: Api, second: str) -> None:
    for several in ([second, f"Bearer {TOKEN}"], [f"Bearer {TOKEN}", second]):
        event = door.event("GET", "/admin/nothing", headers={"Authorization": several[-1]})
        event["multiValueHeaders"]["Authorization"] = several
        assert door.app(event, None)["statusCode"] == 401
    event = door.event("GET", "/admin/nothing", headers=bearing() | {"authorization": second})
    assert door.app(event, None)["statusCode"] == 401


def test_no_setting_is_a_closed_door(bare_api: Api, refusals: list[str]) -> None:
    for headers in ({}, bearing(), bearing("")):
        answer = bare_api.get("/admin/listHosts", headers=headers)
        assert (answer.status, answer.error) == (401, "AuthenticationRequired")
        assert "closed" in answer.json["message"]
    assert refusals == ["AdminRefused closed"] * 3


def test_the_tokens_are_compared_in_constant_time_and_by_their_digests(
    door: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def noted(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(bearer.hmac, "compare_digest", noted)
    door.get("/admin/nothing", headers=bearing("short"))
    door.get("/admin/nothing", headers=bearing())
    assert [(len(one), len(other), one == other) for one, other in compared] == [(32, 32, False), (32, 32, True)]


def test_a_method_of_the_wrong_verb_is_not_called(door: Api) -> None:
    for name, method in methods.METHODS.items():
        verb = "POST" if method.verb == "GET" else "GET"
        answer = door.call(verb, f"/admin/{name}", headers=bearing())
        assert (answer.status, answer.error) == (405, "MethodNotAllowed")


@pytest.mark.parametrize("verb", ["OPTIONS", "PUT", "DELETE", "PATCH", "HEAD"])
def test_other_sites_pages_have_no_business_here(door: Api, verb: str) -> None:
    answer = door.call(verb, "/admin/listHosts", headers=bearing() | {"Origin": "https://example.com"})
    assert answer.status in (404, 405)
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


# -- the token


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_new_token_counts_after_five_minutes_and_the_old_one_no_longer(
    door: Api, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    kept = AdminToken(f"file:{token_file}", clock=clock)
    monkeypatch.setattr(token, "current", lambda: kept)

    def let_in(text: str) -> bool:
        return door.get("/admin/nothing", headers=bearing(text)).status == 501

    assert let_in(TOKEN)
    token_file.write_text("another-token-of-16-and-more")
    clock.now += KEEP_SECONDS - 1
    assert (let_in(TOKEN), let_in("another-token-of-16-and-more")) == (True, False)
    clock.now += 1
    assert (let_in(TOKEN), let_in("another-token-of-16-and-more")) == (False, True)


def test_a_token_that_cannot_be_read_is_a_closed_door_and_is_tried_for_again(
    door: Api, token_file: Path, monkeypatch: pytest.MonkeyPatch, refusals: list[str]
) -> None:
    clock = Clock()
    kept = AdminToken(f"file:{token_file}", clock=clock)
    monkeypatch.setattr(token, "current", lambda: kept)
    assert door.get("/admin/nothing", headers=bearing()).status == 501
    token_file.rename(token_file.with_suffix(".away"))
    clock.now += KEEP_SECONDS
    answer = door.get("/admin/nothing", headers=bearing())
    assert (answer.status, answer.error, answer.headers["Retry-After"]) == (503, "AdminUnavailable", "10")
    assert door.get("/admin/nothing").status == 401
    token_file.with_suffix(".away").rename(token_file)
    assert door.get("/admin/nothing", headers=bearing()).status == 503
    clock.now += RETRY_SECONDS
    assert door.get("/admin/nothing", headers=bearing()).status == 501
    assert refusals == ["AdminRefused unavailable", "AdminRefused no token", "AdminRefused unavailable"]


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"fifteen-letters", b"two words of some length", b"\xff" * 20, b"a" * 2000]
)
def test_what_cannot_be_a_token_is_a_fault_of_the_setting_and_is_not_shown(
    token_file: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    token_file.write_bytes(content)
    caplog.set_level(logging.INFO, "discovery")
    with pytest.raises(TokenUnavailable):
        AdminToken(f"file:{token_file}").digest()
    (record,) = caplog.records
    assert record.getMessage() == "admin-token-unavailable"
    shown = content.decode(errors="replace").strip()
    assert not shown or shown not in str(record.__dict__)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield


def from_aws(source: str) -> bytes:
    return AdminToken(source).digest()


def test_a_token_is_read_from_ssm(aws: None) -> None:
    client = boto3.client("ssm", "us-east-1")
    name = "/atcr-discovery-prod/admin-token"
    client.put_parameter(Name=name, Type="SecureString", Value=TOKEN)
    assert from_aws(f"ssm:{name}") == bearer.hashlib.sha256(TOKEN.encode()).digest()
    client.put_parameter(Name="/plain", Type="String", Value=TOKEN)
    for other in ("/plain", "/nowhere"):
        with pytest.raises(TokenUnavailable):
            from_aws(f"ssm:{other}")


def test_a_token_is_read_from_secrets_manager_by_name_and_arn(aws: None) -> None:
    client = boto3.client("secretsmanager", "us-east-1")
    arn = client.create_secret(Name="atcr-discovery-prod/admin-token", SecretString=TOKEN)["ARN"]
    for name in ("atcr-discovery-prod/admin-token", arn):
        assert from_aws(f"secretsmanager:{name}") == bearer.hashlib.sha256(TOKEN.encode()).digest()
    client.create_secret(Name="binary", SecretBinary=TOKEN.encode())
    for other in ("binary", "nowhere"):
        with pytest.raises(TokenUnavailable):
            from_aws(f"secretsmanager:{other}")


@pytest.mark.parametrize("source", ["ssm:/a/b", "secretsmanager:a"])
def test_a_role_that_may_not_read_it_is_a_closed_door(aws: None, source: str, caplog: pytest.LogCaptureFixture) -> None:
    from botocore.exceptions import ClientError

    denied = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "not authorized"}}, "GetParameter")
    caplog.set_level(logging.INFO, "discovery")
    with mock.patch.object(BaseClient, "_make_api_call", side_effect=denied), pytest.raises(TokenUnavailable):
        from_aws(source)
    assert source in str(caplog.records[0].__dict__)


@pytest.mark.parametrize(
    "text", [TOKEN, "ssm:", "file:", "ssm:a b", "secretsmanager:", "http://example.com/", "SSM:/a"]
)
def test_a_setting_that_names_no_place_stops_the_start_and_is_not_shown(text: str) -> None:
    with pytest.raises(settings.InvalidSetting, match="DISCOVERY_ADMIN_TOKEN_FROM") as error:
        settings.read({"DISCOVERY_ADMIN_TOKEN_FROM": text})
    assert text not in str(error.value) or len(text) < 16


# -- behind the door


class Operator:
    """An operator with the token, and the crawl Lambda."""

    def __init__(self, api: Api, stack: Stack) -> None:
        self.api = api
        self._stack = stack
        self.context = process.context()

    def get(self, name: str, **parameters: str) -> Answer:
        return self.api.get(f"/admin/{name}", list(parameters.items()), headers=bearing())

    def post(self, name: str, body: Any) -> Answer:
        headers = bearing() | {"Content-Type": "application/json"}
        text = body if isinstance(body, str) else json.dumps(body)
        return self.api.call("POST", f"/admin/{name}", headers=headers, body=text)

    def order(self, name: str, target: str | None = HOST) -> dict[str, Any]:
        """Give an order, have it carried out, and look what came of it."""
        answer = self.post(name, {"who": "alice", "why": "a reason"} | ({} if target is None else {"target": target}))
        assert (answer.status, answer.json["status"]) == (202, "sent"), answer.text
        id = answer.json["id"]
        assert self.get("getOrder", id=id).json == {"id": id, "status": inspection.UNKNOWN}
        self.work()
        entry: dict[str, Any] = self.get("getOrder", id=id).json
        assert (
            entry.items()
            >= {"id": id, "action": name, "target": target or "", "who": "alice", "why": "a reason"}.items()
        )
        assert entry["via"] == "http 198.51.100.7"
        assert self.get("listAudit", limit="1000").json["entries"].count(entry) == 1
        return entry

    def work(self) -> list[str]:
        """Carry out the orders in the queue; returns the other jobs there, which would go out into the network."""
        sqs, url, others = self._stack.sqs, self._stack.queue_url, list[str]()
        while found := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=0).get("Messages"):
            for message in found:
                if "order" in json.loads(message["Body"]):
                    jobs.work(self.context, message["Body"])
                else:
                    others.append(message["Body"])
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return others

    def host(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get("getHost", hostname=HOST).json
        return found


@pytest.fixture
def operator(token_file: Path, api: Api, stack_env: Stack) -> Operator:
    """An operator of a service that knows a host with a repo."""
    operator = Operator(api, stack_env)
    tables = operator.context.tables
    operator.context.hosts.admit(Origin(HOST, 443, secure=True), confirmed=True)
    tables.repos(DID, sync="synced", host=HOST, scope_host=HOST, rev="3m6c", collections={"io.atcr.tag": 2}).save()
    return operator


STEPS = {
    "a host is crawled": [("crawl", HOST, "asked for")],
    "a repo is compared": [("resync", DID, "asked for")],
    "a host is banned": [
        ("ban", HOST, "banned"),
        ("ban", HOST, "was banned already"),
        ("unban", HOST, "let in again"),
    ],
    "a domain is banned": [
        ("ban", "*.atcr.io", "banned, and 1 known hosts with it"),
        ("unban", HOST, "refused: its domain is banned: unban *.atcr.io"),
        ("unban", "*.atcr.io", "let in again, and 1 known hosts with it"),
    ],
    "a host is paused": [
        ("pause", HOST, "paused"),
        ("crawl", HOST, f"refused: {HOST} is paused"),
        ("resume", HOST, "resumed"),
    ],
    "a repo is taken down": [
        ("takedown", DID, "taken down"),
        ("restore", DID, "restored"),
        ("restore", DID, "was not taken down"),
    ],
    "a host is purged": [("purge", HOST, "its 1 repos are to be purged")],
    "a repo is purged": [("purge", DID, "purged")],
    "dead letters are sent again": [("redrive", None, "0 messages sent again")],
}
"""Orders, and what comes of each."""


def test_an_order_is_carried_out_and_can_be_asked_after(operator: Operator) -> None:
    for action, target, expected in chain.from_iterable(STEPS.values()):
        entry = operator.order(action, target)
        status = "refused" if expected.startswith("refused: ") else "done"
        assert (entry["status"], entry["outcome"]) == (status, expected.removeprefix("refused: "))


def test_the_stories_tell_of_every_action() -> None:
    assert {action for steps in STEPS.values() for action, _, _ in steps} == set(methods.ACTIONS) == set(orders.ACTIONS)


def test_what_was_ordered_shows(operator: Operator) -> None:
    operator.order("pause")
    assert operator.host()["status"] == "paused"
    operator.order("ban")
    assert operator.host()["bannedBy"] == HOST
    assert [host["origin"] for host in operator.get("listHosts", status="banned").json["hosts"]] == [HOST]
    operator.order("ban", "*.example.net")
    assert operator.get("listBans").json == {"bans": [{"domain": "example.net", "why": "a reason"}]}
    operator.order("takedown", DID)
    assert operator.get("getRepo", did=DID).json["takenDown"] == "a reason"
    operator.order("purge", DID)
    assert operator.get("getRepo", did=DID).json["collections"] == {}


def test_an_order_changes_nothing_before_the_crawl_lambda_takes_it(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    real = BaseClient._make_api_call  # type: ignore[attr-defined]

    def noted(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        called.append(operation)
        return real(client, operation, parameters)

    monkeypatch.setattr(BaseClient, "_make_api_call", noted)
    for name, action in orders.ACTIONS.items():
        target = {"a DID": DID, "nothing": ""}.get(action.takes[0], HOST)
        assert operator.post(name, {"target": target, "who": "alice", "why": "x"}).status == 202
    assert set(called) == {"SendMessage"}


def test_a_repo_at_which_a_job_is_is_purged_when_it_has_ended(operator: Operator) -> None:
    job = operator.context.writer.claim(Did(DID), ask=True)
    assert job is not None
    with mock.patch.object(operator.context.queue, "order") as later:
        jobs.work(
            operator.context, to_body(purge := orders.new_order(operator.context, "purge", DID, who="a", why="x"))
        )
    assert operator.get("getOrder", id=purge.id).json["status"] == "waits"
    operator.context.writer.release(job)
    jobs.work(operator.context, to_body(later.call_args.args[0]))
    assert operator.get("getOrder", id=purge.id).json["status"] == "done"


NO_ORDERS: list[tuple[str, Any, str]] = [
    ("ban", "", "JSON"),
    ("ban", "{", "JSON"),
    ("ban", "[" * 5000, "JSON"),
    ("ban", "[]", "object"),
    ("ban", "null", "object"),
    ("ban", {}, "say who"),
    ("ban", {"target": HOST, "why": "x"}, "say who"),
    ("ban", {"target": HOST, "who": "alice"}, "say why"),
    ("ban", {"target": HOST, "who": "alice", "why": " "}, "say why"),
    ("ban", {"target": HOST, "who": "a" * 101, "why": "x"}, "who goes into the audit log"),
    ("ban", {"target": HOST, "who": "alice", "why": "a\nb"}, "why goes into the audit log"),
    ("ban", {"target": HOST, "who": "alice", "why": "\ud800"}, "why goes into the audit log"),
    ("ban", {"target": HOST, "who": "alice", "why": "a\x00b"}, "why goes into the audit log"),
    ("ban", {"target": 1, "who": "alice", "why": "x"}, "target must be a string"),
    ("ban", {"target": None, "who": "alice", "why": "x"}, "target must be a string"),
    ("ban", {"target": [HOST], "who": "alice", "why": "x"}, "target must be a string"),
    ("ban", {"target": HOST, "who": {}, "why": "x"}, "who must be a string"),
    ("ban", {"target": "x" * 20_000, "who": "alice", "why": "x"}, "bytes"),
    ("ban", {"target": DID, "who": "alice", "why": "x"}, "ban takes a host"),
    ("ban", {"who": "alice", "why": "x"}, "ban takes a host"),
    ("pause", {"target": "*.atcr.io", "who": "alice", "why": "x"}, "pause takes a host"),
    ("takedown", {"target": HOST, "who": "alice", "why": "x"}, "takedown takes a DID"),
    ("takedown", {"target": "did:plc:", "who": "alice", "why": "x"}, "not a DID"),
    ("redrive", {"target": HOST, "who": "alice", "why": "x"}, "redrive takes nothing"),
]
"""An action, a body, and what is said of it."""


def test_an_order_that_makes_no_sense_is_refused_at_once(operator: Operator) -> None:
    for name, body, said in NO_ORDERS:
        answer = operator.post(name, body)
        assert (answer.status, answer.error) == (400, "InvalidRequest"), body
        assert said in answer.json["message"]
    assert operator.work() == []
    assert operator.get("listAudit").json == {"entries": []}


HOSTILE = [
    *("*.io", "*.", "*", "*.*.io", "*.atcr.io.", "*.ATCR.io", "*.a..io", f"*.{'a.' * 600}io", "*.xn--", "*.atcr.io/x"),
    *("hold01.atcr.io#x", "hold01.atcr.io\x00", "hold01.atcr.io\n", "https://u:p@hold01.atcr.io", "hold01.atcr.io/../x"),
    *("\ud800.io", "a" * 5000, "$(id)", "'; drop table hosts; --", "http://[::1", "%2e%2e", "-", " ", "did:web:\x00", "..."),
]  # fmt: skip


def test_a_hostile_target_is_refused(operator: Operator) -> None:
    for action in set(methods.ACTIONS):
        for target in HOSTILE:
            answer = operator.post(action, {"target": target, "who": "mallory", "why": "x"})
            assert (answer.status, answer.error) == (400, "InvalidRequest"), target
    assert operator.work() == []


def test_a_body_of_another_type_is_refused(operator: Operator) -> None:
    headers = bearing() | {"Content-Type": "text/plain"}
    answer = operator.api.call("POST", "/admin/ban", headers=headers, body="{}")
    assert (answer.status, answer.error) == (415, "UnsupportedMediaType")


def test_a_refused_order_is_logged_with_who_and_why(operator: Operator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "discovery")
    operator.post("ban", {"target": "*.io", "who": "mallory", "why": "because"})
    (fields,) = [record.__dict__["discovery.fields"] for record in caplog.records if record.msg == "order-refused"]
    assert (fields["who"], fields["why"], fields["via"]) == ("mallory", "because", "http 198.51.100.7")


# -- what can be looked at


def pages(operator: Operator, name: str, key: str, **parameters: str) -> list[list[dict[str, Any]]]:
    found, cursor = [], None
    while True:
        page = operator.get(name, **parameters, **({"cursor": cursor} if cursor else {})).json
        found.append(page[key])
        if not (cursor := page.get("cursor")):
            return found


def test_hosts_are_listed_in_pages(operator: Operator) -> None:
    for number in range(2, 8):
        operator.context.hosts.admit(Origin(f"hold{number:02}.atcr.io", 443, secure=True), confirmed=number % 2 == 0)
    by_page = pages(operator, "listHosts", "hosts", limit="3")
    assert [len(page) for page in by_page][:2] == [3, 3]
    assert sorted(host["origin"] for page in by_page for host in page) == [f"hold{n:02}.atcr.io" for n in range(1, 8)]
    by_page = pages(operator, "listHosts", "hosts", limit="2", status="unconfirmed")
    assert sorted(host["origin"] for page in by_page for host in page) == [f"hold{n:02}.atcr.io" for n in (3, 5, 7)]
    assert {host["status"] for page in by_page for host in page} == {"unconfirmed"}


def test_a_host_and_a_repo_are_shown_whole(operator: Operator) -> None:
    host = operator.host()
    assert (host["status"], host["reposInScope"], host["epoch"]) == ("active", 1, 0)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", host["firstSeenAt"])
    repo = operator.get("getRepo", did=DID).json
    assert (repo["did"], repo["collections"]) == (DID, {"io.atcr.tag": 2})


def test_the_audit_log_is_listed_with_the_newest_first(operator: Operator) -> None:
    given = [operator.order("pause" if number % 2 == 0 else "resume")["id"] for number in range(5)]
    by_page = pages(operator, "listAudit", "entries", limit="2")
    assert [entry["id"] for page in by_page for entry in page] == given[::-1]
    assert operator.get("listAudit").json["entries"][0]["orderedAt"].endswith("Z")


def test_dead_letters_are_shown_and_sent_again(operator: Operator, stack_env: Stack) -> None:
    body = to_body(RepoJob(Did(DID)))
    stack_env.sqs.send_message(QueueUrl=stack_env.dead_letter_url, MessageBody=body)
    found = operator.get("listDeadLetters").json
    assert (found["messages"], found["some"][0]["body"]) == (1, body)
    assert operator.order("redrive", None)["outcome"] == "1 messages sent again"
    assert operator.get("listDeadLetters").json == {"messages": 0, "some": []}


NO_QUESTIONS: list[tuple[str, dict[str, str], str]] = [
    ("getHost", {}, "InvalidRequest"),
    ("getHost", {"hostname": "not a host"}, "InvalidRequest"),
    ("getHost", {"hostname": "hold99.atcr.io"}, "HostNotFound"),
    ("getRepo", {"did": "x"}, "InvalidRequest"),
    ("getRepo", {"did": "did:web:" + "a" * 2041}, "InvalidRequest"),
    ("getRepo", {"did": "did:web:" + "a" * 2040}, "RepoNotFound"),
    ("getRepo", {"did": "did:web:nobody.example.com"}, "RepoNotFound"),
    ("getOrder", {}, "InvalidRequest"),
    ("getOrder", {"id": ""}, "InvalidRequest"),
    ("getOrder", {"id": "1" * 16 + "-0000000g"}, "InvalidRequest"),
    ("getOrder", {"id": "1" * 2000}, "InvalidRequest"),
    ("listHosts", {"status": "fine"}, "InvalidRequest"),
    ("listHosts", {"limit": "0"}, "InvalidRequest"),
    ("listHosts", {"limit": "1001"}, "InvalidRequest"),
    ("listHosts", {"cursor": "!"}, "InvalidRequest"),
    ("listHosts", {"cursor": "\ud800"}, "InvalidRequest"),
    ("listHosts", {"cursor": "AA"}, "InvalidRequest"),
    ("listHosts", {"cursor": "YSBi"}, "InvalidRequest"),
    ("listHosts", {"cursor": cursors.encode("admin entries", [HOST])}, "InvalidRequest"),
    ("listHosts", {"cursor": cursors.encode("admin hosts", ["not a host"])}, "InvalidRequest"),
    ("listHosts", {"cursor": cursors.encode("admin hosts", [1])}, "InvalidRequest"),
    ("listAudit", {"cursor": "YSBi"}, "InvalidRequest"),
    ("listAudit", {"cursor": cursors.encode("admin entries", ["~"])}, "InvalidRequest"),
    ("listAudit", {"cursor": "A" * 2049}, "InvalidRequest"),
]
"""A method, its parameters, and the error."""


def test_a_question_that_makes_no_sense_is_refused(operator: Operator) -> None:
    for name, parameters, error in NO_QUESTIONS:
        answer = operator.get(name, **parameters)
        assert (answer.status, answer.error) == (400, error), parameters


def test_what_is_read_is_not_kept_by_others(operator: Operator) -> None:
    for answer in (operator.get("listHosts"), operator.get("getHost"), operator.api.get("/admin/listHosts")):
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "ETag" not in answer.headers


# -- over HTTP


def test_it_is_the_same_over_http(operator: Operator) -> None:
    """Through the local gateway, which makes the events of what comes in."""
    with httpx.Client(transport=httpx.WSGITransport(Gateway(operator.api.app)), base_url="http://localhost") as client:
        body = {"target": HOST, "who": "alice", "why": "a reason"}
        assert client.post("/admin/pause", json=body).status_code == 401
        twice = {"Authorization": f"Bearer x, Bearer {TOKEN}"}  # as servers join two headers
        assert client.post("/admin/pause", json=body, headers=twice).status_code == 401
        sent = client.post("/admin/pause", json=body, headers=bearing())
        assert sent.status_code == 202
        operator.work()
        done = client.get("/admin/getOrder", params={"id": sent.json()["id"]}, headers=bearing()).json()
        assert (done["outcome"], done["via"]) == ("paused", "http 127.0.0.1")


@pytest.fixture
def elsewhere(operator: Operator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The commands with ``--url``; while they wait for an order it is carried out."""
    monkeypatch.setattr(logging.getLogger("discovery"), "propagate", False)
    transport = httpx.WSGITransport(Gateway(operator.api.app))
    real = remote.client

    def client(url: str, text: str) -> httpx.Client:
        made = real(url, text)
        return httpx.Client(transport=transport, base_url=made.base_url, headers=made.headers)

    monkeypatch.setattr(remote, "client", client)
    monkeypatch.setattr(remote, "time", SimpleNamespace(sleep=lambda seconds: operator.work()))

    def run(*arguments: str, url: str = "https://api.example.com", token_file: str = "") -> tuple[int, list[str]]:
        source = settings.current().admin_token_from.removeprefix("file:")
        status = cli.main(["--url", url, "--token-file", token_file or source, *arguments])
        shown = capsys.readouterr()
        lines = (shown.out if status == 0 else shown.err).splitlines()
        return status, [line for line in lines if '"event":' not in line]

    return run


def test_the_commands_work_through_the_door(elsewhere: Run, operator: Operator) -> None:
    assert elsewhere("pause", HOST, "--why", "x", "--who", "alice") == (0, ["paused"])
    assert elsewhere("crawl", HOST, "--why", "x") == (1, [f"refused: {HOST} is paused"])
    assert elsewhere("ban", "*.io", "--why", "x")[1][0].startswith("refused: InvalidRequest: the hostname '*.io'")
    assert elsewhere("redrive", "--why", "x") == (0, ["0 messages sent again"])
    _, (host,) = elsewhere("host", HOST)
    assert json.loads(host) == operator.host()
    assert json.loads(elsewhere("hosts", "--status", "paused")[1][0])["origin"] == HOST
    assert elsewhere("hosts", "--status", "banned") == (0, [])
    assert json.loads(elsewhere("repo", DID)[1][0])["did"] == DID
    assert elsewhere("bans") == (0, [])
    assert json.loads(elsewhere("dead-letters")[1][0])["messages"] == 0
    assert [json.loads(line)["action"] for line in elsewhere("audit")[1]] == ["redrive", "crawl", "pause"]


def test_a_command_that_may_not_or_cannot_says_why(elsewhere: Run, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("another-token-of-16-and-more")
    status, (said,) = elsewhere("bans", token_file=str(tmp_path / "wrong"))
    assert (status, said) == (1, "refused: AuthenticationRequired: this is not the token")
    status, (said,) = elsewhere("bans", token_file=str(tmp_path / "none"))
    assert "the token cannot be read" in said
    status, (said,) = elsewhere("bans", url="http://api.example.com")
    assert said == "refused: the token goes over https only, not to http://api.example.com"


# -- the token is nowhere but where it should be


def test_the_token_is_in_no_log(
    operator: Operator, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], token_file: Path
) -> None:
    wrong = "a-wrong-token-of-some-length"
    caplog.set_level(logging.INFO)
    metrics.configure("t")
    try:
        for headers in ({}, bearing(), bearing(wrong), bearing(TOKEN, "Basic")):
            for name in ("listHosts", "nothing"):
                operator.api.get(f"/admin/{name}", headers=headers)
        operator.order("pause")
        with mock.patch.object(inspection, "bans", side_effect=ValueError("our own fault")):
            assert operator.get("listBans").status == 500
        token_file.write_text("short")
        token.current.cache_clear()
        assert operator.get("listBans").status == 503
    finally:
        metrics.configure(None)
    shown = "".join(capfd.readouterr()) + str([record.__dict__ for record in caplog.records]) + caplog.text
    assert "admin-refused" in shown
    assert "our own fault" in shown
    assert '"AdminRefused":' in shown
    assert "198.51.100.7" in shown
    for secret in (TOKEN, wrong, "short"):
        assert secret not in shown
