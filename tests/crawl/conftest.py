"""A simulated neighbourhood, and what jobs need to crawl it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from chalicelib import settings
from chalicelib.crawl.context import Context
from simulator.clock import Clock
from simulator.thread import SimulatorThread
from tests.conftest import Stack


@pytest.fixture
def sim() -> Iterator[SimulatorThread]:
    with SimulatorThread(seed=1, clock=Clock.wall()) as running:
        yield running


@pytest.fixture
def make_context(stack_env: Stack, sim: SimulatorThread) -> Callable[..., Context]:
    """The context of a new process, with settings of the test's own."""

    def make(**variables: str) -> Context:
        given = stack_env.environment | {f"DISCOVERY_{name}": value for name, value in variables.items()}
        return Context(settings.read(given | {"DISCOVERY_PLC_URL": sim.net.plc.url}))

    return make
