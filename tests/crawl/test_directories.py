"""What directories list is looked into: verified, one repo at a time, and no faster than it proves true."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chalicelib.atproto.syntax import Did
from chalicelib.crawl import directories, host_job
from chalicelib.crawl.context import Context
from chalicelib.crawl.directories import read_directory
from simulator import faults
from simulator.host import Host
from simulator.relay import BY_COLLECTION, Relay
from simulator.thread import SimulatorThread
from tests.conftest import Stack
from tests.crawl.instance import HOUR, Instance, origin_of

MakeContext = Callable[..., Context]
TAG = "io.atcr.tag"
REPO, REPOS = "com.atproto.sync.getRepo", "com.atproto.sync.listRepos"


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "BURST", 1000)


@pytest.fixture
def pds(sim: SimulatorThread, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host of several pages that never announced itself, where three of many use ATCR."""
    monkeypatch.setattr(host_job, "PAGE", 10)
    host: Host = sim.call(sim.net.add_pds(accounts=25, sailors=3, noise=2))
    return host


@pytest.fixture
def directory(sim: SimulatorThread, pds: Host) -> Relay:
    relay: Relay = sim.call(sim.net.add_relay(pds))
    return relay


@pytest.fixture
def start(stack_env: Stack, make_context: MakeContext) -> Callable[..., Instance]:
    """Starts the service with these directories."""

    def make(*known: Any, **settings: str) -> Instance:
        context = make_context(DIRECTORY_NSIDS=TAG, DIRECTORIES=",".join(each.hostname for each in known), **settings)
        return Instance(context, stack_env.sqs, stack_env.queue_url)

    return make


def invented(count: int) -> list[str]:
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    return [
        "did:plc:" + "a" * 20 + "".join(alphabet[number >> shift & 31] for shift in (15, 10, 5, 0))
        for number in range(count)
    ]


def test_users_of_a_large_host_are_found_through_a_directory_and_nobody_else_there_is_asked_for(
    sim: SimulatorThread, pds: Host, directory: Relay, start: Callable[..., Instance]
) -> None:
    service = start(directory)
    service.work()
    assert service.listed(TAG) == set(sim.call(sim.net.truth, TAG))
    assert len(service.listed(TAG)) == 3
    assert pds.requests[REPO] == 3
    host = service.host(pds)
    assert (host.kind, host.status, host.repo_count, host.owner) == ("named", "active", 3, "-")
    assert pds.requests[REPOS] <= 4
    assert service.progress(directory)["waiting"].keys() == service.listed(TAG)
    asked = directory.requests[BY_COLLECTION]
    service.work()
    assert directory.requests[BY_COLLECTION] == asked
    service.pass_hours(1)
    service.work()
    assert service.progress(directory) | {"waiting": {}, "verified": 3, "unverified": 0} == service.progress(directory)
    assert directory.requests[BY_COLLECTION] == asked + 1


def test_what_changes_there_is_found_by_asking_for_the_revs_of_those_in_scope(
    sim: SimulatorThread, pds: Host, directory: Relay, start: Callable[..., Instance]
) -> None:
    service = start(directory)
    service.work()
    gone, changed, deleted = service.listed(TAG)
    sim.call(pds.delete_collection, gone, TAG)
    sim.call(pds.set_status, deleted, "deactivated")
    sim.call(pds.put, changed, f"{TAG}/another", {"$type": TAG})
    service.pass_hours(14)
    service.work()
    assert service.listed(TAG) == {changed}
    assert (changed, f"{TAG}/another") in {
        (row.did, row.path) for row in service.context.tables.records.query(changed, consistent_read=True)
    }
    assert pds.requests[REPO] == 5
    assert service.context.writer.load(Did(deleted)).status == "deactivated"


def test_a_named_host_that_announces_itself_is_walked_whole(
    sim: SimulatorThread, pds: Host, directory: Relay, start: Callable[..., Instance]
) -> None:
    from chalicelib.crawl.admission import request_crawl

    service = start(directory)
    service.work()
    unheard = sim.call(sim.net.add_account, pds, records=[(f"{TAG}/a", {"$type": TAG})]).did
    sim.call(lambda: directory._follows.clear())
    request_crawl(service.context, pds.hostname)
    service.work()
    assert service.host(pds).kind == "pds"
    assert unheard in service.listed(TAG)
    assert service.listed(TAG) == set(sim.call(sim.net.truth, TAG))


def test_a_small_host_that_a_document_names_is_walked_whole_as_ever(
    sim: SimulatorThread, start: Callable[..., Instance]
) -> None:
    small = sim.call(sim.net.add_pds(accounts=3, sailors=2))
    directory = sim.call(sim.net.add_relay())
    directory.also[TAG] = [next(iter(small.accounts))]
    service = start(directory)
    service.work()
    assert service.listed(TAG) == set(sim.call(sim.net.truth, TAG))
    assert len(service.listed(TAG)) == 2
    assert service.host(small).kind == "named"


