"""What docs/client.md shows works as it stands there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from simulator.discovery import DiscoveryService
from tests.client.conftest import Play, Played
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "client.md").read_text()
COMMANDS = re.findall(r"^\$ ((?:discover|request-crawl|sh) .+)$", PAGE, re.MULTILINE)
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
(HOLDS_JSON,) = re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
DID = "did:web:hold01.atcr.io"


@pytest.fixture
def services(play: Play) -> list[Played]:
    """Two services that agree."""
    return [filled(play(DID)) for _ in range(2)]


def filled(played: Played) -> Played:
    service: DiscoveryService = played.service
    service.files["/.well-known/holds.json"] = HOLDS_JSON.encode()
    service.hosts = [{"hostname": "hold01.atcr.io"}]
    return played


@pytest.fixture
def environment(services: list[Played], tmp_path: Path) -> dict[str, str]:
    """As after the installation, in a folder with the files that the page names."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, module in (("discover", "discovery_client"), ("request-crawl", "discovery_client.request_crawl")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        (programs / name).chmod(0o755)
    (tmp_path / "holds.txt").write_text("hold02.atcr.io\n")
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "A": services[0].url,
        "B": services[1].url,
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_works(command: str, environment: dict[str, str], tmp_path: Path) -> None:
    ran = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert "--compare" in command or ran.stdout


@pytest.mark.parametrize("program", PROGRAMS, ids=["blocking", "async"])
def test_a_program_works(program: str, services: list[Played], environment: dict[str, str], tmp_path: Path) -> None:
    for name, played in zip("ab", services, strict=True):
        program = program.replace(f"https://{name}.example", played.url)
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert DID in ran.stdout


def test_the_list_that_is_shown_is_one() -> None:
    jsonschema.validate(json.loads(HOLDS_JSON), json.loads((ROOT / "docs" / "holds.schema.json").read_text()))


def test_the_page_has_all_options_of_discover_and_no_others() -> None:
    command = [sys.executable, "-m", "discovery_client", "--help"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = set(re.findall(r"--[a-z-]+", "\n".join(re.findall(r"^\| `--.*$", PAGE, re.MULTILINE))))
    assert listed | {"--help", "--collection", "--service"} == set(re.findall(r"(?<![\w-])--[a-z-]+", told))
