"""The tables of an installation, copied whole to another, and put back after a loss."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from infra import copy, provision
from infra.local import engines
from tests.conftest import ROOT, Stack
from tests.service import eventually

NAMES = ("hosts", "repos", "records", "listings", "state")


def client(service: str, url: str) -> Any:
    return boto3.Session("local", "local", region_name="us-east-1").client(service, endpoint_url=url)  # type: ignore[call-overload]


def made(url: str, sqs_url: str = "") -> str:
    """Empty tables under a new prefix."""
    prefix = f"t-{uuid.uuid4().hex[:12]}"
    provision.create(prefix, client("dynamodb", url), client("sqs", sqs_url or url))
    return prefix


def fill(dynamodb: Any, prefix: str, life: str = "1", records: int = 60, size: int = 40_000) -> None:
    """Rows as the service has them: more than one page of records, an item of every type, and all five tables."""
    dids = [f"did:plc:{number}" for number in range(3)]
    rows: list[tuple[str, dict[str, Any]]] = [
        (
            "hosts",
            {"origin": {"S": "pds.example"}, "owner": {"S": "-"}, "attention_at": {"N": "7"}, "epoch": {"N": life}},
        ),
        ("state", {"kind": {"S": "head"}, "id": {"S": "a.b.c"}, "content": {"M": {"l": {"L": [{"BOOL": True}]}}}}),
    ]
    rows += [("repos", {"did": {"S": did}, "version": {"N": life}, "scope_host": {"S": "pds.example"}}) for did in dids]
    rows += [("listings", {"collection": {"S": "a.b.c"}, "key": {"S": f"000{did}"}}) for did in dids]
    for number in range(records):
        key = {"did": {"S": dids[number % 3]}, "path": {"S": f"a.b.c/{number}"}}
        rows.append(("records", {**key, "value": {"S": "x" * size}, "cid": {"S": life}, "raw": {"B": b"\x00\xff"}}))
    for name, row in rows:
        dynamodb.put_item(TableName=f"{prefix}-{name}", Item=row)


def content(dynamodb: Any, prefix: str) -> dict[str, list[Any]]:
    """Everything in the five tables."""
    pages = {name: dynamodb.get_paginator("scan").paginate(TableName=f"{prefix}-{name}") for name in NAMES}
    return {name: sorted((item for page in pages[name] for item in page["Items"]), key=repr) for name in NAMES}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "infra.copy", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_one_command_copies_all_tables_to_another_engine(stack_env: Stack) -> None:
    fill(stack_env.dynamodb, stack_env.prefix)
    with engines.running("embedded") as other:
        prefix = made(other.dynamodb)
        ran = run(f"{stack_env.prefix}@{stack_env.endpoints.dynamodb}", f"{prefix}@{other.dynamodb}")
        assert ran.returncode == 0, ran.stderr
        assert f"{prefix}-records: 60 copied" in ran.stdout
        there = client("dynamodb", other.dynamodb)
        assert content(there, prefix) == content(stack_env.dynamodb, stack_env.prefix)
        indexed = there.query(
            TableName=f"{prefix}-repos",
            IndexName="by_host",
            KeyConditionExpression="scope_host = :host",
            ExpressionAttributeValues={":host": {"S": "pds.example"}},
        )
        assert indexed["Count"] == 3


def test_an_installation_in_use_is_left_alone_unless_it_is_to_be_replaced(stack_env: Stack) -> None:
    dynamodb, url = stack_env.dynamodb, stack_env.endpoints.dynamodb
    fill(dynamodb, stack_env.prefix, records=5, size=10)
    target = made(url, stack_env.endpoints.sqs)
    row = {"did": {"S": "did:plc:another"}, "path": {"S": "a.b.c/0"}}
    dynamodb.put_item(TableName=f"{target}-records", Item=row)
    before = content(dynamodb, target)
    places = (f"{stack_env.prefix}@{url}", f"{target}@{url}")

    ran = run(*places)
    assert ran.returncode == 1
    assert f"{target}-records is not empty" in ran.stderr
    assert content(dynamodb, target) == before

    ran = run(*places, "--replace")
    assert ran.returncode == 0, ran.stderr
    assert f"{target}-records: 5 copied, 1 deleted" in ran.stdout
    assert content(dynamodb, target) == content(dynamodb, stack_env.prefix)


def test_what_only_shows_that_a_service_runs_is_no_use(stack_env: Stack) -> None:
    dynamodb, url = stack_env.dynamodb, stack_env.endpoints.dynamodb
    fill(dynamodb, stack_env.prefix, records=1, size=10)
    target = made(url, stack_env.endpoints.sqs)
    heartbeat = {"kind": {"S": "subscriber"}, "id": {"S": "a"}, "number": {"N": "1"}}
    dynamodb.put_item(TableName=f"{target}-state", Item=heartbeat)
    assert run(f"{stack_env.prefix}@{url}", f"{target}@{url}").returncode == 0


@pytest.mark.parametrize("cut_after", [0, 2, 5])
def test_a_copy_that_was_cut_off_is_finished_by_the_same_again(
    cut_after: int, stack_env: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    dynamodb, url = stack_env.dynamodb, stack_env.endpoints.dynamodb
    fill(dynamodb, stack_env.prefix, records=80, size=10)
    target = made(url, stack_env.endpoints.sqs)
    left, write = [None] * cut_after, copy.Table.write

    def cut_off(self: copy.Table, requests: Any) -> None:
        left.pop()
        write(self, requests)

    source, there = copy.tables(f"{stack_env.prefix}@{url}"), copy.tables(f"{target}@{url}")
    monkeypatch.setattr(copy.Table, "write", cut_off)
    with pytest.raises(IndexError):
        list(copy.copy(source, there, replace=False))
    monkeypatch.setattr(copy.Table, "write", write)
    list(copy.copy(source, there, replace=True))
    assert content(dynamodb, target) == content(dynamodb, stack_env.prefix)


class Throttled:
    """A client that carries out one request of a batch at a time."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def batch_write_item(self, RequestItems: Any) -> Any:
        ((name, (first, *rest)),) = RequestItems.items()
        self.client.batch_write_item(RequestItems={name: [first]})
        return {"UnprocessedItems": {name: rest} if rest else {}}

    def batch_get_item(self, RequestItems: Any) -> Any:
        ((name, asked),) = RequestItems.items()
        first, *rest = asked["Keys"]
        answer = self.client.batch_get_item(RequestItems={name: {**asked, "Keys": [first]}})
        return answer | {"UnprocessedKeys": {name: {**asked, "Keys": rest}} if rest else {}}


