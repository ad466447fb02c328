"""One node of the Merkle Search Tree: its form in bytes, and what must be true of it where it stands in the tree.

A node of layer L holds the keys whose hash starts with L pairs of zero bits. Between its keys lie its subtrees, each
of layer L - 1, in which every key lies in the gap that the subtree hangs in:

    left        key 0 → value      right of 0      key 1 → value      right of 1
      │                                 │                                  │
    keys below key 0           keys between 0 and 1                 keys above key 1

In bytes a key shares a prefix with the key before it: ``{"e": [{"k": suffix, "p": shared, "t": right, "v": value}], "l": left}``.

Specification: https://atproto.com/specs/repository#mst-structure
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from chalicelib.atproto.cid import CID_LENGTH, DAG_CBOR, cid_of
from chalicelib.atproto.errors import VerificationFailed


class NodeLimits(NamedTuple):
    """What a node may be. Each bound is itself allowed."""

    max_entries: int = 1_000
    """Three on average; more than a hundred takes keys that were mined for it."""
    max_layer: int = 20
    """A repo of n keys has its root near layer log4(n); a key of layer 20 is one in 10**12."""
    max_key_bytes: int = 2_000_000
    """Of all keys of a node together: what prefix compression may unfold to."""


NODE_LIMITS: Final = NodeLimits()


class Entry(NamedTuple):
    """A key, the CID of its record, and the subtree between it and the next key."""

    key: bytes
    value: bytes
    right: bytes | None


class Node(NamedTuple):
    """A node whose entries are in order, each key whole. ``left`` is the subtree before the first key."""

    left: bytes | None
    entries: list[Entry]


class Gap(NamedTuple):
    """Where a node hangs: the keys on either side of it, and its layer. The root has neither neighbours nor a known layer."""

    low: bytes
    high: bytes | None
    layer: int | None


ROOT_GAP: Final = Gap(b"", None, None)
_LINK: Final = b"\xd8*X%\x00" + DAG_CBOR
_LINK_LENGTH: Final = 5 + CID_LENGTH
_MAX_VALUE_CID: Final = 128


def layer_of(key: bytes) -> int:
    """Leading zero bits of the key's SHA-256, in pairs."""
    return (256 - int.from_bytes(hashlib.sha256(key).digest(), "big").bit_length()) // 2


def read_node(cid: bytes, block: bytes, gap: Gap, limits: NodeLimits = NODE_LIMITS) -> tuple[Node, int]:
    """The node in a block, and its layer: hash, form, order, place and layer checked.

    Raises VerificationFailed: ``wrong-hash`` where the bytes are not the CID's, else ``bad-node``.
    """
    if cid_of(block) != cid:
        raise VerificationFailed("wrong-hash", "a node's bytes are not those of its CID")
    node = parse_node(block, limits)
    return node, _check_place(node, gap, limits)


def parse_node(block: bytes, limits: NodeLimits = NODE_LIMITS) -> Node:
    """The node in a block. Raises VerificationFailed (``bad-node``) unless it is strict DAG-CBOR of the one right shape.

    The shape is fixed and the bytes of a value are unique, so they are read as they must be: nothing is decoded in general.
    """
    try:
        node, end = _parse(block, limits)
    except IndexError:
        raise _bad("it is cut off") from None
    if end != len(block):
        raise _bad("bytes follow it")
    return node


def encode_node(node: Node) -> bytes:
    """The one encoding of a node."""
    parts = [b"\xa2ae", _head(0x80, len(node.entries))]
    previous = b""
    for key, value, right in node.entries:
        shared = shared_prefix(previous, key)
        parts += (b"\xa4ak", _head(0x40, len(key) - shared), key[shared:], b"ap", _head(0, shared), b"at")
        parts += (_encoded_link(right), b"av", _encoded_link(value))
        previous = key
    parts += (b"al", _encoded_link(node.left))
    return b"".join(parts)


def shared_prefix(left: bytes, right: bytes) -> int:
    """How many bytes two keys have in common at their start."""
    length = min(len(left), len(right))
    different = int.from_bytes(left[:length], "big") ^ int.from_bytes(right[:length], "big")
    return length - (different.bit_length() + 7) // 8


