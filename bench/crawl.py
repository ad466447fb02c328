"""A crawl of a large host none of whose repos has anything of ours, and the next one, after nothing has changed.

Counted are the host's requests and bytes, DIDs that were resolved, and requests to DynamoDB. The rate is not bounded here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bench.harness import Bench, Contender, Run, Target, sized
from bench.stand import Cost, Stand
from bench.units import recrawl

REPOS = sized(150, 10_000)
PAGE = 500
TURN_SECONDS = 5


def crawl() -> Run:
    """One run is a crawl and a re-crawl."""

    def run() -> tuple[Any, dict[str, float]]:
        with Stand(CRAWL_RATE="100000", JOB_SECONDS="840", TURN_SECONDS=str(TURN_SECONDS)) as stand:
            host = stand.sim.call(stand.sim.net.add_pds(accounts=REPOS, sailors=0, noise=4))
            stand.request_crawl(host)
            first = _counted(stand, host, lambda: stand.work())
            again = _counted(stand, host, lambda: recrawl(stand, host))
            result = {"first": first, "again": again, "seen": int(stand.row(host).repo_count)}
        return result, {
            "requests a repo": sum(first["requests"].values()) / REPOS,
            "bytes a repo": first["bytes"] / REPOS,
            "DynamoDB writes a repo": first["writes"]["repos"] / REPOS,
            "DynamoDB requests a repo": first["dynamodb"] / REPOS,
            "seconds": first["seconds"],
            "requests again": sum(again["requests"].values()),
            "DynamoDB requests again": again["dynamodb"],
            "write units again": again["write_units"],
            "read units again": again["read_units"],
            "seconds again": again["seconds"],
        }

    return run


def _counted(stand: Stand, host: Any, work: Callable[[], Any]) -> dict[str, Any]:
    asked, sent, resolved = host.requests.copy(), sum(host.bytes_sent.values()), stand.sim.net.plc.requests.total()
    start = time.perf_counter()
    with stand.meter.counting() as cost:
        work()
    return {
        "requests": dict(host.requests - asked),
        "bytes": sum(host.bytes_sent.values()) - sent,
        "resolved": stand.sim.net.plc.requests.total() - resolved,
        "seconds": time.perf_counter() - start,
        **_spent(cost),
    }


def _spent(cost: Cost) -> dict[str, Any]:
    return {
        "dynamodb": cost.requests.total(),
        "operations": dict(cost.requests),
        "writes": dict(cost.writes),
        "write_units": cost.write_units,
        "read_units": cost.read_units,
    }


def check(name: str, result: Any) -> None:
    """One small request a repo and no document; then pages alone, and writes of the host's row alone. (And a turn's, in state,
    for a crawl that took so long that it needed one.)"""
    first, again, pages = result["first"], result["again"], -(-REPOS // PAGE)
    assert result["seen"] == REPOS
    assert first["requests"] == {"com.atproto.sync.getRepo": REPOS, "com.atproto.sync.listRepos": pages}, first
    assert first["resolved"] == again["resolved"] == 0
    assert first["writes"]["repos"] == REPOS
    assert first["writes"].keys() - _turn(first) == {"repos", "hosts"}, first
    assert first["operations"]["GetItem"] == 1, first  # the host's row: no repo's is read twice
    assert again["requests"] == {"com.atproto.sync.listRepos": pages}, again
    assert again["writes"].keys() - _turn(again) == {"hosts"}, again


def _turn(crawl: dict[str, Any]) -> set[str]:
    taken = crawl["seconds"] > TURN_SECONDS and crawl["writes"].get("state", 0) <= 2 + crawl["seconds"] / TURN_SECONDS
    return {"state"} if taken else set()


def benches() -> list[Bench]:
    """The row about crawls."""

    def of(figure: str) -> Callable[[Any], float]:
        return lambda figures: float(figures["ours"].more[figure])

    targets = (
        Target("requests a repo, pages included", of("requests a repo"), at_most=1.01),
        Target("write units of a re-crawl", of("write units again"), at_most=100),
    )
    title = f"a host of {REPOS:,} repos, none of ours"
    return [Bench("crawl", title, [Contender("ours", "bench.crawl:crawl")], check, targets, repeats=1)]
