"""Identifiers in text: DID, handle, NSID, record key, TID, and a host's origin. Parsed once at the edges, trusted inside.

Specifications: https://atproto.com/specs/did, /handle, /nsid, /record-key, /tid
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final, NewType, Self
from urllib.parse import quote

from chalicelib.atproto.errors import InvalidSyntax

Did = NewType("Did", str)
Handle = NewType("Handle", str)
Nsid = NewType("Nsid", str)
RecordKey = NewType("RecordKey", str)
Tid = NewType("Tid", str)

_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_DID = re.compile(r"did:[a-z]+:[a-zA-Z0-9._:%-]*[a-zA-Z0-9._-]")
_HANDLE = re.compile(rf"(?:{_LABEL}\.)+(?![0-9]){_LABEL}")
_NSID = re.compile(rf"(?=[a-zA-Z]){_LABEL}(?:\.{_LABEL})+\.[a-zA-Z][a-zA-Z0-9]{{0,62}}")
_RECORD_KEY = re.compile(r"(?!\.\.?\Z)[a-zA-Z0-9_~.:-]{1,512}")
_TID = re.compile(r"[2-7a-j][2-7a-z]{12}")
_DID_WEB_PORT = re.compile(r"(did:web:[^:%]{1,253})(?::|%3[aA])([0-9]{1,5})")

_TID_DIGITS: Final = "234567abcdefghijklmnopqrstuvwxyz"
_TO_BASE_32: Final = str.maketrans(_TID_DIGITS, "0123456789abcdefghijklmnopqrstuv")
"""To the digits that ``int`` knows."""


def parse_did(text: str) -> Did:
    """Raises InvalidSyntax. Any method passes; which ones can be resolved is not a question of syntax."""
    if len(text) > 2048 or not _DID.fullmatch(text):
        raise InvalidSyntax(f"not a DID: {_shown(text)}")
    return Did(text)


def parse_handle(text: str) -> Handle:
    """Raises InvalidSyntax. Reserved names pass; which ones can be resolved is not a question of syntax."""
    if len(text) > 253 or not _HANDLE.fullmatch(text):
        raise InvalidSyntax(f"not a handle: {_shown(text)}")
    return Handle(text)


def parse_nsid(text: str) -> Nsid:
    """Raises InvalidSyntax."""
    if len(text) > 317 or not _NSID.fullmatch(text):
        raise InvalidSyntax(f"not an NSID: {_shown(text)}")
    return Nsid(text)


def parse_record_key(text: str) -> RecordKey:
    """Raises InvalidSyntax."""
    if not _RECORD_KEY.fullmatch(text):
        raise InvalidSyntax(f"not a record key: {_shown(text)}")
    return RecordKey(text)


def parse_record_path(text: str) -> tuple[Nsid, RecordKey]:
    """The two halves of ``collection/rkey``, a record's key in its repo. Raises InvalidSyntax."""
    collection, slash, rkey = text.partition("/")
    if not slash:
        raise InvalidSyntax(f"not a record's path: {_shown(text)}")
    return parse_nsid(collection), parse_record_key(rkey)


def parse_tid(text: str) -> Tid:
    """Raises InvalidSyntax. TIDs sort as strings in the order of their times."""
    if not _TID.fullmatch(text):
        raise InvalidSyntax(f"not a TID: {_shown(text)}")
    return Tid(text)


def tid_from_microseconds(us: int, clock_id: int = 0) -> Tid:
    """The TID of a moment: microseconds since 1970, below 2**53, and a clock id below 2**10."""
    if not (0 <= us < 1 << 53 and 0 <= clock_id < 1 << 10):
        raise ValueError(f"no TID has the time {us} and the clock id {clock_id}")
    number = us << 10 | clock_id
    return Tid("".join(_TID_DIGITS[number >> shift & 31] for shift in range(60, -1, -5)))


def tid_to_microseconds(tid: Tid) -> int:
    """The time in a TID, in microseconds since 1970."""
    return int(tid.translate(_TO_BASE_32), 32) >> 10


