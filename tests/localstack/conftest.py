"""Not collected unless LOCALSTACK_ENDPOINT says where a LocalStack runs: ``make test-localstack``."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError

from infra.local.engines import CREDENTIALS

ENDPOINT = os.environ.get("LOCALSTACK_ENDPOINT") or ""
collect_ignore_glob = [] if ENDPOINT else ["test_*.py"]


@pytest.fixture(scope="session")
def endpoint() -> str:
    """Where it is. That it does not answer is a failure: it was asked for."""
    try:
        connect("sqs").list_queues()
    except EndpointConnectionError:
        pytest.exit(f"nothing answers at {ENDPOINT}: docker compose --profile localstack up localstack", returncode=1)
    return ENDPOINT


def connect(service: str) -> Any:
    """A client of ``service`` there, with the credentials that the local stack uses."""
    keys = CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"]
    return boto3.Session(*keys, region_name=CREDENTIALS["AWS_REGION"]).client(service, endpoint_url=ENDPOINT)  # type: ignore[call-overload]


@pytest.fixture
def client(endpoint: str) -> Callable[[str], Any]:
    return connect


@pytest.fixture
def prefix(endpoint: str) -> Iterator[str]:
    """The name of an installation; what was made under it is deleted after the test."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    yield name
    dynamodb, sqs = connect("dynamodb"), connect("sqs")
    for page in dynamodb.get_paginator("list_tables").paginate():
        for table in page["TableNames"]:
            if table.startswith(f"{name}-"):
                dynamodb.update_table(TableName=table, DeletionProtectionEnabled=False)
                dynamodb.delete_table(TableName=table)
    for url in sqs.list_queues(QueueNamePrefix=f"{name}-").get("QueueUrls", []):
        sqs.delete_queue(QueueUrl=url)
