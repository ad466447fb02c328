"""A small run against every target, the same each time. ``make fuzz`` is the large one, with new inputs each time."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.fuzz import __main__ as fuzz
from tests.fuzz import attack as attacking
from tests.fuzz.attack import Failure, attack, send
from tests.fuzz.target import ACCEPTED, Target
from tests.fuzz.targets import all_targets

INPUTS = 20_000
NAMES = ["car", "drisl", "frame", "did-document", "answer", "api", "text", "header", "gzip", "message", "setting"]


@pytest.fixture(scope="module")
def targets(fixtures_dir: Path) -> dict[str, Target]:
    return {target.name: target for target in all_targets(fixtures_dir)}


def test_every_target_is_attacked(targets: dict[str, Target]) -> None:
    assert targets.keys() == set(NAMES)
    assert sum(target.share for target in targets.values()) == 100


@pytest.mark.parametrize("name", NAMES)
def test_whatever_comes_is_read_or_refused_in_bounded_time_and_memory(
    targets: dict[str, Target], name: str, tmp_path: Path
) -> None:
    target = targets[name]
    report = attack(target, 1, range(INPUTS * target.share // 100))
    for failure in report.failures:
        pytest.fail(f"{failure.traceback}\n{failure.save(tmp_path)}")
    assert report.grown < 100 * 1024
    assert report.outcomes[ACCEPTED] > 20, "it is not worth much to refuse everything"
    assert report.outcomes.total() - report.outcomes[ACCEPTED] > 20


@pytest.mark.parametrize("name", NAMES)
def test_what_is_sound_is_not_refused(targets: dict[str, Target], name: str) -> None:
    target = targets[name]
    with target.around():
        outcomes = [send(target, seed) for seed in dict.fromkeys(target.seeds)]
    assert not [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert outcomes.count(ACCEPTED) > len(outcomes) / 4


# -- the fuzzer itself


def _broken(data: bytes) -> str:
    if data[:1] != b"{":
        raise KeyError(data)
    return ACCEPTED


def _endless(data: bytes) -> str:
    while data:
        pass
    return ACCEPTED


# Each run forks, which only a process without threads may do.
DEADLY = """
import os, sys
from dataclasses import replace
from pathlib import Path
from tests.fuzz import __main__ as fuzz
from tests.fuzz.targets import all_targets

def deadly(data):
    return "accepted" if data[:1] == b"{" else os._exit(3)

(message,) = (each for each in all_targets(Path(sys.argv[1])) if each.name == "message")
sys.exit(fuzz.run([replace(message, read=deadly)], 1_000, 1, Path(sys.argv[2])))
"""


def in_a_process_of_its_own(fixtures: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"ATPROTO_FIXTURES": str(fixtures)}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


def test_what_breaks_a_reader_is_kept_and_can_be_sent_again(
    targets: dict[str, Target], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = replace(targets["message"], read=_broken)
    (failure,) = attack(broken, 1, range(5_000)).failures
    assert "KeyError" in failure.traceback
    *_, name, file = shlex.split(failure.save(tmp_path))
    assert name == "message"
    assert Path(file).read_bytes() == failure.data
    assert fuzz.replay(broken, Path(file)) == 1
    assert "KeyError" in capsys.readouterr().out
    assert fuzz.replay(targets["message"], Path(file)) == 0


def test_what_holds_a_reader_for_long_is_named(targets: dict[str, Target], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacking, "CPU_SECONDS", 0.05)
    (failure,) = attack(replace(targets["message"], read=_endless), 1, [7]).failures
    assert "Hang" in failure.traceback
    assert failure.data == targets["message"].input(1, 7)


def test_what_kills_the_process_is_named_too(fixtures_dir: Path, tmp_path: Path) -> None:
    ran = in_a_process_of_its_own(fixtures_dir, "-c", DEADLY, str(fixtures_dir), str(tmp_path))
    assert ran.returncode == 1, ran.stderr
    assert "the process ended with 3 at input " in ran.stdout
    assert all(file.read_bytes()[:1] != b"{" for file in tmp_path.iterdir())


def test_a_run_without_a_failure_ends_well(fixtures_dir: Path) -> None:
    asked = ("--only", "message", "--only", "header", "--inputs", "200", "--seed", "1")
    ran = in_a_process_of_its_own(fixtures_dir, "-m", "tests.fuzz", *asked)
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"header +\d+ .*\nmessage +\d+ .*\nseed 1\n", ran.stdout)
