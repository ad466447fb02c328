"""What the demonstration prints: numbered steps, requests that can be typed, what came back, and a summary.

3  Who registers later is listed later                    a step
   What is about to happen.
   $ curl 'http://127.0.0.1:8000/xrpc/...'                a request
     200 {"repos":[{"did":"did:plc:..."}]}                its answer
   ok  hold 1, hold 2 (0.41 s)                            what was checked, and how long it took to come about
"""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

WIDTH = 118
LONGEST_ANSWER = 2 * WIDTH
_BOLD, _DIM, _GREEN, _RED = "1", "2", "32", "31"


class StepFailed(Exception):
    """What a step promises did not come about. The message says what was expected and what is."""


@dataclass
class Step:
    """A step that was told, and how it went."""

    title: str
    seconds: float = 0.0
    failed: bool = False


class Narrator:
    """Tells the story on one output; in colour on a terminal, unless NO_COLOR is set."""

    def __init__(self, output: IO[str]) -> None:
        self.steps: list[Step] = []
        self.checks = 0
        self._output = output
        self._colour = output.isatty() and not os.environ.get("NO_COLOR")
        self._began = time.monotonic()

    @property
    def failed(self) -> bool:
        """Whether a step has failed."""
        return any(step.failed for step in self.steps)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """A step, timed. An exception is told, and goes on its way."""
        step = Step(title)
        self.steps.append(step)
        self._line()
        self._line(f"{len(self.steps):2}  {title}", _BOLD)
        began = time.monotonic()
        try:
            yield
        except Exception as failure:  # whatever it is, the step has failed; who started it decides what follows
            step.failed = True
            kind = "" if isinstance(failure, StepFailed) else f"{type(failure).__name__}: "
            self._line(f"    FAILED  {kind}{failure}", _RED)
            raise
        finally:
            step.seconds = time.monotonic() - began

    def says(self, text: str) -> None:
        """What happens now, for a reader."""
        for line in textwrap.wrap(text, WIDTH - 4, break_long_words=False, break_on_hyphens=False):
            self._line(f"    {line}")

    def request(self, command: str) -> None:
        """A request, in a form that can be typed."""
        self._line("    $ " + command.replace("\n", "\n      "), _DIM)

    def answer(self, status: int, body: str) -> None:
        """What came back."""
        shown = body if len(body) <= LONGEST_ANSWER else f"{body[:LONGEST_ANSWER]}... ({len(body)} characters)"
        self._line(f"      {status} {shown or '(zero bytes)'}", _DIM)

    def right(self, what: str, seconds: float) -> None:
        """Something was checked and is as it should be, ``seconds`` after it was first asked."""
        self.checks += 1
        self._line(f"    ok  {what} ({seconds:.2f} s)", _GREEN)

    def summary(self) -> None:
        """All steps and their times. The last line is the verdict."""
        self._line()
        self._line("Summary", _BOLD)
        for number, step in enumerate(self.steps, 1):
            verdict = ("FAILED", _RED) if step.failed else ("ok", _GREEN)
            self._line(f"{number:2}  {step.title:<84} {step.seconds:6.2f} s  {verdict[0]}", verdict[1])
        self._line()
        total = f"{len(self.steps)} steps, {self.checks} checks, {time.monotonic() - self._began:.1f} s"
        if self.failed:
            self._line(f"{total}: not as it should be", _RED)
        else:
            self._line(f"{total}: all as it should be", _GREEN)

    def _line(self, text: str = "", style: str = "") -> None:
        self._output.write(f"\x1b[{style}m{text}\x1b[0m\n" if self._colour and style else f"{text}\n")
        self._output.flush()
