"""SECURITY.md names the test that shows each of its answers: each of them is there."""

from __future__ import annotations

import re

from tests.conftest import ROOT


def test_every_test_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "SECURITY.md").read_text()))
    source = "\n".join(file.read_text() for file in ROOT.glob("tests/**/test_*.py") if "node_modules" not in file.parts)
    assert named
    assert {name for name in named if f"def {name}(" not in source} == set()
