"""com.atproto.sync.listReposByCollection: parameters, cursors, pages."""

from __future__ import annotations

import base64
import hashlib
import struct
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chalicelib import process
from chalicelib import settings as service_settings
from chalicelib.api import listing, xrpc
from chalicelib.api.xrpc import XrpcFailure
from chalicelib.index import reader
from chalicelib.index.tables import Tables
from tests.api.conftest import Answer, Api

CAPTAIN, CREW = "io.atcr.hold.captain", "io.atcr.hold.crew"
SAME_TABLES = [HealthCheck.function_scoped_fixture]
_numbers = count()

Listed = dict[str, dict[str, int]]
"""first_seen by DID and collection."""


def enter(tables: Tables, listed: Listed) -> None:
    """Put DIDs into listings, as the writer leaves them."""
    with tables.repos.batch_write() as repos, tables.listings.batch_write() as listings:
        for did, places in listed.items():
            keys = {name: f"{first_seen:016d}" for name, first_seen in places.items()}
            repos.save(tables.repos(did, sync="synced", collections=dict.fromkeys(places, 1), listed=keys))
            for name, key in keys.items():
                listings.save(tables.listings(name, f"{key}#{did}"))


def dids(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.text
    return [repo["did"] for repo in answer.json["repos"]]


def pages(api: Api, collections: list[str], limits: list[int]) -> list[list[str]]:
    """All pages; ``limits`` in turn."""
    found: list[list[str]] = []
    more: dict[str, Any] = {}
    while True:
        answer = api.list(*collections, limit=limits[len(found) % len(limits)], **more)
        found.append(dids(answer))
        if "cursor" not in answer.json:
            return found
        more = {"cursor": answer.json["cursor"]}


def ten(tables: Tables) -> list[str]:
    """Ten DIDs in the captain's listing."""
    names = [f"did:plc:{number:024d}" for number in range(10)]
    enter(tables, {did: {CAPTAIN: 1_700_000_000_000_000 + number} for number, did in enumerate(names)})
    return names


# -- answers


def test_an_empty_listing_is_an_empty_list(api: Api) -> None:
    assert api.list(CAPTAIN).text == '{"repos":[]}'


def test_dids_are_in_the_order_of_their_first_listing(api: Api, tables: Tables) -> None:
    enter(tables, {"did:plc:c": {CAPTAIN: 1}, "did:plc:a": {CAPTAIN: 2}, "did:web:b.example": {CAPTAIN: 3}})
    answer = api.list(CAPTAIN)
    assert answer.text == '{"repos":[{"did":"did:plc:c"},{"did":"did:plc:a"},{"did":"did:web:b.example"}]}'
    assert answer.headers["Content-Type"] == "application/json"


def test_a_did_is_answered_as_its_host_spells_it(api: Api, tables: Tables) -> None:
    tables.listings(CAPTAIN, f"{1:016d}#did:web:localhost%3A8080", did="did:web:localhost:8080").save()
    assert dids(api.list(CAPTAIN)) == ["did:web:localhost:8080"]


@pytest.mark.parametrize("limit", [1, 3, 5, 9, 10, 11])
def test_pages_follow_each_other_and_the_last_has_no_cursor(api: Api, tables: Tables, limit: int) -> None:
    names = ten(tables)
    assert pages(api, [CAPTAIN], [limit]) == [names[start : start + limit] for start in range(0, 10, limit)]


def test_a_kept_cursor_shows_what_came_later(api: Api, tables: Tables) -> None:
    names = ten(tables)
    kept = api.list(CAPTAIN, limit=8).json["cursor"]
    enter(tables, {"did:plc:new": {CAPTAIN: 1_800_000_000_000_000}})
    assert dids(api.list(CAPTAIN, cursor=kept)) == [*names[8:], "did:plc:new"]


def test_a_cursor_outlives_the_did_that_it_stands_at(api: Api, tables: Tables) -> None:
    names = ten(tables)
    kept = api.list(CAPTAIN, limit=5).json["cursor"]
    tables.listings(CAPTAIN, f"{1_700_000_000_000_004:016d}#{names[4]}").delete()
    assert dids(api.list(CAPTAIN, cursor=kept)) == names[5:]


def test_a_page_of_one_collection_is_one_call_to_the_tables(api: Api, tables: Tables) -> None:
    ten(tables)
    calls: list[str] = []
    client = process.reader()._client
    client.meta.events.register("before-call.dynamodb", lambda model, **_: calls.append(model.name))
    api.list(CAPTAIN, limit=5)
    assert calls == ["Query"]


def test_500_are_answered_by_default(api: Api, tables: Tables) -> None:
    enter(tables, {f"did:plc:{number:024d}": {CAPTAIN: number + 1} for number in range(501)})
    answer = api.list(CAPTAIN)
    assert len(dids(answer)) == 500
    assert dids(api.list(CAPTAIN, cursor=answer.json["cursor"])) == [f"did:plc:{500:024d}"]


# -- the union of several collections


def test_a_did_stands_once_where_it_was_listed_first(api: Api, tables: Tables) -> None:
    enter(tables, {"did:plc:x": {CAPTAIN: 1}, "did:plc:y": {CAPTAIN: 4, CREW: 2}, "did:plc:z": {CAPTAIN: 9}})
    enter(tables, {"did:plc:w": {CREW: 5}})
    assert dids(api.list(CAPTAIN, CREW)) == ["did:plc:x", "did:plc:y", "did:plc:w", "did:plc:z"]


def test_a_did_that_entered_two_listings_at_once_stands_once(api: Api, tables: Tables) -> None:
    enter(tables, {"did:plc:x": {CAPTAIN: 7, CREW: 7}, "did:plc:y": {CREW: 8, CAPTAIN: 8}})
    assert dids(api.list(CAPTAIN, CREW)) == ["did:plc:x", "did:plc:y"]
    assert pages(api, [CAPTAIN, CREW], [1]) == [["did:plc:x"], ["did:plc:y"]]


def test_the_same_collection_twice_is_that_collection(api: Api, tables: Tables) -> None:
    ten(tables)
    twice, once = api.list(CAPTAIN, CAPTAIN, limit=4), api.list(CAPTAIN, limit=4)
    assert twice.text == once.text


def test_the_order_of_the_collections_does_not_matter_to_a_cursor(api: Api, tables: Tables) -> None:
    enter(tables, {"did:plc:x": {CAPTAIN: 1}, "did:plc:y": {CREW: 2}, "did:plc:z": {CAPTAIN: 3}})
    cursor = api.list(CREW, CAPTAIN, limit=1).json["cursor"]
    assert dids(api.list(CAPTAIN, CREW, cursor=cursor)) == ["did:plc:y", "did:plc:z"]


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=SAME_TABLES)
@given(
    places=st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(1, 12), min_size=1), max_size=12),
    wanted=st.sets(st.sampled_from("abc"), min_size=1),
    limits=st.lists(st.integers(1, 5), min_size=1, max_size=3),
)
def test_the_pages_of_a_union_are_the_union_in_its_order(
    api: Api, tables: Tables, places: list[dict[str, int]], wanted: set[str], limits: list[int]
) -> None:
    example = next(_numbers)

    def collection(letter: str) -> str:
        return f"io.atcr.example{example}.{letter}"

    listed: Listed = {}
    taken: set[tuple[str, int]] = set()
    for number, letters in enumerate(places):  # no key of a listing is used twice
        free = {letter: key for letter, key in letters.items() if (letter, key) not in taken}
        taken |= set(free.items())
        if free:
            listed[f"did:plc:{example}-{number}"] = {collection(letter): key for letter, key in free.items()}
    enter(tables, listed)
    names = sorted(collection(letter) for letter in wanted)
    first = {
        did: min((where[name], name) for name in names if name in where)
        for did, where in listed.items()
        if where.keys() & set(names)
    }
    expected = sorted(first, key=lambda did: first[did])
    found = pages(api, names, limits)
    assert [did for page in found for did in page] == expected
    assert all(len(page) == limits[number % len(limits)] for number, page in enumerate(found[:-1]))


