"""Identifiers and the formats of lexicons as the published vectors have them; origins as people and servers write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.atproto.errors import InvalidSyntax
from chalicelib.atproto.formats import parse_at_identifier, parse_at_uri, parse_datetime, parse_language, parse_uri
from chalicelib.atproto.syntax import (
    RESERVED_TLDS,
    Did,
    Origin,
    canonical_did,
    parse_did,
    parse_handle,
    parse_nsid,
    parse_origin,
    parse_record_key,
    parse_record_path,
    parse_tid,
    tid_from_microseconds,
    tid_to_microseconds,
)

PARSERS: dict[str, Callable[[str], Any]] = {
    "did": parse_did,
    "nsid": parse_nsid,
    "recordkey": parse_record_key,
    "tid": parse_tid,
    "handle": parse_handle,
    "atidentifier": parse_at_identifier,
    "aturi": parse_at_uri,
    "datetime": parse_datetime,
    "language": parse_language,
    "uri": parse_uri,
}

VALID = {
    "did": "did:plc:abc",
    "nsid": "io.atcr.tag",
    "recordkey": "self",
    "tid": "3jzfcijpj2z2a",
    "handle": "alice.atcr.io",
    "atidentifier": "alice.atcr.io",
    "aturi": "at://alice.atcr.io/io.atcr.tag/self",
    "datetime": "2026-01-02T03:04:05.678Z",
    "language": "pt-BR",
    "uri": "https://atcr.io/",
}


def _vectors(fixtures_dir: Path, name: str) -> list[str]:
    lines = (fixtures_dir / "interop/syntax" / name).read_text().split("\n")
    return [line for line in lines if line and not line.startswith("# ")]  # "#extra" is a vector


@pytest.mark.parametrize("kind", PARSERS)
def test_the_published_valid_identifiers_are_taken_as_they_are(fixtures_dir: Path, kind: str) -> None:
    for text in _vectors(fixtures_dir, f"{kind}_syntax_valid.txt"):
        assert PARSERS[kind](text) == text


@pytest.mark.parametrize("kind", PARSERS)
def test_the_published_invalid_identifiers_are_refused(fixtures_dir: Path, kind: str) -> None:
    for text in _vectors(fixtures_dir, f"{kind}_syntax_invalid.txt"):
        with pytest.raises(InvalidSyntax):
            PARSERS[kind](text)


@pytest.mark.parametrize("kind", ["datetime", "language"])
def test_so_are_those_that_only_look_valid(fixtures_dir: Path, kind: str) -> None:
    for text in _vectors(fixtures_dir, f"{kind}_parse_invalid.txt"):
        with pytest.raises(InvalidSyntax):
            PARSERS[kind](text)


def test_every_published_file_of_texts_is_read(fixtures_dir: Path) -> None:
    read_elsewhere = {"cid"}
    kinds = {path.name.partition("_")[0] for path in (fixtures_dir / "interop/syntax").iterdir()}
    assert kinds == PARSERS.keys() | read_elsewhere


@pytest.mark.parametrize("kind", PARSERS)
@pytest.mark.parametrize("strange", ["\n", " ", "\0", "\u0660", "\ud800", "ß"])
def test_nothing_may_stand_before_or_behind_an_identifier(kind: str, strange: str) -> None:
    valid = VALID[kind]
    for text in (f"{strange}{valid}", f"{valid}{strange}", valid[:-1] + strange, ""):
        with pytest.raises(InvalidSyntax):
            PARSERS[kind](text)


@pytest.mark.parametrize("kind", PARSERS)
def test_a_refusal_quotes_no_more_than_a_line(kind: str) -> None:
    with pytest.raises(InvalidSyntax) as refusal:
        PARSERS[kind]("a/" * 100_000)
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize(
    "text",
    [
        "0000-02-29T00:00:00Z",
        "2024-02-29T23:59:59+23:59",
        "0000-01-01T01:00:00+01:00",
        "0000-01-01T00:00:00-01:00",
        "9999-12-31T23:59:59-12:00",
    ],
)
def test_a_day_of_the_calendar_is_a_datetime(text: str) -> None:
    assert parse_datetime(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T23:59:60Z",
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00+00:60",
        "2026-01-01T00:00:00." + "0" * 100 + "Z",
    ],
)
def test_what_no_calendar_and_no_clock_shows_is_no_datetime(text: str) -> None:
    with pytest.raises(InvalidSyntax):
        parse_datetime(text)


@pytest.mark.parametrize("text", ["en-US-US", "de-419-DE", "x", "en-x", "en-a", "en-a-x", "i-x", "en--US", "a" * 9])
def test_what_the_grammar_of_languages_does_not_have_is_refused(text: str) -> None:
    with pytest.raises(InvalidSyntax):
        parse_language(text)


def test_a_record_path_is_a_collection_and_a_record_key() -> None:
    assert parse_record_path("io.atcr.hold.captain/self") == ("io.atcr.hold.captain", "self")
    for text in (
        "",
        "/",
        "io.atcr.tag",
        "io.atcr.tag/",
        "/self",
        "io.atcr/x",
        "io.atcr.tag/a/b",
        "io.atcr.tag/..",
        "io.atcr.tag//a",
    ):
        with pytest.raises(InvalidSyntax):
            parse_record_path(text)


def test_the_tid_of_a_known_moment() -> None:
    assert tid_from_microseconds(0) == "2222222222222"
    assert tid_from_microseconds(2**53 - 1, 1023) == "bzzzzzzzzzzzz"
    assert tid_to_microseconds(parse_tid("3jzfcijpj2z2a")) == 1688137381887007


@given(st.integers(0, 2**53 - 1), st.integers(0, 1023))
def test_a_tid_gives_its_time_back(us: int, clock_id: int) -> None:
    tid = tid_from_microseconds(us, clock_id)
    assert parse_tid(tid) == tid
    assert tid_to_microseconds(tid) == us


@given(st.tuples(*[st.integers(0, 2**53 - 1)] * 2), st.tuples(*[st.integers(0, 1023)] * 2))
def test_tids_sort_as_their_times_do(times: tuple[int, int], clocks: tuple[int, int]) -> None:
    first, second = zip(times, clocks, strict=True)
    assert (tid_from_microseconds(*first) < tid_from_microseconds(*second)) == (first < second)


@pytest.mark.parametrize(("us", "clock_id"), [(-1, 0), (2**53, 0), (0, -1), (0, 1024)])
def test_there_is_no_tid_for_a_time_out_of_range(us: int, clock_id: int) -> None:
    with pytest.raises(ValueError, match="no TID"):
        tid_from_microseconds(us, clock_id)


@pytest.mark.parametrize(
    ("did", "canonical"),
    [
        ("did:web:localhost:8080", "did:web:localhost%3A8080"),
        ("did:web:localhost%3a8080", "did:web:localhost%3A8080"),
        ("did:web:localhost%3A8080", "did:web:localhost%3A8080"),
        ("did:web:127.0.0.1:80", "did:web:127.0.0.1%3A80"),
        ("did:web:hold01.atcr.io", "did:web:hold01.atcr.io"),
        ("did:web:hold01.atcr.io:user:alice", "did:web:hold01.atcr.io:user:alice"),
        ("did:plc:abc:80", "did:plc:abc:80"),
        ("did:plc:7iza6de2dwap2sbkpav7c6c6", "did:plc:7iza6de2dwap2sbkpav7c6c6"),
    ],
)
def test_a_did_web_has_one_spelling_of_its_port(did: str, canonical: str) -> None:
    assert canonical_did(Did(did)) == canonical
    assert canonical_did(canonical_did(Did(did))) == canonical


# Origins: what is let in

LABEL_63 = "a" * 63
LONGEST = ".".join([LABEL_63, LABEL_63, LABEL_63, "a" * 57, "dev"])


@pytest.mark.parametrize("allow_private", [False, True])
@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("hold01.atcr.io", "hold01.atcr.io"),
        ("https://hold01.atcr.io", "hold01.atcr.io"),
        ("https://hold01.atcr.io/", "hold01.atcr.io"),
        ("HTTPS://Hold01.ATCR.io/", "hold01.atcr.io"),
        ("Hold01.Atcr.IO", "hold01.atcr.io"),
        ("hold01.atcr.io.", "hold01.atcr.io"),
        ("https://hold01.atcr.io./", "hold01.atcr.io"),
        ("hold01.atcr.io:443", "hold01.atcr.io"),
        ("https://hold01.atcr.io.:443/", "hold01.atcr.io"),
        ("xn--bcher-kva.de", "xn--bcher-kva.de"),
        ("1.2.3.4.com", "1.2.3.4.com"),
        ("0x7f.com", "0x7f.com"),
        ("a.xn--p1ai", "a.xn--p1ai"),
        ("a.b2", "a.b2"),
        ("a--b.co", "a--b.co"),
        ("localhost.com", "localhost.com"),
        ("local.io", "local.io"),
        ("mytest.dev", "mytest.dev"),
        (f"{LABEL_63}.dev", f"{LABEL_63}.dev"),
        (LONGEST, LONGEST),
        (f"https://{LONGEST}.:443/", LONGEST),
    ],
)
def test_a_public_host_is_taken_however_it_is_written(text: str, key: str, allow_private: bool) -> None:
    assert parse_origin(text, allow_private=allow_private) == Origin(key, 443, True)
    assert str(parse_origin(text, allow_private=allow_private)) == key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("localhost:2583", "http://localhost:2583"),
        ("http://localhost:2583", "http://localhost:2583"),
        ("http://localhost:2583/", "http://localhost:2583"),
        ("https://localhost:2583", "localhost:2583"),
        ("https://localhost", "localhost"),
        ("http://localhost", "http://localhost"),
        ("http://localhost:80", "http://localhost"),
        ("http://localhost:443", "http://localhost:443"),
        ("https://localhost:80", "localhost:80"),
        ("LocalHost:2583", "http://localhost:2583"),
        ("did:web:localhost%3A2583", "http://localhost:2583"),
        ("did:web:localhost%3a2583", "http://localhost:2583"),
        ("did:web:localhost:2583", "http://localhost:2583"),
        ("did:web:hold01.atcr.io", "hold01.atcr.io"),
        ("did:web:hold01.atcr.io%3A8443", "hold01.atcr.io:8443"),
        ("127.0.0.1:2583", "http://127.0.0.1:2583"),
        ("127.0.0.1", "http://127.0.0.1"),
        ("https://10.0.0.7:8443", "10.0.0.7:8443"),
        ("[::1]:2583", "http://[::1]:2583"),
        ("http://[::1]:2583/", "http://[::1]:2583"),
        ("[::1]", "http://[::1]"),
        ("::1", "http://[::1]"),
        ("https://[2001:DB8:0::1]", "[2001:db8::1]"),
        ("hold:8080", "http://hold:8080"),
        ("http://hold", "http://hold"),
        ("hold.test:3000", "http://hold.test:3000"),
        ("hold.internal", "http://hold.internal"),
        ("hold01.atcr.io:8443", "hold01.atcr.io:8443"),
        ("http://hold01.atcr.io", "http://hold01.atcr.io"),
    ],
)
def test_development_mode_takes_private_hosts_too(text: str, key: str) -> None:
    assert str(parse_origin(text, allow_private=True)) == key
    with pytest.raises(InvalidSyntax):
        parse_origin(text if "did:web" not in text else text + "x", allow_private=False)


# Origins: what is refused, and what the sender is told

REFUSED_ALWAYS = [
    ("", "empty"),
    (".", "empty"),
    ("https://", "empty"),
    ("https:///", "path|empty"),
    (":443", "empty"),
    ("c", "single label"),
    ("hold", "single label"),
    ("a..b", "empty label"),
    (".atcr.io", "empty label"),
    ("hold01.atcr.io..", "empty label"),
    (" hold01.atcr.io", "whitespace"),
    ("hold01.atcr.io ", "whitespace"),
    ("hold01.atcr.io\n", "whitespace or control"),
    ("hold01.atcr.io\r\nHost: x.com", "whitespace or control"),
    ("hold01\t.atcr.io", "whitespace"),
    ("hold01.atcr.io\0", "control"),
    ("hold01.atcr.io\x7f", "control"),
    ("hold01.atcr.io/", "a path"),
    ("hold01.atcr.io/xrpc", "a path"),
    ("https://hold01.atcr.io/xrpc/", "a path"),
    ("https://hold01.atcr.io//", "a path"),
    ("//hold01.atcr.io", "a path"),
    ("/", "a path"),
    ("https://hold01.atcr.io?a=b", "a query"),
    ("https://hold01.atcr.io/?", "a query"),
    ("hold01.atcr.io#pds", "a fragment"),
    ("https://hold01.atcr.io/#", "a fragment"),
    ("user@hold01.atcr.io", "user information"),
    ("https://user:secret@hold01.atcr.io", "user information"),
    ("https://hold01.atcr.io@evil.com/", "user information"),
    ("https://@hold01.atcr.io", "user information"),
    ("hold01.atcr.io\\", "a backslash"),
    ("https:\\\\hold01.atcr.io", "a backslash"),
    ("hold01%2eatcr.io", "a percent sign"),
    ("hold01.atcr.io%00", "a percent sign"),
    ("fe80::1%eth0", "a percent sign"),
    ("hold01|atcr.io", "'|'"),
    ("hold01,atcr.io", "','"),
    ("hold01;atcr.io", "';'"),
    ("hold_01.atcr.io", "'_'"),
    ("*.atcr.io", "'\\*'"),
    ("hold01.atcr.io'", '"\'"'),
    ("$hold.atcr.io", "'\\$'"),
    ("-hold.atcr.io", "hyphen"),
    ("hold-.atcr.io", "hyphen"),
    ("hold.atcr.-io", "hyphen"),
    ("a" * 64 + ".io", "label of 64 characters, at most 63"),
    (LONGEST + "s", "254 characters, at most 253"),
    ("a." * 200 + "io", "too long: at most 253"),
    ("ftp://hold01.atcr.io", "https, not ftp"),
    ("wss://hold01.atcr.io", "https, not wss"),
    ("file:///etc/passwd", "https, not file"),
    ("javascript:alert(1)", "not a port"),
    ("https:hold01.atcr.io", "not a port"),
    ("hold01.atcr.io:", "not a port"),
    ("hold01.atcr.io:0", "not a port"),
    ("hold01.atcr.io:0443", "not a port"),
    ("hold01.atcr.io:+443", "not a port"),
    ("hold01.atcr.io:65536", "not a port"),
    ("hold01.atcr.io:https", "not a port"),
    ("hold01.atcr.io:४४३", "not a port"),
    ("hold01.atcr.io:443:443", "has a character"),
    ("2130706433", "number"),
    ("0x7f000001", "number"),
    ("0X7F000001", "number"),
    ("0x", "number"),
    ("017700000001", "number"),
    ("0177.0.0.1", "number"),
    ("0x7f.0.0.1", "number"),
    ("127.1", "number"),
    ("127.0.1", "number"),
    ("127.0.0.01", "number"),
    ("1.2.3.4.5", "number"),
    ("256.256.256.256", "number"),
    ("hold01.atcr.123", "number"),
    ("https://2130706433/", "number"),
    ("[::1", "brackets"),
    ("[]", "brackets"),
    ("[127.0.0.1]", "brackets"),
    ("[hold01.atcr.io]", "brackets"),
    ("[::1]x", "brackets"),
    ("[::1]:x", "not a port"),
    ("::1::", "not a port"),
    ("did:plc:7iza6de2dwap2sbkpav7c6c6", "not a DID"),
    ("DID:WEB:hold01.atcr.io", "not a DID"),
]


@pytest.mark.parametrize("allow_private", [False, True])
@pytest.mark.parametrize(("text", "why"), REFUSED_ALWAYS)
def test_what_is_no_host_is_refused_with_the_reason(text: str, why: str, allow_private: bool) -> None:
    with pytest.raises(InvalidSyntax, match=why):
        parse_origin(text, allow_private=allow_private)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("http://hold01.atcr.io", "https, not http"),
        ("http://localhost:2583", "https, not http"),
        ("hold01.atcr.io:80", "443, not 80"),
        ("https://hold01.atcr.io:8443/", "443, not 8443"),
        ("localhost", "single label"),
        ("localhost:443", "single label"),
        ("https://localhost", "single label"),
        ("127.0.0.1", "an IP address"),
        ("127.0.0.1.", "an IP address"),
        ("8.8.8.8", "an IP address"),
        ("https://8.8.8.8:443/", "an IP address"),
        ("::1", "an IP address"),
        ("[::1]", "an IP address"),
        ("[::1]:443", "an IP address"),
        ("https://[2606:4700::1111]/", "an IP address"),
        ("::ffff:127.0.0.1", "an IP address"),
        ("[::ffff:7f00:1]", "an IP address"),
        ("did:web:hold01.atcr.io", "not a DID"),
        ("did:web:localhost%3A2583", "not a DID"),
    ],
)
def test_what_is_only_for_development_is_refused_elsewhere(text: str, why: str) -> None:
    with pytest.raises(InvalidSyntax, match=why):
        parse_origin(text, allow_private=False)


@pytest.mark.parametrize("tld", sorted(RESERVED_TLDS))
def test_a_reserved_top_level_domain_is_refused(tld: str) -> None:
    for text in (f"hold.{tld}", f"https://HOLD.{tld.upper()}./", f"a.b.{tld}"):
        with pytest.raises(InvalidSyntax, match=f"the top-level domain .{tld} is reserved"):
            parse_origin(text, allow_private=False)


def test_the_registered_special_use_names_are_all_reserved() -> None:
    registered = "alt arpa example invalid local localhost onion test"  # RFC 2606, 6761, 6762, 7686, 8375, 9476
    assert RESERVED_TLDS.issuperset(registered.split())


@pytest.mark.parametrize(
    ("text", "offer"),
    [
        ("bücher.de", "xn--bcher-kva.de"),
        ("https://BÜCHER.de/", "xn--bcher-kva.de"),
        ("hold。atcr。io", "hold.atcr.io"),
        ("ｈｏｌｄ.atcr.io", "hold.atcr.io"),
        ("hold01.atcr.io\u212a", "hold01.atcr.iok"),
    ],
)
def test_a_name_that_is_not_ascii_is_refused_with_its_punycode_form(text: str, offer: str) -> None:
    with pytest.raises(InvalidSyntax, match=f"not ASCII: write '{offer}'$"):
        parse_origin(text, allow_private=False)


@pytest.mark.parametrize(
    "text",
    [
        "１２７.0.0.1",
        "ｌｏｃａｌｈｏｓｔ",
        "hold.ｌｏｃａｌ",
        "a\u3000b.io",
        "a／b.io",
        "\ud800.io",
        "☃\u200b.io",
        "é" * 64 + ".io",
    ],
)
def test_nothing_is_offered_that_would_be_refused(text: str) -> None:
    with pytest.raises(InvalidSyntax, match=r"not ASCII$"):
        parse_origin(text, allow_private=False)


def test_a_secret_in_a_url_is_not_quoted() -> None:
    with pytest.raises(InvalidSyntax) as refusal:
        parse_origin("https://user:hunter2@hold01.atcr.io/", allow_private=False)
    assert "hunter2" not in str(refusal.value)


def test_a_single_label_needs_a_scheme_or_a_port_even_in_development() -> None:
    with pytest.raises(InvalidSyntax, match="needs a scheme or a port"):
        parse_origin("localhost", allow_private=True)


# Origins: their forms


@pytest.mark.parametrize(
    ("key", "url", "websocket_url", "did"),
    [
        ("hold01.atcr.io", "https://hold01.atcr.io", "wss://hold01.atcr.io", "did:web:hold01.atcr.io"),
        ("a.io:8443", "https://a.io:8443", "wss://a.io:8443", "did:web:a.io%3A8443"),
        ("http://localhost:2583", "http://localhost:2583", "ws://localhost:2583", "did:web:localhost%3A2583"),
        ("http://localhost", "http://localhost", "ws://localhost", "did:web:localhost"),
        ("http://[::1]:81", "http://[::1]:81", "ws://[::1]:81", "did:web:%5B%3A%3A1%5D%3A81"),
        ("[::1]", "https://[::1]", "wss://[::1]", "did:web:%5B%3A%3A1%5D"),
    ],
)
def test_an_origin_has_a_key_a_url_a_websocket_url_and_a_did(key: str, url: str, websocket_url: str, did: str) -> None:
    origin = Origin.parse_key(key)
    assert (str(origin), origin.url, origin.websocket_url, origin.did_web) == (key, url, websocket_url, did)
    assert parse_did(origin.did_web) == did


NO_KEYS = (
    *("", "hold01.atcr.io:443", "http://localhost:80", "https://hold01.atcr.io", "Hold01.atcr.io", "hold01.atcr.io."),
    *("a#b.io", "a/b.io", "a|b.io", "a b.io", "http://http://a.io", "a.io:", "a.io:x", "a.io:08443", "a.io:65536"),
    *("::1", "[::1", "[0::1]", "[127.0.0.1]", "127.1", "é.io", "a.io\n"),
)


@pytest.mark.parametrize("key", NO_KEYS)
def test_what_is_no_key_of_an_origin_is_refused(key: str) -> None:
    with pytest.raises(InvalidSyntax):
        Origin.parse_key(key)


NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?(\.[a-z0-9]{1,5}){0,3}\.?[a-z]{1,5}", fullmatch=True)
HOSTS = NAMES | st.ip_addresses().map(str)
ORIGINS = st.builds(Origin, HOSTS, st.integers(1, 65535) | st.sampled_from([80, 443]), st.booleans())


@given(ORIGINS)
def test_the_key_of_an_origin_leads_back_to_it(origin: Origin) -> None:
    assert Origin.parse_key(str(origin)) == origin
    assert parse_origin(origin.url, allow_private=True) == origin


@given(ORIGINS, ORIGINS)
def test_two_origins_have_two_keys(one: Origin, other: Origin) -> None:
    assert (str(one) == str(other)) == (one == other)
