"""What every test may ask for. In CI nothing is skipped for want of a tool or a vector: its absence fails."""

from __future__ import annotations

import functools
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import hypothesis
import pytest
from botocore.config import Config

ROOT = Path(__file__).resolve().parent.parent

# No test is timed: a busy machine must not fail it. A failure prints what repeats it.
hypothesis.settings.register_profile("project", deadline=None, print_blob=True)
hypothesis.settings.load_profile("project")
sys.path.insert(0, str(ROOT))
# Each session would read the descriptions of the services anew, and there is one for each test.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)

from infra import provision  # noqa: E402
from infra.local import engines  # noqa: E402
from infra.local.engines import Endpoints  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "engine: uses an engine; set on every test that asks for the fixture `engine`")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "engine" in getattr(item, "fixturenames", ()):
            item.add_marker("engine")


def absent(reason: str) -> None:
    """Skip the test for want of something; in CI, fail it."""
    if os.environ.get("CI"):
        pytest.fail(f"in CI this must be present: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """The folder of other people's test vectors (ATPROTO_FIXTURES)."""
    folder = Path(os.environ.get("ATPROTO_FIXTURES") or ROOT.parent / "shared" / "fixtures")
    if not folder.is_dir():
        absent(f"no test vectors at {folder}: set ATPROTO_FIXTURES")
    return folder


@dataclass(frozen=True)
class Stack:
    """Empty tables and queues of one test, and where they are."""

    prefix: str
    queue_url: str
    queue_arn: str
    dead_letter_url: str
    endpoints: Endpoints
    environment: dict[str, str]
    """What a process needs to use them; the test's own environment has it already."""
    dynamodb: Any
    sqs: Any
    """boto3 clients."""


@pytest.fixture(scope="session")
def engine() -> Iterator[Endpoints]:
    """One engine for all tests of this process: TEST_ENGINE says which, ``embedded`` (the default) or ``dynamodb-local``."""
    kind = os.environ.get("TEST_ENGINE") or "embedded"
    assert kind in engines.KINDS, f"TEST_ENGINE is one of {engines.KINDS}"
    with ExitStack() as running:
        try:
            endpoints = running.enter_context(engines.running(kind))
        except engines.EngineUnavailable as reason:
            absent(str(reason))
        yield endpoints


@pytest.fixture(scope="session")
def _clients(engine: Endpoints) -> dict[str, Any]:
    """Clients are costly to make, and may be used by all tests."""
    session = boto3.Session("local", "local", region_name="us-east-1")
    options = Config(max_pool_connections=50)
    return {
        "dynamodb": session.client("dynamodb", endpoint_url=engine.dynamodb, config=options),
        "sqs": session.client("sqs", endpoint_url=engine.sqs, config=options),
    }


@pytest.fixture
def stack_env(engine: Endpoints, _clients: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Stack:
    """Empty tables and queues under a name of their own, and an environment in which the service finds them."""
    made = provision.create(f"t-{uuid.uuid4().hex[:12]}", _clients["dynamodb"], _clients["sqs"])
    environment = engine.environment | {
        "DISCOVERY_TABLE_PREFIX": made.prefix,
        "DISCOVERY_QUEUE_URL": made.queue_url,
        "DISCOVERY_ALLOW_PRIVATE_HOSTS": "true",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return Stack(made.prefix, made.queue_url, made.queue_arn, made.dead_letter_url, engine, environment, **_clients)


@pytest.fixture
def start_service(stack_env: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Starts the whole service (``tests.service.Service``) with settings given without their prefix; ends it with the test."""
    from tests.service import QUICK, Service, forget_settings

    running: list[Service] = []

    def start(**variables: str) -> Service:
        for name, value in (QUICK | variables).items():
            monkeypatch.setenv(f"DISCOVERY_{name}", value)
        forget_settings()
        running.append(Service(stack_env))
        return running[-1]

    yield start
    for service in running:
        service.stop()
    forget_settings()
