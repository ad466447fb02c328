"""The process of one contender: ``python -m bench.worker JOB``. Prepares, then runs once for each line of its input."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import resource
import sys
import time
from pathlib import Path
from typing import TextIO

from bench.harness import resolve

_STATUS = Path("/proc/self/status")


def main(out: TextIO) -> None:
    job = json.loads(sys.argv[1])
    run = resolve(job["prepare"])(*job["arguments"])
    print(json.dumps({}), file=out, flush=True)
    for _ in sys.stdin:
        gc.collect()
        before = resident_mb()
        _forget_peak()
        start = time.process_time()
        result, more = run()
        cpu = time.process_time() - start
        answer = {"cpu_ms": cpu * 1000, "peak_mb": max(0.0, peak_mb() - before), "result": result, "more": more}
        print(json.dumps(answer), file=out, flush=True)


def resident_mb() -> float:
    """Memory of this process now; where the system does not say, at its peak."""
    return _status("VmRSS")


def peak_mb() -> float:
    """The most memory that this process has had since it began, or since it was told to forget."""
    return _status("VmHWM")


def _status(name: str) -> float:
    if not _STATUS.exists():
        scale = 1e6 if sys.platform == "darwin" else 1e3
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale
    found = re.search(rf"{name}:\s+(\d+) kB", _STATUS.read_text())
    return int(found[1]) / 1024 if found else 0.0


def _forget_peak() -> None:
    forget = Path("/proc/self/clear_refs")
    if forget.exists():
        with contextlib.suppress(OSError):  # not allowed here: the peak is that since the beginning
            forget.write_text("5")


if __name__ == "__main__":
    # What is measured may print: only answers go to whoever asked.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    main(answers)
