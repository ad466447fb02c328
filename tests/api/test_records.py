"""Records from the index: those of one repo, those of everyone, and what changed since."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from chalicelib.api import cursor as cursors
from chalicelib.api import records
from chalicelib.atproto.syntax import Did
from chalicelib.index.state import IDENTITY, State
from simulator.cbor import cid_text
from tests.api.conftest import Answer, Api
from tests.conftest import Stack
from tests.index.world import CAPTAIN, HOST, World

TAG = "io.atcr.tag"
ALL = "io.atcr.discovery.listRecords"


@pytest.fixture
def worlds(api: Api, stack_env: Stack) -> Callable[[str], World]:
    return lambda letter: World(stack_env, Did(f"did:plc:{letter * 24}"), feeds={CAPTAIN})


@pytest.fixture
def world(worlds: Callable[[str], World]) -> World:
    return worlds("a")


def ask(api: Api, nsid: str, **parameters: Any) -> Answer:
    return api.get(f"/xrpc/{nsid}", [(name, str(value)) for name, value in parameters.items()])


def of_repo(api: Api, method: str, world: World, **parameters: Any) -> Answer:
    return ask(api, f"com.atproto.repo.{method}", repo=world.did, **parameters)


def crawled(world: World, *paths: str, number: int = 0) -> World:
    world.put(*paths, number=number)
    world.crawl()
    return world


def known(page: dict[str, Any]) -> dict[str, int]:
    return {record["uri"]: record["value"]["number"] for record in page["records"]}


# -- one repo


def test_a_record_is_found_by_its_key_and_its_cid(api: Api, world: World) -> None:
    crawled(world, f"{TAG}/latest", number=7)
    expected = {
        "uri": f"at://{world.did}/{TAG}/latest",
        "cid": cid_text(world.repo.records()[f"{TAG}/latest"].cid),
        "value": {"$type": TAG, "number": 7},
    }
    assert of_repo(api, "getRecord", world, collection=TAG, rkey="latest").json == expected
    assert of_repo(api, "getRecord", world, collection=TAG, rkey="latest", cid=expected["cid"]).json == expected
    for other in (
        {"rkey": "older"},
        {"rkey": "latest", "cid": cid_text(world.repo.records()[f"{TAG}/latest"].cid)[:-1]},
    ):
        assert of_repo(api, "getRecord", world, collection=TAG, **other).error == "RecordNotFound"


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"repo": "did:plc:zzzzzzzzzzzzzzzzzzzzzzzz", "collection": TAG}, "RepoNotFound"),
        ({"repo": "alice.example.com", "collection": TAG}, "InvalidRequest"),
        ({"collection": TAG}, "InvalidRequest"),
        ({"repo": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "collection": "app.bsky.feed.post"}, "CollectionNotIndexed"),
        ({"repo": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "collection": "io.atcr.tag/x"}, "InvalidRequest"),
        ({"repo": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"}, "InvalidRequest"),
        ({"repo": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "collection": TAG, "limit": 101}, "InvalidRequest"),
        ({"repo": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "collection": TAG, "reverse": "yes"}, "InvalidRequest"),
        ({"repo": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "collection": TAG, "cursor": "AAAA"}, "InvalidRequest"),
    ],
)
def test_what_is_asked_wrongly_is_said(api: Api, world: World, parameters: dict[str, Any], error: str) -> None:
    crawled(world, f"{TAG}/latest")
    assert ask(api, "com.atproto.repo.listRecords", **parameters).error == error


@pytest.mark.parametrize("reverse", ["false", "true"])
def test_the_records_of_a_repo_come_in_pages_in_both_directions(api: Api, world: World, reverse: str) -> None:
    keys = [f"{number:03d}" for number in range(25)]
    crawled(world, *(f"{TAG}/{key}" for key in keys), "io.atcr.tagged/x", f"{CAPTAIN}/self")
    found, more = list[str](), dict[str, Any]()
    sizes = []
    while True:
        page = of_repo(api, "listRecords", world, collection=TAG, limit=10, reverse=reverse, **more).json
        found += [record["uri"].rpartition("/")[2] for record in page["records"]]
        sizes.append(len(page["records"]))
        if "cursor" not in page:
            break
        more = {"cursor": page["cursor"]}
    assert sizes == [10, 10, 5]
    assert found == (keys[::-1] if reverse == "true" else keys)


def test_a_cursor_of_one_repo_is_none_of_another(api: Api, worlds: Callable[[str], World]) -> None:
    one, other = (crawled(worlds(letter), f"{TAG}/a", f"{TAG}/b") for letter in "ab")
    cursor = of_repo(api, "listRecords", one, collection=TAG, limit=1).json["cursor"]
    assert of_repo(api, "listRecords", other, collection=TAG, cursor=cursor).error == "InvalidRequest"


@pytest.mark.parametrize("method", ["getRecord", "listRecords", "describeRepo"])
def test_what_is_withheld_is_not_shown(api: Api, world: World, method: str) -> None:
    crawled(world, f"{TAG}/latest")
    asked = {"collection": TAG, "rkey": "latest"}
    assert of_repo(api, method, world, **asked).status == 200
    world.writer.take_down(world.did, "spam", at=1)
    assert of_repo(api, method, world, **asked).error == "RepoTakendown"


def test_a_repo_is_described_by_what_is_kept_of_it(api: Api, world: World) -> None:
    crawled(world, f"{TAG}/latest", f"{CAPTAIN}/self")
    bare = of_repo(api, "describeRepo", world).json
    service = {"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": f"https://{HOST}"}
    assert (bare["handle"], bare["handleIsCorrect"]) == ("handle.invalid", False)
    assert bare["collections"] == [CAPTAIN, TAG]
    assert (bare["didDoc"]["id"], bare["didDoc"]["service"]) == (world.did, [service])
    content = {"key": world.key.multibase, "pds": HOST, "handle": "alice.example.com"}
    State(world.tables).write(IDENTITY, world.did, content, number=1)
    described = of_repo(api, "describeRepo", world).json
    assert described["handle"] == "alice.example.com"
    assert described["didDoc"]["alsoKnownAs"] == ["at://alice.example.com"]
    assert described["didDoc"]["verificationMethod"][0]["publicKeyMultibase"] == world.key.multibase


# -- everyone


def test_one_request_has_everyones_records_with_their_values(api: Api, worlds: Callable[[str], World]) -> None:
    for number, letter in enumerate("abc"):
        crawled(worlds(letter), f"{CAPTAIN}/self", f"{TAG}/x", number=number)
    page = ask(api, ALL, collection=CAPTAIN).json
    assert [record["value"]["number"] for record in page["records"]] == [0, 1, 2]
    assert page["records"][1].keys() == {"uri", "cid", "value", "did", "rev", "indexedAt"}
    assert page.keys() == {"records", "since"}
    assert "since" not in ask(api, ALL, collection=TAG).json, "its changes are not kept"


def test_pages_of_any_size_show_each_record_once_in_order(api: Api, worlds: Callable[[str], World]) -> None:
    expected = []
    for letter, count in zip("abcdefghi", (1, 3, 0, 7, 1, 1, 2, 1, 1), strict=True):
        world = crawled(worlds(letter), *(f"{TAG}/{number}" for number in range(count)))
        expected += [f"at://{world.did}/{TAG}/{number}" for number in range(count)]
    for limit in (1, 2, 3, 7, 8, 9, 100):
        found, more = list[str](), dict[str, Any]()
        while True:
            page = ask(api, ALL, collection=TAG, limit=limit, **more).json
            assert len(page["records"]) <= limit
            found += [record["uri"] for record in page["records"]]
            if "cursor" not in page:
                break
            more = {"cursor": page["cursor"]}
        assert found == expected, f"pages of {limit}"


def test_a_page_ends_where_its_records_are_large(api: Api, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_BYTES", 60)
    crawled(world, *(f"{TAG}/{number}" for number in range(9)))
    sizes, more = [], dict[str, Any]()
    while True:
        page = ask(api, ALL, collection=TAG, **more).json
        sizes.append(len(page["records"]))
        if "cursor" not in page:
            break
        more = {"cursor": page["cursor"]}
    assert (sum(sizes), max(sizes)) == (9, 2)


def test_who_leaves_between_two_pages_takes_nobody_along(api: Api, worlds: Callable[[str], World]) -> None:
    first, second = (
        crawled(worlds("a"), f"{TAG}/1", f"{TAG}/2"),
        crawled(worlds("b"), f"{TAG}/0", f"{TAG}/1", f"{TAG}/2"),
    )
    page = ask(api, ALL, collection=TAG, limit=1).json
    first.writer.take_down(first.did, "spam", at=1)
    rest = ask(api, ALL, collection=TAG, cursor=page["cursor"]).json
    assert list(known(rest)) == [f"at://{second.did}/{TAG}/{number}" for number in range(3)]


# -- changes


def test_since_tells_what_changed_and_who_left(api: Api, worlds: Callable[[str], World]) -> None:
    one, two, three = (crawled(worlds(letter), f"{CAPTAIN}/self") for letter in "abc")
    since = ask(api, ALL, collection=CAPTAIN).json["since"]
    nothing = ask(api, ALL, collection=CAPTAIN, since=since).json
    assert (nothing["records"], nothing["repos"], nothing["more"]) == ([], [], False)
    crawled(two, f"{CAPTAIN}/self", number=5)
    three.delete(f"{CAPTAIN}/self")
    three.crawl()
    new = crawled(worlds("d"), f"{CAPTAIN}/self", number=9)
    page = ask(api, ALL, collection=CAPTAIN, since=nothing["since"]).json
    assert [repo["did"] for repo in page["repos"]] == [two.did, three.did, new.did]
    assert all(repo["complete"] for repo in page["repos"])
    assert known(page) == {f"at://{two.did}/{CAPTAIN}/self": 5, f"at://{new.did}/{CAPTAIN}/self": 9}
    assert ask(api, ALL, collection=CAPTAIN, since=page["since"]).json["repos"] == []
    assert one.did not in str(page)


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_changes_come_in_pages(api: Api, worlds: Callable[[str], World], limit: int) -> None:
    since = ask(api, ALL, collection=CAPTAIN).json["since"]
    for letter in "abcde":
        crawled(worlds(letter), f"{CAPTAIN}/self")
    found = list[str]()
    while True:
        page = ask(api, ALL, collection=CAPTAIN, since=since, limit=limit).json
        assert len(page["repos"]) <= limit
        found += [repo["did"][-1] for repo in page["repos"]]
        since = page["since"]
        if not page["more"]:
            break
    assert found == list("abcde")


def test_what_changes_while_the_pages_are_read_is_told_by_their_since(api: Api, worlds: Callable[[str], World]) -> None:
    one, two = (crawled(worlds(letter), f"{CAPTAIN}/self") for letter in "ab")
    first = ask(api, ALL, collection=CAPTAIN, limit=1).json
    crawled(one, f"{CAPTAIN}/self", number=3)
    last = ask(api, ALL, collection=CAPTAIN, limit=1, cursor=first["cursor"]).json
    assert "cursor" not in last
    told = ask(api, ALL, collection=CAPTAIN, since=last["since"]).json
    assert known(told) == {f"at://{one.did}/{CAPTAIN}/self": 3}
    assert two.did in str(last)


def test_a_repo_with_more_records_than_fit_says_so(api: Api, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    since = ask(api, ALL, collection=CAPTAIN).json["since"]
    crawled(world, *(f"{CAPTAIN}/{number}" for number in range(4)))
    monkeypatch.setattr(records, "MAX_RECORDS", 4)
    assert ask(api, ALL, collection=CAPTAIN, since=since, limit=4).json["repos"][0]["complete"]
    monkeypatch.setattr(records, "MAX_RECORDS", 3)
    page = ask(api, ALL, collection=CAPTAIN, since=since, limit=3).json
    assert (len(page["records"]), page["repos"]) == (3, [{"did": world.did, "complete": False}])


@pytest.mark.parametrize(("days", "error"), [(records.SINCE_DAYS - 1, None), (records.SINCE_DAYS + 1, "SinceTooOld")])
def test_a_since_grows_too_old(api: Api, days: int, error: str | None) -> None:
    since = cursors.encode(f"since {CAPTAIN}", [5, int(time.time()) - days * 86_400])
    answer = ask(api, ALL, collection=CAPTAIN, since=since)
    assert answer.status == 200 if error is None else answer.error == error


def test_a_since_of_another_kind_is_refused(api: Api, world: World) -> None:
    crawled(world, f"{CAPTAIN}/1", f"{CAPTAIN}/2", f"{TAG}/x")
    page = ask(api, ALL, collection=CAPTAIN, limit=1).json
    assert ask(api, ALL, collection=CAPTAIN, since=page["cursor"]).error == "InvalidRequest"
    assert ask(api, ALL, collection=CAPTAIN, cursor=page["since"]).error == "InvalidRequest"
    assert ask(api, ALL, collection=CAPTAIN, cursor=page["cursor"], since=page["since"]).error == "InvalidRequest"
    assert ask(api, ALL, collection=TAG, since=page["since"]).error == "ChangesNotKept"
    assert ask(api, ALL, collection="io.atcr.sailor.profile", cursor=page["cursor"]).error == "InvalidRequest"
    assert ask(api, ALL, collection="app.bsky.feed.post").error == "CollectionNotIndexed"
