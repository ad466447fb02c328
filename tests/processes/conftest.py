"""A simulated neighbourhood, and the service's parts as processes beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.clock import Clock
from simulator.thread import SimulatorThread
from tests.conftest import Stack
from tests.processes.children import QUICK, Installation


@pytest.fixture
def sim() -> Iterator[SimulatorThread]:
    with SimulatorThread(seed=1, clock=Clock.wall()) as running:
        yield running


@pytest.fixture
def installation(stack_env: Stack, sim: SimulatorThread, tmp_path: Path) -> Iterator[Installation]:
    quick = {f"DISCOVERY_{name}": value for name, value in QUICK.items()}
    made = Installation(
        {**os.environ, **quick, **stack_env.environment, "DISCOVERY_PLC_URL": sim.net.plc.url}, tmp_path
    )
    yield made
    made.close()