def canonical_did(did: Did) -> Did:
    """One spelling for the port of a did:web, as servers decode ``%3A``: ``did:web:localhost%3A8080``."""
    match = _DID_WEB_PORT.fullmatch(did)
    return Did(f"{match[1]}%3A{match[2]}") if match else did


@dataclass(frozen=True)
class Origin:
    """Where a host is. ``hostname`` is in lower case, an IPv6 address without its brackets.

    ``str(origin)`` is its key in tables and queues, one for each origin:

        hold01.atcr.io           https, port 443
        hold01.atcr.io:8443      https, any other port
        http://localhost:2583    not secure, the port left out where it is 80: in development only
    """

    hostname: str
    port: int
    secure: bool

    def __str__(self) -> str:
        return self.authority if self.secure else f"http://{self.authority}"

    @classmethod
    def parse_key(cls, key: str) -> Self:
        """The origin whose ``str`` is ``key``. Raises InvalidSyntax for what is no such key."""
        authority = key.removeprefix("http://")
        secure = authority == key
        host, port = _split_port(authority)
        origin = cls(_normal_host(host), port or _default_port(secure), secure)
        if str(origin) != key:
            raise InvalidSyntax(f"not the key of an origin: {_shown(key)}")
        return origin

    @property
    def url(self) -> str:
        """``https://hold01.atcr.io``, without a slash at the end."""
        return f"http{'s' * self.secure}://{self.authority}"

    @property
    def websocket_url(self) -> str:
        """``wss://hold01.atcr.io``, without a slash at the end."""
        return f"ws{'s' * self.secure}://{self.authority}"

    @property
    def did_web(self) -> Did:
        """The did:web whose document this origin serves."""
        return Did(f"did:web:{quote(self.authority, safe='')}")

    @property
    def authority(self) -> str:
        """``hold01.atcr.io``, with the port where it is not the usual one."""
        host = f"[{self.hostname}]" if ":" in self.hostname else self.hostname
        return host if self.port == _default_port(self.secure) else f"{host}:{self.port}"


# Special-use names (RFC 6761 and its registry: 2606, 6762, 7686, 8375, 9476), .internal (reserved by ICANN),
# and the private names that RFC 6762, appendix G, found in use.
RESERVED_TLDS: Final = frozenset(
    {
        *("alt", "arpa", "example", "internal", "invalid", "local", "localhost", "onion", "test"),
        *("corp", "home", "intranet", "lan", "localdomain", "mail", "private"),
    }
)

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_NOT_IN_LABEL = re.compile(r"[^a-z0-9-]")
_NOT_IN_HOST: Final = {
    "@": "user information",
    "#": "a fragment",
    "?": "a query",
    "/": "a path",
    "\\": "a backslash",
    "%": "a percent sign",
}


def parse_origin(text: str, *, allow_private: bool) -> Origin:
    """What a person, another server or a DID document says is a host: ``hold01.atcr.io``, ``https://hold01.atcr.io/``.

    ``allow_private`` (development mode) lets in what can't be public as well: ``http://``, ports, IP addresses, single
    labels with a scheme or a port, reserved top-level domains, and ``did:web:localhost%3A2583``. Without a scheme such
    a name means http, for it can have no public certificate.

    Raises InvalidSyntax, with a message for whoever sent it, for everything else.
    """
    if not text:
        raise InvalidSyntax("the hostname is empty")
    if len(text) > 300:
        raise InvalidSyntax("the hostname is too long: at most 253 characters")
    if re.search(r"[\x00-\x20\x7f]", text):
        raise InvalidSyntax(f"the hostname has whitespace or control characters in it: {_shown(text)}")
    scheme, rest = _split_scheme(text, allow_private)
    for character, what in _NOT_IN_HOST.items():
        if character in rest:
            raise InvalidSyntax(f"the hostname has {what} in it ({character!r})")
    host, port = _split_port(rest)
    host = _normal_host(host)
    why_private = _why_private(host)
    if why_private and not allow_private:
        raise InvalidSyntax(f"the hostname {_shown(host)} is {why_private}")
    if "." not in host and ":" not in host and rest == text and port is None:
        raise InvalidSyntax(f"the hostname {_shown(host)} needs a scheme or a port, as it is a single label")
    secure = scheme == "https" if scheme else not why_private
    if port is None:
        port = _default_port(secure)
    if port != 443 and not allow_private:
        raise InvalidSyntax(f"the port has to be 443, not {port}")
    return Origin(host, port, secure)


