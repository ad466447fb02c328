"""``python -m simulator`` as a person would use it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]


def test_it_prints_its_hosts_keeps_changing_and_ends_on_ctrl_c() -> None:
    command = [sys.executable, "-m", "simulator", "--hosts", "2", "--pds", "0", "--rate", "50"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        plc, first, second = (process.stdout.readline().split() for _ in range(3))
        try:
            assert plc[:2] == ["PLC", "directory"]
            assert httpx.get(f"{plc[2]}/_health", trust_env=False).status_code == 200
            assert first[0] == second[0] == "hold"
            assert " rev " in process.stdout.readline()
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)  # what it still prints is read: a closed pipe would be another way to end
    assert process.returncode == 0
