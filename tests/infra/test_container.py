"""The subscriber's image, as far as it can be tried without a container engine: what it copies is enough to run, its packages
are there for both architectures' Python, and it obeys what a container platform sends."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Stack
from tests.service import PATIENCE, eventually

DOCKERFILE = (ROOT / "Dockerfile").read_text()
BASE = re.compile(r"^FROM python:(\d+\.\d+)\.\d+-slim-[a-z]+", re.MULTILINE)


def copied() -> set[str]:
    """What the Dockerfile copies out of the project."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    return {name for line in lines for name in line.split()[:-1]}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A folder with what the image has of the project."""
    folder = tmp_path / "app"
    for name in ("chalicelib", "subscriber"):
        assert name in copied()
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_what_the_image_copies_runs_answers_and_ends_in_good_order(image: Path, stack_env: Stack) -> None:
    environment = {**stack_env.environment, "PATH": str(Path(sys.executable).parent), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["DISCOVERY_METRICS"] = "emf"

    def healthy() -> bool:
        command = [sys.executable, "-m", "subscriber.healthy"]
        return (
            subprocess.run(command, cwd=image, env=environment, capture_output=True, timeout=PATIENCE).returncode == 0
        )

    before = {path: path.stat().st_mtime_ns for path in image.rglob("*")}
    with subprocess.Popen([sys.executable, "-m", "subscriber"], cwd=image, env=environment) as running:
        try:
            eventually(healthy)
            running.send_signal(signal.SIGTERM)
            assert running.wait(PATIENCE) == 0
        finally:
            running.kill()
    assert not healthy()
    assert {path: path.stat().st_mtime_ns for path in image.rglob("*")} == before, "the root is read-only"


def test_both_stages_are_of_one_python_that_is_pinned() -> None:
    stages = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(stages) == 2
    assert len(set(stages)) == 1
    assert BASE.match(f"FROM {stages[0]}")


def test_only_what_the_image_needs_is_sent_to_the_builder() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert allowed == copied()


def test_it_does_not_run_as_root_and_says_how_it_is_checked_and_stopped() -> None:
    for instruction in ("USER 10001", "STOPSIGNAL SIGTERM", "HEALTHCHECK "):
        assert f"\n{instruction}" in DOCKERFILE


@pytest.mark.parametrize("architecture", ["aarch64", "x86_64"])
def test_each_package_with_machine_code_has_a_wheel_for_the_image(architecture: str, tmp_path: Path) -> None:
    found = BASE.search(DOCKERFILE)
    assert found is not None
    platforms = [f"manylinux_2_{minor}_{architecture}" for minor in (28, 17)] + [f"manylinux2014_{architecture}"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--dry-run",
        "--ignore-installed",
        "--only-binary",
        ":all:",
    ]
    command += ["--target", str(tmp_path), "--python-version", found[1], "--implementation", "cp"]
    command += [option for platform in platforms for option in ("--platform", platform)]
    command += ["-c", "constraints.txt", "-r", "requirements-subscriber.txt"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
