"""Each role may do what its code does, and nothing else: what the service calls, in stories and histories that meet every
write of it, is compared with the policies in infra/base.yaml."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from botocore.client import BaseClient

from chalicelib import process, settings
from chalicelib.api.admin import methods
from chalicelib.api.methods import METHODS
from chalicelib.atproto.syntax import Origin
from chalicelib.crawl.budgets import BUDGET
from chalicelib.crawl.survey import survey
from chalicelib.index.tables import SCOPE_SHARD, Tables
from infra import provision
from tests.api.conftest import Api
from tests.conftest import Stack
from tests.oracle import engine
from tests.oracle.faults import Call, Gate
from tests.oracle.histories import tell as tell_histories
from tests.oracle.processes import current
from tests.oracle.test_faults_at_every_write import backfill, follow_streams, hear_of_others, operate
from tests.oracle.test_faults_at_every_write import tell as tell_story

ROLES = {"api": "ApiRole", "lambda": "CrawlRole", "sweep": "SweepRole", "subscriber": "SubscriberRole"}
HISTORIES = 20
Permission = tuple[str, str]
"""An action of DynamoDB, and the table or index that it is for."""

_IN_TRANSACTION = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "ConditionCheck": "ConditionCheckItem",
}


def needed(operation: str, parameters: dict[str, Any], prefix: str) -> Iterator[Permission]:
    """What a call needs to be allowed (the Service Authorization Reference of DynamoDB)."""

    def resource(table: str, index: str | None = None) -> str:
        return table.removeprefix(f"{prefix}-") + (f"/index/{index}" if index else "")

    match operation:
        case "GetQueueAttributes" | "ReceiveMessage":
            yield operation, "DeadLetterQueue" if parameters["QueueUrl"].endswith("-dead") else "CrawlQueue"
        case "TransactWriteItems":
            for item in parameters["TransactItems"]:
                ((kind, what),) = item.items()
                yield _IN_TRANSACTION[kind], resource(what["TableName"])
        case "BatchGetItem":
            for table in parameters["RequestItems"]:
                yield operation, resource(table)
        case _:
            yield operation, resource(parameters["TableName"], parameters.get("IndexName"))


def allowed(role: str, service: str = "dynamodb") -> set[Permission]:
    """What a role's policy allows of a service."""
    resource = provision.template("base")["Resources"][role]
    found: set[Permission] = set()
    for statement in _statements(resource):
        for action in statement["Action"]:
            kind, _, name = action.partition(":")
            if kind == service:
                found |= {(name, _shown(target)) for target in statement["Resource"]}
    return found


def _statements(resource: dict[str, Any]) -> Iterable[dict[str, Any]]:
    for policy in resource["Properties"]["Policies"]:
        yield from policy["PolicyDocument"]["Statement"]


def _shown(target: Any) -> str:
    match target:
        case {"Fn::Sub": str(arn)}:
            return arn.partition("table/${Prefix}-")[2]
        case {"Fn::GetAtt": [name, "Arn"]}:
            return str(name)
    return str(target)


