"""Which collections are wanted, and that the ranges of keys and the needles lose none of their records."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.atproto.errors import InvalidSyntax
from chalicelib.atproto.scope import Scope
from chalicelib.atproto.syntax import parse_record_path


def test_a_namespace_wants_what_is_below_it_and_not_what_looks_like_it() -> None:
    scope = Scope.parse("io.atcr.*")
    assert scope.patterns == ("io.atcr.*",)
    for collection in ("io.atcr.tag", "io.atcr.hold.captain", "io.atcr.hold"):
        assert scope.wants(collection)
    for collection in ("io.atcr", "io.atcrx.y", "io.atc.r", "io.atcr-x.y", "app.io.atcr.tag", "IO.atcr.tag", ""):
        assert not scope.wants(collection)


def test_a_collection_wants_itself_alone() -> None:
    scope = Scope.parse("io.atcr.hold")
    assert scope.wants("io.atcr.hold")
    for collection in ("io.atcr.hold.captain", "io.atcr.holder", "io.atcr", "io.atcr.hol"):
        assert not scope.wants(collection)


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        (b"io.atcr.tag/x", True),
        (b"io.atcr.hold.captain/self", True),
        (b"io.atcr.hold/x", True),
        (b"app.example.thing/3jzfcijpj2z2a", True),
        (b"app.example.thing.more/x", False),
        (b"app.example.things/x", False),
        (b"io.atcr/x", False),
        (b"io.atcrx.y/1", False),
        (b"io.atcr.", False),
        (b"io.atcr.tag", False),
        (b"io.atcr.tag/", False),
        (b"io.atcr.tag/a/b", False),
        (b"io.atcr.tag//a", False),
        (b"io.atcr.tag/..", False),
        (b"io.atcr.tag/a b", False),
        (b"io.atcr.tag/a\n", False),
        (b"io.atcr.tag/\xc3\xa9", False),
        (b"io.atcr.tag/\xff", False),
        (b"io.atcr.\xc3\xa9/x", False),
        (b"io.atcr.4tag/x", False),
        (b"io.atcr./x", False),
        (b"io.atcr.tag/" + b"a" * 512, True),
        (b"io.atcr.tag/" + b"a" * 513, False),
        (b"io.atcr." + b"a" * 63 + b"/x", True),
        (b"io.atcr." + b"a" * 64 + b"/x", False),
        (b"", False),
        (b"/", False),
    ],
)
def test_a_key_is_wanted_where_it_is_a_valid_path_of_a_wanted_collection(key: bytes, wanted: bool) -> None:
    assert Scope.parse("io.atcr.*,app.example.thing").wants_key(key) is wanted


def test_a_namespace_is_one_range_of_keys_and_a_collection_is_one() -> None:
    assert Scope.parse("io.atcr.*").key_ranges == ((b"io.atcr.", b"io.atcr/"),)
    assert Scope.parse("app.example.thing").key_ranges == ((b"app.example.thing/", b"app.example.thing0"),)


def test_the_order_of_keys_is_not_that_of_collections_and_the_ranges_know_it() -> None:
    keys = [b"io.atcr.hold.captain/self", b"io.atcr.hold.crew/x", b"io.atcr.hold/x", b"io.atcr/x"]
    assert keys == sorted(keys)
    assert Scope.parse("io.atcr.hold").key_ranges == ((b"io.atcr.hold/", b"io.atcr.hold0"),)
    assert Scope.parse("io.atcr.hold.*").key_ranges == ((b"io.atcr.hold.", b"io.atcr.hold/"),)


def test_a_namespace_and_the_collection_of_its_name_are_one_range() -> None:
    for text in ("io.atcr.hold.*,io.atcr.hold", "io.atcr.hold,io.atcr.hold.*"):
        assert Scope.parse(text).key_ranges == ((b"io.atcr.hold.", b"io.atcr.hold0"),)


def test_what_is_within_another_pattern_adds_no_range_and_no_needle() -> None:
    scope = Scope.parse("io.atcr.hold.crew, io.atcr.* ,io.atcr.hold.*,io.atcr.tag,io.atcr.*")
    assert scope.patterns == ("io.atcr.hold.crew", "io.atcr.*", "io.atcr.hold.*", "io.atcr.tag")
    assert scope.key_ranges == ((b"io.atcr.", b"io.atcr/"),)
    assert scope.needles == (b"io.atcr.",)


def test_ranges_are_in_order_and_apart() -> None:
    scope = Scope.parse("io.atcr.*,app.example.thing,io.atcr-b.*,app.example.*")
    assert scope.key_ranges == (
        (b"app.example.", b"app.example/"),
        (b"io.atcr-b.", b"io.atcr-b/"),
        (b"io.atcr.", b"io.atcr/"),
    )


def test_scopes_of_the_same_text_are_equal() -> None:
    assert Scope.parse("io.atcr.*") == Scope.parse(" io.atcr.* ")
    assert hash(Scope.parse("io.atcr.*")) == hash(Scope.parse("io.atcr.*"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        (" ", "empty"),
        (",", "empty"),
        ("io.atcr.*,", "empty"),
        ("io.atcr.*,,io.atcr.tag", "empty"),
        ("*", "last segment"),
        (".*", "two at least"),
        ("io.*", "two at least"),
        ("io.atcr", "NSID"),
        ("io.atcr*", "last segment"),
        ("io.atcr.ho*", "last segment"),
        ("io.*.hold", "last segment"),
        ("io.atcr.*.hold", "last segment"),
        ("io.atcr.**", "last segment"),
        ("io.atcr.*.*", "two at least"),
        ("io..*", "two at least"),
        ("io.atcr..*", "two at least"),
        ("4io.atcr.*", "two at least"),
        ("io.atcr_.*", "two at least"),
        ("io.atcr.*/x", "last segment"),
        ("io.atcr.tag/x", "NSID"),
        ("io.atcr.tag io.atcr.manifest", "NSID"),
        ("io.atcr.tag;io.atcr.manifest", "NSID"),
        ("io.ätcr.*", "two at least"),
    ],
)
def test_a_bad_pattern_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(InvalidSyntax, match=why):
        Scope.parse(text)


SEGMENTS = st.sampled_from(["a", "b", "ab", "a-b", "a0", "zz"])
COLLECTIONS = st.lists(SEGMENTS, min_size=2, max_size=4).map(lambda parts: ".".join([*parts, "name"]))
NAMESPACES = st.lists(SEGMENTS, min_size=2, max_size=4).map(lambda parts: ".".join([*parts, "*"]))
SCOPES = st.lists(COLLECTIONS | NAMESPACES, min_size=1, max_size=6).map(
    lambda patterns: Scope.parse(",".join(patterns))
)
PIECES = st.sampled_from(["a", "b", "ab", "a-b", "a0", "zz", "name", ".", ".", ".", "/", "0", "-", "é", " "])
KEYS = st.lists(PIECES, max_size=12).map(lambda pieces: "".join(pieces).encode()) | COLLECTIONS.map(
    lambda collection: f"{collection}/x".encode()
)


def _wanted_by_definition(scope: Scope, key: bytes) -> bool:
    try:
        collection, _ = parse_record_path(key.decode())
    except InvalidSyntax:
        return False
    return scope.wants(collection)


@given(SCOPES, KEYS)
def test_a_wanted_key_is_a_path_whose_collection_is_wanted(scope: Scope, key: bytes) -> None:
    assert scope.wants_key(key) == _wanted_by_definition(scope, key)


@given(SCOPES, COLLECTIONS)
def test_a_collection_is_wanted_where_a_pattern_names_it(scope: Scope, collection: str) -> None:
    named = [
        collection.startswith(pattern.removesuffix("*")) if pattern.endswith("*") else collection == pattern
        for pattern in scope.patterns
    ]
    assert scope.wants(collection) == any(named)


@given(SCOPES, KEYS)
def test_a_wanted_key_lies_in_exactly_one_range_and_a_valid_key_in_a_range_is_wanted(scope: Scope, key: bytes) -> None:
    around = [start for start, end in scope.key_ranges if start <= key < end]
    if scope.wants_key(key):
        assert len(around) == 1
        assert any(needle in key for needle in scope.needles)
    elif around:
        with pytest.raises(InvalidSyntax):
            parse_record_path(key.decode())


@given(SCOPES)
def test_ranges_are_sorted_and_neither_overlap_nor_touch(scope: Scope) -> None:
    assert all(start < end for start, end in scope.key_ranges)
    assert all(end < start for (_, end), (start, _) in pairwise(scope.key_ranges))


@pytest.mark.parametrize("pattern", [f"io.{'a' * 9_000}.*", f"io.{'a' * 9_000}*", "a" * 9_000])
def test_a_refusal_quotes_no_more_than_a_line(pattern: str) -> None:
    with pytest.raises(InvalidSyntax) as refusal:
        Scope.parse(pattern)
    assert len(str(refusal.value)) < 300
