"""The tables and queues that provision.py makes are those of the templates."""

from __future__ import annotations

from typing import Any

from chalicelib.index.reader import Reader
from chalicelib.index.tables import Tables
from infra import provision
from tests.conftest import Stack


def test_every_table_of_the_template_is_made_with_its_keys_and_indexes(stack_env: Any) -> None:
    for properties in provision.resources("data", "AWS::DynamoDB::Table", stack_env.prefix).values():
        table = stack_env.dynamodb.describe_table(TableName=properties["TableName"])["Table"]
        assert table["KeySchema"] == properties["KeySchema"]
        found = {index["IndexName"]: index["KeySchema"] for index in table.get("GlobalSecondaryIndexes", [])}
        assert found == {
            index["IndexName"]: index["KeySchema"] for index in properties.get("GlobalSecondaryIndexes", [])
        }


def test_items_of_the_state_table_expire(stack_env: Any) -> None:
    found = stack_env.dynamodb.describe_time_to_live(TableName=f"{stack_env.prefix}-state")["TimeToLiveDescription"]
    assert found["AttributeName"] == "expires_at"
    assert found["TimeToLiveStatus"] == "ENABLED"


def test_making_what_is_there_already_changes_nothing(stack_env: Any) -> None:
    again = provision.create(stack_env.prefix, stack_env.dynamodb, stack_env.sqs)
    assert again.queue_url == stack_env.queue_url
    assert len(again.tables) == 5


def test_a_message_that_was_received_five_times_goes_to_the_dead_letter_queue(stack_env: Any) -> None:
    sqs = stack_env.sqs
    sqs.send_message(QueueUrl=stack_env.queue_url, MessageBody="a job")
    for _ in range(5):
        (message,) = sqs.receive_message(QueueUrl=stack_env.queue_url)["Messages"]
        sqs.change_message_visibility(
            QueueUrl=stack_env.queue_url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
        )
    assert "Messages" not in sqs.receive_message(QueueUrl=stack_env.queue_url, WaitTimeSeconds=0)
    (dead,) = sqs.receive_message(QueueUrl=stack_env.dead_letter_url)["Messages"]
    assert dead["Body"] == "a job"


def test_a_table_of_an_older_version_is_given_the_indexes_that_came_since(stack_env: Stack) -> None:
    prefix = f"{stack_env.prefix}-old"
    new = provision.resources("data", "AWS::DynamoDB::Table", prefix)["Hosts"]
    left_out = ("SSESpecification", "PointInTimeRecoverySpecification")
    old = {name: value for name, value in new.items() if name not in left_out} | {
        "GlobalSecondaryIndexes": new["GlobalSecondaryIndexes"][:1],
        "AttributeDefinitions": new["AttributeDefinitions"][:3],
    }
    stack_env.dynamodb.create_table(**old)
    row = Tables(prefix).hosts("hold01.example.com", kind="pds", status="active", first_seen_at=7)
    row.save()
    made = provision.create(prefix, stack_env.dynamodb, stack_env.sqs)
    try:
        rows, _ = Reader(stack_env.dynamodb, prefix).hosts(after=None, limit=10)
        assert [row["origin"] for row in rows] == ["hold01.example.com"]
    finally:
        for name in made.tables:
            stack_env.dynamodb.update_table(TableName=name, DeletionProtectionEnabled=False)
            stack_env.dynamodb.delete_table(TableName=name)
