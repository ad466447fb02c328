"""The truth of the neighbourhood after everything that can happen to an account."""

from __future__ import annotations

import asyncio

from simulator import Clock, Host, Neighbourhood, SimulatorThread, export

CAPTAIN = "io.atcr.hold.captain"
MANIFEST = "io.atcr.manifest"


def test_the_truth_is_who_has_records_in_order_of_age(sim: SimulatorThread) -> None:
    holds = [sim.call(sim.net.add_hold(method=method)) for method in ("web", "plc", "web")]
    pds = sim.call(sim.net.add_pds(accounts=4, sailors=2))
    assert list(sim.net.truth(CAPTAIN)) == [hold.did for hold in holds]
    assert list(sim.net.truth(MANIFEST)) == list(pds.accounts)[:2]
    assert sim.net.truth("io.atcr.hold") == set()
    assert sim.net.truth("app.bsky.actor.profile") == set(pds.accounts)


def test_the_truth_follows_records_and_statuses(sim: SimulatorThread) -> None:
    hold = sim.call(sim.net.add_hold(layers=3))
    did = hold.did
    assert did in sim.net.truth("io.atcr.hold.layer")
    sim.call(hold.delete_collection, did, "io.atcr.hold.layer")
    assert did not in sim.net.truth("io.atcr.hold.layer")
    for status in ("deactivated", "suspended", "takendown"):
        sim.call(hold.set_status, did, status)
        assert did not in sim.net.truth(CAPTAIN)
        assert sim.net.records(did) == {}
    for public in (None, "throttled", "desynchronized"):
        sim.call(hold.set_status, did, public)
        assert did in sim.net.truth(CAPTAIN)
    account = sim.call(hold.delete_account, did)
    assert sim.net.truth(CAPTAIN) == set()
    account.status = None
    sim.call(hold.adopt, account)
    assert sim.net.truth(CAPTAIN) == {did}
    assert f"{CAPTAIN}/self" in sim.net.records(did)


def test_a_migrated_account_is_true_where_its_document_says(sim: SimulatorThread) -> None:
    old = sim.call(sim.net.add_pds(accounts=1, sailors=1))
    new = sim.call(sim.net.add_host())
    did = old.did
    before = sim.net.records(did)
    moved = sim.call(sim.net.migrate, did, new, curve="p256")
    assert sim.net.records(did) == before
    assert old.accounts[did].status == "deactivated"
    assert moved.repo.rev > old.accounts[did].repo.rev
    document = sim.net.identities.documents[did]
    assert document["service"][0]["serviceEndpoint"] == new.url
    assert document["verificationMethod"][0]["publicKeyMultibase"] == moved.repo.key.multibase
    sim.call(old.put, did, *old.author(did).sailor_profile())
    assert sim.net.records(did) == before


def test_a_host_that_moves_takes_its_documents_along(sim: SimulatorThread) -> None:
    hold = sim.call(sim.net.add_hold(method="plc"))
    before, key = hold.url, hold.accounts[hold.did].repo.key.multibase
    sim.call(sim.net.move_host(hold, curve="k256"))
    document = sim.net.identities.documents[hold.did]
    assert hold.url != before
    assert document["service"][0]["serviceEndpoint"] == hold.url
    assert document["verificationMethod"][0]["publicKeyMultibase"] != key
    assert hold.running


def test_the_same_seed_makes_the_same_neighbourhood() -> None:
    async def grow() -> list[bytes]:
        async with Neighbourhood(seed=7, clock=Clock()) as net:
            pds = await net.add_pds(accounts=3)
            hold: Host = await net.add_hold(method="plc", layers=4)
            accounts = [*pds.accounts.values(), *hold.accounts.values()]
            return [export.car(account.repo).encode() for account in accounts]

    assert asyncio.run(grow()) == asyncio.run(grow())
