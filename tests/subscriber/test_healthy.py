"""A container's health check: whether the subscriber beside it is alive."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid

import pytest
import uvloop

from subscriber.healthy import SILENCE, answering
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCOVERY_TABLE_PREFIX", f"t-{uuid.uuid4().hex[:12]}")


def check() -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "subscriber.healthy"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )


async def checked(*ages: float) -> subprocess.CompletedProcess[str]:
    """The check while subscribers run whose last rounds were so long ago."""
    async with asyncio.TaskGroup() as running:
        begun, ended = [asyncio.Event() for _ in ages], asyncio.Event()

        async def run(age: float, is_there: asyncio.Event) -> None:
            async with answering(lambda: age):
                is_there.set()
                await ended.wait()

        for age, is_there in zip(ages, begun, strict=True):
            running.create_task(run(age, is_there))
            await is_there.wait()
        found = await asyncio.to_thread(check)
        ended.set()
        return found


@pytest.mark.parametrize(("age", "code"), [(0.0, 0), (SILENCE, 0), (SILENCE + 0.1, 1)])
def test_a_subscriber_is_healthy_while_it_makes_its_rounds(age: float, code: int) -> None:
    found = uvloop.run(checked(age))
    assert found.returncode == code, found.stderr
    assert ("last round was 120 s ago" in found.stderr) == bool(code)


def test_without_a_subscriber_nobody_is_healthy() -> None:
    found = check()
    assert found.returncode == 1
    assert "no subscriber answers" in found.stderr


def test_of_two_subscribers_on_one_machine_the_first_answers() -> None:
    assert uvloop.run(checked(0.0, SILENCE * 2)).returncode == 0


def test_asking_loads_nothing_of_the_service() -> None:
    found = check()
    assert "boto" not in found.stderr
    assert "chalicelib" not in found.stderr
