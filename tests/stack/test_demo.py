"""``make demo``, as a person would run it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.stack

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The demonstration, with ``folder`` for what it puts down."""
    command = [sys.executable, "-m", "simulator.demo", *arguments]
    environment = {**os.environ, "TMPDIR": str(folder), "PATIENCE": os.environ.get("PATIENCE", "60")}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def processes(folder: Path) -> list[str]:
    """The commands that were started with ``folder`` and still run (told by Linux's /proc; elsewhere none)."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if str(folder).encode() in environment.read_bytes():
                found.append((environment.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def test_the_whole_story_comes_about_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        told, _ = process.communicate()
    assert process.returncode == 0, told
    assert told.splitlines()[-1].endswith("all as it should be")
    assert "\x1b" not in told  # colour is for terminals
    assert not list(tmp_path.iterdir())
    assert not processes(tmp_path)


def test_ctrl_c_ends_all_that_was_started(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        assert process.stdout
        assert any("let in" in line for line in process.stdout)  # in the middle of it
        assert processes(tmp_path) or not Path("/proc").is_dir()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate()
    assert process.returncode == 130, rest
    assert rest.splitlines()[-1].startswith("Interrupted")
    assert not list(tmp_path.iterdir())
    assert not processes(tmp_path)


def test_what_does_not_come_about_in_time_ends_it_with_1_and_the_reason(tmp_path: Path) -> None:
    with demo(tmp_path, "--patience", "0.01") as process:
        told, _ = process.communicate()
    assert process.returncode == 1, told
    assert 'FAILED  expected was "ready": not within 0.01 s' in told
    assert told.splitlines()[-1].endswith("not as it should be")
    [folder] = tmp_path.iterdir()
    assert (folder / "log").is_file()  # what the stack said is kept
    assert not processes(tmp_path)
