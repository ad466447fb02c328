"""Signing keys of both curves, and their forms in DID documents (atproto.com/specs/cryptography)."""

from __future__ import annotations

import random
from typing import Literal

import coincurve
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

Curve = Literal["k256", "p256"]

ORDER: dict[Curve, int] = {
    "k256": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
    "p256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
}
_MULTICODEC: dict[Curve, bytes] = {"k256": b"\xe7\x01", "p256": b"\x80\x24"}
_LEGACY_TYPE: dict[Curve, str] = {
    "k256": "EcdsaSecp256k1VerificationKey2019",
    "p256": "EcdsaSecp256r1VerificationKey2019",
}
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


class SigningKey:
    """A private key. Signatures are deterministic (RFC 6979), 64 raw bytes, low-S."""

    def __init__(self, secret: bytes, curve: Curve = "k256") -> None:
        self.curve: Curve = curve
        number = int.from_bytes(secret, "big")
        if curve == "k256":
            self._k256 = coincurve.PrivateKey(secret)
            self.compressed = self._k256.public_key.format(compressed=True)
            self.uncompressed = self._k256.public_key.format(compressed=False)
        else:
            self._p256 = ec.derive_private_key(number, ec.SECP256R1())
            public = self._p256.public_key()
            self.compressed = public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
            self.uncompressed = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    @classmethod
    def generate(cls, rng: random.Random, curve: Curve = "k256") -> SigningKey:
        return cls(rng.randrange(1, ORDER[curve]).to_bytes(32, "big"), curve)

    def sign(self, message: bytes) -> bytes:
        if self.curve == "k256":
            return self._k256.sign_recoverable(message)[:64]
        r, s = decode_dss_signature(self._p256.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))
        return r.to_bytes(32, "big") + min(s, ORDER["p256"] - s).to_bytes(32, "big")

    def sign_high_s(self, message: bytes) -> bytes:
        """The other signature of the same message: mathematically right, and forbidden."""
        signature = self.sign(message)
        s = ORDER[self.curve] - int.from_bytes(signature[32:], "big")
        return signature[:32] + s.to_bytes(32, "big")

    @property
    def multibase(self) -> str:
        """As a Multikey verification method and a did:key show it."""
        return "z" + _base58(_MULTICODEC[self.curve] + self.compressed)

    @property
    def did_key(self) -> str:
        return "did:key:" + self.multibase

    @property
    def legacy(self) -> tuple[str, str]:
        """Type and publicKeyMultibase of the older verification methods: the bare uncompressed point."""
        return _LEGACY_TYPE[self.curve], "z" + _base58(self.uncompressed)


def _base58(data: bytes) -> str:
    number = int.from_bytes(data, "big")
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = _BASE58[digit] + digits
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + digits
