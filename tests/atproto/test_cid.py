"""CIDs: the one shape that atproto allows, and its text."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiformats import CID

from chalicelib.atproto.cid import DAG_CBOR, RAW, check_cid, cid_from_text, cid_of, cid_to_text
from chalicelib.atproto.errors import InvalidSyntax, MalformedCbor

DIGEST = hashlib.sha256(b"a block").digest()


def test_the_cid_of_a_block_is_its_codec_and_the_sha256_of_its_bytes() -> None:
    assert cid_of(b"a block") == bytes.fromhex("01711220") + DIGEST
    assert cid_of(memoryview(b"a block"), RAW) == bytes.fromhex("01551220") + DIGEST


def test_the_published_blocks_have_their_published_cids(fixtures_dir: Path) -> None:
    for case in json.loads((fixtures_dir / "interop/data-model/data-model-fixtures.json").read_text()):
        cid = cid_of(base64.b64decode(case["cbor_base64"] + "=="))
        assert cid_to_text(cid) == case["cid"]
        assert cid_from_text(case["cid"]) == cid


@given(st.sampled_from([DAG_CBOR, RAW]), st.binary(min_size=32, max_size=32))
def test_bytes_and_text_say_the_same_as_a_full_cid_implementation(codec: bytes, digest: bytes) -> None:
    text = cid_to_text(codec + digest)
    other = CID.decode(text)
    assert (other.base.name, other.version, other.hashfun.name, other.raw_digest) == ("base32", 1, "sha2-256", digest)
    assert bytes(other) == cid_from_text(text) == codec + digest


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().split("\n") if line and not line.startswith("#")]


def test_published_texts_that_are_no_cids_are_refused(fixtures_dir: Path) -> None:
    for text in _lines(fixtures_dir / "interop/syntax/cid_syntax_invalid.txt"):
        with pytest.raises(InvalidSyntax):
            cid_from_text(text)


def test_of_the_published_cids_those_of_other_codecs_hashes_and_bases_are_refused(fixtures_dir: Path) -> None:
    for text in _lines(fixtures_dir / "interop/syntax/cid_syntax_valid.txt"):
        with pytest.raises(InvalidSyntax):
            cid_from_text(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("b", id="a base alone"),
        pytest.param(cid_to_text(DAG_CBOR + DIGEST).upper(), id="upper case"),
        pytest.param("b" + cid_to_text(DAG_CBOR + DIGEST)[1:].upper(), id="upper case but for the base"),
        pytest.param(cid_to_text(DAG_CBOR + DIGEST) + "=", id="padding"),
        pytest.param(cid_to_text(DAG_CBOR + DIGEST) + "\n", id="a newline behind it"),
        pytest.param(cid_to_text(DAG_CBOR + DIGEST)[:-1], id="cut off"),
        pytest.param(cid_to_text(DAG_CBOR + DIGEST)[:-1] + "7", id="bits behind the last byte"),
        pytest.param(str(CID("base58btc", 1, "dag-cbor", ("sha2-256", DIGEST))), id="base58"),
        pytest.param(str(CID("base32", 1, "dag-pb", ("sha2-256", DIGEST))), id="dag-pb"),
        pytest.param(str(CID("base32", 1, "dag-cbor", ("sha2-512", DIGEST * 2))), id="sha2-512"),
        pytest.param(str(CID("base32", 1, "dag-cbor", ("sha3-256", DIGEST))), id="sha3-256"),
        pytest.param("b\ud800", id="a lone surrogate"),
        pytest.param("bé", id="not ASCII"),
    ],
)
def test_a_text_that_is_not_the_one_form_of_an_allowed_cid_is_refused(text: str) -> None:
    with pytest.raises(InvalidSyntax):
        cid_from_text(text)


@pytest.mark.parametrize("cid", [b"", DAG_CBOR, DAG_CBOR + DIGEST[1:], DAG_CBOR + DIGEST + b"\0", b"\x12\x20" + DIGEST])
def test_bytes_of_another_shape_are_refused(cid: bytes) -> None:
    with pytest.raises(MalformedCbor):
        check_cid(cid)


def test_reading_a_cid_as_bytes_imports_no_multiformats() -> None:
    code = "import sys, chalicelib.atproto.drisl, chalicelib.atproto.crypto; print('multiformats' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=_root())
    assert run.stdout.strip() == "False"


def _root() -> Path:
    return Path(__file__).resolve().parents[2]
