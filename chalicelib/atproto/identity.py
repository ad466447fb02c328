"""From a DID to what its document vouches for: the signing key, and the PDS that may speak for it.

Specification: https://atproto.com/specs/did
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from chalicelib.atproto.crypto import PublicKey, parse_legacy, parse_multibase
from chalicelib.atproto.errors import (
    BadResponse,
    DidNotFound,
    DidTombstoned,
    InvalidSyntax,
    MalformedDidDocument,
    MalformedKey,
)
from chalicelib.atproto.net import Door
from chalicelib.atproto.syntax import Did, Origin, canonical_did, parse_did, parse_handle, parse_origin
from chalicelib.atproto.transport import Timeouts

MAX_DOCUMENT: Final = 64 * 1024
"""Bytes of a DID document."""

_TIMEOUTS: Final = Timeouts(connect=5.0, idle=10.0, total=15.0)
_PLC: Final = re.compile(r"did:plc:[a-z2-7]{24}")
_WEB: Final = re.compile(r"did:web:([^:%]+)(?:%3A([0-9]{1,5}))?")


@dataclass(frozen=True)
class Identity:
    """What a DID's document says. ``handle`` is a claim that nobody has checked.

    A document without a usable key or PDS is one all the same: the field is None, and its ``_problem`` says why.
    """

    did: Did
    key: PublicKey | None
    pds: Origin | None
    handle: str | None
    key_problem: str | None = field(default=None, compare=False)
    pds_problem: str | None = field(default=None, compare=False)


def parse_did_document(did: Did, doc: Any, *, allow_private: bool) -> Identity:
    """The atproto parts of any JSON value that claims to be the document of ``did``. Raises MalformedDidDocument.

    The key is the first valid ``#atproto`` verification method, the PDS the first ``#atproto_pds`` service of its type;
    their ids may be absolute or relative. ``allow_private`` is passed to parse_origin for the PDS.
    """
    did = canonical_did(did)
    if not isinstance(doc, dict):
        raise MalformedDidDocument("the DID document is not a JSON object")
    if not _names(did, doc.get("id")):
        raise MalformedDidDocument(f"the DID document has another id than {did}")
    key, key_problem = _signing_key(did, _objects(doc, "verificationMethod"))
    pds, pds_problem = _pds(did, _objects(doc, "service"), allow_private)
    return Identity(did, key, pds, _handle(doc.get("alsoKnownAs")), key_problem, pds_problem)


class Resolver:
    """Looks DIDs up, each time anew: did:plc in the directory at ``plc_url``, did:web at the host that it names."""

    def __init__(self, door: Door, plc_url: str, allow_private: bool) -> None:
        self._door = door
        self._plc_url = plc_url.rstrip("/")
        self._allow_private = allow_private

    def resolve(self, did: Did) -> Identity:
        """The identity that the DID's document gives now.

        Raises DidTombstoned where there was one, DidNotFound where there is none or can't be one: a method, path or port
        that atproto doesn't have. MalformedDidDocument, or a RemoteError: what was known before may still be true.
        """
        answer = self._door.get(
            self._document_url(canonical_did(did)),
            max_bytes=MAX_DOCUMENT,
            accept="application/did+ld+json, application/json",
            timeouts=_TIMEOUTS,
        )
        if answer.status == 410:
            raise DidTombstoned(f"{did} was tombstoned")
        if answer.status == 404:
            raise DidNotFound(f"{did} is not known where it should be")
        if not answer.succeeded:
            raise BadResponse(f"the document of {did} is answered with {answer.status}", retry_after=answer.retry_after)
        return parse_did_document(did, answer.json(), allow_private=self._allow_private)

    def _document_url(self, did: Did) -> str:
        if _PLC.fullmatch(did):
            return f"{self._plc_url}/{did}"
        if not did.startswith("did:web:"):
            raise DidNotFound(f"{did[:100]} is neither a did:plc nor a did:web of atproto")
        match = _WEB.fullmatch(did)
        if match is None:
            raise DidNotFound(f"{did[:100]} has a path: a did:web of atproto is a hostname")
        host, port = match[1], match[2]
        if port and not self._allow_private:
            raise DidNotFound(f"{did[:100]} has a port: that is for development only")
        try:
            origin = parse_origin(f"{host}:{port}" if port else host, allow_private=self._allow_private)
        except InvalidSyntax as error:
            raise DidNotFound(f"{did[:100]} names no public host: {error}") from error
        if origin.did_web != did:  # in capitals, with a dot at its end: the same host under another name
            raise DidNotFound(f"{did[:100]} is spelled otherwise: {origin.did_web}")
        return f"{origin.url}/.well-known/did.json"


def _signing_key(did: Did, methods: list[dict[str, Any]]) -> tuple[PublicKey | None, str | None]:
    problem = "the DID document has no verification method #atproto"
    for method in methods:
        if not _is_part(did, method.get("id"), "atproto"):
            continue
        type_, multibase = method.get("type"), method.get("publicKeyMultibase")
        if not _names(did, method.get("controller", did)):
            problem = "the verification method #atproto has another controller"
        elif not isinstance(type_, str) or not isinstance(multibase, str):
            problem = "the verification method #atproto has no type or no publicKeyMultibase"
        else:
            try:
                return (parse_multibase(multibase) if type_ == "Multikey" else parse_legacy(type_, multibase)), None
            except MalformedKey as error:
                problem = f"the key #atproto is malformed: {error}"
    return None, problem


def _pds(did: Did, services: list[dict[str, Any]], allow_private: bool) -> tuple[Origin | None, str | None]:
    for service in services:
        if _is_part(did, service.get("id"), "atproto_pds") and service.get("type") == "AtprotoPersonalDataServer":
            endpoint = service.get("serviceEndpoint")
            if not isinstance(endpoint, str) or "://" not in endpoint:
                return None, "the serviceEndpoint of #atproto_pds is not a URL"
            try:
                return parse_origin(endpoint, allow_private=allow_private), None
            except InvalidSyntax as error:
                return None, f"the serviceEndpoint of #atproto_pds is refused: {error}"
    return None, "the DID document has no service #atproto_pds of the type AtprotoPersonalDataServer"


def _handle(names: Any) -> str | None:
    for name in names if isinstance(names, list) else ():
        if isinstance(name, str) and name.startswith("at://"):
            with suppress(InvalidSyntax):
                return parse_handle(name.removeprefix("at://")).lower()
    return None


def _objects(doc: dict[str, Any], field: str) -> list[dict[str, Any]]:
    entries = doc.get(field)
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _names(did: Did, text: Any) -> bool:
    """Whether ``text`` is the DID, in whichever spelling of its port."""
    try:
        return isinstance(text, str) and canonical_did(parse_did(text)) == did
    except InvalidSyntax:
        return False


def _is_part(did: Did, text: Any, fragment: str) -> bool:
    """Whether ``text`` is ``#fragment`` of the DID's document: written whole, or relative."""
    if not isinstance(text, str):
        return False
    owner, _, name = text.partition("#")
    return name == fragment and (not owner or _names(did, owner))
