"""The static checks look at all that runs, and not less than they say."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

from tests.conftest import ROOT

STRICT = {"chalicelib", "subscriber", "infra", "discovery_client"}
"""Under mypy strict. app.py is Chalice's, which has no types."""


@pytest.mark.parametrize("place", ["app.py", *(f"{folder}/x.py" for folder in sorted(STRICT))])
def test_bandit_s_rules_and_strict_types_cover_all_that_runs(place: str) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--output-format", "concise", "--stdin-filename", place, "-"]
    found = subprocess.run(command, cwd=ROOT, input="eval(input())\n", capture_output=True, text=True)
    assert "S307" in found.stdout
    mypy = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert mypy["strict"]
    assert set(mypy["files"]) >= STRICT
    loosened = {
        name
        for override in mypy["overrides"]
        for name in override["module"]
        if not override.get("ignore_missing_imports")
    }
    assert loosened <= {"chalicelib.index.tables"}, "PynamoDB's calls have no types"
