"""Each bench at a small size: every contender that is installed gives the right result. No time is looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import MODULES
from infra.local import engines
from tests.conftest import absent

ON_DYNAMODB_LOCAL = {"listing", "units", "crawl", "latency"}
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("module", MODULES)
def test_every_contender_finds_what_there_is(module: str) -> None:
    if module in ON_DYNAMODB_LOCAL:
        try:
            engines.dynamodb_local_command(0, None)
        except engines.EngineUnavailable as reason:
            absent(str(reason))
    environment = {**os.environ, "BENCH_SIZE": "small"}
    command = [sys.executable, "-m", "bench", module, "--no-report"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ours" in done.stdout


def test_a_wrong_result_fails_a_bench() -> None:
    program = """if True:
        from bench.backfill import benches
        bench = benches()[0]
        bench.check("ours", [0, "nothing"])
    """
    environment = {**os.environ, "BENCH_SIZE": "small"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert "found other records" in done.stderr


def test_the_peers_are_pinned() -> None:
    lines = (ROOT / "bench" / "requirements.txt").read_text().splitlines()
    assert all("==" in line for line in lines if line and not line.startswith("#")), json.dumps(lines)
