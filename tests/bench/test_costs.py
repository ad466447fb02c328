"""The page of costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import costs

EVENT = {"write_units": 4.0, "read_units": 1.0, "requests": 2.0}
FOUND = {"new record": EVENT, "cursor saved": EVENT, "idle hour of the subscriber, 1 host": EVENT}


def test_only_what_is_between_the_markers_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "costs.md"
    page.write_text(f"before\n{costs.BEGIN}\nold\n{costs.END}\nafter\n")
    monkeypatch.setattr(costs, "FILE", page)
    for _ in range(2):
        costs.write(FOUND)
        lines = page.read_text().splitlines()
        assert (lines[0], lines[-1]) == ("before", "after")
        assert "old" not in lines
        assert "| new record | 4 | 1 | 2 | 2.63 |" in lines


def test_more_holds_cost_more_and_the_container_costs_the_same() -> None:
    few, many = costs.bill(FOUND, 10), costs.bill(FOUND, 10_000)
    assert many["DynamoDB"] > few["DynamoDB"]
    assert many["Fargate and its address"] == few["Fargate and its address"]


def test_every_event_that_the_bill_counts_is_one_that_is_measured() -> None:
    source = (Path(costs.__file__).parent / "units.py").read_text()
    named = [line.split('"')[1] for line in Path(costs.__file__).read_text().splitlines() if 'units("' in line]
    assert len(named) > 10
    for kind in named:
        assert kind.partition(", 1 host")[0] in source, kind
