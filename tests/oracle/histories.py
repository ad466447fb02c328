"""Random histories: what happens in the neighbourhood, on the way, and to the service, in any order."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture.engine import ConjectureRunner
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from simulator import frames
from simulator.faults import rate_limited, status, truncate
from simulator.host import HOLD, OLD_PDS, PDS, Backup, Host, Shape
from tests.oracle.faults import KINDS, Fault
from tests.oracle.places import places
from tests.oracle.truth import is_wanted
from tests.oracle.world import World

COLLECTIONS = ("io.atcr.hold.captain", "io.atcr.hold.crew", "io.atcr.tag")
PATHS = (
    "io.atcr.hold.captain/self",
    "io.atcr.hold.crew/a",
    "io.atcr.hold.crew/b",
    "io.atcr.hold.crew/c",
    "io.atcr.tag/a",
    "io.atcr.tag/b",
    "app.bsky.feed.post/a",
    "io.atcrx/a",
)
STATUSES = ("deactivated", "suspended", "takendown", "throttled", "desynchronized")
TELLINGS = {
    "as usual": None,
    "legacy": frames.legacy_commit,
    "too big": frames.too_big_commit,
    "commit last": frames.commit_block_last,
    "badly signed": frames.commit_badly_signed,
}
SHAPES: tuple[Shape, ...] = (PDS, PDS, OLD_PDS, HOLD, Shape(inclusive_cursor=True))

TURNS = {"TURN_SECONDS": "1", "JOBS_PER_DOMAIN": "1"}
"""All hosts are of one domain."""
PACES: dict[str, dict[str, Any]] = {
    "quick": {},
    "slow": {"slow": 0.3, "changes": 1, "JOB_SECONDS": "3", "JOB_LEASE_SECONDS": "3", **TURNS},
    "forgetful": {"AUDIT_HOURS": "0.02", "CONFIRM_HOURS": "0.01", "IDENTITY_TTL_HOURS": "0.02"},
}
"""How the service works: as usual; so slowly that a job often hands over to another; or with everything done again soon."""

accounts = st.integers(0, 3)
some_paths = st.lists(st.sampled_from(PATHS), min_size=1, max_size=4, unique=True)
faults = st.builds(
    Fault,
    st.sampled_from(KINDS),
    st.sampled_from((*[""] * 12, *sorted(places()))),
    st.sampled_from([0, 0, 0, 1, 2, 5]),
)
tellings = st.sampled_from(["as usual"] * 5 + list(TELLINGS))

met: Counter[str] = Counter()
"""Writes of all histories of this process, by place."""
struck: Counter[tuple[str, str]] = Counter()
"""What happened at them, by place and kind."""
steps: Counter[str] = Counter()


def tell(number: int, count: int, steps: int, *, shrink: bool = True) -> None:
    """So many histories of up to so many steps each, by the seed ``number``."""
    options = settings(
        max_examples=count,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        print_blob=True,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
    )
    # By itself Hypothesis tells three of four histories a second time, with one step more like another.
    logging.disable(logging.CRITICAL)
    try:
        with mock.patch.object(ConjectureRunner, "generate_mutations_from", return_value=None):
            run_state_machine_as_test(seed(number)(Histories), settings=options)
    finally:
        logging.disable(logging.NOTSET)


class Histories(RuleBasedStateMachine):
    """One history; it comes to rest at the end, and is compared with the truth."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World
        self.backups: dict[Host, Backup] = {}
        self.number = 0

    @initialize(
        seed=st.integers(0, 2**16),
        shapes=st.tuples(st.sampled_from(SHAPES), st.sampled_from(SHAPES)),
        in_place=st.sampled_from([20, 20, 1]),
        page=st.sampled_from([500, 1]),
        records=st.lists(st.lists(st.sampled_from(PATHS), max_size=8, unique=True), min_size=4, max_size=4),
        quiet=st.booleans(),
        strict=st.sampled_from(["false", "false", "false", "true"]),
        pace=st.sampled_from(["quick", *PACES]),
        in_vain=st.sampled_from([None, None, None, None, 8, 60]),
        faults=st.lists(faults, min_size=1, max_size=6),
    )
    def begin(
        self,
        seed: int,
        shapes: Any,
        in_place: int,
        page: int,
        records: list[list[str]],
        quiet: bool,
        strict: str,
        pace: str,
        in_vain: int | None,
        faults: list[Fault],
    ) -> None:
        """``quiet``: all is well before anything happens. ``in_vain``: the hosts announced themselves so long ago, and could
        not be reached."""
        self.world = World(
            seed, shapes=shapes, in_place=in_place, page=page, **{"STRICT_PREV_DATA": strict, **PACES[pace]}
        )
        self.world.__enter__()
        hosts = self.world.net.hosts
        for number, paths in enumerate(records):
            curve = "p256" if number == 1 else "k256"
            self.world.add_account(hosts[0 if number < 3 else 1], *sorted(paths), curve=curve)  # type: ignore[arg-type]
        if in_vain:
            self.world.down.update(hosts)
            for host in hosts:
                self.world.request_crawl(host)
            self.world.advance(in_vain)
            if in_vain < 10:
                self.world.down.clear()
            self.world.sweep()
            while self.world.work():
                pass
        if quiet:
            self.world.down.clear()
            for host in hosts:
                self.world.request_crawl(host)
            self.world.subscribe()
            self.world.come_to_rest()
        self.arm(faults)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.come_to_rest()
        finally:
            met.update(self.world.gate.writes)
            struck.update(self.world.gate.struck)
            self.world.__exit__()

    # -- parts

    @property
    def hosts(self) -> list[Host]:
        return self.world.net.hosts

    def did(self, number: int) -> str:
        return list(self.world.net.homes)[number]

    def home(self, number: int) -> Host | None:
        """The host of an account that has not been deleted."""
        did = self.did(number)
        host = self.world.net.homes[did]
        return host if did in host.accounts else None

    def step(self, name: str) -> None:
        steps[name] += 1
        self.world.note_revs()

    # -- what happens to repos

    @rule(number=accounts, paths=some_paths, telling=tellings)
    def put(self, number: int, paths: list[str], telling: str) -> None:
        if host := self.home(number):
            self.number += 1
            entries = [(path, {"$type": path.partition("/")[0], "number": self.number}) for path in paths]
            host.add(self.did(number), entries, telling=TELLINGS[telling])
            self.step(f"put {telling}")

    @rule(number=accounts, paths=some_paths, telling=tellings)
    def delete(self, number: int, paths: list[str], telling: str) -> None:
        if host := self.home(number):
            there = [path for path in paths if host.accounts[self.did(number)].repo.get(path)]
            if there:
                host.delete(self.did(number), *there, telling=TELLINGS[telling])
                self.step("delete")

    @rule(number=accounts, collection=st.sampled_from(COLLECTIONS))
    def delete_collection(self, number: int, collection: str) -> None:
        if (host := self.home(number)) and any(host.accounts[self.did(number)].repo.paths(collection)):
            host.delete_collection(self.did(number), collection)
            self.step("delete collection")

    @rule(number=accounts)
    def commit_nothing(self, number: int) -> None:
        if host := self.home(number):
            host.write(self.did(number), [])
            self.step("commit nothing")

    @rule(number=accounts, path=st.sampled_from(PATHS))
    def put_silently(self, number: int, path: str) -> None:
        """Nobody tells of it. In a repo without wanted records nobody would ever look, while the stream is unbroken."""
        if (host := self.home(number)) and any(map(is_wanted, host.accounts[self.did(number)].repo.paths())):
            self.number += 1
            repo = host.accounts[self.did(number)].repo
            write = repo.put(path, {"$type": path.partition("/")[0], "number": self.number})
            host.write(self.did(number), [write], silent=True)
            self.world.unseen.add(host)
            self.step("put silently")

    @rule(number=accounts, curve=st.sampled_from(["k256", "p256"]), announce=st.booleans())
    def rotate_key(self, number: int, curve: Any, announce: bool) -> None:
        if host := self.home(number):
            host.rotate_key(self.did(number), curve, announce=announce)
            self.step("rotate key")

    @rule(number=accounts, kind=st.sampled_from(["sync", "identity", "account"]))
    def emit(self, number: int, kind: str) -> None:
        if host := self.home(number):
            getattr(host, f"emit_{kind}")(self.did(number))
            self.step(f"emit {kind}")

    # -- what happens to accounts

    @rule(
        number=accounts, status=st.sampled_from([None, None, *STATUSES]), announce=st.sampled_from([True] * 4 + [False])
    )
    def set_status(self, number: int, status: Any, announce: bool) -> None:
        if host := self.home(number):
            host.set_status(self.did(number), status, announce=announce)
            if not announce:
                self.world.unseen.add(host)
            self.step(f"status {status}")

    @rule(number=accounts, tombstone=st.booleans())
    def delete_account(self, number: int, tombstone: bool) -> None:
        """Not of an account that moved here while its old host goes on as if it were its own: there the event alone tells, and
        it is lost where a subscriber dies before the stream has its first cursor. The weekly audit finds it."""
        host, did = self.home(number), self.did(number)
        if host and not any(
            did in each.accounts and each.accounts[did].public for each in self.hosts if each is not host
        ):
            if tombstone and any(self.did(number) in {a.did for a in b.accounts} for b in self.backups.values()):
                tombstone = False  # it may come back
            host.delete_account(self.did(number), tombstone=tombstone)
            self.step("delete account")

    @rule(
        number=accounts,
        farewell=st.sampled_from(["deactivated", "deleted", None]),
        curve=st.sampled_from([None, "p256"]),
    )
    def migrate(self, number: int, farewell: Any, curve: Any) -> None:
        if host := self.home(number):
            to = next(other for other in self.hosts if other is not host)
            self.world.net.migrate(self.did(number), to, farewell=farewell, curve=curve)
            self.backups.pop(to, None)  # the account would be nowhere after a restore
            self.step(f"migrate {farewell}")

    # -- what happens to hosts

    @rule(which=st.integers(0, 1))
    def back_up(self, which: int) -> None:
        self.backups[self.hosts[which]] = self.hosts[which].backup()
        self.step("back up")

    @rule(which=st.integers(0, 1))
    def restore(self, which: int) -> None:
        host = self.hosts[which]
        if host in self.backups:
            self.step("restore")
            self.world.restore(host, self.backups[host])

    @rule(which=st.integers(0, 1), keep=st.integers(0, 2))
    def restart_without_backlog(self, which: int, keep: int) -> None:
        self.hosts[which].stream.disconnect()
        self.hosts[which].stream.trim(keep)
        self.step("restart")

    @rule(which=st.integers(0, 1), how=st.sampled_from(["disconnect", "close", "fail", "repeat"]))
    def disturb_stream(self, which: int, how: str) -> None:
        getattr(self.hosts[which].stream, how)()
        self.world.turn()
        self.step(how)

    @rule(which=st.integers(0, 1))
    def go_down(self, which: int) -> None:
        self.world.down.add(self.hosts[which])
        self.hosts[which].stream.disconnect()
        self.step("go down")

    @rule()
    def come_back(self) -> None:
        self.world.down.clear()

    @rule(
        which=st.integers(-1, 1),
        endpoint=st.sampled_from(
            ["*", "com.atproto.sync.getRepo", "com.atproto.sync.listRepos", "com.atproto.sync.getRepoStatus"]
        ),
        how=st.sampled_from(["500", "429", "cut", "half"]),
    )
    def fail(self, which: int, endpoint: str, how: str) -> None:
        server = self.world.net.plc if which < 0 else self.hosts[which]
        match how:
            case "500":
                server.fail(endpoint, status(500), times=1)
            case "429":
                server.fail(endpoint, rate_limited(7), times=1)
            case "cut":
                server.fail(endpoint, cut_after=0, times=1)
            case "half":
                server.fail(endpoint, edit=truncate(-20), times=1)
        self.step(f"fail {how}")

    # -- what happens on the way

    @rule(which=st.integers(0, 1), count=st.one_of(st.none(), st.integers(1, 4)))
    def deliver(self, which: int, count: int | None) -> None:
        self.world.deliver(self.hosts[which], count)

    @rule(number=st.integers(0, 5), keep=st.booleans())
    def work(self, number: int, keep: bool) -> None:
        self.world.work(number, keep=keep)

    @rule(number=st.integers(0, 5))
    def lose_message(self, number: int) -> None:
        if self.world.messages:
            self.world.messages.pop(number % len(self.world.messages))

    @rule()
    def sweep(self) -> None:
        self.world.sweep()

    @rule(which=st.integers(0, 1))
    def announce(self, which: int) -> None:
        self.world.request_crawl(self.hosts[which])

    @rule(which=st.integers(0, 1))
    def crawl_host(self, which: int) -> None:
        self.world.crawl(self.hosts[which])

    @rule(seconds=st.sampled_from([1, 6, 6, 16, 35, 70, 150]))
    def wait(self, seconds: int) -> None:
        self.world.advance(seconds)

    # -- what happens to the service

    @rule()
    @precondition(lambda self: len(self.world.subscribers) < 2)
    def start_subscriber(self) -> None:
        self.world.subscribe()

    @rule(gently=st.booleans())
    def end_subscriber(self, gently: bool) -> None:
        if self.world.subscribers and not self.world.subscribers[0].is_frozen:
            if gently and not self.world.gate.armed and not self.world.parked:
                self.world.stop_subscriber()
            else:
                self.world.kill_subscriber()
            self.step("end subscriber")

    @rule()
    def freeze_subscriber(self) -> None:
        if self.world.subscribers:
            self.world.subscribers[0].is_frozen ^= True
            self.world.turn()
            self.step("freeze or thaw")

    @rule(faults=st.lists(faults, min_size=1, max_size=4))
    def arm(self, faults: list[Fault]) -> None:
        self.world.gate.armed += [replace(fault) for fault in faults]

    @rule(rounds=st.integers(1, 3))
    def live(self, rounds: int) -> None:
        """Things take their course for a while."""
        for _ in range(rounds):
            self.world.deliver()
            for _ in range(len(self.world.messages)):
                self.world.work()
            self.world.advance(6)
            self.world.sweep()
        self.step("live")

    @rule()
    def resume(self) -> None:
        if self.world.parked:
            self.world.resume(self.world.parked[0])

    @rule()
    def check(self) -> None:
        self.world.check()

    @rule()
    def come_to_rest(self) -> None:
        """What is still to go wrong gets a chance to do so; then nothing does any more."""
        for _ in range(3):
            if self.world.gate.armed:
                if not self.world.subscribers:
                    self.world.subscribe()
                self.live(1)
        self.world.gate.armed.clear()
        self.world.down.clear()
        for host in self.hosts:
            host.heal()
            self.world.request_crawl(host)
        self.world.come_to_rest()
