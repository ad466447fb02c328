"""``discover``, or ``python -m discovery_client``: see ``--help``, and docs/client.md of atcr-discovery."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from discovery_client.client import AsyncClient, Discovered, Mode, Report
from discovery_client.entries import HOLDS, shown
from discovery_client.errors import NoAnswer, SourceFailed
from discovery_client.web import Limits

NOBODY = 1
DIFFERENT = 1
WRONG = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it. Returns what to exit with."""
    options = _parser().parse_args(arguments)
    options.collection = options.of or options.collection
    try:
        return asyncio.run(_compare(options) if options.compare else _discover(options))
    except ValueError as wrong:
        print(f"discover: {wrong}", file=sys.stderr)
        return WRONG


async def _discover(options: argparse.Namespace) -> int:
    client = AsyncClient(
        options.service,
        files=options.file,
        registered=options.registered,
        mode=Mode(options.mode),
        cache=None if options.no_cache else options.cache,
        limits=Limits(seconds=options.seconds),
    )
    async with client:
        try:
            found = await client.discover(options.collection, whole=options.whole)
        except NoAnswer as nobody:
            _tell(nobody.reports)
            return NOBODY
    if options.json:
        print(json.dumps(_as_json(found), indent=2))
    else:
        for repo in found.repos:
            print(repo.did)
        _tell(found.reports)
    return 0


async def _compare(options: argparse.Namespace) -> int:
    async with AsyncClient(options.compare, limits=Limits(seconds=options.seconds)) as client:
        try:
            found = await client.compare(options.collection)
        except SourceFailed as failed:
            print(f"discover: {failed}", file=sys.stderr)
            return WRONG
    first, second = options.compare
    if options.json:
        print(
            json.dumps({"onlyFirst": found.only_first, "onlySecond": found.only_second, "both": found.both}, indent=2)
        )
    else:
        for name, dids in ((first, found.only_first), (second, found.only_second)):
            for did in dids:
                print(f"only {name}: {did}")
        differing = len(found.only_first) + len(found.only_second)
        print(f"{found.both} in both, {differing} in one only", file=sys.stderr)
    return 0 if found.same else DIFFERENT


def _tell(reports: Sequence[Report]) -> None:
    for report in reports:
        why = f": {report.error}" if report.error else ""
        print(f"{shown(report.source)}: {report.state}, {report.repos} repos{why}", file=sys.stderr)


def _as_json(found: Discovered) -> dict[str, Any]:
    repos = [{name: value for name, value in asdict(repo).items() if value is not None} for repo in found.repos]
    reports = [asdict(report) | {"seconds": round(report.seconds, 3)} for report in found.reports]
    return {"collection": found.collection, "complete": found.complete, "repos": repos, "sources": reports}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="discover",
        description="The repos that have records of a collection, one DID a line; what each source did goes to the error output.",
        epilog="Exit: 0 with an answer, 1 where nobody had one; with --compare 0 same, 1 different, 2 not compared.",
    )
    parser.add_argument("collection", nargs="?", default=HOLDS, help=f"default: {HOLDS}")
    parser.add_argument(
        "--service", action="append", default=[], metavar="URL", help="a discovery service; may be repeated"
    )
    parser.add_argument(
        "--file",
        action="append",
        default=[],
        help="a list: path or URL of a holds.json, or of lines with a DID or a host each; may be repeated",
    )
    parser.add_argument(
        "--registered",
        action="append",
        default=[],
        metavar="HOST",
        help="a host or DID that is known anyway; may be repeated",
    )
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--union", dest="mode", action="store_const", const="union", help="ask all (the default)")
    modes.add_argument(
        "--first", dest="mode", action="store_const", const="first", help="ask in order until one answers"
    )
    parser.set_defaults(mode="union")
    parser.add_argument("--whole", action="store_true", help="ask for everything, and not only for what is new")
    parser.add_argument("--cache", type=Path, default=_cache(), help="folder of the last answers; default: %(default)s")
    parser.add_argument("--no-cache", action="store_true")
    parser.add_argument("--seconds", type=float, default=Limits.seconds, help="for each source; default: %(default)g")
    parser.add_argument("--json", action="store_true", help="everything that is known, as JSON")
    parser.add_argument("--compare", nargs=2, metavar=("A", "B"), help="what two services answer differently")
    parser.add_argument("--collection", dest="of", metavar="COLLECTION", help="the same as COLLECTION")
    return parser


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atcr-discovery"


if __name__ == "__main__":
    sys.exit(main())
