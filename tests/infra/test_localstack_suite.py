"""The tests for LocalStack, against moto's server in its stead: they are sound, whatever LocalStack does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.stack


def test_the_suite_for_localstack_passes_against_moto(moto_url: str) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/localstack"]
    environment = {**os.environ, "LOCALSTACK_ENDPOINT": moto_url}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout


def test_without_an_address_nothing_of_it_is_collected() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "LOCALSTACK_ENDPOINT"}
    command = [sys.executable, "-m", "pytest", "--collect-only", "tests/localstack"]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, ran.stdout
