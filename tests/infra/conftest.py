"""AWS as moto's server plays it, for what the local engines do not have."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from infra.local import engines


@pytest.fixture
def moto_url() -> Iterator[str]:
    """Where an empty account is."""
    port = engines.free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            engines.wait_for_port(port, running)
            yield f"http://127.0.0.1:{port}"
        finally:
            running.kill()
