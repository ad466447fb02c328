"""Whatever happens, in whatever order, with whatever failing in between: once nothing is due, the index is the truth.

``ORACLE_HISTORIES`` says how many histories (60 by default, ``make soak`` 20,000). Half of
them are the same in every run; the seed of the others is printed, and ``ORACLE_SEED`` repeats it. In CI it is always the
same: what a new seed finds is news about the service, not about the change that is being tested.
"""

from __future__ import annotations

import os
import secrets

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.oracle.histories import PLACES, Histories, met, steps, struck

HISTORIES = int(os.environ.get("ORACLE_HISTORIES") or 60)
STEPS = int(os.environ.get("ORACLE_STEPS") or 25)
ENOUGH = 200
"""Histories after which every place must have been met."""


@pytest.fixture
def histories() -> settings:
    return settings(
        max_examples=max(1, HISTORIES // 2),
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        print_blob=True,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate] if os.environ.get("ORACLE_SHRINK") == "no" else [Phase.generate, Phase.shrink],
    )


def test_the_histories_of_every_run_converge(histories: settings) -> None:
    run_state_machine_as_test(seed(0)(Histories), settings=histories)


def test_histories_that_nobody_has_seen_converge(histories: settings) -> None:
    number = int(os.environ.get("ORACLE_SEED") or (77 if os.environ.get("CI") else secrets.randbelow(2**32)))
    print(f"ORACLE_SEED={number}")
    run_state_machine_as_test(seed(number)(Histories), settings=histories)


@pytest.mark.skipif(HISTORIES < ENOUGH, reason="too few histories to have met every write")
def test_every_write_was_met_and_disturbed() -> None:
    print(f"{sum(met.values())} writes, {sum(struck.values())} of them disturbed; steps {dict(steps)}")
    assert set(met) == set(PLACES), "the list of places where the service writes is not complete, or not all were met"
    untouched = set(PLACES) - {place for place, _ in struck}
    assert not untouched, f"nothing ever went wrong at {sorted(untouched)}"
