"""Settings: read once, checked, and listed in .env.example."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

import pytest

from chalicelib import settings
from chalicelib.settings import InvalidSetting, Settings, read
from infra import provision
from tests.conftest import ROOT


def test_the_defaults_are_good() -> None:
    found = read({})
    assert found.collections.patterns == ("io.atcr.*",)
    assert found.answered is found.collections
    assert found.plc_url == "https://plc.directory"
    assert found.allow_private_hosts is False


def test_an_empty_variable_is_its_default() -> None:
    assert read({"DISCOVERY_COLLECTIONS": " ", "DISCOVERY_PLC_URL": "", "DISCOVERY_CURSOR_SECONDS": ""}) == read({})


def test_variables_of_others_are_ignored() -> None:
    assert read({"PATH": "/bin", "discovery_colour": "blue", "PLC_URL": "x"}) == read({})


def test_values_are_read() -> None:
    found = read(
        {
            "DISCOVERY_COLLECTIONS": " io.atcr.hold.captain , app.example.* ",
            "DISCOVERY_AUTHORITATIVE": "io.atcr.hold.*",
            "DISCOVERY_PLC_URL": "http://127.0.0.1:2582/",
            "DISCOVERY_ALLOW_PRIVATE_HOSTS": "True",
            "DISCOVERY_CURSOR_SECONDS": "0.5",
            "DISCOVERY_CRAWL_CONCURRENCY": "8",
        }
    )
    assert found.collections.patterns == ("io.atcr.hold.captain", "app.example.*")
    assert found.answered.patterns == ("io.atcr.hold.*",)
    assert found.plc_url == "http://127.0.0.1:2582"
    assert (found.allow_private_hosts, found.cursor_seconds, found.crawl_concurrency) == (True, 0.5, 8)


@pytest.mark.parametrize("word", ["1", "true", "YES", "On"])
def test_words_for_yes(word: str) -> None:
    assert read({"DISCOVERY_ALLOW_PRIVATE_HOSTS": word}).allow_private_hosts is True


@pytest.mark.parametrize("word", ["0", "false", "NO", "Off"])
def test_words_for_no(word: str) -> None:
    assert read({"DISCOVERY_ALLOW_PRIVATE_HOSTS": word}).allow_private_hosts is False


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("COLLECTIONS", "io.atcr.*,,", "a collection is empty"),
        ("COLLECTIONS", "*", "*"),
        ("COLLECTIONS", "io.*", "io.*"),
        ("AUTHORITATIVE", "captain", "captain"),
        ("PLC_URL", "plc.directory", "URL"),
        ("PLC_URL", "ftp://plc.directory", "URL"),
        ("PLC_URL", "https://plc.directory/?x=1", "URL"),
        ("ALLOW_PRIVATE_HOSTS", "maybe", "true or false"),
        ("USER_AGENT", "x\ny", "printable ASCII"),
        ("USER_AGENT", "x" * 201, "200"),
        ("LOG_FORMAT", "xml", "json, text"),
        ("TABLE_PREFIX", "Prod", "small letters"),
        ("TABLE_PREFIX", "a" * 62, "61"),
        ("TABLE_PREFIX", "a.b", "small letters"),
        ("CRAWL_CONCURRENCY", "0", "1 to 64"),
        ("CRAWL_CONCURRENCY", "65", "1 to 64"),
        ("CRAWL_CONCURRENCY", "2.5", "1 to 64"),
        ("CURSOR_SECONDS", "nan", "0.05 to 300"),
        ("CURSOR_SECONDS", "soon", "0.05 to 300"),
        ("HEARTBEAT_SECONDS", "60.1", "0.2 to 60"),
        ("HEARTBEAT_SECONDS", "0.1", "0.2 to 60"),
    ],
)
def test_a_bad_value_is_named_with_what_would_be_right(name: str, text: str, says: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        read({f"DISCOVERY_{name}": text})
    assert str(refused.value).startswith(f"DISCOVERY_{name}={text!r}: ")
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text"), [("CRAWL_CONCURRENCY", "1"), ("CRAWL_CONCURRENCY", "64"), ("USER_AGENT", "x" * 200)]
)
def test_a_value_at_the_edge_is_good(name: str, text: str) -> None:
    read({f"DISCOVERY_{name}": text})


def test_a_setting_that_there_is_not_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="DISCOVERY_COLECTIONS: there is no such setting"):
        read({"DISCOVERY_COLECTIONS": "io.atcr.*"})


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(InvalidSetting) as refused:
        read({"DISCOVERY_PLC_URL": "x", "DISCOVERY_LOG_FORMAT": "y", "DISCOVERY_Z": "z"})
    assert str(refused.value).count("DISCOVERY_") == 3


def test_the_queue_has_the_name_that_its_url_ends_in() -> None:
    assert read({"DISCOVERY_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/1/abc-crawl"}).queue_name == "abc-crawl"


def test_without_a_url_it_has_the_name_that_the_template_gives_it() -> None:
    queue = provision.resources("base", "AWS::SQS::Queue", "atcr-discovery-dev")[provision.QUEUE_TO_CRAWL]
    assert read({}).queue_name == queue["QueueName"]
    assert read({"DISCOVERY_TABLE_PREFIX": "other"}).queue_name == "other-crawl"


def test_env_example_is_up_to_date() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "chalicelib.settings"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert (ROOT / ".env.example").read_text() == printed.stdout, "run: python -m chalicelib.settings > .env.example"


def test_the_page_of_settings_is_up_to_date() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == settings.reference(), (
        "run: python -m chalicelib.settings --markdown > docs/settings.md"
    )


def test_the_example_is_the_defaults_with_their_help() -> None:
    lines = settings.example().splitlines()
    assert read(dict(line.split("=", 1) for line in lines if line.startswith("DISCOVERY_"))) == read({})
    assert sum(line.startswith("# ") for line in lines) == len(fields(Settings))
