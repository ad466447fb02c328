"""Installs the reference network's packages: ``python tests/reference/install.py``, again and again at no cost.

``npm ci`` from the lock file, then a stamp in ``node_modules`` that names the lock file and the Node it was built for.
better-sqlite3 is compiled when no built one can be fetched: that needs gcc, make, Python and Node's headers, which are
taken from beside the ``node`` that runs where they are there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "network"
OLDEST_NODE = 20


class NodeAbsent(Exception):
    """No Node, or one that is too old, or no npm: the message says which."""


class InstallFailed(Exception):
    """npm failed; the message ends with what it said."""


def install() -> Path:
    """Install what is not installed yet, and return the folder. Safe to call from several processes at once."""
    node = _node()
    built_for = _identity(node)
    stamp = FOLDER / "node_modules" / ".installed"
    with _one_at_a_time():
        if not stamp.is_file() or stamp.read_text() != built_for:
            _npm_ci(node)
            stamp.write_text(built_for)
    return FOLDER


def _node() -> Path:
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        raise NodeAbsent("node and npm are not on the PATH: the reference PDS needs Node 20 or later")
    version = _said_by(node, "--version")
    if int(version.lstrip("v").split(".")[0]) < OLDEST_NODE:
        raise NodeAbsent(f"Node is {version}: the reference PDS needs Node {OLDEST_NODE} or later")
    return Path(node)


def _identity(node: Path) -> str:
    packages = hashlib.sha256()
    for name in ("package.json", "package-lock.json"):
        packages.update((FOLDER / name).read_bytes())
    return f"{packages.hexdigest()} {_said_by(node, '-p', 'process.version + process.platform + process.arch')}\n"


def _npm_ci(node: Path) -> None:
    environment = dict(os.environ)
    headers = _prefix_with_headers(node)
    if headers is not None:
        environment.setdefault("npm_config_nodedir", str(headers))
    done = subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund"],
        cwd=FOLDER,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        raise InstallFailed(f"npm ci failed in {FOLDER}:\n{done.stdout[-4000:]}")


def _prefix_with_headers(node: Path) -> Path | None:
    """The prefix under which ``include/node`` holds the headers of just this Node; else node-gyp has to fetch them."""
    prefix = Path(_said_by(node, "-p", "process.execPath")).resolve().parent.parent
    header = prefix / "include" / "node" / "node_version.h"
    if not header.is_file():
        return None
    text = header.read_text()
    parts = [re.search(rf"#define NODE_{part}_VERSION (\d+)", text) for part in ("MAJOR", "MINOR", "PATCH")]
    version = "v" + ".".join(part.group(1) for part in parts if part)
    return prefix if version == _said_by(node, "--version") else None


def _said_by(node: str | Path, *arguments: str) -> str:
    return subprocess.run([str(node), *arguments], check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    descriptor = os.open(FOLDER, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    try:
        install()
    except (NodeAbsent, InstallFailed) as error:
        sys.exit(str(error))
