"""_health says what is."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib import process
from chalicelib import settings as settings_module
from chalicelib.api import health
from chalicelib.index.state import SUBSCRIBER, State
from chalicelib.index.tables import Tables
from chalicelib.settings import VERSION
from tests.api.conftest import Answer, Api
from tests.conftest import Stack

NOW = 1_800_000_000_000


@pytest.fixture(autouse=True)
def _stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "now_ms", lambda: NOW)
    monkeypatch.setattr("chalicelib.index.rows.now_ms", lambda: NOW)


@pytest.fixture
def state(tables: Tables) -> State:
    return State(tables, clock=lambda: NOW)


def beat(state: State, name: str, age_ms: int, keep_seconds: float | None = None, **content: Any) -> None:
    state.write(SUBSCRIBER, name, {"at": NOW - age_ms, **content}, number=NOW, keep_seconds=keep_seconds)


def report(api: Api) -> Answer:
    return api.get("/xrpc/_health")


def test_it_is_well_while_a_subscriber_is_alive(api: Api, state: State) -> None:
    beat(state, "a", 1234, hosts=3, open=2)
    answer = report(api)
    assert answer.status == 200
    assert answer.json == {
        "version": VERSION,
        "subscriber": {"age": 1.2, "alive": 1, "hosts": 3, "open": 2},
        "problems": [],
    }
    assert answer.headers["Cache-Control"] == "no-store"


def test_without_a_subscriber_it_is_not(api: Api) -> None:
    answer = report(api)
    assert (answer.status, answer.error) == (503, "Unhealthy")
    assert answer.json["version"] == VERSION
    assert answer.json["subscriber"] == {"age": None, "alive": 0, "hosts": 0, "open": 0}
    (problem,) = answer.json["problems"]
    assert problem == answer.json["message"]
    assert "subscriber" in problem


@pytest.mark.parametrize(("age_ms", "status"), [(0, 200), (30_000, 200), (30_001, 503), (86_400_000, 503)])
def test_a_heartbeat_is_good_for_30_seconds(api: Api, state: State, age_ms: int, status: int) -> None:
    beat(state, "a", age_ms, hosts=3, open=2)
    answer = report(api)
    assert answer.status == status
    assert answer.json["subscriber"]["age"] == round(age_ms / 1000, 1)
    assert answer.json["subscriber"]["hosts"] == (3 if status == 200 else 0)


@pytest.mark.parametrize(("age_ms", "status"), [(80_000, 200), (80_001, 503)])
def test_or_for_four_heartbeats_where_they_are_rare(
    api: Api, state: State, monkeypatch: pytest.MonkeyPatch, age_ms: int, status: int
) -> None:
    monkeypatch.setenv("DISCOVERY_HEARTBEAT_SECONDS", "20")
    settings_module.current.cache_clear()
    beat(state, "a", age_ms)
    assert report(api).status == status


def test_the_youngest_heartbeat_counts_and_the_living_are_added_up(api: Api, state: State) -> None:
    beat(state, "a", 2000, hosts=3, open=3)
    beat(state, "b", 9000, hosts=4, open=1)
    beat(state, "dead", 99_000, hosts=50, open=50)
    assert report(api).json["subscriber"] == {"age": 2.0, "alive": 2, "hosts": 7, "open": 4}


def test_a_heartbeat_from_a_clock_ahead_of_ours_is_fresh(api: Api, state: State) -> None:
    beat(state, "a", -5000)
    answer = report(api)
    assert (answer.status, answer.json["subscriber"]["age"]) == (200, 0)


def test_an_expired_row_is_none(api: Api, state: State) -> None:
    beat(state, "a", 0, keep_seconds=0)
    assert report(api).status == 503
    beat(state, "a", 0, keep_seconds=1)
    assert report(api).status == 200


def test_tables_that_are_not_there_are_a_problem(
    api: Api, stack_env: Stack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DISCOVERY_TABLE_PREFIX", "nothing-here")
    settings_module.current.cache_clear()
    process.reader.cache_clear()
    answer = report(api)
    assert (answer.status, answer.error) == (503, "Unhealthy")
    assert answer.json["problems"] == ["the tables cannot be read"]
    assert answer.json["subscriber"]["age"] is None
    assert "nothing-here" not in answer.text
    assert any(record.exc_info for record in caplog.records)


def test_tables_that_cannot_be_reached_are_a_problem(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:1")
    process.reader.cache_clear()
    answer = report(api)
    assert (answer.status, answer.json["problems"]) == (503, ["the tables cannot be read"])
