"""No name, whoever made it up, can be taken for another one in a table: what is read becomes one key, or is refused.

hosts     origin                     hold01.atcr.io
repos     did                        did:web:hold01.atcr.io
records   did, collection/rkey       did:web:hold01.atcr.io, io.atcr.hold.captain/self
listings  collection, number#did     io.atcr.hold.captain, 1700000000000000#did:web:hold01.atcr.io
"""

from __future__ import annotations

import json
import re
import unicodedata
from ipaddress import ip_network
from typing import Any, cast
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chalicelib import settings as service_settings
from chalicelib.api.listing import decode_cursor, encode_cursor
from chalicelib.api.xrpc import XrpcFailure
from chalicelib.atproto.client import PdsClient
from chalicelib.atproto.errors import BadResponse, DidNotFound, InvalidSyntax, Unreachable
from chalicelib.atproto.identity import Resolver
from chalicelib.atproto.net import Door, Response
from chalicelib.atproto.syntax import (
    Did,
    Origin,
    canonical_did,
    parse_did,
    parse_nsid,
    parse_origin,
    parse_record_key,
    parse_record_path,
)
from chalicelib.crawl.bans import BAN
from chalicelib.crawl.budgets import BUDGET, Budgets, caller_of
from chalicelib.crawl.orders import AUDIT
from chalicelib.crawl.turns import TURN
from chalicelib.index.reader import Reader
from chalicelib.index.state import IDENTITY, LISTING_HEAD, SUBSCRIBER, State, feed_of

MAX_HASH, MAX_SORT = 2048, 1024
"""Bytes of a key in DynamoDB."""

ODD = (
    "aZ09.-_~:/#@?%+=&$*!,;|\\'\"<>[]{}()^` \t\r\n\x00\x7f\x85\xa0\xadéßİıſK"
    "。．｡／：％＃ａ１①ⓐ\u0301\u200b\u200d\u202e\u2028\ufeff😀\ud800"
)
SEPARATORS = "/#:@%.?&"
odd_characters = st.one_of(st.sampled_from(SEPARATORS), st.sampled_from(ODD), st.characters())
label = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
hostnames = st.builds(
    lambda labels, tld: ".".join([*labels, tld]),
    st.lists(label, min_size=1, max_size=4),
    st.sampled_from(["io", "com"]),
)
origins = st.one_of(
    hostnames,
    st.builds("{}:{}".format, hostnames, st.integers(0, 70_000)),
    st.builds(
        "http://{}:{}".format,
        st.sampled_from(["localhost", "127.0.0.1", "[::1]", "[2606:4700::]"]),
        st.integers(1, 9999),
    ),
    hostnames.map("did:web:{}%3A80".format),
)
dids = st.one_of(
    st.from_regex(r"did:plc:[a-z2-7]{24}", fullmatch=True),
    hostnames.map("did:web:{}".format),
    st.builds(
        "did:web:{}{}{}".format, hostnames, st.sampled_from([":", "%3A", "%3a", "%253A"]), st.integers(0, 70_000)
    ),
    st.from_regex(r"did:[a-z]{1,5}:[a-zA-Z0-9._:%-]{0,30}[a-zA-Z0-9._-]", fullmatch=True),
)
nsids = st.builds(
    "{}.{}.{}".format,
    st.sampled_from(["io.atcr", "a.b.c.d", "app.bsky-x"]),
    label,
    st.sampled_from(["a", "captain", "A1"]),
)
record_keys = st.from_regex(r"[a-zA-Z0-9_~.:-]{1,20}", fullmatch=True).filter(lambda text: text not in (".", ".."))
paths = st.builds("{}/{}".format, nsids, record_keys)


