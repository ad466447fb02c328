"""Sends a target one input after another, and notes what comes of each, how long it takes, and how the memory grows."""

from __future__ import annotations

import hashlib
import resource
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.target import Target

CPU_SECONDS = 5.0
"""What one input may take; no sound one takes a tenth of a second."""


class Hang(BaseException):
    """An input took more than CPU_SECONDS. Nothing in the service catches it."""


@dataclass(frozen=True)
class Failure:
    """An input and the traceback of what it did."""

    target: str
    data: bytes
    traceback: str

    def save(self, folder: Path) -> str:
        """Write the input to a file; returns what to call to see it again."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{self.target}-{hashlib.sha256(self.data).hexdigest()[:12]}"
        file.write_bytes(self.data)
        return f"python -m tests.fuzz --replay {self.target} {file}"


@dataclass
class Report:
    """What came of some inputs. Seconds are of the processor, of the reading alone; ``grown`` is in KiB."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    slowest: tuple[float, int] = (0.0, 0)
    grown: int = 0
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: Report) -> None:
        self.outcomes += other.outcomes
        self.seconds += other.seconds
        self.slowest = max(self.slowest, other.slowest)
        self.grown += other.grown
        self.failures += other.failures


def attack(
    target: Target, seed: int, numbers: Iterable[int], note: Callable[[int], None] = lambda number: None
) -> Report:
    """Send the inputs with these numbers, up to the first failure. ``note`` is called before each, with its number."""
    report = Report()
    with target.around():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in numbers:
            note(number)
            data = target.input(seed, number)
            began = time.process_time()
            outcome = send(target, data)
            took = time.process_time() - began
            report.seconds += took
            report.slowest = max(report.slowest, (took, number))
            if isinstance(outcome, Failure):
                report.failures.append(outcome)
                break
            report.outcomes[outcome] += 1
        report.grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    return report


def send(target: Target, data: bytes) -> str | Failure:
    """What a target makes of one input: a word for it, or a failure."""
    before = signal.signal(signal.SIGVTALRM, _hang)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        return target.read(data)
    except target.refusals as refusal:
        return type(refusal).__name__
    except (Exception, Hang):
        return Failure(target.name, data, traceback.format_exc())
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _hang(*_: object) -> None:
    raise Hang(f"more than {CPU_SECONDS:.0f} s")
