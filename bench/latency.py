"""From requestCrawl to listed, and from a commit on the stream to listed: the local stack as ``make run`` starts it, each part a
process of its own, on Amazon's DynamoDB Local, beside simulated holds in this process.

Both ends are what a client sees: the time of the POST, or of the commit, until listReposByCollection names the DID.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.harness import Bench, Contender, Run, Target, sized
from bench.stand import HIGH
from infra.local import engines
from simulator.atcr import CAPTAIN, SAILOR_STAR
from simulator.clock import Clock
from simulator.thread import SimulatorThread

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 120.0
POLL_SECONDS = 0.01
_KEPT = ExitStack()
atexit.register(_KEPT.close)


def stack() -> Run:
    """One run is a life of so many holds, one after the other: each asks to be crawled, and then writes."""
    sim = _KEPT.enter_context(SimulatorThread(seed=1, clock=Clock.wall()))
    url = _start(sim.net.plc.url)

    def run() -> tuple[Any, dict[str, float]]:
        crawls, commits = [], []
        holds = [sim.call(sim.net.add_hold(crew=2, layers=5)) for _ in range(sized(2, 40))]
        for hold in holds:
            body = json.dumps({"hostname": hold.hostname}).encode()
            start = time.perf_counter()
            _ask(url, "requestCrawl", body=body)
            crawls.append(_until(lambda did=hold.did: did in _listed(url, CAPTAIN), start))
        for hold in holds:
            sim.call(hold.subscribed(1, PATIENCE))
        for hold in holds:
            record = (f"{SAILOR_STAR}/one", {"$type": SAILOR_STAR})
            start = time.perf_counter()
            sim.call(hold.put, hold.did, *record)
            commits.append(_until(lambda did=hold.did: did in _listed(url, SAILOR_STAR), start))
        listed = [set(_listed(url, name)) == {hold.did for hold in holds} for name in (CAPTAIN, SAILOR_STAR)]
        fetched = sum(hold.requests["com.atproto.sync.getRepo"] for hold in holds) / len(holds)
        figures = {
            "crawl p50": _share(crawls, 0.5),
            "crawl p95": _share(crawls, 0.95),
            "commit p50": _share(commits, 0.5),
            "commit p95": _share(commits, 0.95),
        }
        return {"listed": all(listed), "holds": len(holds), "getRepo a hold": fetched}, figures

    return run


def _start(plc_url: str) -> str:
    """The stack, which lives as long as this process; the URL of its API."""
    port = engines.free_port()
    folder = _KEPT.enter_context(tempfile.TemporaryDirectory())
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DISCOVERY_", "AWS_"))}
    environment |= {"PORT": str(port), "DISCOVERY_LOCAL_DIR": folder, "DISCOVERY_PLC_URL": plc_url}
    environment |= {f"DISCOVERY_{name}": value for name, value in HIGH.items()}
    command = [sys.executable, "-m", "infra.local", "--engine", "dynamodb-local"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=sys.stderr, stdin=subprocess.DEVNULL)

    def stop() -> None:
        process.send_signal(signal.SIGTERM)
        process.wait(60)

    _KEPT.callback(stop)
    url = f"http://127.0.0.1:{port}"
    _until(lambda: _is_well(url), time.perf_counter())
    return url


def _is_well(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/xrpc/_health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _ask(url: str, method: str, query: str = "", body: bytes | None = None) -> Any:
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{url}/xrpc/com.atproto.sync.{method}{query}", data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        text = answer.read()
        return json.loads(text) if text else None


def _listed(url: str, collection: str) -> list[str]:
    page = _ask(url, "listReposByCollection", f"?collection={collection}&limit=2000")
    return [repo["did"] for repo in page["repos"]]


def _until(holds: Callable[[], bool], start: float) -> float:
    """Milliseconds since ``start`` until it is so."""
    while not holds():
        if time.perf_counter() - start > PATIENCE:
            raise AssertionError("it did not come about")
        time.sleep(POLL_SECONDS)
    return (time.perf_counter() - start) * 1000


def _share(times: list[float], share: float) -> float:
    """The time within which that share of them was done."""
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


def check(name: str, result: Any) -> None:
    """All are listed; each repo was fetched while it was crawled, and not once more for what the stream told."""
    assert result["listed"], result
    assert result["getRepo a hold"] <= 2, result


def benches() -> list[Bench]:
    """The row about latency."""

    def of(figure: str) -> Callable[[Any], float]:
        return lambda figures: float(figures["ours"].more[figure])

    targets = (
        Target("ms from requestCrawl to listed, p95", of("crawl p95"), at_most=3000),
        Target("ms from a commit to listed, p95", of("commit p95"), at_most=1000),
    )
    contenders = [Contender("ours", "bench.latency:stack")]
    return [Bench("latency", "a small hold, on the local stack, ms", contenders, check, targets, repeats=1)]
