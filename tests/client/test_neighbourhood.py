"""A hold announces itself with the script, and whoever asks two services finds it: with the whole service over HTTP."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from discovery_client import Client
from discovery_client.request_crawl import main
from simulator.clock import Clock
from simulator.thread import SimulatorThread
from tests.client.conftest import Play
from tests.conftest import ROOT, Stack
from tests.service import Service, eventually


@pytest.fixture
def service(stack_env: Stack, start_service: Callable[..., Service], sim: SimulatorThread) -> Service:
    """The service's jobs; its API is at ``real``."""
    return start_service(PLC_URL=sim.net.plc.url)


@pytest.fixture
def sim() -> Iterator[SimulatorThread]:
    with SimulatorThread(seed=1, clock=Clock.wall()) as running:
        yield running


def test_a_hold_that_announces_itself_is_found_beside_those_of_another_service(
    service: Service, sim: SimulatorThread, real: str, play: Play, tmp_path: Path
) -> None:
    hold, other = sim.call(sim.net.add_hold()), play("did:plc:elsewhere")
    command = ["sh", ROOT / "scripts" / "request-crawl.sh", hold.hostname, real, other.url]
    environment = {"PATH": os.environ["PATH"], "REQUEST_CRAWL_NEED": "all"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, f"{real}: accepted\n{other.url}: accepted\n")
    assert other.service.crawls == [hold.hostname]
    with Client([real, other.url]) as client:
        eventually(lambda: set(client.discover().dids) == {hold.did, "did:plc:elsewhere"})
        comparison = client.compare()
    assert (comparison.only_first, comparison.only_second) == ((hold.did,), ("did:plc:elsewhere",))
    assert main(["--all", "--service", real, other.url]) == 0
    assert other.service.crawls == [hold.hostname] * 2
    with Client(files=[f"{real}/.well-known/holds.json"], cache=tmp_path) as client:
        found = [client.discover() for _ in range(2)]
    assert [(repo.did, repo.host) for repo in found[0].repos] == [(hold.did, hold.hostname)]
    assert (found[0].repos[0].record or {})["$type"] == "io.atcr.hold.captain"
    assert found[1].repos == found[0].repos
    assert found[1].complete
