"""The operator's commands: ``python -m chalicelib.cli --help``. They work on the tables and queues of the settings.

With the settings of a stage, and AWS credentials that may use its tables and queues, they work on that stage; with ``--url``
on the service that is there. Every order is in the audit log, with who gave it and why.
"""

from __future__ import annotations

import argparse
import getpass
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import boto3

from chalicelib import remote, settings
from chalicelib.api import holds
from chalicelib.atproto.errors import InvalidSyntax
from chalicelib.crawl import inspection, orders
from chalicelib.crawl.context import Context
from chalicelib.crawl.inspection import Entry, NotKnown, Page
from chalicelib.crawl.orders import Busy, Refused
from chalicelib.index.hosts import STATUSES
from chalicelib.index.reader import Reader
from chalicelib.remote import Remote
from chalicelib.transfer import commands as transfer


def main(arguments: list[str] | None = None, context: Context | None = None) -> int:
    """Run one command. Returns the exit status: 0, or 1 where it was refused."""
    given = _parser().parse_args(arguments)
    try:
        if given.command in orders.ACTIONS:
            print(_order(context, given))
        else:
            for entry in _read(context, given):
                print(json.dumps(entry, ensure_ascii=True))
    except (Refused, NotKnown, InvalidSyntax, settings.InvalidSetting) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    except Busy:
        print("a job is at this repo: try again in a minute", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chalicelib.cli", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--url", help="of a service's API: go through its /admin, with a token, and without AWS credentials"
    )
    parser.add_argument("--token-file", type=Path, default=Path(".local/admin-token"), help="default: %(default)s")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, action in orders.ACTIONS.items():
        command = commands.add_parser(name, help=action.does, description=action.does)
        if action.has_target:
            command.add_argument("target", help=" or ".join(action.takes))
        command.add_argument("--why", required=True, help="for the audit log")
        command.add_argument("--who", default=getpass.getuser(), help="for the audit log; default: %(default)s")
    hosts = commands.add_parser("hosts", help="all hosts, a line of JSON each")
    hosts.add_argument("--status", choices=STATUSES)
    commands.add_parser("host", help="all that is known of a host").add_argument("host")
    commands.add_parser("repo", help="all that is known of a repo").add_argument("did")
    commands.add_parser("bans", help="the banned domains, and why")
    commands.add_parser("dead-letters", help="how many there are, and some of them")
    commands.add_parser("audit", help="what was ordered, by whom and why, and what came of it; the newest first")
    holds = commands.add_parser("holds", help="the list of all holds, as at /.well-known/holds.json")
    holds.add_argument("--to", metavar="s3://BUCKET/KEY", help="put it there, to be served without the API")
    transfer.add_to(commands)
    return parser


def _order(context: Context | None, given: argparse.Namespace) -> str:
    target = getattr(given, "target", "")
    if given.url:
        return _remote(given).order(given.command, target, who=given.who, why=given.why)
    context = context or Context(settings.read())
    order = orders.new_order(context, given.command, target, who=given.who, why=given.why)
    return orders.carry_out(context, order)


def _read(context: Context | None, given: argparse.Namespace) -> Iterable[Entry]:
    if given.url:
        if given.command in transfer.COMMANDS:
            raise Refused(f"{given.command} works on the tables, not through an API")
        named = {"status": getattr(given, "status", None), "hostname": getattr(given, "host", None)}
        parameters = named | {"did": getattr(given, "did", None)}
        return _remote(given).read(given.command, {name: value for name, value in parameters.items() if value})
    context = context or Context(settings.read())
    match given.command:
        case "hosts":
            return _all(partial(inspection.hosts, context, status=given.status))
        case "host":
            return [inspection.host(context, given.host)]
        case "repo":
            return [inspection.repo(context, given.did)]
        case "bans":
            return inspection.bans(context)
        case "dead-letters":
            return [inspection.dead_letters(context)]
        case "holds":
            return [_holds(context, given.to)]
        case command if command in transfer.COMMANDS:
            return [transfer.run(context, given)]
        case _:
            return _all(partial(inspection.audit, context))


def _holds(context: Context, to: str | None) -> Entry:
    """The list of holds, put into a bucket if ``to`` names one."""
    reader = Reader(boto3.client("dynamodb"), context.settings.table_prefix)
    document = holds.document(reader, context.settings.answered, time.time())
    if to is None:
        return document
    bucket, _, key = to.removeprefix("s3://").partition("/")
    if not to.startswith("s3://") or not bucket or not key:
        raise Refused(f"{to} is no s3://BUCKET/KEY")
    boto3.client("s3").put_object(
        Bucket=bucket,
        Key=key,
        Body=json.dumps(document).encode(),
        ContentType="application/json",
        CacheControl=f"public, max-age={holds.FRESH_SECONDS}",
    )
    return {"holds": len(document["holds"]), "at": to}


def _remote(given: argparse.Namespace) -> Remote:
    try:
        token = given.token_file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise Refused(f"the token cannot be read: {error}") from error
    return Remote(remote.client(given.url, token))


def _all(read: Callable[..., Page]) -> Iterator[Entry]:
    after = None
    while True:
        page = read(after=after, limit=1000)
        yield from page.entries
        after = page.next
        if after is None:
            return


if __name__ == "__main__":
    sys.exit(main())
