"""The images, as far as they can be tried without a container engine: what they copy is enough to run, their packages are there
for both architectures' Python, and they obey what a container platform sends."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.following import PATIENCE
from infra.local import engines
from tests.conftest import ROOT, Stack
from tests.service import eventually

DOCKERFILE = (ROOT / "Dockerfile").read_text()
STAGES = {
    found["name"]: found["body"]
    for found in re.finditer(
        r"^FROM \S+ AS (?P<name>\S+)$(?P<body>.*?)(?=^FROM|\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL
    )
}
BASE = re.compile(r"^FROM python:(\d+\.\d+)\.\d+-slim-[a-z]+", re.MULTILINE)


def copied(stage: str) -> set[str]:
    """What a stage of the Dockerfile copies out of the project."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", STAGES[stage], re.MULTILINE)
    return {name for line in lines for name in line.split()[:-1]}


def command(stage: str, instruction: str) -> list[str]:
    """The last ``["python", ...]`` of an instruction, to be run with this Python."""
    (found,) = re.findall(rf"^{instruction}[^\[]*(\[.*\])$", STAGES[stage], re.MULTILINE)
    python, *arguments = json.loads(found)
    assert python == "python"
    return [sys.executable, *arguments]


def image(stage: str, folder: Path) -> Path:
    """A folder with what the image has of the project."""
    for name in copied(stage):
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "node_modules")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_what_the_subscriber_s_image_has_runs_answers_and_ends_in_good_order(tmp_path: Path, stack_env: Stack) -> None:
    app = image("subscriber", tmp_path / "app")
    environment = {**stack_env.environment, "PATH": str(Path(sys.executable).parent), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["DISCOVERY_METRICS"] = "emf"

    def healthy() -> bool:
        check = command("subscriber", "HEALTHCHECK")
        return subprocess.run(check, cwd=app, env=environment, capture_output=True, timeout=PATIENCE).returncode == 0

    before = files(app)
    with subprocess.Popen(command("subscriber", "ENTRYPOINT"), cwd=app, env=environment) as running:
        try:
            eventually(healthy)
            running.send_signal(signal.SIGTERM)
            assert running.wait(PATIENCE) == 0
        finally:
            running.kill()
    assert not healthy()
    assert files(app) == before, "the root is read-only"


@pytest.mark.stack
def test_what_the_machine_s_image_has_runs_answers_and_ends_in_good_order(tmp_path: Path) -> None:
    app, entry = image("machine", tmp_path / "app"), command("machine", "ENTRYPOINT")
    port = str(engines.free_port())
    entry[entry.index("0.0.0.0")] = "127.0.0.1"  # not on this machine's other addresses
    check = [part.replace(":8000", f":{port}") for part in command("machine", "HEALTHCHECK")]
    environment = {"PORT": port, "DISCOVERY_LOCAL_DIR": str(tmp_path / "state"), "PYTHONDONTWRITEBYTECODE": "1"}
    before = files(app)
    with subprocess.Popen(entry, cwd=app, env=environment) as running:
        try:
            eventually(lambda: subprocess.run(check, capture_output=True, timeout=PATIENCE).returncode == 0)
            running.send_signal(signal.SIGTERM)
            assert running.wait(PATIENCE) == 0
        finally:
            running.kill()
    assert subprocess.run(check, capture_output=True, timeout=PATIENCE).returncode != 0
    assert files(app) == before, "the root is read-only"
    assert (tmp_path / "state" / "engine.sqlite").exists()


def test_all_stages_are_of_one_python_that_is_pinned() -> None:
    bases = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) - STAGES.keys()
    assert len(bases) == 1
    assert BASE.match(f"FROM {bases.pop()}")


def test_what_is_built_by_default_is_the_subscriber() -> None:
    assert list(STAGES)[-1] == "subscriber"


def test_only_what_the_image_needs_is_sent_to_the_builder() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert allowed == set().union(*map(copied, STAGES))


@pytest.mark.parametrize("stage", ["subscriber", "machine"])
def test_it_does_not_run_as_root_and_says_how_it_is_checked_and_stopped(stage: str) -> None:
    for instruction in ("USER 10001", "STOPSIGNAL SIGTERM", "HEALTHCHECK "):
        assert f"\n{instruction}" in STAGES[stage]


@pytest.mark.parametrize("architecture", ["aarch64", "x86_64"])
@pytest.mark.parametrize("lock", ["subscriber", "local"])
def test_each_package_has_a_locked_wheel_for_the_image(lock: str, architecture: str, tmp_path: Path) -> None:
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
    command += ["--require-hashes", "-r", f"locks/{lock}.txt"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
