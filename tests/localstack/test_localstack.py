"""What the service needs of AWS, on LocalStack: tables and queues, the templates that make them, and the service on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from infra import copy, provision
from simulator.thread import SimulatorThread
from tests.local_stack import running
from tests.service import HOLDS, eventually

Connect = Callable[[str], Any]
LAYERS = "io.atcr.hold.layer"


def test_tables_and_queues_are_made_as_the_templates_say(client: Connect, prefix: str) -> None:
    dynamodb, sqs = client("dynamodb"), client("sqs")
    made = provision.create(prefix, dynamodb, sqs)
    assert provision.create(prefix, dynamodb, sqs).queue_url == made.queue_url
    for properties in provision.resources("data", "AWS::DynamoDB::Table", prefix).values():
        table = dynamodb.describe_table(TableName=properties["TableName"])["Table"]
        assert table["KeySchema"] == properties["KeySchema"]
        indexes = {each["IndexName"]: each["KeySchema"] for each in table.get("GlobalSecondaryIndexes", [])}
        wanted = properties.get("GlobalSecondaryIndexes", [])
        assert indexes == {each["IndexName"]: each["KeySchema"] for each in wanted}
    expiry = dynamodb.describe_time_to_live(TableName=f"{prefix}-state")["TimeToLiveDescription"]
    assert expiry["TimeToLiveStatus"] in ("ENABLED", "ENABLING")
    found = sqs.get_queue_attributes(QueueUrl=made.queue_url, AttributeNames=["RedrivePolicy"])["Attributes"]
    assert int(json.loads(found["RedrivePolicy"])["maxReceiveCount"]) == 5


def test_a_transaction_takes_place_whole_or_not_at_all(client: Connect, prefix: str) -> None:
    dynamodb = client("dynamodb")
    provision.create(prefix, dynamodb, client("sqs"))
    keys = [{"did": {"S": "did:plc:a"}, "path": {"S": f"a.b.c/{number}"}} for number in range(99)]
    puts = [{"Put": {"TableName": f"{prefix}-records", "Item": key}} for key in keys]
    check = {"TableName": f"{prefix}-repos", "Key": {"did": {"S": "did:plc:a"}}}

    def write(condition: str) -> int:
        items = [*puts, {"ConditionCheck": {**check, "ConditionExpression": condition}}]
        with suppress(dynamodb.exceptions.TransactionCanceledException):
            dynamodb.transact_write_items(TransactItems=items)
        count: int = dynamodb.scan(TableName=f"{prefix}-records", ConsistentRead=True)["Count"]
        return count

    assert write("attribute_exists(did)") == 0
    assert write("attribute_not_exists(did)") == 99


def test_the_template_of_the_tables_makes_a_stack_and_leaves_its_tables(client: Connect, prefix: str) -> None:
    formation, dynamodb = client("cloudformation"), client("dynamodb")
    text = (provision.FOLDER / "data.yaml").read_text()
    parameters = [{"ParameterKey": "Prefix", "ParameterValue": prefix}]
    formation.create_stack(StackName=f"{prefix}-data", TemplateBody=text, Parameters=parameters)
    formation.get_waiter("stack_create_complete").wait(
        StackName=f"{prefix}-data", WaiterConfig={"Delay": 1, "MaxAttempts": 120}
    )
    formation.delete_stack(StackName=f"{prefix}-data")
    formation.get_waiter("stack_delete_complete").wait(
        StackName=f"{prefix}-data", WaiterConfig={"Delay": 1, "MaxAttempts": 120}
    )
    assert set(copy.tables(f"{prefix}@{dynamodb.meta.endpoint_url}")) == set(copy.ORDER)


def test_a_hold_that_asks_is_listed_and_followed(endpoint: str, prefix: str, tmp_path: Path) -> None:
    variables = {"AWS_ENDPOINT_URL": endpoint, "DISCOVERY_TABLE_PREFIX": prefix}
    with SimulatorThread(seed=5) as sim:
        hold = sim.call(sim.net.add_hold(layers=5))
        with running(tmp_path / "state", DISCOVERY_PLC_URL=sim.net.plc.url, **variables) as stack:
            sim.call(hold.request_crawl(stack.url))
            eventually(lambda: stack.listing(HOLDS) == {hold.did})
            eventually(lambda: stack.listing(LAYERS) == {hold.did})
            sim.call(hold.subscribed())
            sim.call(hold.delete_collection, hold.did, LAYERS)
            eventually(lambda: not stack.listing(LAYERS))
        assert not (tmp_path / "state" / "engine.sqlite").exists()