def mangled(names: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Names, names with something odd about them, and what is no name at all."""

    @st.composite
    def mangle(draw: st.DrawFn) -> str:
        text = draw(names)
        for _ in range(draw(st.integers(0, 3))):
            at = draw(st.integers(0, len(text)))
            match draw(
                st.sampled_from(["insert", "insert", "replace", "drop", "double", "case", "form", "escape", "append"])
            ):
                case "insert":
                    text = text[:at] + draw(odd_characters) + text[at:]
                case "replace":
                    text = text[:at] + draw(odd_characters) + text[at + 1 :]
                case "drop":
                    text = text[:at] + text[at + 1 :]
                case "double":
                    text = text[:at] + text
                case "case":
                    text = text[:at] + text[at:].swapcase()
                case "form":
                    text = unicodedata.normalize(draw(st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"])), text)
                case "escape":
                    text = text[:at] + "".join(f"%{ord(one):02x}" for one in text[at : at + 1]) + text[at + 1 :]
                case "append":
                    text += draw(
                        st.sampled_from([".", "/", "#", ":443", ":80", ":0443", "%2e", "\n", "\x00", "#did:web:a.io"])
                    )
        return text

    return mangle() | st.text(odd_characters, max_size=40)


# -- hosts


@given(hostnames, st.data())
def test_a_host_has_one_key_however_it_is_written(hostname: str, data: st.DataObject) -> None:
    choose = lambda *texts: data.draw(st.sampled_from(texts))  # noqa: E731
    letters = [choose(letter, letter.upper()) for letter in hostname]
    spelled = choose("", "https://", "HTTPS://") + "".join(letters) + choose("", ".") + choose("", ":443")
    spelled += choose("", "/") if "://" in spelled else ""
    assert str(parse_origin(spelled, allow_private=False)) == hostname


@given(hostnames, st.data())
def test_a_hostname_in_other_characters_is_refused(hostname: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(hostname) - 1))
    other = {".": "。．｡", "k": "K", "s": "ſ", "i": "ıİ"}.get(hostname[at], "") + chr(ord(hostname[at]) + 0xFEE0)
    added = data.draw(st.sampled_from([*other, *(hostname[at] + mark for mark in "\u0301\u00ad\u200b\u200d\ufe0f")]))
    text = hostname[:at] + added + hostname[at + 1 :]
    for form in (text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)):
        if not form.isascii():  # the Kelvin sign's normal form is a K
            with pytest.raises(InvalidSyntax):
                parse_origin(form, allow_private=False)


@settings(max_examples=250)
@given(mangled(origins), st.booleans())
def test_what_is_taken_for_a_host_is_the_only_one_of_its_key(text: str, allow_private: bool) -> None:
    try:
        origin = parse_origin(text, allow_private=allow_private)
    except InvalidSyntax:
        return
    key = str(origin)
    assert Origin.parse_key(key) == origin
    assert re.fullmatch(r"(http://)?([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?", key)
    if not allow_private:
        assert key == origin.hostname
        assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", key)
        assert parse_origin(key, allow_private=False) == origin


@settings(max_examples=250)
@given(mangled(origins))
def test_a_key_is_read_only_in_the_form_in_which_it_is_written(text: str) -> None:
    try:
        origin = Origin.parse_key(text)
    except InvalidSyntax:
        return
    assert str(origin) == text
    assert len(text) <= MAX_SORT


# -- repos


@settings(max_examples=250)
@given(mangled(dids))
def test_the_key_of_a_did_is_a_did(text: str) -> None:
    try:
        key = canonical_did(parse_did(text))
    except InvalidSyntax:
        return
    assert canonical_did(key) == key == parse_did(key)
    assert re.fullmatch("[a-zA-Z0-9._:%-]+", key)
    assert len(key) <= MAX_HASH


@pytest.mark.parametrize("port", [":1", ":65535", "%3a8080", "%3A8080"])
def test_the_longest_did_fits_into_a_key(port: str) -> None:
    did = parse_did("did:web:" + "a" * (2040 - len(port)) + port)
    assert len(canonical_did(did)) == len(did) == MAX_HASH


@given(dids, st.data())
def test_dids_share_a_key_only_where_they_spell_the_same_port(one: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(one) - 1))
    spellings = [one.replace("%3A", ":"), one.replace("%3a", "%3A"), one[:at] + one[at:].swapcase(), data.draw(dids)]
    other = data.draw(st.sampled_from([*spellings, one + ".", one[:at] + "%2e" + one[at:]]))
    try:
        same = canonical_did(parse_did(one)) == canonical_did(parse_did(other))
    except InvalidSyntax:
        return
    assert not same or re.sub("%3[aA]", ":", one) == re.sub("%3[aA]", ":", other)


class _Nobody:
    """A door behind which nobody answers."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def get(self, url: str, **_: Any) -> Response:
        self.asked.append(url)
        raise Unreachable(url)


@given(hostnames, st.data())
def test_a_host_serves_the_document_of_one_did_web(hostname: str, data: st.DataObject) -> None:
    letters = "".join(
        data.draw(st.sampled_from([one, one.upper(), quote(one), f"%{ord(one):02x}"])) for one in hostname
    )
    spelled = f"did:web:{letters}" + data.draw(st.sampled_from(["", ".", "%3A443", "%3a443", ":443", "%2e", ":"]))
    assume(spelled != f"did:web:{hostname}")
    door = _Nobody()
    resolver = Resolver(cast(Door, door), "https://plc.directory", allow_private=False)
    with pytest.raises(Unreachable):
        resolver.resolve(Did(f"did:web:{hostname}"))
    with pytest.raises((DidNotFound, InvalidSyntax)):
        resolver.resolve(parse_did(spelled))
    assert door.asked == [f"https://{hostname}/.well-known/did.json"]


# -- records


@settings(max_examples=250)
@given(mangled(paths))
def test_a_record_has_one_path_and_a_path_one_record(text: str) -> None:
    try:
        collection, rkey = parse_record_path(text)
    except InvalidSyntax:
        return
    assert f"{collection}/{rkey}" == text
    assert (parse_nsid(collection), parse_record_key(rkey)) == (collection, rkey)
    assert text.count("/") == 1
    assert text.isascii()
    assert text.isprintable()


def test_the_longest_path_fits_into_a_key() -> None:
    labels = ["a" * 63] * 4
    collection, rkey = parse_nsid(".".join([*labels, "b" * 61])), parse_record_key("c" * 512)
    assert len(collection) == 317
    assert len(f"{collection}/{rkey}") <= MAX_SORT


# -- listings


@given(st.lists(st.tuples(st.integers(0, 10**16 - 2), mangled(dids)), max_size=5))
def test_a_listing_gives_the_dids_that_were_put_into_it(entries: list[tuple[int, str]]) -> None:
    try:
        rows = [(number, parse_did(did)) for number, did in entries]
    except InvalidSyntax:
        return

    class Table:
        def query(self, **_: Any) -> dict[str, Any]:
            return {"Items": [{"key": {"S": f"{number:016d}#{did}"}} for number, did in rows]}

    page = Reader(Table(), "t").page(["io.atcr.hold.captain"], limit=10, after={})
    assert list(page.dids) == [did for _, did in rows]


@given(st.lists(nsids, min_size=1, max_size=10, unique=True), st.data())
def test_a_cursor_says_where_it_stands_and_for_which_collections(collections: list[str], data: st.DataObject) -> None:
    position = {name: data.draw(st.integers(0, 10**16 - 2)) for name in collections}
    cursor = encode_cursor(position, collections)
    assert decode_cursor(cursor, data.draw(st.permutations(collections))) == position
    others = data.draw(st.lists(nsids, min_size=1, max_size=10, unique=True))
    if set(others) != set(collections):
        with pytest.raises(XrpcFailure):
            decode_cursor(cursor, others)


@given(st.data())
def test_a_cursor_is_read_only_in_the_form_in_which_it_was_given_out(data: st.DataObject) -> None:
    collections = ["io.atcr.hold.captain", "io.atcr.hold.crew"]
    given_out = st.builds(
        lambda a, b: encode_cursor(dict(zip(collections, (a, b), strict=True)), collections),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**64 - 1),
    )
    text = data.draw(st.one_of(given_out, mangled(given_out), st.text("AB_-/+=", max_size=40)))
    try:
        position = decode_cursor(text, collections)
    except XrpcFailure:
        return
    assert encode_cursor(position, collections) == text
    assert all(0 <= number < 10**16 for number in position.values())


