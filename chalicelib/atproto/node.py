"""One node of the Merkle Search Tree: its form in bytes, and what must be true of it where it stands in the tree.

A node of layer L holds the keys whose hash starts with L pairs of zero bits. In the gaps between them hang its children,
each of layer L - 1 and with no keys but those of its gap; most gaps of most nodes are empty:

    children   c0       c1       c2          every key under c1 lies between k0 and k1
    keys           k0       k1
    values         v0       v1               CIDs of records

In bytes, a key is what it does not share with the key before it:
``{"e": [{"k": suffix, "p": length shared, "t": child after it, "v": value}], "l": first child}``.

Specification: https://atproto.com/specs/repository#mst-structure
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256
from typing import Final, NamedTuple

from chalicelib.atproto import plain
from chalicelib.atproto.cid import CID_LENGTH, DAG_CBOR, cid_of
from chalicelib.atproto.errors import VerificationFailed


class NodeLimits(NamedTuple):
    """What a node may be. Each bound is itself allowed."""

    max_entries: int = 1_000
    """Keys. Three on average; more than a hundred takes keys that were mined for it."""
    max_layer: int = 20
    """A repo of n keys has its root near layer log4(n); a key of layer 20 is one in 10**12."""
    max_key_bytes: int = 2_000_000
    """Of all keys of a node together: what shared prefixes may unfold to."""


NODE_LIMITS: Final = NodeLimits()


class Node(NamedTuple):
    """A node whose keys are whole and in order. ``children`` has one more than ``keys``, None for an empty gap."""

    keys: list[bytes]
    values: list[bytes]
    children: list[bytes | None]


class Gap(NamedTuple):
    """Where a node hangs: between which keys, and at which layer. The root has no neighbours, and its layer shows in it."""

    low: bytes
    high: bytes | None
    layer: int | None


ROOT_GAP: Final = Gap(b"", None, None)
_LINK: Final = b"\xd8*X%\x00" + DAG_CBOR
_FIELD_LENGTH: Final = 2 + 5 + CID_LENGTH  # of a link and its name
_MAX_VALUE_CID: Final = 128

_HASHES_FROM: Final = [b"\xff" * 33, *((1 << (254 - 2 * layer)).to_bytes(32, "big") for layer in range(128))]

# A node of fewer than 24 keys of printable ASCII, as all real ones are.
_CHILD_PATTERN: Final = rb"(?:\xf6|%b)" % plain.LINK_TO_NODE
_ENTRY: Final = re.compile(
    rb"\xa4ak([A-W]|X[\x18-\xff])([\x2d-\x7e]{1,255})ap([\x00-\x17]|\x18[\x18-\xff])at%bav%b"
    % (_CHILD_PATTERN, plain.LINK_TO_NODE),
    re.DOTALL,
)
_STARTS: Final = [bytes((0xA2, 0x61, 0x65, 0x80 + count)) for count in range(plain.MAX_SHORT + 1)]
_SUFFIX_HEADS: Final = [bytes((0x40 + length,) if length < 24 else (0x58, length)) for length in range(256)]


def gap_of_child(keys: list[bytes], index: int, own: Gap, layer: int) -> Gap:
    """The gap of a child of a node that has these keys and this layer, and hangs in ``own``."""
    return Gap(keys[index - 1] if index else own.low, keys[index] if index < len(keys) else own.high, layer - 1)


def layer_of(key: bytes) -> int:
    """Leading zero bits of the key's SHA-256, in pairs."""
    return (256 - int.from_bytes(sha256(key).digest(), "big").bit_length()) // 2


def read_node(cid: bytes, block: bytes, gap: Gap, limits: NodeLimits = NODE_LIMITS) -> tuple[Node, int]:
    """The node in a block, and its layer: hash, form, order, place and layer checked.

    Raises VerificationFailed: ``wrong-hash`` where the bytes are not the CID's, else ``bad-node``.
    """
    if cid_of(block) != cid:
        raise VerificationFailed("wrong-hash", "a node's bytes are not those of its CID")
    node = parse_node(block, limits)
    return node, _check_place(node, gap, limits)


def parse_node(block: bytes, limits: NodeLimits = NODE_LIMITS) -> Node:
    """The node in a block, strictly. Raises VerificationFailed (``bad-node``).

    Its shape is fixed and a value has one encoding only, so its bytes are compared with what they have to be.
    """
    try:
        node = _read_plain(block) or _read_any(block, limits)
    except IndexError:
        raise _bad("it is cut off") from None
    if len(node.keys) > limits.max_entries:
        raise _bad(f"it has {len(node.keys)} keys, at most {limits.max_entries} are allowed")
    return node


def encode_node(node: Node) -> bytes:
    """The one encoding of a node."""
    keys, values, children = node
    parts = [b"\xa2ae", _head(0x80, len(keys))]
    previous = b""
    for key, value, child in zip(keys, values, children[1:], strict=True):
        shared = shared_prefix(previous, key)
        parts += b"\xa4ak", _head(0x40, len(key) - shared), key[shared:], b"ap", _head(0, shared)
        parts += b"at", _encoded_link(child), b"av", _encoded_link(value)
        previous = key
    parts += (b"al", _encoded_link(children[0]))
    return b"".join(parts)


def shared_prefix(left: bytes, right: bytes) -> int:
    """How many bytes two keys have in common at their start."""
    length = min(len(left), len(right))
    different = int.from_bytes(left[:length], "big") ^ int.from_bytes(right[:length], "big")
    return length - (different.bit_length() + 7) // 8


