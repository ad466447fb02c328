"""A known flaw fails the audit; that nobody could be asked does not, and is said."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from infra.audit import audit

FLAW = {"id": "PYSEC-2026-1", "fix_versions": ["2.0"], "aliases": [], "description": ""}
GOOD = {"name": "good", "version": "1.0", "vulns": []}
BAD = {"name": "bad", "version": "1.0", "vulns": [FLAW]}
SKIPPED = {"name": "skipped", "skip_reason": "not found"}


def asked(out: str = "", err: str = "", status: int = 0) -> tuple[int, str]:
    """What the audit returns and says where pip-audit answers this."""
    said: list[str] = []
    code = f"import sys; print({out!r}); print({err!r}, file=sys.stderr); sys.exit({status})"
    return audit([sys.executable, "-c", code], say=said.append), "\n".join(said)


def answer(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def test_nothing_known_passes() -> None:
    assert asked(answer(GOOD)) == (0, "audit: 1 packages, 0 known flaws")


def test_a_known_flaw_fails_and_is_named_with_what_mends_it() -> None:
    status, said = asked(answer(GOOD, BAD), status=1)
    assert status == 1
    assert "bad 1.0: PYSEC-2026-1, mended in 2.0" in said


@pytest.mark.parametrize("error", ["requests.exceptions.ConnectionError: no", "ERROR: Could not connect to the feed"])
def test_if_nobody_can_be_asked_it_says_so_in_one_line_and_passes(error: str) -> None:
    status, said = asked(err=f"Traceback ...\n{error}", status=1)
    assert status == 0
    assert said == "audit: not done, as the list of known flaws cannot be reached from here"


def test_an_answer_that_knows_none_of_the_packages_is_none() -> None:
    status, said = asked(answer(SKIPPED, SKIPPED))
    assert status == 0
    assert said.startswith("audit: not done")


def test_what_was_not_asked_about_is_said() -> None:
    assert asked(answer(GOOD, SKIPPED)) == (0, "audit: 1 packages, 0 known flaws; not asked: skipped")


def test_a_question_that_was_wrong_is_neither_a_flaw_nor_a_pass() -> None:
    status, said = asked(err="usage: pip-audit ...", status=2)
    assert status == 2
    assert "usage" in said