# -- state


def test_each_kind_of_state_has_a_name_of_its_own_and_no_nsid_is_a_feed() -> None:
    kinds = [IDENTITY, SUBSCRIBER, LISTING_HEAD, BAN, AUDIT, BUDGET, TURN]
    assert len(set(kinds)) == len(kinds)
    with pytest.raises(InvalidSyntax):
        parse_nsid(feed_of("io.atcr.hold.captain"))


class _Counts:
    """Notes what is counted."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def count(self, kind: str, id: str, **_: Any) -> None:
        assert kind == BUDGET
        self.ids.append(id)


@given(st.one_of(origins, mangled(origins)), st.one_of(st.ip_addresses().map(str), mangled(origins)))
def test_a_budget_is_that_of_an_address_a_domain_or_of_all(host: str, address: str) -> None:
    counts = _Counts()
    budgets = Budgets(cast(State, counts), service_settings.read({}))
    budgets.asked_of_unknown(address)
    of_address = rf"requests/({re.escape(caller_of(address))})"
    assert caller_of(address) == "an unknown address" or ip_network(caller_of(address))
    try:
        origin = parse_origin(host, allow_private=True)
    except InvalidSyntax:
        return
    budgets.let_in(origin)
    budgets.is_remembered()
    assert len(counts.ids) == 4
    for id, form in zip(counts.ids, [of_address, "hosts/[a-z0-9.:-]+", "hosts", "unreached"], strict=True):
        assert re.fullmatch(form, id)
        assert len(id) <= MAX_SORT - len("@1700000000")


# -- a host's own cursor


class _Page:
    """A door behind which there is a page of listRepos with such a cursor."""

    def __init__(self, cursor: Any) -> None:
        self._body = json.dumps({"repos": [], "cursor": cursor}).encode()
        self.url = ""

    def get(self, url: str, **_: Any) -> Response:
        self.url = url
        return Response(url, 200, None, self._body)


@given(st.one_of(st.text(odd_characters), st.text(max_size=3).map(lambda text: text * 1500), st.integers(), st.none()))
def test_a_hosts_cursor_comes_back_to_it_unchanged_or_is_refused(cursor: Any) -> None:
    door = _Page(cursor)
    client = PdsClient(cast(Door, door), parse_origin("hold01.atcr.io", allow_private=False))
    try:
        page = client.list_repos()
    except BadResponse:
        return
    if page.cursor is None:
        assert not cursor or not isinstance(cursor, str)
        return
    assert page.cursor.isprintable()
    client.list_repos(page.cursor)
    assert parse_qs(urlsplit(door.url).query)["cursor"] == [cursor]
    assert urlsplit(door.url)[:3] == ("https", "hold01.atcr.io", "/xrpc/com.atproto.sync.listRepos")
