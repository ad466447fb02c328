"""Each of the packages that this service is built on does its work on a production path: without it, that path is gone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

PATHS = {
    "chalice": "import app; assert app.app.routes",
    "boto3": "from chalicelib import process; process.context().queue.send",
    "httpx": "from chalicelib.atproto.net import Door; Door(allow_private=False)",
    "cbor2": "from chalicelib.atproto import drisl; assert drisl.decode(b'\\xa1\\x61\\x61\\x01') == {'a': 1}",
    "multiformats": "from chalicelib.atproto import cid; assert cid.cid_to_text(cid.cid_of(b'')).startswith('bafy')",
    "websockets": "from subscriber import connection",
    "publicsuffixlist": "from chalicelib.crawl import domain; domain._list()",
    "pynamodb": "from chalicelib.index.writer import Writer; from chalicelib.index.tables import Tables; Writer(Tables('x'))",
}
ENVIRONMENT = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "PATH": ""}


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("package", PATHS)
def test_the_path_of_a_package_needs_it(package: str) -> None:
    assert run(PATHS[package]).returncode == 0, run(PATHS[package]).stderr
    without = run(f"import sys; sys.modules[{package!r}] = None\n{PATHS[package]}")
    assert without.returncode != 0
    assert f"import of {package} halted" in without.stderr or package in without.stderr.splitlines()[-1]