def _check_place(node: Node, gap: Gap, limits: NodeLimits) -> int:
    keys, _, children = node
    low, high, layer = gap
    if not keys:
        # Only the empty tree has a node with nothing in it; only below the root may one merely lead to the next layer.
        if (children[0] is None) != (layer is None):
            raise _bad("it is empty")
        if layer is None:
            return 0
    elif layer is None:
        layer = layer_of(keys[0])
    if layer > min(limits.max_layer, 127):
        raise _bad(f"its layer is {layer}, at most {limits.max_layer} is allowed")
    # The hashes of the layer's keys are those from 4 ** -(layer + 1) up to 4 ** -layer of the highest.
    lowest, highest = _HASHES_FROM[layer + 1], _HASHES_FROM[layer]
    hashes = [sha256(key).digest() for key in keys]
    if hashes and not lowest <= min(hashes) <= max(hashes) < highest:
        other = next(filter(layer.__ne__, map(layer_of, keys)))
        raise _bad(f"a key of layer {other} is in a node of layer {layer}")
    if layer == 0 and any(children):
        raise _bad("it is of layer 0 and has a child")
    if keys and (keys[0] <= low or (high is not None and keys[-1] >= high)):
        raise _bad("a key lies outside of the gap that it hangs in")
    return layer


def _read_plain(block: bytes) -> Node | None:
    """The node, if it is plain: nothing but entries between head and tail. Of another, the slower reading tells what is
    wrong with it, if anything."""
    # What comes before the first entry; then of each entry its five groups, and what follows it.
    fields = [block[:4], block[4:]] if block[3] == 0x80 else _ENTRY.split(block)
    values, end = fields[5::6], fields[-1]
    if len(values) > plain.MAX_SHORT or fields[0] != _STARTS[len(values)] or any(fields[6:-1:6]):
        return None
    if end == b"al\xf6":
        first = None
    elif len(end) == _FIELD_LENGTH and end.startswith(b"al" + _LINK):
        first = end[-CID_LENGTH:]
    else:
        return None
    keys = []
    key = b""
    for head, suffix, number in zip(fields[1:-1:6], fields[2::6], fields[3::6], strict=True):
        previous, length = key, number[-1]
        key = previous[:length] + suffix
        if key <= previous or length > len(previous) or head != _SUFFIX_HEADS[len(suffix)]:
            return None
        keys.append(key)
    return Node(keys, values, [first, *fields[4::6]])


def _read_any(block: bytes, limits: NodeLimits) -> Node:
    if block[:3] != b"\xa2ae":
        raise _bad("it is not a map of e and l")
    count, at = _number(block, 3, 0x80)
    if count > limits.max_entries:
        raise _bad(f"it has {count} keys, at most {limits.max_entries} are allowed")
    node = Node([], [], [None])
    key = b""
    total = 0
    for _ in range(count):
        if block[at : at + 3] != b"\xa4ak":
            raise _bad("an entry is not a map of k, p, t and v")
        length, at = _number(block, at + 3, 0x40)
        suffix = block[at : at + length]
        at += length
        if block[at : at + 2] != b"ap":
            raise _bad("an entry has no p")
        shared, at = _number(block, at + 2, 0x00)
        previous, key = key, key[:shared] + suffix
        if shared > len(previous) or key <= previous:
            raise _wrong_key(previous, shared)
        total += len(key)
        if total > limits.max_key_bytes:
            raise _bad(f"its keys unfold to more than {limits.max_key_bytes} bytes")
        child, at = _child(block, b"at", at)
        value, at = _value(block, at)
        node.keys.append(key)
        node.values.append(value)
        node.children.append(child)
    node.children[0], at = _child(block, b"al", at)
    if at != len(block):
        raise _bad("it is cut off, or other bytes follow it")
    return node


def _wrong_key(previous: bytes, shared: int) -> VerificationFailed:
    return _bad(
        "a prefix is longer than the key before it"
        if shared > len(previous)
        else "a key is empty, or not above the key before it"
    )


def _number(block: bytes, at: int, major: int) -> tuple[int, int]:
    """The number in the head of an item of the given major type, in its shortest form, and where the head ends."""
    info = block[at] - major
    if 0 <= info < 24:
        return info, at + 1
    if info == 24 and block[at + 1] >= 24:
        return block[at + 1], at + 2
    if 25 <= info <= 26:
        size = 1 << (info - 24)
        number = int.from_bytes(block[at + 1 : at + 1 + size], "big")
        if number >> (4 * size):
            return number, at + 1 + size
    raise _bad("an item is not of the type or form that it should be")


def _child(block: bytes, name: bytes, at: int) -> tuple[bytes | None, int]:
    if block[at : at + 3] == name + b"\xf6":
        return None, at + 3
    if block[at : at + 11] != name + _LINK:
        raise _bad(f"it has no {name[1:].decode()} that is null or the CID of a DAG-CBOR block")
    return block[at + 7 : at + _FIELD_LENGTH], at + _FIELD_LENGTH


def _value(block: bytes, at: int) -> tuple[bytes, int]:
    if block[at : at + 11] == b"av" + _LINK:
        return block[at + 7 : at + _FIELD_LENGTH], at + _FIELD_LENGTH
    # Other kinds of CID are for the record to answer for, not for the tree.
    if block[at : at + 4] != b"av\xd8*":
        raise _bad("an entry has no v that is a link")
    length, at = _number(block, at + 4, 0x40)
    if block[at] != 0 or not 1 < length <= _MAX_VALUE_CID:
        raise _bad("a value is not a CID")
    return block[at + 1 : at + length], at + length


def _encoded_link(cid: bytes | None) -> bytes:
    if cid is None:
        return b"\xf6"
    if len(cid) == CID_LENGTH:
        return b"\xd8*X%\0" + cid
    return b"\xd8*" + _head(0x40, len(cid) + 1) + b"\0" + cid


@lru_cache(1_024)
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
