"""Structured logs."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib import telemetry
from chalicelib.telemetry import MAX_CHARACTERS, log


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    """The root logger is everybody's: leave it as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def json_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    out, err = capsys.readouterr()
    assert not out
    return [json.loads(line) for line in err.splitlines()]


def test_an_event_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("json")
    log("host-done", host="hold01.atcr.io", repos=3, ratio=0.5, again=False, error=None)
    (line,) = json_lines(capsys)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {"level": "info", "event": "host-done", "host": "hold01.atcr.io"} | {
        "repos": 3,
        "ratio": 0.5,
        "again": False,
        "error": None,
    }


def test_an_exception_is_an_error_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("json")
    try:
        raise ValueError("lost\nand gone")
    except ValueError as error:
        log("job-failed", exception=error, did="did:web:a.example")
    (line,) = json_lines(capsys)
    assert (line["level"], line["event"], line["did"]) == ("error", "job-failed", "did:web:a.example")
    assert line["traceback"].startswith("Traceback")
    assert "ValueError: lost\nand gone" in line["traceback"]


def test_a_field_does_not_pass_for_the_head_of_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("json")
    log("one", event="two", time="never", name="three", level="loud")
    (line,) = json_lines(capsys)
    assert (line["event"], line["level"], line["name"]) == ("one", "info", "three")
    assert line["time"] != "never"


@pytest.mark.parametrize(
    "name", ["password", "client_secret", "Authorization", "set_cookie", "aws_credentials", "apiKey", "admin_token"]
)
@pytest.mark.parametrize("form", ["json", "text"])
def test_secrets_are_left_out(capsys: pytest.CaptureFixture[str], form: str, name: str) -> None:
    telemetry.configure(form)
    fields: dict[str, Any] = {name: "swordfish"}
    log("told", **fields)
    assert "swordfish" not in capsys.readouterr().err


@pytest.mark.parametrize(("length", "whole"), [(MAX_CHARACTERS, True), (MAX_CHARACTERS + 1, False)])
def test_long_values_are_cut(capsys: pytest.CaptureFixture[str], length: int, whole: bool) -> None:
    telemetry.configure("json")
    log("told", text="x" * length)
    (line,) = json_lines(capsys)
    assert (line["text"] == "x" * length) is whole
    assert len(line["text"]) < MAX_CHARACTERS + 50


def test_what_json_does_not_know_is_written_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("json")
    log("told", when={1}, counts={"a": 1})
    (line,) = json_lines(capsys)
    assert (line["when"], line["counts"]) == ("{1}", {"a": 1})


def test_what_others_log_has_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("json")
    logging.getLogger("asyncio").warning("slow: %s", "x")
    logging.getLogger("httpx").info("a request")
    (line,) = json_lines(capsys)
    assert line | {"time": ""} == {
        "time": "",
        "level": "warning",
        "event": "log",
        "logger": "asyncio",
        "message": "slow: x",
    }


def test_text_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("text")
    log("host-done", host="http://localhost:2583", repos=3, error="it is\nlate", counts={"a": 1})
    line = capsys.readouterr().err
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d host-done host=http://localhost:2583 repos=3 error=\"it is\\nlate\" counts=.*\n", line
    )


def test_a_traceback_follows_its_line_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("text")
    try:
        raise ValueError("lost")
    except ValueError as error:
        log("job-failed", exception=error)
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.endswith("ERROR job-failed")
    assert rest[0].startswith("Traceback")
    assert rest[-1] == "ValueError: lost"


def test_configured_twice_each_event_is_still_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("text")
    telemetry.configure("json")
    log("told")
    assert len(json_lines(capsys)) == 1


def test_the_handler_of_lambda_gives_way(capsys: pytest.CaptureFixture[str]) -> None:
    class LambdaLoggerHandler(logging.StreamHandler):  # type: ignore[type-arg]
        __module__ = "awslambdaric.bootstrap"

    logging.getLogger().addHandler(LambdaLoggerHandler(sys.stderr))
    telemetry.configure("json")
    log("told")
    assert len(json_lines(capsys)) == 1
