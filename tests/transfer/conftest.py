"""Contexts on the tables of a test, and on further ones that are empty."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from chalicelib import settings
from chalicelib.crawl.context import Context
from chalicelib.index.tables import Tables
from infra import provision
from tests.conftest import Stack


@pytest.fixture
def context(stack_env: Stack) -> Context:
    return Context(settings.read(stack_env.environment), clock=lambda: 1_800_000_000_000)


@pytest.fixture
def empty_tables(stack_env: Stack) -> Callable[[], Tables]:
    """Makes empty tables under a new prefix."""

    def make() -> Tables:
        made = provision.create(f"t-{uuid.uuid4().hex[:12]}", stack_env.dynamodb, stack_env.sqs)
        return Tables(made.prefix)

    return make


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where an export is written to."""
    return tmp_path / "index.jsonl"
