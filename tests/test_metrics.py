"""Measurements, in the form that CloudWatch reads from a log."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chalicelib import metrics
from chalicelib.metrics import MAX_VALUES, NAMESPACE, Metrics
from subscriber.measures import MOST_LAG_MS, Measures, applied


class Log:
    """What was written."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def __call__(self, line: str) -> None:
        assert "\n" not in line
        self.lines.append(json.loads(line))

    def total(self, name: str, **dimensions: str) -> float:
        """The sum of a metric's values over all lines with just these dimensions."""
        found = 0.0
        for line in self.lines:
            (about,) = line["_aws"]["CloudWatchMetrics"]
            if set(about["Dimensions"][0]) == {"Installation", *dimensions} and dimensions.items() <= line.items():
                value = line.get(name, 0)
                found += sum(value) if isinstance(value, list) else value
        return found


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    log = Log()
    monkeypatch.setattr(metrics, "_metrics", Metrics("atcr-test", write=log, clock=lambda: 1_800_000_000.5))
    yield log
    for line in log.lines:
        is_sound(line)


def is_sound(line: dict[str, Any]) -> None:
    """The rules of the format that a line can break."""
    assert line["_aws"]["Timestamp"] == 1_800_000_000_500
    (about,) = line["_aws"]["CloudWatchMetrics"]
    assert about["Namespace"] == NAMESPACE
    (dimensions,) = about["Dimensions"]
    assert len(dimensions) <= 30
    assert all(isinstance(line[name], str) and line[name] for name in dimensions)
    assert 0 < len(about["Metrics"]) <= 100
    for metric in about["Metrics"]:
        value = line[metric["Name"]]
        assert isinstance(value, int | float) or 0 < len(value) <= MAX_VALUES
        assert metric["Unit"] in ("Count", "Milliseconds", "Seconds", "Bytes")


def test_counts_are_summed_and_values_kept_until_they_are_written(log: Log) -> None:
    metrics.count("Resyncs", Reason="too-big")
    metrics.count("Resyncs", 2, Reason="too-big")
    metrics.count("Resyncs", Reason="new")
    metrics.observe("PageLatency", 12.5, "Milliseconds")
    metrics.observe("PageLatency", 7.5, "Milliseconds")
    assert log.lines == []
    metrics.flush()
    assert log.total("Resyncs", Reason="too-big") == 3
    assert log.total("Resyncs", Reason="new") == 1
    assert log.total("PageLatency") == 20
    assert {line["Installation"] for line in log.lines} == {"atcr-test"}
    written = len(log.lines)
    metrics.flush()
    assert len(log.lines) == written == 3


@pytest.mark.parametrize("number", [MAX_VALUES - 1, MAX_VALUES, MAX_VALUES + 1])
def test_so_many_values_go_into_one_line(log: Log, number: int) -> None:
    for value in range(number):
        metrics.observe("Lag", value, "Milliseconds")
    metrics.flush()
    assert len(log.lines) == 1 + (number > MAX_VALUES)
    assert log.total("Lag") == sum(range(number))


def test_nothing_is_lost_between_threads(log: Log) -> None:
    def work(_: int) -> None:
        for _ in range(500):
            metrics.count("Events")
            metrics.observe("Lag", 1, "Milliseconds")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    metrics.flush()
    assert (log.total("Events"), log.total("Lag")) == (2000, 2000)


def test_where_metrics_are_off_nothing_is_written(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(metrics, "_metrics", None)
    metrics.count("Events")
    metrics.observe("Lag", 1, "Milliseconds")
    metrics.flush()
    assert capsys.readouterr() == ("", "")


def test_where_they_are_on_they_are_lines_of_the_log(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(metrics, "_metrics", None)
    metrics.configure("atcr-test")
    metrics.count("Events")
    metrics.flush()
    assert json.loads(capsys.readouterr().err)["Events"] == 1


@pytest.mark.parametrize(
    ("time", "lag"),
    [
        ("2027-01-15T07:59:59.000Z", 1000),
        ("2027-01-15T08:00:00.001Z", None),  # its clock is ahead
        ("1970-01-01T00:00:00Z", None),
        ("soon", None),
    ],
)
def test_the_lag_of_a_commit_is_by_the_clock_of_its_host(log: Log, time: str, lag: float | None) -> None:
    applied(time, 1_800_000_000_000)
    metrics.flush()
    assert [line["Lag"] for line in log.lines] == ([] if lag is None else [lag])
    assert MOST_LAG_MS == 86_400_000


def test_a_subscriber_tells_what_happened_since_the_last_time(log: Log) -> None:
    measures = Measures()
    outcomes = Counter({"applied": 2, "followed": 1, "desynchronized:new": 1, "no-authority": 1, "duplicate": 4})
    measures.measure(outcomes=outcomes, events=100, hosts=3, open_=2, oldest=0.5)
    assert [log.total(name) for name in ("Events", "EventsPassedOver", "CommitsVerified", "Heartbeats")] == [
        100,
        91,
        3,
        1,
    ]
    assert log.total("Resyncs", Reason="new") == log.total("Rejected", Reason="no-authority") == 1
    log.lines.clear()
    outcomes["applied"] += 1
    measures.measure(outcomes=outcomes, events=101, hosts=3, open_=3, oldest=0.0)
    assert [log.total(name) for name in ("Events", "EventsPassedOver", "CommitsVerified", "Heartbeats")] == [1, 0, 1, 1]
    assert (log.total("Hosts"), log.total("OpenStreams"), log.total("Resyncs", Reason="new")) == (3, 3, 0)
    log.lines.clear()
    measures.measure(outcomes=Counter(), events=0, hosts=0, open_=0, oldest=0.0)  # it began anew
    assert log.total("Events") == 0
