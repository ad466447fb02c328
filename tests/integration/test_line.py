"""From requestCrawl to listReposByCollection, with everything real but the network beyond loopback."""

from __future__ import annotations

from tests.integration.conftest import HOLDS, Service, eventually


def agrees(service: Service, sim, *collections: str) -> bool:
    """Whether each listing is the truth."""
    return all(set(service.listing(c)) == set(sim.call(sim.net.truth, c)) for c in collections)


def same_records(service: Service, sim, did: str) -> bool:
    truth = {p: r.cid for p, r in sim.call(sim.net.records, did).items() if p.startswith("io.atcr.")}
    return {path: cid for path, (cid, _) in service.records(did).items()} == truth


def test_a_hold_that_asks_to_be_crawled_is_listed(service: Service, sim) -> None:
    hold = sim.call(sim.net.add_hold(crew=3, layers=5))
    assert service.request_crawl(hold.hostname) == (200, "")
    eventually(lambda: service.listing(HOLDS) == [hold.did])
    eventually(lambda: same_records(service, sim, hold.did), lambda: service.records(hold.did))
