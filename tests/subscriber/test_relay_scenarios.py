"""Message scenarios that were written for another relay, played through the real subscriber against a simulated host.

What is marked to be dropped has no effect here either. Where this service differs, it asks for a new crawl instead of rejecting:

- a seq that runs backwards begins a new epoch, and what it brings is judged by its rev, like any other message;
- a commit that does not continue what is stored desynchronizes the repo, for lenient hosts too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chalicelib.atproto.drisl import encode, from_json
from chalicelib.index.tables import RepoRow
from simulator.clock import Clock
from simulator.faults import Reply
from simulator.thread import SimulatorThread
from tests.service import Service, eventually

SCENARIOS = (
    "account_lifecycle", "deactivation", "legacy", "post_lifecycle", "post_lifecycle_legacy", "rev_ordering", "seq_ordering",
)  # fmt: skip
RESYNCED = {("post_lifecycle_legacy", 1), ("deactivation", 4)}
"""Commits that leave a gap behind them: the relay took them on trust, here the repo is crawled again."""
RUN_BACKWARDS = {("seq_ordering", 2)}
"""Its seq is lower than the one before. The relay drops it; here it begins a new epoch, and the commit is the repo's next."""


@pytest.fixture
def sim() -> Iterator[SimulatorThread]:
    with SimulatorThread(seed=1, clock=Clock.wall()) as running:
        yield running


class Played:
    """A scenario's host and its one account, as the service knows them at the beginning."""

    def __init__(self, service: Service, sim: SimulatorThread, scenario: dict[str, Any]) -> None:
        [account] = scenario["accounts"]
        identity = account["identity"]
        self.service, self.sim, self.did = service, sim, identity["did"]
        self.status: str | None = None
        self.sent = 0
        self.host = sim.call(sim.net.add_host())
        document = {
            "id": self.did,
            "verificationMethod": [
                {"id": f"{self.did}#atproto", "controller": self.did, **identity["keys"]["atproto"]}
            ],
            "service": [{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": self.host.url}],
        }
        sim.call(lambda: sim.net.identities.documents.update({self.did: document}))
        sim.call(lambda: self.host.fail("com.atproto.sync.getRepoStatus", answer=lambda query: self._answer()))
        self.begin(
            next((m["frame"]["body"] for m in scenario["messages"] if m["frame"]["header"]["t"] == "#commit"), None)
        )
        service.request_crawl(self.host.hostname)
        sim.call(self.host.subscribed())

    def _answer(self) -> Reply:
        if self.status == "deleted":
            return Reply.error(400, "RepoNotFound")
        rev = self.service.row(self.did).rev
        return Reply.of(
            {"did": self.did, "active": self.status is None, "rev": rev}
            | ({"status": self.status} if self.status else {})
        )

    def begin(self, commit: dict[str, Any] | None) -> None:
        """The repo's row is what the scenario's first commit continues."""
        data = commit["prevData"]["$link"] if commit and commit.get("prevData") else "unknown"
        row: RepoRow = self.service.context.tables.repos(self.did, sync="synced")
        row.host = row.scope_host = f"http://{self.host.hostname}"
        row.rev, row.data = (commit["since"], data) if commit else ("3lmxrbvasth2s", data)
        row.collections = {"app.bsky.feed.like": 9, "app.bsky.actor.profile": 1}
        row.save()

    def send(self, message: dict[str, Any]) -> None:
        """Send one message, and wait until all is done that comes of it."""
        if message["update"]:
            body = message["frame"]["body"]
            self.status = None if body["active"] else body["status"]
        frame = message["frame"]
        self.sent += 1
        self.sim.call(self.host.stream.send, b"".join(encode(from_json(frame[part])) for part in ("header", "body")))
        eventually(lambda: self.service.events() == self.sent and self.service.is_quiet())
        eventually(lambda: self.row.job is None and (self.row.answered == self.row.asked or self.row.failures > 0))

    @property
    def row(self) -> Any:
        return self.service.row(self.did)

    def paths(self) -> set[str]:
        return set(self.service.records(self.did))


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_has_the_effects_that_it_should(
    name: str, fixtures_dir: Path, sim: SimulatorThread, start_service: Callable[..., Service]
) -> None:
    scenario = json.loads((fixtures_dir / "relay-scenarios" / f"{name}.json").read_text())
    service = start_service(
        PLC_URL=sim.net.plc.url, COLLECTIONS="app.bsky.*", FAILURE_CAP_SECONDS="3600", GONE_HOURS="168"
    )
    service.follow()
    played = Played(service, sim, scenario)
    for number, message in enumerate(scenario["messages"]):
        body = message["frame"]["body"]
        before, rev = played.paths(), played.row.rev
        resynced = played.row.sync == "desynchronized"
        played.send(message)
        if message["frame"]["header"]["t"] == "#commit":
            dropped = message["drop"] and (name, number) not in RUN_BACKWARDS
            if (name, number) in RESYNCED or (resynced and not message["drop"]):
                assert played.row.sync == "desynchronized"
                resynced = True
            if dropped or resynced:
                assert (played.paths(), played.row.rev) == (before, rev), f"message {number} has an effect"
            else:
                made = {op["path"] for op in body["ops"] if op["action"] != "delete"}
                gone = {op["path"] for op in body["ops"] if op["action"] == "delete"}
                assert played.paths() == (before | made) - gone
                assert played.row.rev == body["rev"]
        elif message["frame"]["header"]["t"] == "#account":
            eventually(lambda: played.row.active == (played.status is None))
            assert (service.listing("app.bsky.actor.profile") == [played.did]) == (played.status is None)
