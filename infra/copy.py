"""Copies the five tables of an installation to another, here or in another account: to move, or to restore.

    python -m infra.copy FROM TO [--replace]

FROM and TO are ``PREFIX`` (the tables PREFIX-hosts, ... in the account and region of the environment) or ``PREFIX@URL`` (at an
engine's address). The tables of TO exist already: a deployment makes them, as a first start of the local stack does.

- Nobody may write to FROM meanwhile, and to TO only who copies: a copy is no snapshot. Tables that point-in-time recovery has
  restored are quiet, and so is an engine on a backup.
- Onto an installation that knows a host, repo, record or listing it copies only with ``--replace``: then TO has afterwards what
  FROM has, and nothing else. A copy that was cut off is finished by the same command with ``--replace``.
- Items come before the rows that lead to them: a service that already runs on TO finds nothing half there.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from infra import provision
from infra.local.engines import CREDENTIALS

ORDER = ("Records", "Listings", "State", "Repos", "Hosts")
WRITERS = 8
"""Batches that are written at a time."""
BATCH, LOOKED_UP = 25, 100
"""What one BatchWriteItem and one BatchGetItem may hold."""

Item = Mapping[str, Any]


class CannotCopy(Exception):
    """The message says why, and what to do."""


@dataclass(frozen=True)
class Table:
    """One table of an installation."""

    client: Any
    name: str
    key: tuple[str, ...]

    @property
    def only_keys(self) -> dict[str, Any]:
        """Asks for an item's key alone. (The names of some are words of DynamoDB's own.)"""
        names = {f"#{number}": name for number, name in enumerate(self.key)}
        return {"ProjectionExpression": ", ".join(names), "ExpressionAttributeNames": names}

    def pages(self, **options: Any) -> Iterator[list[Item]]:
        """All items, a page at a time."""
        scan = self.client.get_paginator("scan")
        for page in scan.paginate(TableName=self.name, ConsistentRead=True, **options):
            yield page["Items"]

    def is_empty(self) -> bool:
        return not self.client.scan(TableName=self.name, Limit=1, ConsistentRead=True)["Items"]

    def write(self, requests: Sequence[Mapping[str, Any]]) -> None:
        """Carry out up to 25 puts and deletes."""
        left: Any = {self.name: requests}
        for wait in _pauses():
            left = self.client.batch_write_item(RequestItems=left)["UnprocessedItems"]
            if not left:
                return
            time.sleep(wait)
        raise CannotCopy(f"{self.name} takes no more: run the same again with --replace")

    def missing(self, keys: Sequence[Item]) -> list[Item]:
        """Those of up to 100 keys under which there is nothing."""
        left: Any = {self.name: {"Keys": keys, "ConsistentRead": True, **self.only_keys}}
        found: list[Item] = []
        for wait in _pauses():
            answer = self.client.batch_get_item(RequestItems=left)
            found += answer["Responses"][self.name]
            left = answer["UnprocessedKeys"]
            if not left:
                return [key for key in keys if key not in found]
            time.sleep(wait)
        raise CannotCopy(f"{self.name} answers no more: run the same again with --replace")


def tables(place: str) -> dict[str, Table]:
    """The tables of ``PREFIX`` or ``PREFIX@URL``, by their names in the template. Raises ``CannotCopy`` if one is not there."""
    prefix, _, url = place.partition("@")
    local = urlsplit(url).hostname in ("localhost", "127.0.0.1")
    session = boto3.Session("local", "local", region_name=CREDENTIALS["AWS_REGION"]) if local else boto3.Session()
    options = Config(max_pool_connections=WRITERS + 2, retries={"mode": "standard", "total_max_attempts": 10})
    client = session.client("dynamodb", endpoint_url=url or None, config=options)
    found = {}
    for logical, properties in provision.resources("data", "AWS::DynamoDB::Table", prefix).items():
        name = properties["TableName"]
        try:
            client.describe_table(TableName=name)
        except client.exceptions.ResourceNotFoundException:
            raise CannotCopy(f"there is no table {name} at {url or client.meta.endpoint_url}") from None
        found[logical] = Table(client, name, tuple(part["AttributeName"] for part in properties["KeySchema"]))
    return found


def copy(source: Mapping[str, Table], target: Mapping[str, Table], replace: bool) -> Iterator[tuple[str, int, int]]:
    """Copy all tables; after each, give its name and how many items were written and how many deleted. Raises ``CannotCopy``
    before the first write if ``target`` is in use and ``replace`` is not said."""
    in_use = [target[logical].name for logical in ORDER if logical != "State" and not target[logical].is_empty()]
    if in_use and not replace:
        raise CannotCopy(
            f"{', '.join(in_use)} is not empty; --replace makes all tables those of the source, and nothing else"
        )
    with ThreadPoolExecutor(WRITERS) as pool:
        for logical in ORDER:
            old, new = source[logical], target[logical]
            written = deleted = 0
            for page in old.pages():
                list(pool.map(new.write, _batches([{"PutRequest": {"Item": item}} for item in page], BATCH)))
                written += len(page)
            for page in new.pages(**new.only_keys) if replace else ():
                gone = [key for keys in pool.map(old.missing, _batches(page, LOOKED_UP)) for key in keys]
                list(pool.map(new.write, _batches([{"DeleteRequest": {"Key": key}} for key in gone], BATCH)))
                deleted += len(gone)
            yield new.name, written, deleted


def _batches(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _pauses() -> Iterator[float]:
    """Seconds to wait before what was left over is tried again: two minutes in all."""
    return (min(0.05 * 2**turn, 10.0) for turn in range(18))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.copy", description="Copies an installation's tables.")
    parser.add_argument("source", metavar="FROM", help="PREFIX, or PREFIX@URL")
    parser.add_argument("target", metavar="TO", help="PREFIX, or PREFIX@URL")
    parser.add_argument("--replace", action="store_true", help="TO may be in use: what FROM has not is deleted there")
    options = parser.parse_args()
    try:
        if options.source == options.target:
            raise CannotCopy("FROM and TO are the same")
        for name, written, deleted in copy(tables(options.source), tables(options.target), options.replace):
            print(f"{name}: {written} copied" + (f", {deleted} deleted" if deleted else ""), flush=True)
    except (CannotCopy, BotoCoreError, ClientError) as fault:
        print(f"copy: {fault}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
