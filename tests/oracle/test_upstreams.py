"""Hosts that never announce themselves, through whatever happens to them, to a relay that follows them and to what follows it: in
the end the index is the truth, though a lying relay had its say."""

from __future__ import annotations

import random
from unittest import mock

import pytest

from chalicelib.crawl import directories
from simulator import frames
from tests.oracle.world import World

HISTORIES, STEPS = 8, 30
CAPTAIN, TAG, POST = "io.atcr.hold.captain/self", "io.atcr.tag/a", "app.bsky.feed.post/a"
SETTINGS = {"DIRECTORY_SECONDS": "60", "DIRECTORY_HOURS": "0.01"}


class History:
    """Steps by the numbers of one seed."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.rng = random.Random(seed)
        self.hosts = world.net.hosts
        self.relay = world.net.relays[0]
        for host in (self.hosts[0], self.hosts[0], self.hosts[1]):
            world.add_account(host, *self.rng.sample((CAPTAIN, TAG, POST), 2))

    def step(self) -> None:
        often = (self.write, self.live, self.account, self.status)
        rarely = (self.gap, self.lie, self.break_off, self.die, self.crawl)
        step = self.rng.choice((self.write, self.live) * 2 + often + rarely)
        step()

    def write(self) -> None:
        did = self.rng.choice(list(self.world.net.homes))
        host, path = self.world.net.homes[did], self.rng.choice((CAPTAIN, TAG, POST))
        if path in host.accounts[did].repo.records() and self.rng.random() < 0.4:
            host.delete(did, path)
        else:
            host.put(did, path, {"$type": path.partition("/")[0], "number": self.rng.randrange(10**6)})

    def live(self) -> None:
        world = self.world
        if not world.subscribers:
            world.subscribe()
        world.deliver()
        for _ in range(len(world.messages)):
            world.work()
        world.advance(self.rng.choice((1, 6, 40)))
        world.sweep()
        world.check()

    def account(self) -> None:
        self.world.add_account(self.rng.choice(self.hosts), self.rng.choice((TAG, POST)))

    def status(self) -> None:
        did = self.rng.choice(list(self.world.net.homes))
        self.world.net.homes[did].set_status(did, self.rng.choice((None, "deactivated", "takendown")))

    def gap(self) -> None:
        """The relay forgets what it has, and hears nothing of what happens next."""
        stream = self.relay.stream
        self.relay.edit = lambda body: None
        self.write()
        self.relay.edit = lambda body: body
        stream.rewind(stream.seq + 5, [], stream.seq + 5)
        stream.disconnect()

    def lie(self) -> None:
        did = self.rng.choice(list(self.world.net.homes))
        repo = self.world.net.homes[did].accounts[did].repo
        other = self.rng.choice([*self.world.net.homes, "did:plc:" + "a" * 24])
        self.relay.stream.emit(lambda seq, time: frames.commit_badly_signed(repo.head, seq, time))
        self.relay.stream.emit(lambda seq, time: frames.commit_with(repo=other)(repo.head, seq, time))
        self.relay.stream.emit(lambda seq, time: frames.account(other, seq, time, False, "deleted"))

    def break_off(self) -> None:
        self.rng.choice([self.relay, *self.hosts]).stream.disconnect()

    def die(self) -> None:
        if self.world.subscribers:
            self.world.kill_subscriber()

    def crawl(self) -> None:
        self.world.crawl(self.rng.choice(self.hosts))


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_what_upstreams_alone_have_shown_is_the_truth(seed: int) -> None:
    with (
        mock.patch.object(directories, "_DAY_MS", 50_000),
        World(seed, upstream=True, page=1, in_place=1, **SETTINGS) as world,
    ):
        history = History(world, seed)
        for _ in range(STEPS):
            history.step()
        if not world.subscribers:
            world.subscribe()
        for _ in range(3):  # passes through the directory
            world._rest()
            world.advance(100)
            world.sweep()
        world.come_to_rest()
        assert {row.kind for row in world.operator.tables.hosts.scan()} <= {"named", "relay"}
