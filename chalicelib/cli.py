"""The operator's commands: ``python -m chalicelib.cli --help``. They work on the tables and queues of the settings.

With the settings of a stage, and AWS credentials that may use its tables and queues, they work on that stage; every change is
in the audit log, with who gave it and why.
"""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from chalicelib import settings
from chalicelib.atproto.errors import InvalidSyntax
from chalicelib.atproto.syntax import parse_did, parse_origin
from chalicelib.crawl import orders
from chalicelib.crawl.context import Context
from chalicelib.crawl.orders import Busy, Refused
from chalicelib.index.hosts import STATUSES

HELP = {
    "crawl": "crawl a host now, and forget its back-off; one that is not known is let in",
    "resync": "compare a repo with the index record by record, with a newly fetched DID document",
    "ban": "neither crawl nor follow a host, or all of a domain (*.example.com); its repos leave the listings",
    "unban": "end a ban: the repos come back",
    "pause": "neither crawl nor follow a host for a while; its repos stay listed",
    "resume": "end a pause",
    "takedown": "keep a DID out of all listings, whatever its host says",
    "restore": "end a takedown",
    "purge": "delete what is indexed of a DID, or of all repos of a host; it is indexed anew unless it is withheld",
    "redrive": "send the dead letters again",
}


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
            for line in _READING[given.command](context, given):
                print(json.dumps(line, ensure_ascii=True))
    except (Refused, InvalidSyntax, settings.InvalidSetting) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    except Busy:
        print("a job is at this repo: try again in a minute", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chalicelib.cli", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for action, (kinds, _) in orders.ACTIONS.items():
        command = commands.add_parser(action, help=HELP[action], description=HELP[action])
        if orders.takes_a_target(action):
            command.add_argument("target", help=" or ".join(kinds))
        command.add_argument("--why", required=True, help="for the audit log")
        command.add_argument("--who", default=getpass.getuser(), help="for the audit log; default: %(default)s")
    hosts = commands.add_parser("hosts", help="all hosts, a line of JSON each")
    hosts.add_argument("--status", choices=STATUSES)
    commands.add_parser("host", help="all that is known of a host").add_argument("host")
    commands.add_parser("repo", help="all that is known of a repo").add_argument("did")
    commands.add_parser("bans", help="the banned domains, and why")
    commands.add_parser("dead-letters", help="how many there are, and some of them")
    commands.add_parser("audit", help="what was ordered, by whom and why")
    return parser


def _hosts(context: Context, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    rows = context.tables.hosts
    condition = None if given.status is None else rows.status == given.status
    for row in rows.scan(condition):
        names = (
            "origin",
            "status",
            "connected_at",
            "cursor_at",
            "crawled_at",
            "repo_count",
            "last_error",
            "stream_error",
        )
        yield {name: value for name, value in _readable(row.attribute_values).items() if name in names}


def _host(context: Context, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    origin = parse_origin(given.host, allow_private=context.settings.allow_private_hosts)
    row = context.hosts.load(origin)
    if row is None:
        raise Refused(f"{origin} is not known")
    yield _readable(row.attribute_values) | {"repos_in_scope": context.tables.repos.by_host.count(str(origin))}


def _repo(context: Context, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    row = context.writer.load(parse_did(given.did))
    if row is None:
        raise Refused(f"{given.did} is not known")
    yield _readable(row.attribute_values)


def _bans(context: Context, given: argparse.Namespace) -> Iterable[dict[str, Any]]:
    return ({"domain": domain, "why": why} for domain, why in context.bans.all().items())


def _dead_letters(context: Context, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    count, sample = context.queue.dead_letters()
    yield {"messages": count}
    for letter in sample:
        yield {"body": letter.body, "sent_at": _moment(letter.sent_at)}


def _audit(context: Context, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for row in context.state.all(orders.AUDIT):
        yield {**row.content, "at": _moment(row.content["at"])}


_READING = {
    "hosts": _hosts,
    "host": _host,
    "repo": _repo,
    "bans": _bans,
    "dead-letters": _dead_letters,
    "audit": _audit,
}


def _readable(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _moment(value) if name.endswith(("_at", "_until", "_since")) else value for name, value in values.items()
    }


def _moment(milliseconds: float) -> str:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


if __name__ == "__main__":
    sys.exit(main())
