"""The client stands alone: no part of the service, no AWS, nothing but httpx."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from discovery_client.web import USER_AGENT
from tests.conftest import ROOT

FOLDER = ROOT / "discovery_client"
OTHERS = {"app", "boto3", "botocore", "chalice", "chalicelib", "infra", "pynamodb", "subscriber"}
_IMPORT = """
import sys
sys.path.insert(0, sys.argv[1])
import discovery_client, discovery_client.__main__, discovery_client.request_crawl
print(*{name.partition(".")[0] for name in sys.modules})
"""


def test_nothing_of_the_service_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "discovery_client").symlink_to(FOLDER)
    command = [sys.executable, "-I", "-c", _IMPORT, str(tmp_path)]
    loaded = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert "httpx" in loaded
    assert loaded & OTHERS == set()


def test_pip_installs_the_folder_with_its_commands(tmp_path: Path) -> None:
    source, target = tmp_path / "discovery_client", tmp_path / "installed"
    shutil.copytree(FOLDER, source, ignore=shutil.ignore_patterns("__pycache__"))  # a build leaves its traces
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    shutil.rmtree(source)
    assert {path.name for path in (target / "discovery_client").iterdir()} >= {"__init__.py", "client.py", "py.typed"}
    for name in ("discover", "request-crawl"):
        environment = os.environ | {"PYTHONPATH": str(target)}
        told = subprocess.run(
            [target / "bin" / name, "--help"], env=environment, capture_output=True, text=True, check=True
        )
        assert told.stdout.startswith(f"usage: {name} ")


def test_it_has_one_version_and_needs_what_the_service_has() -> None:
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
    assert USER_AGENT.endswith(f"/{project['version']}")
    assert [requirement.partition(">")[0] for requirement in project["dependencies"]] == ["httpx"]