def test_a_directory_that_lies_lists_nobody_and_is_heard_no_more_than_its_budget_allows(
    sim: SimulatorThread, pds: Host, directory: Relay, start: Callable[..., Instance]
) -> None:
    """It invents DIDs, and names people who have nothing of the kind."""
    without = [did for did in pds.accounts if did not in sim.call(sim.net.truth, TAG)]
    liar = sim.call(sim.net.add_relay())
    liar.also[TAG] = [*invented(30), *without, "did:web:nowhere.invalid", "not a DID"]
    service = start(liar, directory, DIRECTORY_UNVERIFIED="20")
    service.work()
    assert service.listed(TAG) == set(sim.call(sim.net.truth, TAG)), "what the other has shown is there"
    progress = service.progress(liar)
    assert (len(progress["waiting"]), progress["verified"]) == (20, 0)
    rows = {row.did for row in service.context.tables.repos.scan()}
    assert len(rows) == 23
    service.pass_hours(25)
    service.work()
    progress = service.progress(liar)
    assert (len(progress["waiting"]), progress["unverified"]) == (20, 20)
    assert service.listed(TAG) == set(sim.call(sim.net.truth, TAG))
    hosts = {row.origin: row.kind for row in service.context.tables.hosts.scan()}
    assert hosts == {f"http://{pds.hostname}": "named"}, "people without records make no host followed"


def test_a_did_that_only_a_directory_has_claimed_is_given_up_at_last(
    sim: SimulatorThread, start: Callable[..., Instance]
) -> None:
    liar = sim.call(sim.net.add_relay())
    [did] = liar.also[TAG] = invented(1)
    service = start(liar)
    for _ in range(6):
        service.work()
        service.pass_hours(0.02)
    row = service.context.writer.load(Did(did))
    assert (row.sync, row.due_at) == ("refused", None)
    assert "lists it" in row.reason
    sim.call(sim.net.add_account, sim.call(sim.net.add_host()), did, [(f"{TAG}/a", {"$type": TAG})])
    service.pass_hours(200)
    service.work()
    assert service.listed(TAG) == {did}, "it may be claimed again, and be true"


def test_a_job_without_time_leaves_the_rest_to_the_next(
    sim: SimulatorThread, pds: Host, directory: Relay, start: Callable[..., Instance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directories, "PAGE", 1)
    monkeypatch.setattr(directories, "MAX_PAGES", 2)
    service = start(directory)
    read_directory(service.context, origin_of(directory))
    assert len(service.progress(directory)["waiting"]) == 2
    read_directory(service.context, origin_of(directory))
    assert directory.requests[BY_COLLECTION] == 2, "the next comes when it is due"
    service.pass_hours(0.01)
    read_directory(service.context, origin_of(directory))
    assert directory.requests[BY_COLLECTION] == 3
    assert len(service.progress(directory)["waiting"]) == 3


@pytest.mark.parametrize("length", [1, 2, 5])
def test_cursors_that_go_in_a_circle_are_found_out(
    sim: SimulatorThread, start: Callable[..., Instance], length: int
) -> None:
    def page(query: Any) -> faults.Reply:
        number = int(query.get("cursor") or 0)
        return faults.Reply.of({"repos": [{"did": "did:web:x.invalid"}], "cursor": str(number % length + 1)})

    liar = sim.call(sim.net.add_relay())
    sim.call(liar.fail, BY_COLLECTION, page)
    service = start(liar)
    service.work()
    assert service.progress(liar)["walks"][TAG]["error"] is not None
    assert "circle" in service.progress(liar)["walks"][TAG]["error"]
    assert liar.requests[BY_COLLECTION] < 4 * length + 4


def test_a_directory_that_fails_is_asked_ever_less_and_the_others_go_on(
    sim: SimulatorThread, pds: Host, directory: Relay, start: Callable[..., Instance]
) -> None:
    broken = sim.call(sim.net.add_relay(pds))
    sim.call(broken.fail, BY_COLLECTION, faults.status(503))
    service = start(broken, directory)
    waits = []
    for _ in range(4):
        service.work()
        waits.append(service.progress(broken)["due_at"] - service.clock())
        service.pass_hours((waits[-1] + 1000) / HOUR)
    assert service.listed(TAG) == set(sim.call(sim.net.truth, TAG))
    assert broken.requests[BY_COLLECTION] == 4
    assert waits[3] > 2 * waits[1]
    assert "503" in service.progress(broken)["error"]
    sim.call(broken.heal)
    service.work()
    assert (service.progress(broken)["failures"], service.progress(broken)["error"]) == (0, None)


def test_a_collection_that_a_directory_does_not_list_keeps_no_other_from_being_read(
    sim: SimulatorThread, pds: Host, directory: Relay, start: Callable[..., Instance]
) -> None:
    sim.call(
        directory.fail,
        BY_COLLECTION,
        faults.status(400, "CollectionNotIndexed"),
        only={"collection": "io.atcr.manifest"},
    )
    service = start(directory, COLLECTIONS="io.atcr.*,io.atcr.manifest")
    service.work()
    assert len(service.listed(TAG)) == 3
    walks = service.progress(directory)["walks"]
    assert "CollectionNotIndexed" in walks["io.atcr.manifest"]["error"]
    assert walks[TAG]["error"] is None


def test_a_directory_is_read_from_its_beginning_again_after_a_week(
    sim: SimulatorThread, pds: Host, directory: Relay, start: Callable[..., Instance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directories, "PAGE", 2)
    service = start(directory)
    service.work()
    seen = directory.requests[BY_COLLECTION]
    assert seen == 2
    service.pass_hours(1)
    service.work()
    assert directory.requests[BY_COLLECTION] == seen + 1, "only what may have come at its end"
    service.pass_hours(170)
    service.work()
    assert directory.requests[BY_COLLECTION] == seen + 3
