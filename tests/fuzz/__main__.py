"""``make fuzz``: many inputs to every target, in two processes; a table, and each input that broke something in a file.

An input that kills its process, or holds it for ten minutes, is named as well: each process notes what it is about to send.
"""

from __future__ import annotations

import argparse
import faulthandler
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tests.fuzz.attack import Failure, Report, attack, send
from tests.fuzz.target import Target
from tests.fuzz.targets import all_targets

ROOT = Path(__file__).resolve().parent.parent.parent
PROCESSES = 2
BATCH = 1_000
STUCK_SECONDS = 600
STATM = Path("/proc/self/statm")
MEMORY = 1 << 30
"""Bytes of address space that a process may add to what it has at its start."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "--inputs", type=int, default=int(os.environ.get("FUZZ_INPUTS") or 1_000_000), help="over all targets"
    )
    parser.add_argument("--seed", type=int, default=int(os.environ.get("FUZZ_SEED") or time.time()))
    parser.add_argument(
        "--only", metavar="TARGET", action="append", help="this target alone, with its share of the inputs"
    )
    parser.add_argument("--replay", metavar=("TARGET", "FILE"), nargs=2, help="send the one input in a file")
    asked = parser.parse_args()
    fixtures = Path(os.environ.get("ATPROTO_FIXTURES") or ROOT.parent / "shared" / "fixtures")
    if not fixtures.is_dir():
        parser.error(f"no test vectors at {fixtures}: set ATPROTO_FIXTURES")
    targets = all_targets(fixtures)
    if asked.replay:
        return replay({target.name: target for target in targets}[asked.replay[0]], Path(asked.replay[1]))
    chosen = [target for target in targets if asked.only is None or target.name in asked.only]
    return run(chosen, asked.inputs, asked.seed)


def replay(target: Target, file: Path) -> int:
    with target.around():
        outcome = send(target, file.read_bytes())
    print(outcome.traceback if isinstance(outcome, Failure) else outcome)
    return int(isinstance(outcome, Failure))


def run(targets: Sequence[Target], inputs: int, seed: int, keep: Path = ROOT / ".local" / "fuzz") -> int:
    """Attack the targets, print what came of it, and write what broke one to ``keep``. 1 where something did."""
    began = time.monotonic()
    print(f"{inputs:,} inputs, seed {seed}, {PROCESSES} processes", flush=True)
    reports = {target.name: Report() for target in targets}
    workers = {}
    context = multiprocessing.get_context("fork")
    for part in range(PROCESSES):
        place = context.Array("q", [0, 0], lock=False)
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(targets, inputs, seed, part, place, theirs))
        process.start()
        theirs.close()
        workers[ours] = process, place
    peaks: list[str] = []
    try:
        while workers:
            for ready in wait(list(workers)):
                assert isinstance(ready, Connection)
                process, place = workers[ready]
                try:
                    name, report = ready.recv()
                except EOFError:
                    del workers[ready]
                    process.join()
                    if process.exitcode:
                        target = targets[place[0]]
                        died = f"the process ended with {process.exitcode} at input {place[1]}"
                        reports[target.name].failures.append(Failure(target.name, target.input(seed, place[1]), died))
                else:
                    if name in reports:
                        reports[name].add(report)
                    else:
                        peaks.append(f"{report.grown / 1024:.0f} MB")
    except KeyboardInterrupt:
        for process, _ in workers.values():
            process.terminate()
        print("interrupted: what has been done so far")
    show(targets, reports, seed)
    print(f"{time.monotonic() - began:.0f} s; the processes grew by {' and '.join(peaks)}")
    failures = [failure for report in reports.values() for failure in report.failures]
    for failure in failures:
        print(f"\n{failure.traceback}\n{failure.target}: {failure.save(keep)}")
    return int(bool(failures))


def work(targets: Sequence[Target], inputs: int, seed: int, part: int, place: Any, report_to: Connection) -> None:
    """One process: every target's inputs whose number is ``part`` modulo PROCESSES, a batch at a time."""
    if STATM.exists():  # on Linux
        size = int(STATM.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def note(number: int) -> None:
        place[1] = number

    shares = sum(target.share for target in targets)
    for place[0], target in enumerate(targets):
        count = inputs * target.share // shares
        for start in range(part, count, BATCH * PROCESSES):
            faulthandler.dump_traceback_later(STUCK_SECONDS, exit=True)
            numbers = range(start, min(count, start + BATCH * PROCESSES), PROCESSES)
            report = attack(target, seed, numbers, note)
            report_to.send((target.name, report))
            if report.failures:
                break
    faulthandler.cancel_dump_traceback_later()
    report_to.send(("", Report(grown=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)))
    report_to.close()


def show(targets: Sequence[Target], reports: dict[str, Report], seed: int) -> None:
    print(
        f"\n{'target':14}{'inputs':>10}{'accepted':>10}{'failed':>8}{'CPU s':>8}{'slowest':>10}{'at input':>10}  otherwise"
    )
    for target in targets:
        report = reports[target.name]
        accepted = report.outcomes.pop("accepted", 0)
        refused = ", ".join(f"{name} {count:,}" for name, count in report.outcomes.most_common())
        took, number = report.slowest
        print(
            f"{target.name:14}{accepted + report.outcomes.total() + len(report.failures):>10,}{accepted:>10,}"
            f"{len(report.failures):>8}{report.seconds:>8.0f}{took * 1000:>7.0f} ms{number:>10}  {refused}"
        )
    print(f"seed {seed}")


if __name__ == "__main__":
    sys.exit(main())
