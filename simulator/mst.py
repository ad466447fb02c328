"""The Merkle Search Tree of a repo (atproto.com/specs/repository), as an immutable tree.

A node of layer L holds the keys whose hash has L leading zero pairs of bits, and a subtree in each gap between them:

    children   c0     c1     c2            every key under c1 lies between k0 and k1,
    keys          k0     k1                and has a layer below L
    values        v0     v1

An edit returns a new root that shares every untouched node with the old one: the old tree stays whole, which makes
stale blocks, ``prevData`` and proofs a matter of keeping a reference. A node is hashed once, when its CID is asked for.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import pairwise

from .cbor import Link, cid_of, encode


class Node:
    """One node; ``len(children) == len(keys) + 1``. Nothing in it changes, but its hash is filled in."""

    __slots__ = ("_block", "_cid", "children", "keys", "layer", "values")

    def __init__(
        self, layer: int, keys: tuple[bytes, ...], values: tuple[bytes, ...], children: tuple[Node | None, ...]
    ) -> None:
        self.layer = layer
        self.keys = keys
        self.values = values
        self.children = children
        self._cid: bytes | None = None
        self._block = b""

    @property
    def cid(self) -> bytes:
        if self._cid is None:
            self._block = self._encode()
            self._cid = cid_of(self._block)
        return self._cid

    @property
    def block(self) -> bytes:
        return self._block if self.cid else b""

    @property
    def is_new(self) -> bool:
        """Nobody has asked for its CID yet: made by edits since the last time that its tree was hashed."""
        return self._cid is None

    def _encode(self) -> bytes:
        links = [Link(child.cid) if child else None for child in self.children]
        prefixes = [0, *(_common_prefix(left, right) for left, right in pairwise(self.keys))]
        entries = [
            {"k": key[prefix:], "p": prefix, "t": link, "v": Link(value)}
            for key, prefix, link, value in zip(self.keys, prefixes, links[1:], self.values, strict=False)
        ]
        return encode({"e": entries, "l": links[0]})

    def with_child(self, index: int, child: Node | None) -> Node:
        return Node(self.layer, self.keys, self.values, (*self.children[:index], child, *self.children[index + 1 :]))


def empty() -> Node:
    """The tree without keys: one node, and nothing in it."""
    return Node(0, (), (), (None,))


def layer_of(key: bytes) -> int:
    """Leading zero bits of the key's SHA-256, in pairs."""
    digest = hashlib.sha256(key).digest()
    return (256 - int.from_bytes(digest, "big").bit_length()) // 2


def build(entries: Iterable[tuple[bytes, bytes]]) -> Node:
    """The tree of all ``(key, value)`` at once, layer by layer from the bottom: each node is made only once."""
    rest = [(key, value, layer_of(key)) for key, value in sorted(entries)]
    gaps: list[Node | None] = [None] * (len(rest) + 1)
    layer = 0
    while rest:
        upper: list[tuple[bytes, bytes, int]] = []
        upper_gaps: list[Node | None] = []
        start = 0
        for index in range(len(rest) + 1):
            if index == len(rest) or rest[index][2] > layer:
                keys, values = tuple(e[0] for e in rest[start:index]), tuple(e[1] for e in rest[start:index])
                upper_gaps.append(_node(layer, keys, values, tuple(gaps[start : index + 1])))
                upper += rest[index : index + 1]
                start = index + 1
        rest, gaps = upper, upper_gaps
        layer += 1
    return gaps[0] or empty()


def get(root: Node, key: bytes) -> bytes | None:
    """The value under ``key``."""
    node: Node | None = root
    while node:
        index, found = _find(node, key)
        if found:
            return node.values[index]
        node = node.children[index]
    return None


def put(root: Node, key: bytes, value: bytes) -> Node:
    """The tree in which ``key`` has ``value``, whether it was there or not."""
    layer = layer_of(key)
    if layer > root.layer:
        left, right = _split(root, key)
        return Node(layer, (key,), (value,), (_raise(left, layer - 1), _raise(right, layer - 1)))
    return _put(root, key, value, layer)


def delete(root: Node, key: bytes) -> Node:
    """The tree without ``key``. ``KeyError`` where it is not in it."""
    node = _delete(root, key)
    while node and not node.keys:
        node = node.children[0]
    return node or empty()


