"""DIDs and their documents, and the PLC directory that serves them (atproto.com/specs/did)."""

from __future__ import annotations

import base64
import random
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from .faults import Reply
from .keys import SigningKey
from .server import Refused, Server


class Identities:
    """What the world believes about each DID: its document, or that it is gone. did:plc and did:web in one place.

    A test may put any document here, also one that lies.
    """

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.tombstones: set[str] = set()

    def publish(self, did: str, *, key: SigningKey, pds: str, handle: str, legacy: bool = False) -> None:
        """Write the document of ``did``: signing key, PDS (a URL), handle."""
        self.documents[did] = did_document(did, key=key, pds=pds, handle=handle, legacy=legacy)

    def update(self, did: str, *, key: SigningKey | None = None, pds: str | None = None) -> None:
        """Change the key or the PDS in a document, and keep the rest."""
        document = self.documents[did]
        if key:
            document["verificationMethod"] = did_document(did, key=key, pds="", handle="")["verificationMethod"]
        if pds:
            document["service"] = [{**document["service"][0], "serviceEndpoint": pds}]

    def tombstone(self, did: str) -> None:
        """The DID is gone for good."""
        self.documents.pop(did, None)
        self.tombstones.add(did)

    def document(self, did: str) -> dict[str, Any]:
        """The document; ``Refused`` as a directory words it."""
        if did in self.tombstones:
            raise Refused(410, "DidNotAvailable", f"DID not available: {did}")
        if did not in self.documents:
            raise Refused(404, "DidNotRegistered", f"DID not registered: {did}")
        return self.documents[did]


class PlcDirectory(Server):
    """A PLC directory: ``GET /did:plc:...``. Requests for documents count as ``did``; ``asked`` says for which."""

    def __init__(self, identities: Identities, port: int = 0) -> None:
        super().__init__(port)
        self._identities = identities
        self.asked: list[str] = []

    def endpoint(self, path: str) -> str:
        return "did" if unquote(path).startswith("/did:") else path.strip("/")

    def answer(self, endpoint: str, request: web.BaseRequest) -> Reply:
        if endpoint == "_health":
            return Reply.of({"version": "simulator"})
        if endpoint != "did":
            raise Refused(404, "NotFound", "no such page")
        did = unquote(request.path).removeprefix("/")
        self.asked.append(did)
        if not did.startswith("did:plc:"):
            raise Refused(400, "InvalidRequest", f"not a did:plc: {did}")
        return replace(Reply.of(self._identities.document(did)), content_type="application/did+ld+json")


def new_did_plc(rng: random.Random) -> str:
    """A did:plc as a directory would have made it: 24 characters of base32."""
    return "did:plc:" + base64.b32encode(rng.randbytes(15)).decode().lower()


def did_document(did: str, *, key: SigningKey, pds: str, handle: str, legacy: bool = False) -> dict[str, Any]:
    """A DID document with the key as Multikey, or (``legacy``) in the older form that is still about."""
    kind, multibase = key.legacy if legacy else ("Multikey", key.multibase)
    return {
        "@context": ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"],
        "id": did,
        "alsoKnownAs": [f"at://{handle}"],
        "verificationMethod": [
            {"id": f"{did}#atproto", "type": kind, "controller": did, "publicKeyMultibase": multibase}
        ],
        "service": [{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": pds}],
    }
