"""``@atproto/api`` from npm: it pages through everything, and holds each answer against the lexicons that it came with."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.clients.conftest import CAPTAIN, TAG, TAGS, Running
from tests.conftest import ROOT, absent
from tests.reference.install import NodeAbsent, install

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def found(service: Running) -> Any:
    """What it found."""
    try:
        installed = install()
    except NodeAbsent as reason:
        absent(str(reason))
    program = ROOT / "tests" / "clients" / "client.mjs"
    lexicons = sorted((ROOT / "lexicons" / "io").rglob("*.json"))
    command = ["node", program, installed, service.url, CAPTAIN, TAG, *lexicons]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def test_it_pages_through_the_listing_of_a_collection(found: Any, service: Running) -> None:
    assert [repo["did"] for repo in found["listed"]] == list(service.dids[:-1])


def test_it_pages_through_hosts_and_repos(found: Any, service: Running) -> None:
    assert [host["hostname"] for host in found["hosts"]] == list(service.hosts)
    assert found["hostStatus"] == found["hosts"]
    assert sorted(repo["did"] for repo in found["repos"]) == sorted(service.dids)


def test_it_reads_the_records_of_each_repo(found: Any, service: Running) -> None:
    for number, did in enumerate(service.dids[:-1]):
        of = found["of"][did]
        assert (of["status"]["did"], of["status"]["rev"]) == (did, of["commit"]["rev"])
        assert of["description"]["collections"] == [CAPTAIN, TAG]
        assert [record["value"]["tag"] for record in of["kept"]] == [f"v{tag}" for tag in range(TAGS)]
        assert of["record"]["value"] == 2**53 - 1 - number


def test_its_errors_have_their_classes(found: Any) -> None:
    assert found["error"] == "RepoTakendownError"


def test_its_validator_took_every_answer(found: Any) -> None:
    assert found["validated"] > 50
