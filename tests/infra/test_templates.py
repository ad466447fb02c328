"""What the templates promise of the tables and the queues, beyond what can be tried locally."""

from __future__ import annotations

import json

import pytest

from infra import provision

TABLES = provision.template("data")["Resources"]
QUEUES = provision.resources("base", "AWS::SQS::Queue", "p", {"DeadLetterQueue": "arn:dead"})


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_on_demand_and_hard_to_lose(name: str) -> None:
    table, properties = TABLES[name], TABLES[name]["Properties"]
    assert properties["BillingMode"] == "PAY_PER_REQUEST"
    assert properties["DeletionProtectionEnabled"] is True
    assert properties["SSESpecification"] == {"SSEEnabled": True}
    assert properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["DeletionPolicy"] == table["UpdateReplacePolicy"] == "Retain"


@pytest.mark.parametrize("name", TABLES)
def test_an_index_copies_keys_only(name: str) -> None:
    for index in TABLES[name]["Properties"].get("GlobalSecondaryIndexes", []):
        assert index["Projection"] == {"ProjectionType": "KEYS_ONLY"}


def test_a_message_stays_hidden_for_six_times_the_time_of_its_lambda() -> None:
    config = json.loads((provision.FOLDER.parent / ".chalice" / "config.json").read_text())
    assert QUEUES["CrawlQueue"]["VisibilityTimeout"] == 6 * config["lambda_timeout"]


def test_a_message_that_fails_five_times_is_put_aside_and_kept_longest() -> None:
    assert QUEUES["CrawlQueue"]["RedrivePolicy"] == {"deadLetterTargetArn": "arn:dead", "maxReceiveCount": 5}
    assert QUEUES["DeadLetterQueue"]["MessageRetentionPeriod"] > QUEUES["CrawlQueue"]["MessageRetentionPeriod"]
