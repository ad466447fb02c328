"""What each kind of event costs in DynamoDB's request units, on the product's own paths: the table of docs/costs.md.

A hold asks to be crawled, is listed, writes, rests; a PDS's user writes what is not ours. The engine is DynamoDB Local,
which reports consumed capacity as AWS does; that it does is checked first, against the pricing rules:

    write   1 unit a KB, once more for each index entry written or removed; double in a transaction
    read    1 unit for 4 KB consistently, half for an eventual one; at least as much for what is not there
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from bench import costs
from bench.harness import SIZE, Bench, Contender, Run, Target, sized
from bench.stand import Cost, Stand, of_leases, of_work

CAPTAIN = "io.atcr.hold.captain"
COMMITS = 20
"""Unrelated commits between two saves of a chain: how many share its cost."""
IDLE_HOSTS = 100
SHOWN = (
    "new record",
    "record updated",
    "record deleted",
    "unrelated commit, repo in scope",
    "re-crawl of a hold, nothing changed",
)
"""Kinds of events that stand in the table of all benches as well."""
SETTINGS = {
    "CURSOR_SECONDS": "300",  # saved when told to
    "ANNOUNCE_SECONDS": "0",
    "CRAWL_RATE": "100000",
}


def measure() -> Run:
    """One run is one life of a hold; each kind of event with its units, requests and tables written."""

    def run() -> tuple[Any, dict[str, float]]:
        with Stand(**SETTINGS) as stand:
            check_engine(stand)
            found = {name: shown(cost, times) for name, cost, times in life(stand)}
        figures = {f"{name}, write units": found[name]["write_units"] for name in SHOWN}
        figures["page of 500, read units"] = found["listReposByCollection, a page of 500"]["read_units"]
        return found, figures

    return run


def shown(cost: Cost, times: float = 1) -> dict[str, Any]:
    """As plain JSON: a cost of ``times`` events, of one of them."""
    return {
        "write_units": round(cost.write_units / times, 3),
        "read_units": round(cost.read_units / times, 3),
        "requests": sum(cost.requests.values()) / times,
        "writes": dict(cost.writes),
        "operations": dict(cost.requests),
        "refused": cost.refused,
    }


def life(stand: Stand) -> Iterator[tuple[str, Cost, float]]:
    """Kinds of events with their cost, and the number of events that it is for."""
    meter, sim = stand.meter, stand.sim
    stand.follow()
    hold = sim.call(sim.net.add_hold(crew=1, layers=3))
    with meter.counting(of_work) as cost, meter.counting(of_leases) as taking:
        stand.request_crawl(hold)
        stand.settle(hold)
        stand.save(hold)
    assert stand.listing(CAPTAIN) == [hold.did]
    cost.write_units += taking.write_units - _beats(taking)
    yield "requestCrawl of a small hold, until it is listed and followed", cost, 1

    author = hold.author(hold.did)
    _streamed(stand, hold, lambda: hold.put(hold.did, *author.layer()))  # the first one reads what is then in memory
    path, value = author.layer()
    for name, change in (
        ("new record", lambda: hold.put(hold.did, path, value)),
        ("record updated", lambda: hold.put(hold.did, path, value | {"size": 1})),
        ("record deleted", lambda: hold.delete(hold.did, path)),
        ("last record of a collection deleted: delisted", lambda: hold.delete(hold.did, f"{CAPTAIN}/self")),
        ("first record of a collection: listed", lambda: hold.put(hold.did, *author.captain())),
    ):
        yield name, _streamed(stand, hold, change), 1
    with meter.counting(of_work) as cursor:
        stand.save(hold)
    yield "cursor saved", cursor, 1

    cost = _streamed(stand, hold, lambda: [hold.put(hold.did, *author.post()) for _ in range(COMMITS)])
    yield "unrelated commit, repo in scope", cost, COMMITS
    with meter.counting(of_work) as cost:
        stand.save(hold)
    cost.subtract(cursor)
    yield "chain of a repo in scope saved", cost, 1

    pds = sim.call(sim.net.add_pds(accounts=3, sailors=0, noise=3))
    stand.request_crawl(pds)
    stand.settle(pds)
    stranger = pds.author(pds.did)
    cost = _streamed(stand, pds, lambda: [pds.put(pds.did, *stranger.post()) for _ in range(COMMITS)])
    yield "unrelated commit, repo out of scope", cost, COMMITS

    with meter.counting(of_work) as cost:
        stand.request_crawl(hold)
    yield "requestCrawl of a known hold", cost, 1
    with meter.counting(of_work) as cost:
        stand.work()
    yield "the crawl after it: nothing changed, DID document fetched again", cost, 1

    before = dict(hold.requests)
    with meter.counting(of_work) as cost:
        recrawl(stand, hold)
    asked = {name: count - before.get(name, 0) for name, count in hold.requests.items() if count > before.get(name, 0)}
    assert asked == {"com.atproto.sync.listRepos": 1}, asked
    assert cost.writes.keys() <= {"hosts"}, cost.writes
    yield "re-crawl of a hold, nothing changed", cost, 1

    with meter.counting(of_work) as cost:
        stand.listing(CAPTAIN)
    yield "listReposByCollection of one DID", cost, 1
    page = _long_listing(stand)
    with meter.counting(of_work) as cost:
        assert len(stand.listing(page)) == 500
    assert cost.requests == {"Query": 1}, cost.requests
    yield "listReposByCollection, a page of 500", cost, 1
    with meter.counting(of_work) as cost:
        stand.sweep()
    yield "sweep that finds nothing", cost, 1

    subscribers = stand.context.subscribers
    subscribers.begin("bench")
    with meter.counting(of_work) as cost:
        subscribers.beat("bench", {"hosts": 1, "open": 1, "events": 0, "outcomes": {}})
    subscribers.end("bench")
    subscribers.forget("bench")
    yield "heartbeat of a subscriber", cost, 1

    stand.unfollow()
    seconds = sized(6, 60)
    for count in (1, IDLE_HOSTS):
        holds = [hold, *(sim.call(sim.net.add_hold()) for _ in range(count - 1))]
        for other in holds[1:]:
            stand.request_crawl(other)
        stand.work()
        stand.follow()
        stand.settle(*holds)
        for other in holds:
            stand.save(other)
        stand.until(lambda: stand.work() == 0)
        with meter.counting() as cost:
            time.sleep(seconds)
        stand.unfollow()
        yield f"idle hour of the subscriber, {count} host{'s' * (count > 1)}", cost, seconds / 3600
        if sized(0, 1) == 0:
            return  # the small size has no time for a hundred


def recrawl(stand: Stand, host: Any) -> None:
    """The crawl that is due every twelve hours."""
    from chalicelib.atproto.syntax import parse_origin
    from chalicelib.crawl.queue import HostJob

    stand.context.queue.send(HostJob(parse_origin(host.hostname, allow_private=True)))
    assert stand.work() == 1


def _streamed(stand: Stand, host: Any, change: Callable[[], Any]) -> Cost:
    """The cost of what the subscriber does because of a change, without cursors."""
    with stand.meter.counting(of_work) as cost:
        stand.sim.call(change)
        stand.wait_for(host)
    assert not cost.refused
    return cost


def _beats(cost: Cost) -> float:
    """Units of the beats among what keeps the leases."""
    return float(cost.writes["state"] - cost.requests["TransactWriteItems"])


def _long_listing(stand: Stand) -> str:
    name = "io.atcr.bench.page"
    for start in range(0, 600, 25):
        puts = [
            {"PutRequest": {"Item": {"collection": {"S": name}, "key": {"S": f"{n:016d}#did:plc:{n:024d}"}}}}
            for n in range(start, start + 25)
        ]
        stand.dynamodb.batch_write_item(RequestItems={f"{stand.prefix}-listings": puts})
    return name


def check_engine(stand: Stand) -> None:
    """The engine reports what AWS would charge. Raises AssertionError."""
    table, client = f"{stand.prefix}-repos", stand.dynamodb

    def item(did: str, size: int, **more: Any) -> dict[str, Any]:
        return {"did": {"S": did}, "x": {"S": "x" * size}, **more}

    indexed = {"due_shard": {"S": "test"}, "due_at": {"N": "1"}}
    key = {"did": {"S": "a"}}
    with stand.meter.counting() as cost:
        for written, units in (
            (lambda: client.put_item(TableName=table, Item=item("a", 10)), 1),
            (lambda: client.put_item(TableName=table, Item=item("a", 1500)), 2),
            (lambda: client.put_item(TableName=table, Item=item("a", 1500, **indexed)), 3),
            (lambda: client.put_item(TableName=table, Item=item("a", 1400, **indexed)), 2),
            (lambda: client.delete_item(TableName=table, Key=key), 3),
            (
                lambda: client.transact_write_items(
                    TransactItems=[{"Put": {"TableName": table, "Item": item("b", 10)}}]
                ),
                2,
            ),
        ):
            before = cost.write_units
            written()
            assert cost.write_units - before == units, (units, cost.write_units - before)
        client.put_item(TableName=table, Item=item("c", 5000))
        for consistent, did, units in ((True, "b", 1), (False, "b", 0.5), (True, "c", 2), (True, "nobody", 1)):
            before = cost.read_units
            client.get_item(TableName=table, Key={"did": {"S": did}}, ConsistentRead=consistent)
            assert cost.read_units - before == units, (did, cost.read_units - before)
        before = cost.read_units
        keys = [{"did": {"S": did}} for did in ("b", "c", "nobody")]
        client.batch_get_item(RequestItems={table: {"Keys": keys, "ConsistentRead": True}})
        assert cost.read_units - before == 4, cost.read_units - before
    for did in ("b", "c"):
        client.delete_item(TableName=table, Key={"did": {"S": did}})


def check(name: str, found: Any) -> None:
    """Cost follows change."""
    assert found["unrelated commit, repo in scope"]["requests"] == 0, found["unrelated commit, repo in scope"]
    assert found["unrelated commit, repo out of scope"]["requests"] == 0
    assert found["cursor saved"]["operations"] == {"UpdateItem": 1}
    assert found["re-crawl of a hold, nothing changed"]["writes"].keys() <= {"hosts"}
    for kind in ("new record", "record updated", "record deleted"):
        assert found[kind]["operations"].keys() == {"BatchGetItem", "TransactWriteItems"}, found[kind]
        assert sum(found[kind]["writes"].values()) == 2, found[kind]  # the repo's row and the record's
    if SIZE == "full":
        costs.write(found)


def benches() -> list[Bench]:
    """The row about request units."""

    def of(kind: str) -> Callable[[Any], float]:
        return lambda figures: float(figures["ours"].more[f"{kind}, write units"])

    targets = (
        Target("write units of an unrelated commit", of("unrelated commit, repo in scope"), at_most=0),
        Target("write units of a new record", of("new record"), at_most=8),
    )
    return [
        Bench(
            "units", "request units of DynamoDB", [Contender("ours", "bench.units:measure")], check, targets, repeats=1
        )
    ]
