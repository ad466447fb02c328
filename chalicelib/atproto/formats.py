"""The string formats of lexicons that are no plain identifiers: AT identifiers and URIs, datetimes, languages, URIs.

Each function returns the text that it was given, or raises InvalidSyntax.

Specifications: https://atproto.com/specs/lexicon#string-formats, https://atproto.com/specs/at-uri-scheme
"""

from __future__ import annotations

import re
from datetime import date
from typing import Final

from chalicelib.atproto.errors import InvalidSyntax
from chalicelib.atproto.syntax import Did, Handle, parse_did, parse_handle, parse_nsid, parse_record_key

_AT_URI: Final = re.compile(r"at://([^/]+)(?:/([^/]+)(?:/([^/]+))?)?")
_URI: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:[!-~]+")
_DATETIME: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T((?:[01][0-9]|2[0-3]):[0-5][0-9]):[0-5][0-9](?:\.[0-9]{1,20})?"
    r"(?:Z|(?!-00:00)([+-])((?:[01][0-9]|2[0-3]):[0-5][0-9]))"
)
# RFC 5646, section 2.1, with the language in lower case. Not told by its grammar: those that are older than it.
_LANGUAGE: Final = re.compile(
    r"(?:[a-z]{2,3}(?:-[a-zA-Z]{3}){0,3}|[a-z]{5,8})(?:-[a-zA-Z]{4})?(?:-(?:[a-zA-Z]{2}|[0-9]{3}))?"
    r"(?P<variants>(?:-(?:[a-zA-Z0-9]{5,8}|[0-9][a-zA-Z0-9]{3}))*)"
    r"(?P<extensions>(?:-[0-9a-wyzA-WYZ](?:-[a-zA-Z0-9]{2,8})+)*)"
    r"(?:-[xX](?:-[a-zA-Z0-9]{1,8})+)?"
)
_OLD_OR_PRIVATE: Final = re.compile(r"i-[a-z]{3,8}|en-GB-oed|sgn-(?:BE-(?:FR|NL)|CH-DE)|[xX](?:-[a-zA-Z0-9]{1,8})+")
_SINGLETON: Final = re.compile(r"-([0-9a-z])(?=-)")


def parse_at_identifier(text: str) -> Did | Handle:
    """A DID or a handle."""
    return parse_did(text) if text.startswith("did:") else parse_handle(text)


def parse_at_uri(text: str) -> str:
    """``at://AUTHORITY[/COLLECTION[/RKEY]]``, as lexicons restrict it: no query, no fragment."""
    match = _AT_URI.fullmatch(text)
    if len(text) > 8192 or not match:
        raise InvalidSyntax(f"not an AT URI: {text[:100]!r}")
    authority, collection, rkey = match.groups()
    parse_at_identifier(authority)
    if collection is not None:
        parse_nsid(collection)
    if rkey is not None:
        parse_record_key(rkey)
    return text


def parse_datetime(text: str) -> str:
    """What RFC 3339, ISO 8601 and WHATWG agree on, with a time zone; not before the year 0, and no leap second."""
    if match := _DATETIME.fullmatch(text):
        year, month, day, time, sign, offset = match.groups()
        try:
            date(int(year) or 400, int(month), int(day))  # the calendar repeats itself after 400 years; date has no 0
        except ValueError as error:
            raise InvalidSyntax(f"not a datetime: {text!r}: {error}") from error
        if not (text.startswith("0000-01-01") and sign == "+" and time < offset):
            return text
    raise InvalidSyntax(f"not a datetime: {text[:100]!r}")


def parse_language(text: str) -> str:
    """A language tag of BCP 47 in good form, with no variant and no extension twice. No subtag is looked up."""
    if match := _LANGUAGE.fullmatch(text):
        variants = match["variants"].lower().split("-")[1:]
        singletons = _SINGLETON.findall(match["extensions"].lower())
        if len(variants) == len(set(variants)) and len(singletons) == len(set(singletons)):
            return text
    elif _OLD_OR_PRIVATE.fullmatch(text):
        return text
    raise InvalidSyntax(f"not a language tag: {text[:100]!r}")


def parse_uri(text: str) -> str:
    """A URI of any scheme, of 8 KiB at most."""
    if len(text) > 8192 or not _URI.fullmatch(text):
        raise InvalidSyntax(f"not a URI: {text[:100]!r}")
    return text
