"""A running neighbourhood for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from simulator import SimulatorThread


@pytest.fixture
def sim() -> Iterator[SimulatorThread]:
    with SimulatorThread() as running:
        yield running
