"""What every test may ask for. In CI nothing is skipped for want of a tool or a vector: its absence fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def absent(reason: str) -> None:
    """Skip the test for want of something; in CI, fail it."""
    if os.environ.get("CI"):
        pytest.fail(f"in CI this must be present: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """The folder of other people's test vectors (ATPROTO_FIXTURES)."""
    folder = Path(os.environ.get("ATPROTO_FIXTURES") or ROOT.parent / "shared" / "fixtures")
    if not folder.is_dir():
        absent(f"no test vectors at {folder}: set ATPROTO_FIXTURES")
    return folder
