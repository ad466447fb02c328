"""What is watched is what is measured, and who is woken finds what to do."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from chalicelib.metrics import NAMESPACE
from infra import provision
from tests.conftest import ROOT

PREFIX = "atcr-discovery-t1"
FILLED_IN = {"ApiName": "atcr-discovery", "ApiStage": "t1", "Alarms": "arn:aws:sns:us-east-1:1:x", "Prefix": PREFIX}
PSEUDO = {"AWS::Region": "us-east-1", "AWS::Partition": "aws", "AWS::AccountId": "123456789012"}
RESOURCES = provision.template("service")["Resources"]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
OURS = {"Prefix": PREFIX, **FILLED_IN, **PSEUDO}
MAX_TEMPLATE_BYTES = 51_200
"""CloudFormation takes no larger one that is not in S3."""


def filled_in(value: Any) -> Any:
    """A part of the template with the stage's own names in it."""
    match value:
        case {"Ref": name}:
            return OURS[name]
        case {"Fn::Sub": text}:
            return re.sub(r"\$\{([\w:]+)\}", lambda found: OURS[found[1]], text)
        case dict():
            return {key: filled_in(item) for key, item in value.items()}
        case list():
            return [filled_in(item) for item in value]
    return value


def of_type(kind: str) -> list[dict[str, Any]]:
    return [filled_in(item["Properties"]) for item in RESOURCES.values() if item["Type"] == f"AWS::CloudWatch::{kind}"]


ALARMS = {alarm["AlarmName"].removeprefix(f"{PREFIX}-"): alarm for alarm in of_type("Alarm")}
(DASHBOARD,) = of_type("Dashboard")
WIDGETS = json.loads(DASHBOARD["DashboardBody"])["widgets"]


def measured() -> dict[str, set[str]]:
    """The dimensions of each metric that the code measures, besides the installation."""
    found: dict[str, set[str]] = {}
    for folder in ("chalicelib", "subscriber"):
        for path in (ROOT / folder).rglob("*.py"):
            for call in ast.walk(ast.parse(path.read_text())):
                match call:
                    case ast.Call(
                        func=ast.Attribute(value=ast.Name("metrics"), attr="count" | "observe"),
                        args=[ast.Constant(str(name)), *_],
                        keywords=dimensions,
                    ):
                        found[name] = {keyword.arg or "" for keyword in dimensions}
    return found


def watched() -> Iterator[tuple[str, set[str]]]:
    """Each of our metrics that the dashboard shows or an alarm watches, with its dimensions besides the installation."""
    for alarm in ALARMS.values():
        if alarm.get("Namespace") == NAMESPACE:
            yield alarm["MetricName"], {item["Name"] for item in alarm["Dimensions"]} - {"Installation"}
    for widget in WIDGETS:
        for metric in widget["properties"].get("metrics", []):
            match metric:
                case [{"expression": str(text)}]:
                    if searched := re.match(r"SEARCH\('\{([\w,-]+)\} MetricName=\"(\w+)\"", text):
                        yield searched[2], set(searched[1].split(",")) - {NAMESPACE, "Installation"}
                case [str(namespace), str(name), *rest] if namespace == NAMESPACE:
                    yield name, {item for item in rest[::2] if isinstance(item, str)} - {"Installation"}


def test_all_that_is_watched_is_measured_in_these_dimensions() -> None:
    assert dict(watched()).items() <= measured().items()


def test_all_that_is_measured_is_on_the_dashboard_or_wakes_somebody() -> None:
    assert measured().keys() - dict(watched()).keys() == {"DeadLetters"}  # of which SQS tells at any time


def test_all_that_is_measured_is_explained() -> None:
    assert {name for name in measured() if f"`{name}`" not in OPERATIONS} == set()


@pytest.mark.parametrize("name", ALARMS)
def test_who_is_woken_finds_what_to_do(name: str) -> None:
    assert ALARMS[name]["AlarmDescription"].endswith(f" docs/operations.md#{name}")
    assert f"\n### {name}\n" in OPERATIONS
    assert ALARMS[name]["AlarmActions"] == ALARMS[name]["OKActions"] == [OURS["Alarms"]]


def test_no_alarm_is_explained_that_there_is_not() -> None:
    explained = OPERATIONS.partition("\n## Alarms\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^### (.+)$", explained, re.MULTILINE)) == ALARMS.keys()


def test_the_first_row_of_the_dashboard_has_every_alarm() -> None:
    assert (WIDGETS[0]["type"], WIDGETS[0]["y"]) == ("alarm", 0)
    shown = [arn.rpartition(":")[2] for arn in WIDGETS[0]["properties"]["alarms"]]
    assert sorted(shown) == sorted(f"{PREFIX}-{name}" for name in ALARMS)


def test_silence_of_what_must_always_speak_is_an_alarm_and_other_silence_is_none() -> None:
    breaching = {name for name, alarm in ALARMS.items() if alarm["TreatMissingData"] == "breaching"}
    assert breaching == {"heartbeat-lost", "sweep-silent"}


def test_no_two_widgets_lie_on_each_other() -> None:
    taken = [
        (x, y)
        for widget in WIDGETS
        for x in range(widget["x"], widget["x"] + widget["width"])
        for y in range(widget["y"], widget["y"] + widget["height"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24


@mock_aws
def test_alarms_and_dashboard_are_taken_by_cloudwatch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as moto checks them; its CloudFormation passes alarms over."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    client = boto3.client("cloudwatch", "us-east-1")
    for alarm in ALARMS.values():
        client.put_metric_alarm(**alarm)
    client.put_dashboard(**DASHBOARD)
    made = {alarm["AlarmName"]: alarm for alarm in client.describe_alarms()["MetricAlarms"]}
    assert made.keys() == {f"{PREFIX}-{name}" for name in ALARMS}
    assert made[f"{PREFIX}-dead-letters"]["Threshold"] == 1


@pytest.mark.parametrize("path", sorted(provision.FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_template_is_small_enough_to_be_sent_as_it_is(path: Path) -> None:
    assert path.stat().st_size < MAX_TEMPLATE_BYTES