def test_a_union_of_more_than_a_batch_is_whole(api: Api, tables: Tables) -> None:
    both = {f"did:plc:{number:024d}": {CAPTAIN: 2 * number + 1, CREW: 2 * number + 2} for number in range(130)}
    enter(tables, both)
    assert dids(api.list(CAPTAIN, CREW)) == list(both)


def test_a_page_passes_over_so_many_repeated_dids_and_no_more(
    api: Api, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two collections of the same repos, one entered long after the other, and one repo more."""
    monkeypatch.setattr(reader, "MAX_PASSED", 10)
    enter(tables, {f"did:plc:{number}": {CAPTAIN: number + 1, CREW: number + 101} for number in range(25)})
    enter(tables, {"did:plc:last": {CREW: 999}})
    assert [len(page) for page in pages(api, [CAPTAIN, CREW], [25])] == [25, 0, 1]


# -- collection


def test_a_missing_collection_is_refused(bare_api: Api) -> None:
    answer = bare_api.list()
    assert (answer.status, answer.error) == (400, "InvalidRequest")
    assert "io.atcr.hold.captain" in answer.json["message"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "captain",
        "io.atcr",
        "io.atcr.*",
        "io.atcr.hold.captain ",
        "io..hold",
        "io.atcr.hold\0",
        "ïo.atcr.hold",
        "a" * 4000,
    ],
)
def test_a_collection_that_is_no_nsid_is_refused(bare_api: Api, text: str) -> None:
    answer = bare_api.list(text)
    assert (answer.status, answer.error) == (400, "InvalidRequest")
    assert "collection" in answer.json["message"]
    assert len(answer.text) < 500


def test_ten_collections_are_answered_and_eleven_are_not(api: Api) -> None:
    names = [f"io.atcr.thing{number}" for number in range(11)]
    assert api.list(*names[:10]).status == 200
    answer = api.list(*names)
    assert (answer.status, answer.error) == (400, "InvalidRequest")
    assert "10" in answer.json["message"]


@pytest.mark.parametrize("name", ["app.bsky.feed.post", "io.atcrx.hold", "io.example.atcr"])
def test_a_collection_that_is_not_indexed_is_named_with_those_that_are(bare_api: Api, name: str) -> None:
    answer = bare_api.list(CAPTAIN, name)
    assert (answer.status, answer.error) == (400, "CollectionNotIndexed")
    assert name in answer.json["message"]
    assert "io.atcr.*" in answer.json["message"]


def test_only_authoritative_collections_are_answered(api: Api, monkeypatch: pytest.MonkeyPatch, forget: None) -> None:
    monkeypatch.setenv("DISCOVERY_AUTHORITATIVE", "io.atcr.hold.*")
    service_settings.current.cache_clear()
    assert api.list(CAPTAIN, CREW).status == 200
    answer = api.list(CAPTAIN, "io.atcr.manifest")
    assert (answer.status, answer.error) == (400, "CollectionIncomplete")
    assert "io.atcr.hold.*" in answer.json["message"]
    assert api.list("app.bsky.feed.post").error == "CollectionNotIndexed"


# -- limit


@pytest.mark.parametrize("limit", ["1", "2", "1999", "2000"])
def test_a_limit_in_range_is_taken(api: Api, limit: str) -> None:
    assert api.list(CAPTAIN, limit=limit).status == 200


@pytest.mark.parametrize(
    "limit",
    [
        "0",
        "-1",
        "2001",
        "+5",
        " 5",
        "5 ",
        "5.0",
        "5e2",
        "0x5",
        "05",
        "1_0",
        "",
        "five",
        "٥",
        "９",
        "5\n",
        "\0",
        "9" * 30,
        "9" * 5000,
    ],
)
def test_any_other_limit_is_refused(bare_api: Api, limit: str) -> None:
    answer = bare_api.list(CAPTAIN, limit=limit)
    assert (answer.status, answer.error) == (400, "InvalidRequest")
    assert answer.json["message"].startswith("limit ")


@pytest.mark.parametrize("name", ["limit", "cursor"])
def test_what_may_be_given_once_is_refused_twice(bare_api: Api, name: str) -> None:
    answer = bare_api.get(
        "/xrpc/com.atproto.sync.listReposByCollection", [("collection", CAPTAIN), (name, "5"), (name, "5")]
    )
    assert (answer.status, answer.error) == (400, "InvalidRequest")
    assert answer.json["message"].startswith(f"{name} was given 2 times")


def test_unknown_parameters_are_ignored(api: Api) -> None:
    assert api.list(CAPTAIN, colour="blue", Limit="9999").status == 200


def test_a_value_may_have_2048_characters(bare_api: Api) -> None:
    assert "cursor is too long" not in bare_api.list(CAPTAIN, cursor="A" * xrpc.MAX_PARAMETER).json["message"]
    answer = bare_api.list(CAPTAIN, cursor="A" * (xrpc.MAX_PARAMETER + 1))
    assert (answer.status, answer.error) == (400, "InvalidRequest")
    assert "cursor is too long" in answer.json["message"]


# -- cursor


def test_an_empty_cursor_is_none(api: Api, tables: Tables) -> None:
    names = ten(tables)
    assert dids(api.list(CAPTAIN, cursor="")) == names


def test_a_cursor_of_another_collection_is_refused(api: Api, tables: Tables) -> None:
    ten(tables)
    cursor = api.list(CAPTAIN, limit=5).json["cursor"]
    for others in ([CREW], [CAPTAIN, CREW]):
        answer = api.list(*others, cursor=cursor)
        assert (answer.status, answer.error) == (400, "InvalidRequest")
        assert answer.json["message"].startswith("cursor is not one that was given out for these collections")


def made(names: list[str], *numbers: int) -> str:
    digest = hashlib.sha256("\0".join(names).encode()).digest()[:8]
    return base64.urlsafe_b64encode(digest + struct.pack(f">{len(numbers)}Q", *numbers)).rstrip(b"=").decode()


def test_a_cursor_is_what_its_description_says() -> None:
    assert listing.encode_cursor({CREW: 2**53}, [CREW, CAPTAIN]) == made([CAPTAIN, CREW], 0, 2**53)
    assert listing.decode_cursor(made([CAPTAIN, CREW], 3, 7), [CREW, CAPTAIN]) == {CAPTAIN: 3, CREW: 7}


@pytest.mark.parametrize(
    "cursor",
    [
        "0",
        "null",
        "%00",
        "ü",
        "\0",
        "A",
        "A" * 21,
        "A" * 22,
        "1732262400000",
        made([CAPTAIN]),
        made([CAPTAIN], 1, 2),
        made([CREW], 1),
        made([CAPTAIN], 10**16 - 1),
        made([CAPTAIN], 2**64 - 1),
        made([CAPTAIN], 1) + "==",
        made([CAPTAIN], 1) + "\n",
        " " + made([CAPTAIN], 1),
        made([CAPTAIN], 1)[:-1],
        made([CAPTAIN], 1)[:-1] + "F",  # bits that no byte has
        made([CAPTAIN], 0x3F << 20).replace("_", "/").replace("-", "+"),
    ],
)
def test_any_other_cursor_is_refused(bare_api: Api, cursor: str) -> None:
    answer = bare_api.list(CAPTAIN, cursor=cursor)
    assert (answer.status, answer.error) == (400, "InvalidRequest")
    assert answer.json["message"].startswith("cursor ")


def test_the_last_position_is_a_position(api: Api) -> None:
    assert api.list(CAPTAIN, cursor=made([CAPTAIN], 10**16 - 2)).text == '{"repos":[]}'


@settings(derandomize=True)
@given(st.dictionaries(st.sampled_from([CAPTAIN, CREW, "io.atcr.tag"]), st.integers(0, 10**16 - 2), min_size=1))
def test_a_cursor_comes_back_as_it_was_made(position: dict[str, int]) -> None:
    cursor = listing.encode_cursor(position, list(position))
    assert listing.decode_cursor(cursor, list(position)) == position
    assert "=" not in cursor


@settings(derandomize=True)
@given(st.integers(0, 10**16 - 2), st.integers(0, 21), st.characters(codec="utf-8"))
def test_a_changed_cursor_is_refused_or_is_another_position(position: int, place: int, character: str) -> None:
    cursor = listing.encode_cursor({CAPTAIN: position}, [CAPTAIN])
    changed = cursor[:place] + character + cursor[place + 1 :]
    with suppress(XrpcFailure):
        decoded = listing.decode_cursor(changed, [CAPTAIN])
        assert listing.encode_cursor(decoded, [CAPTAIN]) == changed