def _check_place(node: Node, gap: Gap, limits: NodeLimits) -> int:
    left, entries = node
    layer = gap.layer
    if not entries:
        # Only the empty tree has a node with nothing in it; only below the root may one merely lead to the next layer.
        if (left is None) != (layer is None):
            raise _bad("it is empty")
    elif layer is None:
        layer = layer_of(entries[0].key)
    if layer is None:
        return 0
    if layer > limits.max_layer:
        raise _bad(f"its layer is {layer}, at most {limits.max_layer} is allowed")
    for key, _, right in entries:
        if layer_of(key) != layer:
            raise _bad(f"a key of layer {layer_of(key)} is in a node of layer {layer}")
        if right is not None and layer == 0:
            raise _bad("it is of layer 0 and has a child")
    if left is not None and layer == 0:
        raise _bad("it is of layer 0 and has a child")
    if entries and (entries[0].key <= gap.low or (gap.high is not None and entries[-1].key >= gap.high)):
        raise _bad("a key lies outside of the gap that it hangs in")
    return layer


def _parse(block: bytes, limits: NodeLimits) -> tuple[Node, int]:
    if not block.startswith(b"\xa2ae"):
        raise _bad("it is not a map of e and l")
    count, at = _number(block, 3, 0x80)
    if count > limits.max_entries:
        raise _bad(f"it has {count} entries, at most {limits.max_entries} are allowed")
    entries = []
    key = b""
    total = 0
    for _ in range(count):
        if not block.startswith(b"\xa4ak", at):
            raise _bad("an entry is not a map of k, p, t and v")
        length, at = _number(block, at + 3, 0x40)
        suffix = block[at : at + length]
        at += length
        if not block.startswith(b"ap", at):
            raise _bad("an entry has no p")
        shared, at = _number(block, at + 2, 0x00)
        if shared > len(key):
            raise _bad("a prefix is longer than the key before it")
        this = key[:shared] + suffix
        if this <= key:
            raise _bad("a key is empty, or not above the key before it")
        key = this
        total += len(key)
        if total > limits.max_key_bytes:
            raise _bad(f"its keys unfold to more than {limits.max_key_bytes} bytes")
        if not block.startswith(b"at", at):
            raise _bad("an entry has no t")
        right, at = _child(block, at + 2)
        if not block.startswith(b"av", at):
            raise _bad("an entry has no v")
        value, at = _value(block, at + 2)
        entries.append(Entry(key, value, right))
    if not block.startswith(b"al", at):
        raise _bad("it has no l")
    left, at = _child(block, at + 2)
    return Node(left, entries), at


def _number(block: bytes, at: int, major: int) -> tuple[int, int]:
    """The number in the head of an item of the given major type, in its shortest form, and where the head ends."""
    info = block[at] - major
    if 0 <= info < 24:
        return info, at + 1
    if 24 <= info <= 26:
        size = 1 << (info - 24)
        number = int.from_bytes(block[at + 1 : at + 1 + size], "big")
        if number >= (24, 0x100, 0x10000)[info - 24]:
            return number, at + 1 + size
    raise _bad("an item is not of the type or form that it should be")


def _child(block: bytes, at: int) -> tuple[bytes | None, int]:
    if block[at] == 0xF6:
        return None, at + 1
    if not block.startswith(_LINK, at):
        raise _bad("a link to a node is not the CID of a DAG-CBOR block")
    return block[at + 5 : at + _LINK_LENGTH], at + _LINK_LENGTH


def _value(block: bytes, at: int) -> tuple[bytes, int]:
    if block.startswith(_LINK, at):
        return block[at + 5 : at + _LINK_LENGTH], at + _LINK_LENGTH
    # Other kinds of CID are for the record to answer for, not for the tree.
    if not block.startswith(b"\xd8*", at):
        raise _bad("a value is not a link")
    length, at = _number(block, at + 2, 0x40)
    if block[at] != 0 or not 1 < length <= _MAX_VALUE_CID:
        raise _bad("a value is not a CID")
    return block[at + 1 : at + length], at + length


def _encoded_link(cid: bytes | None) -> bytes:
    if cid is None:
        return b"\xf6"
    return b"\xd8*" + _head(0x40, len(cid) + 1) + b"\0" + cid


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes((major | number,))
    if number < 0x100:
        return bytes((major | 24, number))
    if number < 0x10000:
        return bytes((major | 25,)) + number.to_bytes(2, "big")
    return bytes((major | 26,)) + number.to_bytes(4, "big")


def _bad(what: str) -> VerificationFailed:
    return VerificationFailed("bad-node", f"a node of the tree is malformed: {what}")
