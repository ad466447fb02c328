"""A page of listReposByCollection over so many listed DIDs: first, middle and last, through the handler that the gateway calls.

The engine is Amazon's DynamoDB Local, on disk. Its own writes of a million rows would take hours, so the rows are put into
its file, as it writes them, while it does not run. Time is wall time of one call, the engine's part included: the median
of many, for all places in all listings in turns.
"""

from __future__ import annotations

import gc
import json
import os
import sqlite3
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import boto3

from bench import gateway
from bench.harness import SIZE, Bench, Contender, Figure, Run, Target, sized
from infra import provision
from infra.local import engines

PAGE = 500
METHOD = "com.atproto.sync.listReposByCollection"
PREFIX = "bench"
PLACES = ("first", "middle", "last")
BEGINNING = 1_767_225_600_000_000
"""The first_seen of the first DID, microseconds since 1970."""

_KEPT = ExitStack()


def collection(listed: int) -> str:
    """Each size of listing is a collection of its own, so that all are in the engine at once."""
    return f"io.atcr.bench.of{listed}"


def did(number: int) -> str:
    """The DID that was listed as ``number``, counted from 0."""
    return f"did:plc:{number:024d}"


def shown(place: str) -> str:
    """The contender's name."""
    return f"ours, {place} page"


def before(listed: int, place: str, limit: int) -> int:
    """How many DIDs come before a page."""
    return max(0, {"first": 0, "middle": listed // 2 - limit // 2, "last": listed - limit}[place])


def todo(sizes: list[int]) -> list[tuple[int, int, str]]:
    """What is read: size of the listing, limit, place. Pages of 500 need as many, so all listings give pages of 100 too."""
    return [(size, limit, place) for size in sizes for limit in (100, PAGE) if size >= limit for place in PLACES]


def pages(sizes: list[int], rounds: int) -> Run:
    """One run reads every page ``rounds`` times, in turns; the figures are medians by size, limit and place."""
    os.environ.update(_engine(sizes))
    import app
    from chalicelib import process
    from chalicelib.api import listing

    requests: Counter[str] = Counter()
    events: Any = process.reader()._client.meta.events
    events.register("before-call.dynamodb", lambda model, **more: requests.update([model.name]))

    def event(size: int, limit: int, place: str) -> dict[str, Any]:
        query = {"collection": [collection(size)], "limit": [str(limit)]}
        if passed := before(size, place, limit):
            position = {collection(size): BEGINNING + passed - 1}
            query["cursor"] = [listing.encode_cursor(position, [collection(size)])]
        return gateway.event("GET", METHOD, query)

    def run() -> tuple[Any, dict[str, float]]:
        taken: dict[str, list[float]] = {}
        found: dict[str, Any] = {}
        gc.disable()
        for number in range(rounds + 3):
            for size, limit, place in todo(sizes):
                requests.clear()
                asked = event(size, limit, place)
                start = time.perf_counter()
                answer = app.app(asked, None)
                spent = time.perf_counter() - start
                name = f"{size} {limit} {place}"
                if number >= 3:  # before, nothing is warm
                    taken.setdefault(name, []).append(spent * 1000)
                body = json.loads(answer["body"])
                dids = [repo["did"] for repo in body["repos"]]
                passed = before(size, place, limit)
                found[name] = {
                    "requests": dict(requests),
                    "right": dids == [did(n) for n in range(passed, min(size, passed + limit))],
                    "more": "cursor" in body,
                    "bytes_a_did": len(answer["body"].encode()) / len(dids),
                }
        gc.enable()
        return found, {name: statistics.median(times) for name, times in taken.items()}

    return run


def _engine(sizes: list[int]) -> dict[str, str]:
    """An engine that lives as long as this process, with the listings in it; and the environment that leads there."""
    folder = Path(_KEPT.enter_context(tempfile.TemporaryDirectory()))
    session = boto3.Session("local", "local", region_name="us-east-1")
    with engines.running("dynamodb-local", folder) as engine:
        client = session.client("dynamodb", endpoint_url=engine.dynamodb)
        made = provision.create(PREFIX, client, session.client("sqs", endpoint_url=engine.sqs))
        for size in sizes:
            client.put_item(TableName=f"{PREFIX}-listings", Item=_item(size, 0))
    fill(next(folder.glob("*.db")), sizes)
    engine = _KEPT.enter_context(engines.running("dynamodb-local", folder))
    return engine.environment | {"DISCOVERY_TABLE_PREFIX": made.prefix, "DISCOVERY_QUEUE_URL": made.queue_url}


def _item(size: int, number: int) -> dict[str, dict[str, str]]:
    return {"key": {"S": f"{BEGINNING + number:016d}#{did(number)}"}, "collection": {"S": collection(size)}}


def fill(file: Path, sizes: list[int]) -> None:
    """List the others behind the first one, in the engine's file, while it does not run."""
    table = f'"{PREFIX}-listings"'
    with sqlite3.connect(file) as database:
        for size in sizes:
            query = f"SELECT hashKey, hashValue, itemSize FROM {table} WHERE hashKey = ?"
            name, hashed, weight = database.execute(query, (collection(size).encode(),)).fetchone()

            def rows(
                size: int = size, name: bytes = name, hashed: bytes = hashed, weight: int = weight
            ) -> Iterator[Any]:
                for number in range(1, size):
                    item = _item(size, number)
                    key = item["key"]["S"].encode()
                    # What follows the hash key's value serves parallel scans alone.
                    yield name, key, hashed, b" " + sha256(key).digest()[:19], weight, json.dumps(item).encode()

            columns = "hashKey, rangeKey, hashValue, rangeValue, itemSize, ObjectJSON"
            database.executemany(f"INSERT INTO {table} ({columns}) VALUES (?, ?, ?, ?, ?, ?)", rows())
    database.close()


def check(sizes: list[int], result: Any) -> None:
    """Each page has the right DIDs and took one query."""
    for size, limit, place in todo(sizes):
        page = result[f"{size} {limit} {place}"]
        assert page["right"], f"the {place} page of {size} has other DIDs"
        assert page["requests"] == {"Query": 1}, f"the {place} page of {size} took {page['requests']}"
        assert page["more"] == (place != "last" and size > limit), f"the {place} page of {size} ends wrongly"
        assert page["bytes_a_did"] <= 60, f"{page['bytes_a_did']} bytes a DID"


def sizes() -> list[int]:
    """How many DIDs are listed."""
    return [100, 1_000, 2_000] if SIZE == "small" else [100, 1_000, 10_000, 100_000, 1_000_000]


@cache
def measured() -> Figure:
    """All pages of all listings, from one process on one engine."""
    worker = Contender("ours", "bench.listing:pages", (sizes(), sized(1, 40)))
    whole = Bench("pages", "", [worker], lambda name, result: check(sizes(), result), repeats=3)
    return whole.run()["ours"]


class Pages(Bench):
    """A point of the plot: its figures are those of one size out of all."""

    def run(self) -> dict[str, Figure]:
        found = measured()
        figures = {}
        for place in PLACES:
            size, limit = int(self.scale), min(PAGE, int(self.scale))
            name = f"{size} {limit} {place}"
            more = {
                "bytes_a_did": found.result[name]["bytes_a_did"],
                "spread": max(spread(found, 100), spread(found, PAGE)),
            }
            figures[shown(place)] = Figure(shown(place), found.more[name], 0, more, found.result[name])
        return figures


def spread(found: Figure, limit: int) -> float:
    """The slowest page of that limit over the fastest, whatever the listing and the place."""
    times = [found.more[f"{size} {limit} {place}"] for size, some, place in todo(sizes()) if some == limit]
    return max(times) / min(times)


def benches() -> list[Bench]:
    """The points of the plot; the last of them is the row about pages."""
    contenders = [Contender(shown(place), "bench.listing:pages") for place in PLACES]
    flat = Target(
        "times the fastest page from 100 DIDs on, of the same limit", lambda figures: figures[shown("first")].more["spread"],
        at_most=1.5,
    )  # fmt: skip
    small = Target("bytes a DID", lambda figures: figures[shown("first")].more["bytes_a_did"], at_most=60)
    points = []
    for size in sizes():
        title = f"a page of {min(PAGE, size)} of {size:,} listed DIDs, wall time"
        targets = (flat, small) if size == sizes()[-1] else ()
        points.append(
            Pages(f"page {size}", title, contenders, lambda name, result: None, targets,
                  group="listed", scale=size, scale_name="listed DIDs")
        )  # fmt: skip
    return points
