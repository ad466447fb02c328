"""The operator's commands: ``python -m chalicelib.cli --help``. They work on the tables and queues of the settings.

With the settings of a stage, and AWS credentials that may use its tables and queues, they work on that stage; every change is
in the audit log, with who gave it and why.
"""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from chalicelib import settings
from chalicelib.atproto.errors import InvalidSyntax
from chalicelib.crawl import inspection, orders
from chalicelib.crawl.context import Context
from chalicelib.crawl.inspection import Entry, NotKnown, Page
from chalicelib.crawl.orders import Busy, Refused
from chalicelib.index.hosts import STATUSES


def main(arguments: list[str] | None = None, context: Context | None = None) -> int:
    """Run one command. Returns the exit status: 0, or 1 where it was refused."""
    given = _parser().parse_args(arguments)
    try:
        context = context or Context(settings.read())
        if given.command in orders.ACTIONS:
            target = getattr(given, "target", "")
            order = orders.new_order(context, given.command, target, who=given.who, why=given.why)
            print(orders.carry_out(context, order))
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
    return parser


def _read(context: Context, given: argparse.Namespace) -> Iterable[Entry]:
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
        case _:
            return _all(partial(inspection.audit, context))


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
