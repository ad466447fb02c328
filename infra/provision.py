"""Makes the tables and queues of the CloudFormation templates through the plain APIs, for the local stack and the tests.

``data.yaml`` and ``base.yaml`` are the one definition: what is deployed and what runs locally have the same names, keys
and indexes. Encryption and point-in-time recovery are left out: they are the deployment's, and no local engine has both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent
QUEUE_TO_CRAWL = "CrawlQueue"
QUEUE_OF_THE_DEAD = "DeadLetterQueue"


@dataclass(frozen=True)
class Installation:
    """What was made, or was there already."""

    prefix: str
    tables: tuple[str, ...]
    queue_url: str
    queue_arn: str
    dead_letter_url: str


class _TemplateLoader(yaml.SafeLoader):
    """Reads ``!Sub``, ``!Ref``, ``!GetAtt`` and so on as the long forms {"Fn::Sub": ...}, {"Ref": ...}, {"Fn::GetAtt": [...]}."""


def _long_form(loader: _TemplateLoader, tag: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        if tag == "Ref":
            return {"Ref": value}
        return {f"Fn::{tag}": value.split(".", 1) if tag == "GetAtt" else value}
    if isinstance(node, yaml.SequenceNode):
        return {f"Fn::{tag}": loader.construct_sequence(node, deep=True)}
    raise yaml.constructor.ConstructorError(None, None, f"!{tag} of what?", node.start_mark)


_TemplateLoader.add_multi_constructor("!", _long_form)


def template(name: str) -> dict[str, Any]:
    """The template ``infra/<name>.yaml`` with its tags in their long form."""
    with (FOLDER / f"{name}.yaml").open(encoding="utf-8") as text:
        content: dict[str, Any] = yaml.load(text, _TemplateLoader)  # noqa: S506 (a SafeLoader with three tags)
        return content


def resources(name: str, kind: str, prefix: str, arns: Mapping[str, str] = {}) -> dict[str, dict[str, Any]]:
    """The properties of each resource of ``kind`` in template ``name``, by logical name, with ``${Prefix}`` and the ARNs
    filled in."""
    return {
        logical: _filled_in(resource["Properties"], prefix, arns)
        for logical, resource in template(name)["Resources"].items()
        if resource["Type"] == kind
    }


def _filled_in(value: Any, prefix: str, arns: Mapping[str, str]) -> Any:
    match value:
        case {"Fn::Sub": str(text)}:
            return text.replace("${Prefix}", prefix)
        case {"Fn::GetAtt": [logical, "Arn"]}:
            return arns.get(logical, "")
        case dict():
            return {key: _filled_in(item, prefix, arns) for key, item in value.items()}
        case list():
            return [_filled_in(item, prefix, arns) for item in value]
        case _:
            return value


def create(prefix: str, dynamodb_client: Any, sqs_client: Any) -> Installation:
    """Make the tables ``<prefix>-hosts``, ... and the queues ``<prefix>-crawl``, ``<prefix>-crawl-dead``, where they are
    not there yet, and return once they can be used. Botocore's errors are raised as they are."""
    tables = resources("data", "AWS::DynamoDB::Table", prefix)
    for properties in tables.values():
        _create_table(dynamodb_client, properties)
    for properties in tables.values():
        dynamodb_client.get_waiter("table_exists").wait(
            TableName=properties["TableName"], WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )
        _enable_time_to_live(dynamodb_client, properties)
    dead_letter_url, dead_letter_arn = _create_queue(sqs_client, prefix, QUEUE_OF_THE_DEAD)
    queue_url, queue_arn = _create_queue(sqs_client, prefix, QUEUE_TO_CRAWL, {QUEUE_OF_THE_DEAD: dead_letter_arn})
    names = tuple(properties["TableName"] for properties in tables.values())
    return Installation(prefix, names, queue_url, queue_arn, dead_letter_url)


def _create_table(client: Any, properties: Mapping[str, Any]) -> None:
    left_out = {"SSESpecification", "PointInTimeRecoverySpecification", "TimeToLiveSpecification"}
    try:
        client.create_table(**{key: value for key, value in properties.items() if key not in left_out})
    except client.exceptions.ResourceInUseException:
        _add_indexes(client, properties)


def _add_indexes(client: Any, properties: Mapping[str, Any]) -> None:
    """Make the indexes that a table of an older version does not have."""
    name = properties["TableName"]
    found = client.describe_table(TableName=name)["Table"].get("GlobalSecondaryIndexes", [])
    there = {index["IndexName"] for index in found}
    for index in properties.get("GlobalSecondaryIndexes", []):
        if index["IndexName"] not in there:  # one at a time: DynamoDB makes no two together
            client.update_table(
                TableName=name,
                AttributeDefinitions=properties["AttributeDefinitions"],
                GlobalSecondaryIndexUpdates=[{"Create": index}],
            )
            client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 600})


def _enable_time_to_live(client: Any, properties: Mapping[str, Any]) -> None:
    wanted, name = properties.get("TimeToLiveSpecification"), properties["TableName"]
    if wanted is None:
        return
    found = client.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    if found.get("TimeToLiveStatus") not in ("ENABLED", "ENABLING"):
        client.update_time_to_live(TableName=name, TimeToLiveSpecification=wanted)


def _create_queue(client: Any, prefix: str, logical: str, arns: Mapping[str, str] = {}) -> tuple[str, str]:
    properties = resources("base", "AWS::SQS::Queue", prefix, arns)[logical]
    name = properties.pop("QueueName")
    attributes: dict[Any, str] = {
        key: json.dumps(value) if isinstance(value, (dict, bool)) else str(value) for key, value in properties.items()
    }
    try:
        url = client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    except client.exceptions.QueueNameExists:
        url = client.get_queue_url(QueueName=name)["QueueUrl"]
        client.set_queue_attributes(QueueUrl=url, Attributes=attributes)
    found = client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return url, found["Attributes"]["QueueArn"]