def test_what_a_busy_table_did_not_take_is_sent_again(stack_env: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy.time, "sleep", lambda seconds: None)
    table = copy.Table(Throttled(stack_env.dynamodb), f"{stack_env.prefix}-records", ("did", "path"))
    keys = [{"did": {"S": "did:plc:a"}, "path": {"S": f"a.b.c/{number}"}} for number in range(6)]
    table.write([{"PutRequest": {"Item": key}} for key in keys[:4]])
    assert table.missing(keys) == keys[4:]


def test_a_place_without_tables_is_said_so(stack_env: Stack) -> None:
    place = f"{stack_env.prefix}@{stack_env.endpoints.dynamodb}"
    ran = run(place, f"nowhere@{stack_env.endpoints.dynamodb}")
    assert ran.returncode == 1
    assert "there is no table nowhere-hosts" in ran.stderr
    assert "the same" in run(place, place).stderr


def restored_to_a_moment(url: str, prefix: str) -> None:
    """Make the tables PREFIX-restored-... by point-in-time recovery."""
    for name in NAMES:
        client("dynamodb", url).restore_table_to_point_in_time(
            SourceTableName=f"{prefix}-{name}",
            TargetTableName=f"{prefix}-restored-{name}",
            UseLatestRestorableTime=True,
        )


def exported_and_imported(url: str, prefix: str) -> None:
    """Make the tables PREFIX-restored-... by an export to S3, which outlives the 35 days of recovery."""
    dynamodb, s3 = client("dynamodb", url), client("s3", url)
    s3.create_bucket(Bucket="backups")
    for properties in provision.resources("data", "AWS::DynamoDB::Table", f"{prefix}-restored").values():
        name = properties["TableName"].removeprefix(f"{prefix}-restored-")
        arn = dynamodb.describe_table(TableName=f"{prefix}-{name}")["Table"]["TableArn"]
        export = dynamodb.export_table_to_point_in_time(TableArn=arn, S3Bucket="backups", S3Prefix=name)
        export_arn = export["ExportDescription"]["ExportArn"]
        eventually(
            lambda arn=export_arn: (
                dynamodb.describe_export(ExportArn=arn)["ExportDescription"]["ExportStatus"] == "COMPLETED"
            )
        )
        (data,) = {
            found["Key"].rpartition("/")[0]
            for found in s3.list_objects_v2(Bucket="backups", Prefix=f"{name}/")["Contents"]
            if "/data/" in found["Key"]
        }
        defined = ("TableName", "AttributeDefinitions", "KeySchema", "BillingMode")
        started = dynamodb.import_table(
            S3BucketSource={"S3Bucket": "backups", "S3KeyPrefix": data},
            InputFormat="DYNAMODB_JSON",
            InputCompressionType="GZIP",
            TableCreationParameters={key: properties[key] for key in defined}
            | {
                "AttributeDefinitions": [
                    each for each in properties["AttributeDefinitions"] if of_key(properties, each)
                ]
            },
        )
        import_arn = started["ImportTableDescription"]["ImportArn"]
        eventually(
            lambda arn=import_arn: (
                dynamodb.describe_import(ImportArn=arn)["ImportTableDescription"]["ImportStatus"] == "COMPLETED"
            )
        )


def of_key(properties: dict[str, Any], attribute: dict[str, str]) -> bool:
    return attribute["AttributeName"] in [part["AttributeName"] for part in properties["KeySchema"]]


@pytest.mark.parametrize("made_again", [restored_to_a_moment, exported_and_imported])
def test_tables_of_an_earlier_moment_are_copied_back(made_again: Callable[[str, str], None], moto_url: str) -> None:
    """As docs/operations.md says, under "Backup and restore"."""
    dynamodb, prefix = client("dynamodb", moto_url), made(moto_url)
    fill(dynamodb, prefix, records=30, size=10)
    for name in NAMES:
        dynamodb.update_continuous_backups(
            TableName=f"{prefix}-{name}",
            PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True},
        )
    right = content(dynamodb, prefix)
    made_again(moto_url, prefix)
    fill(dynamodb, prefix, life="2", records=40, size=10)  # the loss: rows that are wrong, too many, and gone
    for key in ("000did:plc:0", "000did:plc:1"):
        dynamodb.delete_item(TableName=f"{prefix}-listings", Key={"collection": {"S": "a.b.c"}, "key": {"S": key}})
    assert content(dynamodb, prefix) != right

    ran = run(f"{prefix}-restored@{moto_url}", f"{prefix}@{moto_url}", "--replace")
    assert ran.returncode == 0, ran.stderr
    assert f"{prefix}-records: 30 copied, 10 deleted" in ran.stdout
    assert content(dynamodb, prefix) == right
