"""Pages stay true while DIDs come and go: a client that pages misses nobody who was there, and sees nobody twice; one that
keeps its last cursor gets what is new, and again at most what its last page had."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from chalicelib.index.reader import Reader
from simulator.host import Host
from tests.oracle import engine
from tests.oracle.engine import PREFIX
from tests.oracle.world import World

CAPTAIN, CREW = "io.atcr.hold.captain", "io.atcr.hold.crew"


class Crowd:
    """Repos that enter and leave listings, by the service's own jobs and stream."""

    def __init__(self, world: World, rng: random.Random, count: int) -> None:
        self.world, self.rng = world, rng
        self.host: Host = world.net.hosts[0]
        self.dids = [world.add_account(self.host, *self._some_paths()) for _ in range(count)]
        world.request_crawl(self.host)
        world.subscribe()
        world.come_to_rest()

    def _some_paths(self) -> list[str]:
        return [f"{name}/a" for name in (CAPTAIN, CREW, "app.bsky.feed.post") if self.rng.random() < 0.7]

    def change(self) -> None:
        """One repo enters or leaves a listing."""
        did = self.rng.choice(self.dids)
        path = f"{self.rng.choice((CAPTAIN, CREW))}/a"
        if self.host.accounts[did].repo.get(path):
            self.host.delete(did, path)
        else:
            self.host.put(did, path, {"$type": path.partition("/")[0]})
        self.world.deliver()

    def listed(self, *collections: str) -> set[str]:
        return {row["key"].partition("#")[2] for row in engine.rows("listings") if row["collection"] in collections}


def reader() -> Reader:
    def query(**parameters: Any) -> Any:
        return engine.call("Query", parameters)

    def batch_get_item(**parameters: Any) -> Any:
        return engine.call("BatchGetItem", parameters)

    return Reader(SimpleNamespace(query=query, batch_get_item=batch_get_item), PREFIX)


@pytest.mark.parametrize("seed", range(6))
def test_pages_hold_everyone_who_was_there_throughout_and_nobody_twice(seed: int) -> None:
    rng = random.Random(seed)
    with World(seed) as world:
        crowd = Crowd(world, rng, 14)
        for _ in range(4):
            position: Any = {}
            throughout, dids = crowd.listed(CAPTAIN), list[str]()
            while position is not None:
                page = reader().page([CAPTAIN], limit=rng.randrange(1, 5), after=position)
                assert page.next is None or page.dids, "an empty page has no cursor"
                dids += page.dids
                position = page.next
                for _ in range(rng.randrange(3)):
                    crowd.change()
                    throughout &= crowd.listed(CAPTAIN)
            left_and_back = [did for did in dids if dids.count(did) > 1 and did in throughout]
            assert not left_and_back, "twice, though it was there all the time"
            assert throughout <= set(dids)


@pytest.mark.parametrize("seed", range(6))
def test_a_client_that_keeps_its_last_cursor_gets_all_that_is_new_and_little_again(seed: int) -> None:
    rng = random.Random(seed)
    limit = 4
    with World(seed) as world:
        crowd = Crowd(world, rng, 14)
        position: Any = {}
        known: set[str] = set()
        last_page: set[str] = set()
        returned: set[str] = set()
        for _ in range(5):
            before = crowd.listed(CAPTAIN)
            got: list[str] = []
            while True:
                page = reader().page([CAPTAIN], limit=limit, after=position)
                got += page.dids
                if page.next is None:
                    break
                position = page.next
            again = (set(got) & known) - last_page - returned
            assert not again, "given again, though neither new nor of the last page"
            assert before <= known | set(got), "new, and not given"
            known |= set(got)
            last_page = set(page.dids)
            returned = set()
            for _ in range(rng.randrange(6)):
                there = crowd.listed(CAPTAIN)
                crowd.change()
                returned |= crowd.listed(CAPTAIN) - there
