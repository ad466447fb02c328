"""The local stack with the real service in it, as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from infra.local import engines
from tests.service import QUICK, eventually


class LocalStack:
    """A running ``python -m infra.local``."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process, self.url = process, url

    def is_ready(self) -> bool:
        assert self.process.poll() is None, "the stack has ended"
        try:
            return httpx.get(f"{self.url}/xrpc/_health").status_code == 200
        except httpx.TransportError:
            return False

    def listing(self, collection: str) -> set[str]:
        """The first 2,000 DIDs of a listing."""
        query = {"collection": collection, "limit": "2000"}
        answer = httpx.get(f"{self.url}/xrpc/com.atproto.sync.listReposByCollection", params=query)
        return {repo["did"] for repo in answer.json()["repos"]}

    def kill(self) -> None:
        """End all of it at once, as a power cut would. (Its parts end with it.)"""
        self.process.kill()
        self.process.wait()


@contextmanager
def running(state: Path, *arguments: str, code: Path = engines.ROOT, **variables: str) -> Iterator[LocalStack]:
    """The stack of the project in ``code`` on a free port, once it is ready; ended in good order with the block."""
    port = engines.free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DISCOVERY_"))}
    environment |= {f"DISCOVERY_{name}": value for name, value in QUICK.items()}
    environment |= {"PORT": str(port), "DISCOVERY_LOCAL_DIR": str(state)} | variables
    command = [sys.executable, "-m", "infra.local", *arguments]
    with (state.parent / f"{state.name}.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=code, env=environment, stdout=log, stderr=log)
        stack = LocalStack(process, f"http://127.0.0.1:{port}")
        try:
            eventually(stack.is_ready)
            yield stack
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(40)
            process.kill()
