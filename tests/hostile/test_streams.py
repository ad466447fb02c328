"""Hosts that mean harm in their streams. A subscriber follows such a host and a hold, whose next commit is applied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from simulator import frames, hostile
from simulator.cbor import Link, cid_of
from simulator.repo import Commit
from tests.hostile.conftest import SMALL, Beside, Cost
from tests.service import Following, eventually

Book = Callable[[str, str, Cost], None]
LIMIT = int(SMALL["MAX_FRAME_BYTES"])
RECORD = {"$type": "io.atcr.hold.layer"}


@dataclass(frozen=True)
class Case:
    """``say`` sends events. ``outcome``: what the subscriber makes of the last, or what stands on the host's row."""

    name: str
    say: Callable[[Beside, str], object]
    outcome: str
    requests: int = 0
    """At most, beyond those of the stream itself; and so for rows written."""
    writes: int = 6


def say(telling: frames.Telling) -> Callable[[Beside, str], object]:
    """A true commit, told otherwise."""
    return lambda beside, did: beside.call(
        beside.host.put, did, f"io.atcr.hold.layer/{telling.__name__}", RECORD, telling=telling
    )


def about_the_hold(frame: Callable[[Commit, int, str], bytes]) -> Callable[[Beside, str], object]:
    """An event about the hold's own repo, over the hostile host's stream."""
    return lambda beside, did: beside.call(
        beside.host.stream.emit, lambda seq, time: frame(beside.hold.accounts[beside.hold.did].repo.head, seq, time)
    )


def again(beside: Beside, did: str) -> object:
    """An old commit, as a new event."""
    commit = beside.call(beside.host.put, did, "io.atcr.hold.layer/old", RECORD)
    beside.call(beside.host.put, did, "io.atcr.hold.layer/new", RECORD)
    return beside.call(beside.host.stream.emit, lambda seq, time: frames.commit(commit, seq, time))


def of_size(size: int) -> Callable[[Beside, str], object]:
    def send(beside: Beside, did: str) -> None:
        stranger = "did:plc:" + "a" * 24
        beside.call(beside.host.stream.emit, lambda seq, time: hostile.frame_of(size, stranger, seq, time))

    return send


def at(path: str) -> Callable[[Beside, str], object]:
    """A record under a key that is none, signed and proven as it should be."""
    return lambda beside, did: beside.call(beside.host.put, did, path, RECORD)


def many_ops(beside: Beside, did: str) -> object:
    """One op more than a commit may have."""
    entries = [(f"io.atcr.hold.layer/n{number}", RECORD) for number in range(201)]
    return beside.call(beside.host.add, did, entries)


CASES = (
    Case("#commit of another host's repo", about_the_hold(frames.commit), "no-authority"),
    Case("#sync of another host's repo", about_the_hold(frames.sync), "no-authority"),
    Case("#account deleted of another host's repo",
         about_the_hold(lambda commit, seq, time: frames.account(commit.did, seq, time, False, "deleted")), "no-authority"),
    Case("#identity of another host's repo",
         about_the_hold(lambda commit, seq, time: frames.identity(commit.did, seq, time, "a.test\n#b")), "no-authority"),
    Case("an old commit, replayed", again, "duplicate", writes=20),
    Case("forged prevData", say(frames.commit_with(prevData=Link(cid_of(b"another tree")))), "desynchronized", 6, 20),
    Case("forged signature", say(frames.commit_badly_signed), "desynchronized:bad-signature", 6, 20),
    Case("a frame of exactly the limit", of_size(LIMIT), "unwanted"),
    Case("a frame of one byte more", of_size(LIMIT + 1), "too large", 3),
    Case("201 ops in a commit", many_ops, "desynchronized", 6, 420),
    Case("a record whose key has a line break", at("io.atcr.hold.layer/a\nb"), "desynchronized", 6, 20),
    Case("a record whose key has a number sign", at("io.atcr.hold.layer/a#b"), "desynchronized", 6, 20),
    Case("a record whose key has a second slash", at("io.atcr.hold.layer/a/b"), "desynchronized", 6, 20),
)  # fmt: skip


@pytest.fixture
def did(beside: Beside) -> str:
    """An account of the hostile host that is indexed."""
    account = beside.call(beside.net.add_account, beside.host)
    beside.call(beside.host.add, account.did, beside.host.author(account.did).hold(crew=1, layers=1))
    beside.crawl()
    assert account.did in beside.listed()
    return str(account.did)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_stream_has_no_effect_on_others_and_the_hold_beside_it_is_heard(
    case: Case, beside: Beside, did: str, book: Book
) -> None:
    following = beside.follow()
    try:
        eventually(lambda: following.supervisor._pipeline.concerns(did, b""))
        eventually(lambda: following.supervisor._pipeline.concerns(beside.hold.did, b""))
        beside.work()  # each stream's beginning has its host crawled
        before, hold = beside.cost, beside.repo(beside.hold.did).version
        case.say(beside, did)
        eventually(lambda: is_told(beside, following, case.outcome), lambda: following.supervisor._pipeline.counts)
        beside.work()
        after = beside.cost
        assert beside.repo(beside.hold.did).version == hold
        beside.hear_the_hold()
        assert beside.listed() == {did, beside.hold.did}
    finally:
        following.stop()
    cost = Cost(after.requests - before.requests, sent(beside), after.writes - before.writes)
    assert cost.requests <= case.requests
    assert cost.writes <= case.writes
    book(f"stream: {case.name}", case.outcome, cost)


def is_told(beside: Beside, following: Following, outcome: str) -> bool:
    counts = following.supervisor._pipeline.counts
    return any(kind.startswith(outcome) for kind in counts) or outcome in (beside.row().stream_error or "")


def sent(beside: Beside) -> int:
    """Bytes of the last event."""
    return len(beside.host.stream.backlog[-1].frame)
