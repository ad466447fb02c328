"""Hosts that mean harm while they are crawled. What is refused, what it cost, and that a hold beside was listed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from simulator import forgeries, hostile
from simulator.faults import Fault, endless_repos, huge_repos, rate_limited, same_cursor_forever
from simulator.keys import SigningKey
from tests.hostile.conftest import Beside, Cost

LIST = "com.atproto.sync.listRepos"
REPO = "com.atproto.sync.getRepo"
DESCRIBE = "com.atproto.server.describeServer"
BEEN = "a page that was read"
LARGE = "larger|more than|times"
Book = Callable[[str, str, Cost], None]


@dataclass(frozen=True)
class Case:
    """``arrange`` makes the host hostile; ``refused`` is a pattern of the reason, on its row or on that of its repo."""

    name: str
    arrange: Callable[[Beside], object]
    refused: str
    requests: int
    """At most; and so for the others."""
    bytes: int
    """Of a large answer, what the sockets of both sides hold is among them: it was sent, and not read."""
    writes: int = 12
    settings: dict[str, str] = field(default_factory=dict)


def victim(beside: Beside) -> str:
    """An account of the hostile host whose repo would be listed."""
    account = beside.call(beside.net.add_account, beside.host)
    beside.call(beside.host.add, account.did, beside.host.author(account.did).hold(crew=1, layers=1))
    return str(account.did)


def fail(endpoint: str, *arguments: object, **kind: object) -> Callable[[Beside], Fault]:
    return lambda beside: beside.call(beside.host.fail, endpoint, *arguments, **kind)


def car(make: Callable[..., object], **kind: object) -> Callable[[Beside], object]:
    """The repo of an account comes as another CAR."""

    def arrange(beside: Beside) -> object:
        did = victim(beside)
        return beside.call(beside.host.fail, REPO, make(beside.host.accounts[did].repo), **kind)

    return arrange


def stalled(beside: Beside) -> object:
    victim(beside)
    return beside.call(beside.host.fail, REPO, stall_after=100)


def forged(forgery: forgeries.Forgery) -> Callable[[Beside], None]:
    def arrange(beside: Beside) -> None:
        did = victim(beside)
        beside.call(beside.host.forgeries.update, {did: forgery})

    return arrange


def huge_document(beside: Beside) -> None:
    did = victim(beside)
    beside.net.identities.documents[did]["padding"] = "x" * 50_000_000


def other_peoples(beside: Beside) -> None:
    """It serves the hold's own repo, signed as it should be, and says that it is at home here."""
    beside.call(beside.host.accounts.update, beside.hold.accounts)


def other_key(beside: Beside) -> None:
    did = victim(beside)
    beside.net.identities.update(did, key=SigningKey.generate(beside.net.rng, "k256"))


CASES = (
    Case("listRepos: a million repos, page by page", fail(LIST, endless_repos(50)), r"more than 200 repos", 300, 100_000,
         settings={"JOB_SECONDS": "60"}),
    Case("listRepos: always another cursor, and nothing on the page", fail(LIST, hostile.empty_pages()),
         r"more than 20 pages", 25, 5_000, writes=40),
    Case("listRepos: the same cursor", fail(LIST, same_cursor_forever), BEEN, 10, 5_000),
    Case("listRepos: cursors that go round through two pages", fail(LIST, hostile.round_trip(2)), BEEN, 10, 5_000),
    Case("listRepos: cursors that go round through seven pages", fail(LIST, hostile.round_trip(7)), BEEN, 15, 5_000, 20),
    Case("listRepos: 30,000 repos on one page", fail(LIST, huge_repos(30_000)), LARGE, 5, 16_000_000),
    Case("listRepos: a bomb in gzip", fail(LIST, hostile.bomb()), LARGE, 5, 1_500_000),
    Case("listRepos: JSON without an end", fail(LIST, hostile.huge_json(repos=[])), LARGE, 5, 16_000_000),
    Case("listRepos: 429 for ever", fail(LIST, rate_limited(3600)), "429", 4, 5_000),
    Case("describeServer: JSON without an end", fail(DESCRIBE, hostile.huge_json(did="did:web:x.test")), LARGE, 4, 8_000_000),
    Case("describeServer: a bomb in gzip", fail(DESCRIBE, hostile.bomb()), LARGE, 4, 1_500_000),
    Case("getRepo: 2 GB", car(hostile.huge_car), LARGE, 8, 16_000_000),
    Case("getRepo: 64 MB of tiny blocks", car(hostile.tiny_blocks), LARGE, 8, 16_000_000),
    Case("getRepo: a bomb in gzip", car(lambda repo: hostile.bomb()), "CAR|header|larger|more than|times", 8, 1_500_000),
    Case("getRepo: it stops in the middle, and stays open", stalled, "too long|in time|does not answer", 8, 5_000),
    Case("getRepo: forged signature", forged(forgeries.bad_signature), "bad-signature", 8, 50_000),
    Case("getRepo: the tree's root is in no block", forged(forgeries.missing_root), "missing", 8, 50_000),
    Case("getRepo: another DID's commit", forged(forgeries.commit_with(did="did:web:other.example.com")), "did", 8, 50_000),
    Case("DID document: 50 MB", huge_document, LARGE, 8, 50_000),
    Case("DID document: another key", other_key, "bad-signature", 8, 50_000),
    Case("a repo whose document names another host", other_peoples, "", 8, 50_000),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_host_is_refused_at_a_bounded_cost_and_the_hold_beside_it_is_listed(
    case: Case, beside: Beside, book: Book
) -> None:
    beside.make(**case.settings)
    case.arrange(beside)
    beside.crawl()
    reasons = [str(beside.row().last_error)]
    reasons += [str(row.last_error) for row in beside.context.tables.repos.scan() if row.did != beside.hold.did]
    refused = next((reason for reason in reasons if reason != "None" and re.search(case.refused, reason)), None)
    cost = beside.cost
    beside.call(beside.host.heal)
    assert refused or not case.refused, reasons
    assert beside.listed() == {beside.hold.did}
    assert cost.requests <= case.requests
    assert cost.bytes <= case.bytes
    assert cost.writes <= case.writes
    book(case.name, _short(refused or "nothing of it is taken"), cost)


def _short(reason: str) -> str:
    return re.sub(r"localhost:\d+", "the host", re.sub(r"did:plc:\w+", "the DID", reason)).replace("|", "/")
