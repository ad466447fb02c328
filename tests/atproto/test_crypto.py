"""Public keys, and the one form of signature that counts."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import coincurve
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from multiformats import multibase

from chalicelib.atproto.crypto import PublicKey, parse_did_key, parse_legacy, parse_multibase
from chalicelib.atproto.errors import BadSignature, MalformedKey

MESSAGE = b"the unsigned commit"
ORDER = {
    "k256": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
    "p256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
}
PREFIX = {"k256": b"\xe7\x01", "p256": b"\x80\x24"}
LEGACY = {"k256": "EcdsaSecp256k1VerificationKey2019", "p256": "EcdsaSecp256r1VerificationKey2019"}
K256 = coincurve.PrivateKey(b"\x01" * 32)
P256 = ec.derive_private_key(0x0202, ec.SECP256R1())
CURVES = pytest.mark.parametrize("curve", ["k256", "p256"])


def _multibase(data: bytes) -> str:
    return multibase.encode(data, "base58btc")


def _point(curve: str, *, compressed: bool = True) -> bytes:
    if curve == "k256":
        return K256.public_key.format(compressed=compressed)
    form = PublicFormat.CompressedPoint if compressed else PublicFormat.UncompressedPoint
    return P256.public_key().public_bytes(Encoding.X962, form)


def _key(curve: str) -> PublicKey:
    return parse_multibase(_multibase(PREFIX[curve] + _point(curve)))


def _der(curve: str, message: bytes = MESSAGE) -> bytes:
    return K256.sign(message) if curve == "k256" else P256.sign(message, ec.ECDSA(SHA256()))


def _r_s(curve: str) -> tuple[int, int]:
    r, s = utils.decode_dss_signature(_der(curve))
    return r, min(s, ORDER[curve] - s)


def _raw(r: int, s: int) -> bytes:
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _published(fixtures_dir: Path) -> list[dict[str, str]]:
    cases = json.loads((fixtures_dir / "interop/crypto/signature-fixtures.json").read_text())
    assert len(cases) == 6
    return list(cases)


def test_the_published_signatures_are_taken_or_refused_as_published(fixtures_dir: Path) -> None:
    for case in _published(fixtures_dir):
        key = parse_did_key(case["publicKeyDid"])
        message = base64.b64decode(case["messageBase64"] + "==")
        signature = base64.b64decode(case["signatureBase64"] + "==")
        if case["validSignature"]:
            key.verify(message, signature)
        else:
            with pytest.raises(BadSignature):
                key.verify(message, signature)


def test_the_two_published_spellings_of_a_key_are_one_key(fixtures_dir: Path) -> None:
    for case in _published(fixtures_dir):
        key = parse_did_key(case["publicKeyDid"])
        assert key == parse_legacy(case["didDocSuite"], case["publicKeyMultibase"])
        assert key.curve == {"ES256K": "k256", "ES256": "p256"}[case["algorithm"]]
        assert key.multibase == case["publicKeyDid"].removeprefix("did:key:")


def test_the_published_private_keys_sign_for_their_published_dids(fixtures_dir: Path) -> None:
    for case in json.loads((fixtures_dir / "interop/crypto/w3c_didkey_K256.json").read_text()):
        private = coincurve.PrivateKey(bytes.fromhex(case["privateKeyBytesHex"]))
        r, s = utils.decode_dss_signature(private.sign(MESSAGE))
        parse_did_key(case["publicDidKey"]).verify(MESSAGE, _raw(r, s))
    for case in json.loads((fixtures_dir / "interop/crypto/w3c_didkey_P256.json").read_text()):
        secret = int.from_bytes(multibase.decode("z" + case["privateKeyBytesBase58"]), "big")
        der = ec.derive_private_key(secret, ec.SECP256R1()).sign(MESSAGE, ec.ECDSA(SHA256()))
        r, s = utils.decode_dss_signature(der)
        parse_did_key(case["publicDidKey"]).verify(MESSAGE, _raw(r, min(s, ORDER["p256"] - s)))


@CURVES
def test_a_signature_fits_its_message_and_key_only(curve: str) -> None:
    key, (r, s) = _key(curve), _r_s(curve)
    signature = _raw(r, s)
    key.verify(MESSAGE, signature)
    with pytest.raises(BadSignature):
        key.verify(MESSAGE + b"!", signature)
    with pytest.raises(BadSignature):
        key.verify(hashlib.sha256(MESSAGE).digest(), signature)
    with pytest.raises(BadSignature):
        key.verify(MESSAGE, _raw(r, s ^ 1))


def test_a_signature_of_one_curve_does_not_fit_a_key_of_the_other() -> None:
    for curve, other in (("k256", "p256"), ("p256", "k256")):
        with pytest.raises(BadSignature):
            _key(curve).verify(MESSAGE, _raw(*_r_s(other)))


@CURVES
def test_a_high_s_signature_is_refused(curve: str) -> None:
    r, s = _r_s(curve)
    with pytest.raises(BadSignature, match="low-S"):
        _key(curve).verify(MESSAGE, _raw(r, ORDER[curve] - s))


@CURVES
def test_a_der_signature_is_refused(curve: str) -> None:
    with pytest.raises(BadSignature, match="64 bytes"):
        _key(curve).verify(MESSAGE, _der(curve))


@CURVES
@pytest.mark.parametrize("length", [0, 1, 32, 63, 65, 128])
def test_a_signature_of_another_length_is_refused(curve: str, length: int) -> None:
    signature = (_raw(*_r_s(curve)) * 2)[:length]
    with pytest.raises(BadSignature, match="64 bytes"):
        _key(curve).verify(MESSAGE, signature)


@CURVES
def test_r_and_s_are_above_zero_and_below_the_order(curve: str) -> None:
    r, s = _r_s(curve)
    order = ORDER[curve]
    top = 2**256 - 1
    for bad in [(0, s), (r, 0), (0, 0), (order, s), (r, order), (top, s), (r, top), (top, top)]:
        with pytest.raises(BadSignature, match="range"):
            _key(curve).verify(MESSAGE, _raw(*bad))


@CURVES
@given(signature=st.binary(min_size=64, max_size=64), message=st.binary())
def test_made_up_signatures_raise_nothing_but_that_they_are_bad(curve: str, signature: bytes, message: bytes) -> None:
    with pytest.raises(BadSignature):
        _key(curve).verify(message, signature)


@CURVES
def test_the_older_verification_methods_hold_the_point_in_either_form(curve: str) -> None:
    for compressed in (True, False):
        key = parse_legacy(LEGACY[curve], _multibase(_point(curve, compressed=compressed)))
        assert key == _key(curve)
        assert hash(key) == hash(_key(curve))
        key.verify(MESSAGE, _raw(*_r_s(curve)))


NO_MULTIKEYS = {
    "empty": "",
    "the base alone": "z",
    "no base": _multibase(PREFIX["k256"] + _point("k256"))[1:],
    "another base": multibase.encode(PREFIX["k256"] + _point("k256"), "base64url"),
    "a character outside base58": _multibase(PREFIX["k256"] + _point("k256"))[:-1] + "0",
    "a space behind it": _multibase(PREFIX["k256"] + _point("k256")) + " ",
    "not ASCII": "zé",
    "a lone surrogate": "z\ud800",
    "far too long": "z" + "2" * 100_000,
    "no point": _multibase(PREFIX["k256"]),
    "no codec": _multibase(_point("k256")),
    "ed25519": "z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK",
    "p384": _multibase(b"\x81\x24\x02" + bytes(48)),
    "a private key": _multibase(b"\x81\x26" + b"\x01" * 32),
    "a point cut off": _multibase(PREFIX["k256"] + _point("k256")[:-1]),
    "a byte behind the point": _multibase(PREFIX["k256"] + _point("k256") + b"\0"),
    "an uncompressed k256 point": _multibase(PREFIX["k256"] + _point("k256", compressed=False)),
    "an uncompressed p256 point": _multibase(PREFIX["p256"] + _point("p256", compressed=False)),
    "x above the field of k256": _multibase(PREFIX["k256"] + b"\x02" + b"\xff" * 32),
    "x above the field of p256": _multibase(PREFIX["p256"] + b"\x02" + b"\xff" * 32),
    "x that is on no point of k256": _multibase(PREFIX["k256"] + b"\x02" + bytes(31) + b"\x05"),
    "a first byte of 4 on a compressed point": _multibase(PREFIX["k256"] + b"\x04" + _point("k256")[1:]),
    "infinity": _multibase(PREFIX["k256"] + bytes(33)),
}


@pytest.mark.parametrize("text", NO_MULTIKEYS.values(), ids=NO_MULTIKEYS)
def test_what_is_no_multikey_of_the_two_curves_is_refused(text: str) -> None:
    with pytest.raises(MalformedKey):
        parse_multibase(text)
    with pytest.raises(MalformedKey):
        parse_did_key(f"did:key:{text}")


def test_a_did_key_needs_its_method() -> None:
    text = _multibase(PREFIX["k256"] + _point("k256"))
    assert parse_did_key(f"did:key:{text}") == parse_multibase(text)
    for wrong in (
        text,
        f"did:plc:{text}",
        f"DID:key:{text}",
        f"key:{text}",
        f"did:key:did:key:{text}",
        f"did:key:{text}#{text}",
    ):
        with pytest.raises(MalformedKey):
            parse_did_key(wrong)


def test_an_older_method_with_a_key_of_another_curve_or_form_is_refused() -> None:
    cases = [
        ("Multikey", _multibase(_point("k256"))),
        ("Ed25519VerificationKey2018", _multibase(bytes(32))),
        ("", _multibase(_point("k256"))),
        (LEGACY["p256"], _multibase(_point("k256", compressed=False))),
        (LEGACY["k256"], _multibase(_point("p256", compressed=False))),
        (LEGACY["k256"], _multibase(PREFIX["k256"] + _point("k256"))),
        (LEGACY["k256"], _multibase(b"\x06" + _point("k256", compressed=False)[1:])),
        (LEGACY["k256"], _multibase(b"\x07" + _point("k256", compressed=False)[1:])),
        (LEGACY["k256"], _multibase(_point("k256", compressed=False)[:-1] + b"\0")),
        (LEGACY["k256"], "z"),
        (LEGACY["k256"], "fe701"),
    ]
    for type_, text in cases:
        with pytest.raises(MalformedKey):
            parse_legacy(type_, text)


def test_a_key_shows_itself_without_its_parsed_form() -> None:
    assert repr(_key("k256")) == f"PublicKey(curve='k256', multibase={_key('k256').multibase!r})"