def items(root: Node | None, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    """All ``(key, value)`` with a key of at least ``start``, in order of keys."""
    if root:
        first = bisect_left(root.keys, start)
        yield from items(root.children[first], start)
        for index in range(first, len(root.keys)):
            yield root.keys[index], root.values[index]
            yield from items(root.children[index + 1])


def nodes(root: Node) -> Iterator[Node]:
    """All nodes, a parent before its children, in order of keys."""
    yield root
    for child in root.children:
        if child:
            yield from nodes(child)


def new_nodes(root: Node) -> list[Node]:
    """The nodes that edits have made since this tree was last hashed: parents first. Hashes the tree."""
    found: list[Node] = []

    def walk(node: Node) -> None:
        found.append(node)
        for child in node.children:
            if child and child.is_new:
                walk(child)

    if root.is_new:
        walk(root)
    return [node for node in found if node.cid]


def covering(root: Node, key: bytes) -> list[Node]:
    """The nodes on the way to ``key``, present or not, and to its two neighbours: what undoing an edit of it needs."""
    path: list[Node] = []
    node: Node | None = root
    while node:
        path.append(node)
        index, found = _find(node, key)
        if found:
            for child, end in ((node.children[index], -1), (node.children[index + 1], 0)):
                while child:
                    path.append(child)
                    child = child.children[end]
            break
        node = node.children[index]
    return path


def _node(
    layer: int, keys: tuple[bytes, ...], values: tuple[bytes, ...], children: tuple[Node | None, ...]
) -> Node | None:
    """A node, or nothing where there is nothing to hold."""
    return Node(layer, keys, values, children) if keys or children[0] else None


def _find(node: Node, key: bytes) -> tuple[int, bool]:
    """Where ``key`` is, or the gap in which it would be."""
    index = bisect_left(node.keys, key)
    return index, index < len(node.keys) and node.keys[index] == key


def _put(node: Node, key: bytes, value: bytes, layer: int) -> Node:
    index, found = _find(node, key)
    if found:
        return Node(node.layer, node.keys, (*node.values[:index], value, *node.values[index + 1 :]), node.children)
    if node.layer > layer:
        below = node.children[index] or Node(node.layer - 1, (), (), (None,))
        return node.with_child(index, _put(below, key, value, layer))
    return Node(
        layer,
        (*node.keys[:index], key, *node.keys[index:]),
        (*node.values[:index], value, *node.values[index:]),
        (*node.children[:index], *_split(node.children[index], key), *node.children[index + 1 :]),
    )


def _delete(node: Node, key: bytes) -> Node | None:
    index, found = _find(node, key)
    if not found:
        child = node.children[index]
        if child is None:
            raise KeyError(key)
        changed = node.with_child(index, _delete(child, key))
        return changed if changed.keys or changed.children[0] else None
    return _node(
        node.layer,
        node.keys[:index] + node.keys[index + 1 :],
        node.values[:index] + node.values[index + 1 :],
        (*node.children[:index], _merge(node.children[index], node.children[index + 1]), *node.children[index + 2 :]),
    )


def _split(node: Node | None, key: bytes) -> tuple[Node | None, Node | None]:
    """The parts of a subtree below and above a key that is not in it."""
    if node is None:
        return None, None
    index, _ = _find(node, key)
    below, above = _split(node.children[index], key)
    return (
        _node(node.layer, node.keys[:index], node.values[:index], (*node.children[:index], below)),
        _node(node.layer, node.keys[index:], node.values[index:], (above, *node.children[index + 1 :])),
    )


def _merge(left: Node | None, right: Node | None) -> Node | None:
    """Two neighbouring subtrees of one layer as one."""
    if left is None or right is None:
        return left or right
    return Node(
        left.layer,
        left.keys + right.keys,
        left.values + right.values,
        (*left.children[:-1], _merge(left.children[-1], right.children[0]), *right.children[1:]),
    )


def _raise(node: Node | None, layer: int) -> Node | None:
    """A subtree under as many empty nodes as it takes for it to stand at ``layer``."""
    while node and node.layer < layer:
        node = Node(node.layer + 1, (), (), (node,))
    return node


def _common_prefix(left: bytes, right: bytes) -> int:
    length = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        length += 1
    return length
