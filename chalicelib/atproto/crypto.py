"""Public keys and signatures of repo commits: ECDSA over SHA-256, curves k256 and p256.

Specification: https://atproto.com/specs/cryptography
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

import coincurve
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chalicelib.atproto.errors import BadSignature, MalformedKey

if TYPE_CHECKING:
    from multiformats.multibase import Multibase

Curve = Literal["k256", "p256"]

_ORDER: Final[dict[Curve, int]] = {
    "k256": 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141,
    "p256": 0xFFFFFFFF_00000000_FFFFFFFF_FFFFFFFF_BCE6FAAD_A7179E84_F3B9CAC2_FC632551,
}
_MULTICODEC: Final[dict[Curve, bytes]] = {"k256": b"\xe7\x01", "p256": b"\x80\x24"}
_LEGACY: Final[dict[str, Curve]] = {
    "EcdsaSecp256k1VerificationKey2019": "k256",
    "EcdsaSecp256r1VerificationKey2019": "p256",
}


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A point on one of the two curves. ``multibase`` is the Multikey form (``z...``), the same for equal keys."""

    curve: Curve
    multibase: str
    _parsed: Any = field(repr=False, compare=False)

    def verify(self, message: bytes, signature: bytes) -> None:
        """Raises BadSignature unless ``signature`` (r and s, 32 bytes each, s in the lower half) fits ``message``."""
        if len(signature) != 64:
            raise BadSignature(f"a signature has 64 bytes, this one {len(signature)}")
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        order = _ORDER[self.curve]
        if not (0 < r < order and 0 < s < order):
            raise BadSignature("r or s of the signature is out of range")
        if s > order // 2:
            raise BadSignature("the signature is not in its low-S form")
        encoded = utils.encode_dss_signature(r, s)
        if self.curve == "k256":
            if not self._parsed.verify(encoded, hashlib.sha256(message).digest(), None):
                raise BadSignature
            return
        try:
            self._parsed.verify(encoded, message, ec.ECDSA(SHA256()))
        except InvalidSignature:
            raise BadSignature from None


def parse_did_key(text: str) -> PublicKey:
    """The key of ``did:key:z...``. Raises MalformedKey."""
    if not text.startswith("did:key:"):
        raise MalformedKey(f"not a did:key: {text[:80]!r}")
    return parse_multibase(text.removeprefix("did:key:"))


def parse_multibase(text: str) -> PublicKey:
    """The key of a Multikey: multicodec and compressed point in base58btc. Raises MalformedKey."""
    data = _decode(text)
    for curve, prefix in _MULTICODEC.items():
        if data.startswith(prefix):
            if len(data) != len(prefix) + 33:
                raise MalformedKey("a Multikey whose point is not in its compressed form of 33 bytes")
            return PublicKey(curve, text, _parse_point(curve, data.removeprefix(prefix)))
    raise MalformedKey("a Multikey that is neither k256 nor p256")


def parse_legacy(type_: str, multibase: str) -> PublicKey:
    """The key of one of the two older verification methods: the bare point, compressed or not. Raises MalformedKey."""
    curve = _LEGACY.get(type_)
    if curve is None:
        raise MalformedKey(f"not a verification method for signatures of repos: {type_[:80]!r}")
    parsed = _parse_point(curve, _decode(multibase))
    compressed = (
        parsed.format() if curve == "k256" else parsed.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    )
    return PublicKey(curve, _base58().encode(_MULTICODEC[curve] + compressed), parsed)


def _parse_point(curve: Curve, point: bytes) -> Any:
    # The two forms by their first byte: coincurve would take a third, hybrid one, which no DID method allows.
    if len(point) != {2: 33, 3: 33, 4: 65}.get(point[0] if point else 0):
        raise MalformedKey("not a point, compressed or uncompressed")
    try:
        if curve == "k256":
            return coincurve.PublicKey(point)
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError as error:
        raise MalformedKey(f"not a point on {curve}") from error


def _decode(text: str) -> bytes:
    if not text.startswith("z") or len(text) > 200:
        raise MalformedKey(f"not a key in base58btc: {text[:80]!r}")
    try:
        return _base58().decode(text)
    except (ValueError, KeyError) as error:
        raise MalformedKey(f"not a key in base58btc: {text[:80]!r}") from error


@cache
def _base58() -> Multibase:
    from multiformats import multibase

    return multibase.get("base58btc")
