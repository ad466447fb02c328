"""``python -m bench [NAMES] [--no-report]``: run benches, print the table, write it to docs/benchmarks.md, draw the plots.

With NAMES, of modules (``backfill``) or of benches (``whole``), only those are run; the others keep the rows that the
report has of them. BENCH_SIZE=small runs all in seconds, for their correctness.
"""

from __future__ import annotations

import argparse
import importlib
import sys

from bench import report
from bench.harness import SIZE, Bench, Figure

MODULES = ("backfill", "commits", "firehose", "connections", "cold_start", "listing", "units", "crawl", "latency")


def benches(names: list[str]) -> list[Bench]:
    """All benches, or those that are named."""
    found = [(module, bench) for module in MODULES for bench in importlib.import_module(f"bench.{module}").benches()]
    return [
        bench for module, bench in found if not names or module in names or bench.name in names or bench.group in names
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--no-report", action="store_true", help="leave docs/ as it is")
    arguments = parser.parse_args()
    done: list[tuple[Bench, dict[str, Figure]]] = []
    for bench in benches(arguments.names):
        figures = bench.run()
        print("\n".join(report.rows(bench, figures)), flush=True)
        done.append((bench, figures))
    if not done:
        sys.exit("no bench of that name")
    if SIZE == "full" and not arguments.no_report:
        report.write(done, whole=not arguments.names)


if __name__ == "__main__":
    main()
