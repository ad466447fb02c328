"""A relay sends on what its hosts say, under its own seqs, and lists who it has seen."""

from __future__ import annotations

import asyncio

import aiohttp

from chalicelib.atproto.events import AccountEvent, CommitEvent, decode_frame
from simulator.neighbourhood import Neighbourhood
from simulator.relay import BY_COLLECTION

TAG = "io.atcr.tag"


def test_a_relay_sends_on_what_two_hosts_say_under_seqs_of_its_own() -> None:
    async def main() -> None:
        async with Neighbourhood(seed=1) as net:
            hosts = [await net.add_host(), await net.add_host()]
            relay = await net.add_relay(*hosts)
            dids = [net.add_account(host).did for host in hosts]
            for host, did in zip(hosts, dids, strict=True):
                host.put(did, f"{TAG}/a", {"$type": TAG})
            events = [decode_frame(event.frame) for event in relay.stream.backlog]
            assert [event.seq for event in events] == list(range(1, len(events) + 1))  # type: ignore[union-attr]
            commits = [event for event in events if isinstance(event, CommitEvent) and event.ops]
            assert [commit.did for commit in commits] == dids
            relay.edit = lambda body: None if "status" in body else body
            hosts[0].set_status(dids[0], "deactivated")
            hosts[0].set_status(dids[0], None)
            last = decode_frame(relay.stream.backlog[-1].frame)
            assert isinstance(last, AccountEvent)
            assert last.active
            assert len(relay.stream.backlog) == len(events) + 1

    asyncio.run(main())


def test_a_relay_lists_who_has_records_in_a_collection_in_pages_and_is_no_pds() -> None:
    async def main() -> None:
        async with Neighbourhood(seed=1) as net:
            pds = await net.add_pds(accounts=5, sailors=3)
            relay = await net.add_relay(pds)
            relay.also[TAG] = ["did:plc:" + "a" * 24]
            async with aiohttp.ClientSession() as session:
                found, cursor = [], ""
                while cursor is not None:
                    query = {"collection": TAG, "limit": "2"} | ({"cursor": cursor} if cursor else {})
                    async with session.get(f"{relay.url}/xrpc/{BY_COLLECTION}", params=query) as answer:
                        page = await answer.json()
                    found += [repo["did"] for repo in page["repos"]]
                    cursor = page.get("cursor")
                assert found == [*net.truth(TAG), *relay.also[TAG]]
                async with session.get(f"{relay.url}/xrpc/com.atproto.server.describeServer") as answer:
                    assert answer.status == 404

    asyncio.run(main())