@pytest.fixture(scope="module")
def calls() -> dict[str, set[Permission]]:
    """What each kind of process called."""
    found: dict[str, set[Permission]] = {name: set() for name in ROLES}
    pass_ = Gate.pass_

    def noted(gate: Gate, operation: str, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        process = current()
        if process is not None and (kind := process.name.partition(" ")[0]) in found:
            found[kind].update(needed(operation, parameters, engine.PREFIX))
        return pass_(gate, operation, parameters, call)

    with mock.patch.object(Gate, "pass_", noted):
        for story in (follow_streams, backfill, operate, hear_of_others):
            tell_story(story)
        tell_histories(1, HISTORIES, 25, shrink=False)
    return found


@pytest.mark.parametrize("kind", ["lambda", "sweep", "subscriber"])
def test_a_role_may_do_what_its_code_does_and_nothing_else(calls: dict[str, set[Permission]], kind: str) -> None:
    assert calls[kind] - allowed(ROLES[kind]) == set(), "these are missing"
    assert allowed(ROLES[kind]) - calls[kind] == set(), "these are not needed"


def test_the_api_may_do_what_it_does_and_nothing_else(
    calls: dict[str, set[Permission]],
    api: Api,
    tables: Tables,
    stack_env: Stack,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    read: set[Permission] = set()
    real = BaseClient._make_api_call  # type: ignore[attr-defined]

    def noted(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        read.update(needed(operation, parameters, api.prefix))
        return real(client, operation, parameters)

    for collection in ("io.atcr.tag", "io.atcr.manifest", "io.atcr.hold.captain"):
        tables.listings(collection, f"{1:016d}#did:plc:x").save()
    tables.repos("did:plc:x", sync="synced", listed={"io.atcr.tag": f"{1:016d}"}).save()
    stack_env.sqs.send_message(QueueUrl=stack_env.dead_letter_url, MessageBody="x")
    monkeypatch.setattr(BaseClient, "_make_api_call", noted)
    assert api.list("io.atcr.tag", "io.atcr.manifest").status == 200
    assert api.get("/xrpc/_health").status == 503
    assert api.get("/xrpc/io.atcr.discovery.getRepoStatus", [("did", "did:plc:x")]).status == 200
    assert ask_as_operator(api, monkeypatch, tmp_path) == {200}
    read_everything(api)
    may = allowed("ApiRole") | (allowed("ApiRole", "sqs") - {("SendMessage", "CrawlQueue")})
    assert (calls["api"] | read) - may == set(), "these are missing"
    assert may - (calls["api"] | read) == set(), "these are not needed"


def read_everything(api: Api) -> None:
    """Calls each method that reads."""
    query = [("did", "did:plc:x"), ("repo", "did:plc:x"), ("collection", "io.atcr.tag"), ("rkey", "x")]
    for nsid, method in METHODS.items():
        if method.verb == "GET":
            assert api.get(f"/xrpc/{nsid}", [*query, ("hostname", "hold01.atcr.io")]).status != 500
    assert [api.get(path).status for path in ("/", "/hosts")] == [200, 200]
    assert api.get("/v1/listCollections").status == api.get("/.well-known/holds.json").status == 200


def ask_as_operator(api: Api, monkeypatch: pytest.MonkeyPatch, folder: Path) -> set[int]:
    """Calls each method of /admin that looks at something. Returns the statuses."""
    (folder / "token").write_text("sixteen-letters-or-more")
    monkeypatch.setenv("DISCOVERY_ADMIN_TOKEN_FROM", f"file:{folder / 'token'}")
    settings.current.cache_clear()
    process.context().hosts.admit(Origin("hold01.atcr.io", 443, secure=True), confirmed=True)
    query = [("hostname", "hold01.atcr.io"), ("did", "did:plc:x"), ("id", f"{0:016}-00000000")]
    headers = {"Authorization": "Bearer sixteen-letters-or-more"}
    names = [name for name, method in methods.METHODS.items() if method.verb == "GET"]
    return {api.get(f"/admin/{name}", query, headers=headers).status for name in names}


def test_the_api_reads_secrets_of_its_own_stage_only() -> None:
    found = {
        action: statement["Resource"]
        for statement in _statements(provision.template("base")["Resources"]["ApiRole"])
        for action in statement["Action"]
        if action.startswith(("ssm:", "secretsmanager:", "kms:"))
    }
    account = "${AWS::Region}:${AWS::AccountId}"
    assert found == {
        "ssm:GetParameter": [{"Fn::Sub": f"arn:${{AWS::Partition}}:ssm:{account}:parameter/${{Prefix}}/*"}],
        "secretsmanager:GetSecretValue": [
            {"Fn::Sub": f"arn:${{AWS::Partition}}:secretsmanager:{account}:secret:${{Prefix}}/*"}
        ],
    }


def test_the_survey_may_do_what_it_does_and_nothing_else(
    api: Api, stack_env: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: set[Permission] = set()
    real = BaseClient._make_api_call  # type: ignore[attr-defined]

    def noted(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        called.update(needed(operation, parameters, api.prefix))
        return real(client, operation, parameters)

    stack_env.sqs.send_message(QueueUrl=stack_env.dead_letter_url, MessageBody='{"repo": "did:plc:x"}')
    Tables(api.prefix).repos("did:plc:x", sync="synced", scope_shard=SCOPE_SHARD).save()
    monkeypatch.setattr(BaseClient, "_make_api_call", noted)
    survey(process.context())
    assert called == allowed("SurveyRole") | allowed("SurveyRole", "sqs")


@pytest.mark.parametrize("role", ROLES.values())
def test_of_the_queue_each_role_has_its_part(role: str) -> None:
    expected = {("SendMessage", "CrawlQueue")}
    if role == "ApiRole":  # which shows dead letters to operators
        expected |= {(action, "DeadLetterQueue") for action in ("ReceiveMessage", "GetQueueAttributes")}
    if role == "CrawlRole":  # which takes its jobs, and sends dead letters again
        expected |= {(action, "CrawlQueue") for action in ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes")}
        expected |= {(action, "DeadLetterQueue") for action in ("ReceiveMessage", "DeleteMessage")}
    assert allowed(role, "sqs") == expected


def test_of_the_small_rows_the_api_changes_budgets_alone() -> None:
    (statement,) = [
        statement
        for statement in _statements(provision.template("base")["Resources"]["ApiRole"])
        if "dynamodb:UpdateItem" in statement["Action"] and "state" in map(_shown, statement["Resource"])
    ]
    assert statement["Condition"] == {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [BUDGET]}}


def test_nothing_is_allowed_on_everything_but_to_log_in_to_the_registry() -> None:
    for name, resource in provision.template("base")["Resources"].items():
        if resource["Type"] == "AWS::IAM::Role":
            for statement in _statements(resource):
                assert not any("*" in action for action in statement["Action"])
                if statement["Resource"] == ["*"]:
                    assert (name, statement["Action"]) == ("ExecutionRole", ["ecr:GetAuthorizationToken"])
