"""The local stack as a child of the demonstration."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from dataclasses import fields
from pathlib import Path

from chalicelib.settings import PREFIX, Settings
from infra.local import engines

TABLE_PREFIX = "atcr-discovery-dev"
SETTINGS = {
    "ALLOW_PRIVATE_HOSTS": "true",
    "LOG_FORMAT": "text",
    "TABLE_PREFIX": TABLE_PREFIX,
    "ANNOUNCE_SECONDS": "0",
    "CURSOR_SECONDS": "0.5",
    "DISCOVER_SECONDS": "0.2",
    "FAILURE_CAP_SECONDS": "2",
    "HEARTBEAT_SECONDS": "0.5",
    "RECONNECT_CAP_SECONDS": "2",
}
"""Development mode, and intervals under which what takes minutes takes moments."""
STOP_WITHIN = 30.0
"""Seconds. The subscriber alone may take 20 to save its cursors."""
LINES_SHOWN = 30


class LocalStack:
    """``python -m infra.local`` on a free port, with a fresh state folder. ``aclose`` ends it and removes the folder.

    When this process dies, in whatever way, the stack and its parts end too.
    """

    def __init__(self, plc_url: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="atcr-discovery-demo-"))
        self.keep = False
        """Leave the folder where it is."""
        port = engines.free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.variables = {"PORT": str(port), f"{PREFIX}PLC_URL": plc_url, f"{PREFIX}LOCAL_DIR": str(self.folder)}
        """What a person would set to start the same stack, but for its intervals."""
        self._process: asyncio.subprocess.Process | None = None

    @property
    def engine_file(self) -> Path:
        """Where the embedded engine keeps the tables."""
        return self.folder / "engine.sqlite"

    @property
    def log_file(self) -> Path:
        return self.folder / "log"

    async def start(self) -> None:
        """Start it. Its settings are all given, so that no .env file changes the story."""
        defaults = {PREFIX + item.name.upper(): item.metadata["default"] for item in fields(Settings)}
        quick = {PREFIX + name: value for name, value in SETTINGS.items()}
        with self.log_file.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *engines.child_command("infra.local"),
                cwd=engines.ROOT,
                env={**os.environ} | defaults | quick | self.variables,
                stdin=asyncio.subprocess.PIPE,  # when it closes, the child ends
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us: we end the stack in good order
            )

    async def stop(self) -> int:
        """End the stack as Ctrl-C would, and return its exit code. After too long, or interrupted in that, kill it."""
        process = self._process
        if process is None:
            return 0
        try:
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(STOP_WITHIN):
                return await process.wait()
        except (TimeoutError, asyncio.CancelledError):
            process.kill()
            await process.wait()
            raise

    def ended(self) -> str | None:
        """Why the stack is not running any more, or None while it is."""
        code = self._process.returncode if self._process else None
        return None if code is None else f"the stack ended with code {code}"

    def last_lines(self) -> str:
        """The end of the stack's log."""
        log = self.log_file
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        return "\n".join(lines[-LINES_SHOWN:])

    async def aclose(self) -> None:
        """End the stack, if it runs, and remove its folder."""
        try:
            await self.stop()
        finally:
            if not self.keep:
                shutil.rmtree(self.folder, ignore_errors=True)
