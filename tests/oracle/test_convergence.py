"""Whatever happens, in whatever order, with whatever failing in between: once nothing is due, the index is the truth.

Two classes, so that two processes share the histories. Their seeds are printed. ``ORACLE_HISTORIES`` says how many there are
(``make soak``: 20,000), ``ORACLE_SEED`` with which seed the second class begins: by itself always with the same, since what a
new seed finds is news about the service, not about the change that is being tested.
"""

from __future__ import annotations

import os

from tests.oracle.histories import met, steps, struck, tell
from tests.oracle.places import places

HISTORIES = int(os.environ.get("ORACLE_HISTORIES") or 240)
STEPS = int(os.environ.get("ORACLE_STEPS") or 25)
ENOUGH = 5_000
"""Histories of a class after which every place must have been met, and disturbed. In every run the stories see to that
(test_faults_at_every_write.py)."""


def converge(first: int, at_once: int) -> None:
    """Half of the histories, of the seeds from ``first`` on, ``at_once`` of each."""
    count = left = HISTORIES // 2
    met.clear()
    struck.clear()
    for number in range(first, first + left):
        print(f"ORACLE_SEED={number}")
        tell(number, min(left, at_once), STEPS, shrink=os.environ.get("ORACLE_SHRINK") != "no")
        left -= at_once
        if left <= 0:
            break
    print(f"{sum(met.values())} writes, {sum(struck.values())} of them disturbed; steps {dict(steps)}")
    assert set(met) <= places(), "a write at a place that is not found in the source: mend tests/oracle/places.py"
    if count >= ENOUGH:
        unmet = places() - set(met)
        assert not unmet, f"no history wrote at {sorted(unmet)}"
        untouched = places() - {place for place, _ in struck}
        assert not untouched, f"nothing ever went wrong at {sorted(untouched)}"


class TestHistoriesOfEveryRun:
    def test_they_converge(self) -> None:
        converge(1, 40)


class TestHistoriesOfAnotherSeed:
    def test_they_converge(self) -> None:
        converge(int(os.environ.get("ORACLE_SEED") or 78), 125)
