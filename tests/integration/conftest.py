"""A simulated neighbourhood, and the service beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from simulator.clock import Clock
from simulator.thread import SimulatorThread
from tests.service import Service


@pytest.fixture
def sim() -> Iterator[SimulatorThread]:
    with SimulatorThread(seed=1, clock=Clock.wall()) as running:
        yield running


@pytest.fixture
def make_service(start_service: Callable[..., Service], sim: SimulatorThread) -> Callable[..., Service]:
    """Starts the service, without a subscriber, with settings of the test's own."""
    return lambda **variables: start_service(PLC_URL=sim.net.plc.url, **variables)


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Service:
    """The service with a subscriber."""
    made = make_service()
    made.follow()
    return made