def _split_scheme(text: str, allow_private: bool) -> tuple[str | None, str]:
    if text.lower().startswith("did:"):
        if not allow_private or not text.startswith("did:web:"):
            raise InvalidSyntax(f"a hostname is needed, not a DID: {_shown(text)}")
        return None, canonical_did(Did(text)).removeprefix("did:web:").replace("%3A", ":")
    match = _SCHEME.match(text)
    if not match:
        return None, text
    scheme = match[1].lower()
    if scheme != "https" and not (scheme == "http" and allow_private):
        raise InvalidSyntax(f"the scheme has to be https, not {scheme}")
    return scheme, text[match.end() :].removesuffix("/")


def _split_port(authority: str) -> tuple[str, int | None]:
    host, colon, port = authority.rpartition(":")
    if authority.startswith("["):
        host, bracket, after = authority[1:].partition("]")
        if not bracket or (after and after[0] != ":") or not _is_ipv6(host):
            raise InvalidSyntax(f"not an IPv6 address in brackets: {_shown(authority)}")
        colon, port = after[:1], after[1:]
    elif not colon or _is_ipv6(authority):
        return authority, None
    if not colon:
        return host, None
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise InvalidSyntax(f"not a port, 1 to 65535: {_shown(port)}")
    return host, int(port)


def _normal_host(host: str) -> str:
    # Before lower(), which makes ASCII letters of some that are not.
    if not host.isascii():
        raise InvalidSyntax(f"the hostname {_shown(host)} is not ASCII{_punycode_offer(host)}")
    host = host.lower().removesuffix(".")
    if not host:
        raise InvalidSyntax("the hostname is empty")
    with suppress(ValueError):
        return str(ip_address(host))
    if len(host) > 253:
        raise InvalidSyntax(f"the hostname is too long: {len(host)} characters, at most 253")
    labels = host.split(".")
    for label in labels:
        if not label:
            raise InvalidSyntax(f"the hostname {_shown(host)} has an empty label")
        if len(label) > 63:
            raise InvalidSyntax(f"the hostname has a label of {len(label)} characters, at most 63: {_shown(label)}")
        if strange := _NOT_IN_LABEL.search(label):
            raise InvalidSyntax(f"the hostname {_shown(host)} has a character that none has: {strange[0]!r}")
        if label[0] == "-" or label[-1] == "-":
            raise InvalidSyntax(f"the hostname {_shown(host)} has a label with a hyphen at its edge")
    if _NUMBER.fullmatch(labels[-1]):
        # What inet_aton, and so most resolvers, would read as an address: 127.1, 0x7f000001, 2130706433.
        raise InvalidSyntax(f"the hostname {_shown(host)} ends in a number: an IP address is not a hostname")
    return host


def _punycode_offer(host: str) -> str:
    import idna  # here, as this message alone needs it

    try:
        ascii_host = _normal_host(idna.encode(host, uts46=True).decode())
    except (idna.IDNAError, InvalidSyntax):
        return ""
    return "" if _why_private(ascii_host) else f": write {ascii_host!r}"


def _why_private(host: str) -> str | None:
    labels = host.split(".")
    if ":" in host or labels[-1].isdigit():
        return "an IP address: a name is needed"
    if len(labels) == 1:
        return "a single label: a public name has at least two"
    if labels[-1] in RESERVED_TLDS:
        return f"not public: the top-level domain .{labels[-1]} is reserved"
    return None


def _default_port(secure: bool) -> int:
    return 443 if secure else 80


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _shown(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:100]}…")
