"""Names that would be read as other names, wherever a stranger can put one: none gets into a key, a row or a log as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from chalicelib.atproto.syntax import parse_origin
from chalicelib.crawl.host_job import crawl_host
from simulator import hostile
from simulator.faults import Reply
from simulator.hostile import SEPARATORS
from tests.hostile.conftest import Beside, Cost
from tests.oracle import engine

LIST = "com.atproto.sync.listRepos"
REPO = "com.atproto.sync.getRepo"
UNPRINTABLE = [separator for separator in SEPARATORS if not separator.isprintable()]
Book = Callable[[str, str, Cost], None]


def texts() -> Iterator[str]:
    """Every text in the tables."""
    for table in ("hosts", "repos", "records", "listings", "state"):
        for row in engine.rows(table):
            yield from (value for value in row.values() if isinstance(value, str))


def account_of(beside: Beside) -> str:
    account = beside.call(beside.net.add_account, beside.host)
    beside.call(beside.host.add, account.did, beside.host.author(account.did).hold(crew=1, layers=1))
    return str(account.did)


def test_hostnames_with_separators_and_control_characters_are_refused_unasked(beside: Beside, book: Book) -> None:
    for separator in SEPARATORS:
        for name in (f"a{separator}b.atcr.io", f"hold.atcr.io{separator}x", f"{separator}hold.atcr.io"):
            if name not in ("hold.atcr.io/x", "hold.atcr.io "):
                assert beside.announce(name) != "accepted", repr(name)
    cost = beside.cost
    beside.served()
    assert (cost.requests, cost.writes) == (0, 0)
    assert len(engine.rows("hosts")) == 1
    book(f"hostnames with {len(SEPARATORS)} separators and control characters", "InvalidRequest", cost)


def test_listed_dids_with_separators_and_control_characters_are_passed_over(beside: Beside, book: Book) -> None:
    dids = [f"did:{method}:aaaaaaaa{separator}bbbb" for separator in SEPARATORS for method in ("plc", "web")]
    beside.call(beside.host.fail, LIST, hostile.named(*dids, "did:web:a.b%23c", "did:plc:A", "did:x:y"))
    beside.crawl()
    cost = beside.cost
    # A percent sign may stand in a DID. It is never decoded: such a DID is nobody's.
    assert {row["did"] for row in engine.rows("repos") if "aaaaaaaa" in row["did"]} <= {
        did for did in dids if "%00" in did
    }
    assert beside.listed() == {beside.hold.did}
    assert cost.requests <= 8
    book("listRepos: DIDs with separators and control characters", "passed over", cost)


def test_a_cursor_that_is_not_printable_ends_the_walk_and_another_is_sent_back_as_it_is(
    beside: Beside, book: Book
) -> None:
    beside.crawl()
    origin = parse_origin(beside.host.hostname, allow_private=True)
    before = beside.cost
    for separator in SEPARATORS:
        asked: list[str | None] = []

        def answer(query: hostile.Query, cursor: str = f"a{separator}b", asked: list[str | None] = asked) -> Reply:
            asked.append(query.get("cursor"))
            return Reply.of({"repos": [], "cursor": cursor} if len(asked) == 1 else {"repos": []})

        beside.call(beside.host.heal)
        beside.call(beside.host.fail, LIST, answer)
        crawl_host(beside.context, origin)
        beside.messages.clear()
        if separator in UNPRINTABLE:
            assert "not printable" in beside.row().last_error
        else:
            assert asked[1] == f"a{separator}b"
    after = beside.cost
    assert not any(separator in text for separator in UNPRINTABLE for text in texts())
    cost = Cost(after.requests - before.requests, after.bytes - before.bytes, after.writes - before.writes)
    book(
        f"listRepos: cursors with {len(SEPARATORS)} separators and control characters",
        "BadResponse: not printable",
        cost,
    )


@pytest.mark.parametrize("field", ["error", "message"])
def test_what_a_host_says_of_an_error_is_kept_without_control_characters(beside: Beside, field: str) -> None:
    did = account_of(beside)
    said = {"error": "Strange", "message": "strange"} | {field: "".join(SEPARATORS) + "x" * 100_000}
    beside.call(beside.host.fail, REPO, Reply.of({**said, "message": said["message"][:50_000]}, 500))
    beside.crawl()
    assert beside.repo(did).last_error
    assert all(text.isprintable() for text in texts())
    assert max(map(len, texts())) < 2_000
    assert beside.listed() == {beside.hold.did}


def test_a_handle_with_separators_or_control_characters_is_none(beside: Beside) -> None:
    dids = []
    for separator in SEPARATORS:
        dids.append(account_of(beside))
        beside.net.identities.documents[dids[-1]]["alsoKnownAs"] = [f"at://a{separator}b.test"]
    beside.crawl()
    assert beside.listed() == {*dids, beside.hold.did}
    assert {beside.context.identities.get(did).handle for did in dids} == {None}  # type: ignore[arg-type]


def test_records_under_keys_that_are_none_are_left_out_and_the_others_are_kept(beside: Beside, book: Book) -> None:
    did = account_of(beside)
    good = {path for path in beside.host.accounts[did].repo.paths() if path.startswith("io.atcr.")}
    keys = [f"a{separator}b" for separator in SEPARATORS if separator != "\ud800"] + ["", ".", "..", "x" * 513]
    for key in keys:
        beside.call(beside.host.put, did, f"io.atcr.hold.layer/{key}", {"$type": "io.atcr.hold.layer"})
    beside.crawl()
    cost = beside.cost
    assert beside.listed() == {did, beside.hold.did}
    assert {row["path"] for row in engine.rows("records") if row["did"] == did} == good
    assert cost.requests <= 5
    book(f"getRepo: {len(keys)} records under keys that are none", "left out, the others are kept", cost)
