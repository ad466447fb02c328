"""Keeps the parts of the local stack running, and makes one readable log of theirs.

A part that ends is started again after a back-off. When the supervisor stops, the parts get SIGTERM, first those that stand
on the others, and SIGKILL when their patience is over. When it is killed itself, they end too: each holds the other end of
a pipe (see ``child.py``).
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

FIRST_PAUSE, LONGEST_PAUSE, HEALTHY_AFTER = 1.0, 30.0, 60.0
"""Seconds: before the first restart, between restarts at most, and after which an end is not a repeated one."""
COLOURS = (36, 35, 33, 32, 34, 31)


@dataclass
class Part:
    """One child process."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    patience: float = 5.0
    """Seconds from SIGTERM to SIGKILL."""
    foundation: bool = False
    """Other parts stand on this one: it ends after them."""
    after_restart: Callable[[], object] | None = None
    """Called after each restart; may wait until the part is ready."""
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)


class Log:
    """Lines of all parts on one output, each with its part's name."""

    def __init__(self, output: IO[str], colour: bool | None = None) -> None:
        self.output = output
        self.colour = output.isatty() and not os.environ.get("NO_COLOR") if colour is None else colour
        self.lock = threading.Lock()
        self.names: list[str] = []

    def line(self, name: str, text: str) -> None:
        with self.lock:
            if name not in self.names:
                self.names.append(name)
            prefix = f"{name:<10} | "
            if self.colour:
                prefix = f"\x1b[{COLOURS[self.names.index(name) % len(COLOURS)]}m{prefix}\x1b[0m"
            self.output.write(f"{prefix}{text}\n")
            self.output.flush()


class Supervisor:
    """The parts, from their start to their end."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.parts: list[Part] = []
        self.stopping = threading.Event()
        self.lock = threading.Lock()

    def start(self, part: Part) -> None:
        """Start ``part`` and keep it running."""
        self.parts.append(part)
        if self._spawn(part):
            threading.Thread(target=self._keep, args=(part,), daemon=True).start()

    def stop(self) -> None:
        """End all parts and return when they are gone."""
        with self.lock:
            self.stopping.set()
        for foundation in (False, True):
            group = [part for part in self.parts if part.foundation == foundation]
            for part in group:
                if part.process:
                    part.process.terminate()
            deadline = time.monotonic()
            for part in group:
                self._await_end(part, deadline + part.patience)

    def kill(self) -> None:
        """End all parts at once."""
        with self.lock:
            self.stopping.set()
        for part in self.parts:
            if part.process:
                part.process.kill()

    def _spawn(self, part: Part) -> bool:
        with self.lock:
            if self.stopping.is_set():
                return False
            part.process = subprocess.Popen(  # noqa: S603 (the stack's own commands)
                part.command,
                env={**part.environment, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the supervisor alone
            )
        threading.Thread(target=self._copy, args=(part.name, part.process.stdout), daemon=True).start()
        return True

    def _copy(self, name: str, output: IO[bytes]) -> None:
        for line in output:
            self.log.line(name, line.decode("utf-8", "replace").rstrip())

    def _keep(self, part: Part) -> None:
        pause = FIRST_PAUSE
        while part.process:
            started = time.monotonic()
            code = part.process.wait()
            if time.monotonic() - started > HEALTHY_AFTER:
                pause = FIRST_PAUSE
            if self.stopping.is_set():
                return
            self.log.line(part.name, f"ended with {_cause(code)}; it is started again in {pause:g} s")
            if self.stopping.wait(pause) or not self._spawn(part):
                return
            pause = min(pause * 2, LONGEST_PAUSE)
            try:
                if part.after_restart:
                    part.after_restart()
            except Exception as fault:  # whatever it is, the part goes on or ends and is started again
                self.log.line(part.name, f"not ready after its restart: {fault}")

    def _await_end(self, part: Part, deadline: float) -> None:
        if part.process is None:
            return
        try:
            part.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.log.line(part.name, f"did not end within {part.patience:g} s")
            part.process.kill()
            part.process.wait()


def _cause(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}"
