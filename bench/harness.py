"""One bench: contenders that do the same work, each in a process of its own, in turns.

    start each contender -> build what it needs, once -> round 1: A, B, C -> round 2: A, B, C -> ... -> medians, ratios

A machine that is busy for a while is so for all contenders alike, which is why ratios count and absolute figures say
less. Time is CPU time of the contender's process, unless a figure says otherwise. Memory is the peak of the process
above what it was after imports and preparation. The result of every run is compared with what it must be.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Run = Callable[[], tuple[Any, dict[str, float]]]
"""The work that is measured: its result, plain JSON, and figures that it took itself."""

SIZE = "small" if os.environ.get("BENCH_SIZE") == "small" else "full"


def sized(small: int, full: int) -> int:
    """A number for the size that is run: BENCH_SIZE=small, or full."""
    return small if SIZE == "small" else full


@dataclass(frozen=True)
class Contender:
    """``prepare`` names a function, ``module:name``, that is called with ``arguments`` in the process, and gives a Run."""

    name: str
    prepare: str
    arguments: tuple[Any, ...] = ()
    needs: tuple[str, ...] = ()
    """Modules without which it is left out."""

    @property
    def is_there(self) -> bool:
        return all(importlib.util.find_spec(module) for module in self.needs)


@dataclass(frozen=True)
class Figure:
    """One cell of a contender's row: the median of the rounds."""

    contender: str
    cpu_ms: float
    peak_mb: float
    more: Mapping[str, float]
    result: Any


@dataclass(frozen=True)
class Target:
    """What must be reached: ``measured`` takes the figures by contender. ``at_least`` or ``at_most`` bound it."""

    what: str
    measured: Callable[[Mapping[str, Figure]], float]
    at_least: float | None = None
    at_most: float | None = None
    needs: frozenset[str] = frozenset()
    """The contenders that it compares; where one of them is not installed, there is nothing to say."""

    def holds(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    @property
    def bound(self) -> str:
        if self.at_least is not None:
            return f"at least {self.at_least:,g}"
        return "" if self.at_most is None else f"at most {self.at_most:,g}"


@dataclass(frozen=True)
class Bench:
    """``check`` raises AssertionError where a contender's result is not right."""

    name: str
    title: str
    contenders: Sequence[Contender]
    check: Callable[[str, Any], None]
    targets: Sequence[Target] = ()
    repeats: int = 5
    unit: tuple[float, str] = (1, "run")
    """What one run does so many of; where it is many, the table shows the time of one and how many a second."""
    group: str = field(default="", kw_only=True)
    """Benches of one group make one plot: x is ``scale``, a line for each contender."""
    scale: float = field(default=0, kw_only=True)
    scale_name: str = field(default="", kw_only=True)

    def run(self) -> dict[str, Figure]:
        """The figures of all contenders that are there, by name. Raises AssertionError for a wrong result."""
        there = [contender for contender in self.contenders if contender.is_there]
        workers = [_Worker(contender) for contender in there]
        try:
            rounds = [[worker.run() for worker in workers] for _ in range(1 if SIZE == "small" else self.repeats)]
        finally:
            for worker in workers:
                worker.close()
        figures = {}
        for contender, runs in zip(there, zip(*rounds, strict=True), strict=True):
            for run in runs:
                self.check(contender.name, run["result"])
            more = {name: statistics.median(run["more"][name] for run in runs) for name in runs[0]["more"]}
            cpu = more.pop("cpu_ms", None) or statistics.median(run["cpu_ms"] for run in runs)
            # The first run alone: later ones find memory that the allocator has kept.
            figures[contender.name] = Figure(contender.name, cpu, runs[0]["peak_mb"], more, runs[0]["result"])
        return figures


class _Worker:
    """A contender's process: it prepares at once, and runs whenever it is told to."""

    def __init__(self, contender: Contender) -> None:
        job = {"prepare": contender.prepare, "arguments": contender.arguments}
        root = Path(__file__).resolve().parent.parent
        self._name = contender.name
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", json.dumps(job)],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def run(self) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(60)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the contender {self._name} has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


def resolve(name: str) -> Callable[..., Any]:
    """``module:name`` as an object."""
    module, _, attribute = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found
