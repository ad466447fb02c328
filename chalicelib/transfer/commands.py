"""The commands ``export``, ``import`` and ``seed``."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import boto3

from chalicelib.crawl.context import Context
from chalicelib.crawl.orders import Refused
from chalicelib.transfer import importing, seeding, sources
from chalicelib.transfer.exporting import CannotExport, export
from chalicelib.transfer.importing import BadFile, CannotImport
from chalicelib.transfer.seeding import Progress
from chalicelib.transfer.sources import CannotRead, Source

COMMANDS = ("export", "import", "seed")
PER_SECOND = 10.0
"""Hosts and repos that are asked for, unless the command says otherwise."""


def add_to(commands: Any) -> None:
    """Add them to a parser's subcommands."""
    out = commands.add_parser("export", help="all that is indexed, as lines of JSON; goes on where it was cut off")
    out.add_argument("file", type=Path)
    into = commands.add_parser("import", help="an export into empty tables; goes on where it was cut off")
    into.add_argument("file", type=Path)
    into.add_argument(
        "--merge", action="store_true", help="into tables in use: bans and takedowns hold, hosts and repos are a seed"
    )
    seed = commands.add_parser("seed", help="ask for the hosts and repos that somebody else lists")
    seed.add_argument("source", help="an SQLite file, a CSV, an export, or the address of a relay")
    seed.add_argument("--dry-run", action="store_true", help="ask for nothing, and say what would be asked for")
    for command in (into, seed):
        command.add_argument("--per-second", type=_rate, default=PER_SECOND, help="default: %(default)g")
        command.add_argument("--after", type=int, default=0, metavar="N", help="pass over the first N: go on there")


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate <= 10_000:
        raise argparse.ArgumentTypeError("more than 0, and 10000 at most")
    return rate


def run(context: Context, given: argparse.Namespace) -> dict[str, Any]:
    """Carry out one. Returns what came of it. Raises ``Refused``."""
    try:
        match given.command:
            case "export":
                return dict(export(context.tables, given.file, say=_say))
            case "import":
                file = importing.check(given.file)
                if not given.merge:
                    return dict(importing.bring_in(context.tables, boto3.client("dynamodb"), file, clock=context.clock))
                orders = dict(importing.orders_of(context, given.file))
                source = Source(given.file.name, "an export", sources.exported(given.file))
                return {"withheld": orders} | asdict(_seed(context, source, given, dry_run=False))
            case _:
                private = context.settings.allow_private_hosts
                source = sources.opened(given.source, context.door, allow_private=private)
                _say(f"read as {source.understood}")
                return asdict(_seed(context, source, given, dry_run=given.dry_run))
    except (CannotExport, BadFile, CannotImport, CannotRead, OSError) as error:
        raise Refused(str(error)) from error


def _seed(context: Context, source: Source, given: argparse.Namespace, *, dry_run: bool) -> Progress:
    def say(progress: Progress) -> None:
        _say(f"--after {progress.read}: {json.dumps(asdict(progress))}")

    return seeding.seed(context, source, per_second=given.per_second, after=given.after, dry_run=dry_run, say=say)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
