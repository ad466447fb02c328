"""Undoing a commit: from the partial tree that it carries back to the root before it (Sync v1.1).

A commit event brings the nodes on the way to each key that it changed. They are enough to undo its operations one by one
and to arrive at the CID of the tree before, which shows that the operations are all that happened: nothing was left out.

Specification: https://atproto.com/specs/sync, proposal 0006 of Sync v1.1
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from chalicelib.atproto.cid import cid_of
from chalicelib.atproto.errors import VerificationFailed
from chalicelib.atproto.node import NODE_LIMITS, ROOT_GAP, Gap, Node, encode_node, gap_of_child, layer_of, read_node

if TYPE_CHECKING:
    from chalicelib.atproto.events import RepoOp


def invert(root: bytes, blocks: Mapping[bytes, bytes], ops: Sequence[RepoOp]) -> bytes:
    """The root of the tree before ``ops``, given the root after them and the nodes that the commit carries.

    An op that replaces or removes needs its ``prev``. Raises VerificationFailed: ``missing-block`` where a node is needed
    that is not there, ``inversion-mismatch`` where an op does not fit the tree, ``wrong-hash`` and ``bad-node`` for bad nodes.
    """
    backwards = list(reversed(ops))
    try:
        return _undo_all(root, blocks, backwards)
    except VerificationFailed as error:
        if error.reason != "missing-block":
            raise
    # What a deleted key kept apart lies together now. With the key back in its place less of the tree may be needed.
    return _undo_all(root, blocks, sorted(backwards, key=lambda op: op.cid is not None))


def find(root: bytes, blocks: Mapping[bytes, bytes], paths: Iterable[str]) -> list[bytes | None]:
    """The CID under each path, None where the tree proves that there is none. A node is read once.

    Raises VerificationFailed: ``missing-block``, ``wrong-hash``, ``bad-node``.
    """
    read: dict[bytes, tuple[Node, int]] = {}
    return [_find(root, blocks, path.encode(), read) for path in paths]


def _find(root: bytes, blocks: Mapping[bytes, bytes], key: bytes, read: dict[bytes, tuple[Node, int]]) -> bytes | None:
    gap = ROOT_GAP
    below: bytes | None = root
    while below is not None:
        if below not in read:
            read[below] = _read(blocks, below, gap)
        node, layer = read[below]
        index = bisect_left(node.keys, key)
        if index < len(node.keys) and node.keys[index] == key:
            return node.values[index]
        below, gap = node.children[index], gap_of_child(node.keys, index, gap, layer)
    return None


def _undo_all(root: bytes, blocks: Mapping[bytes, bytes], ops: Iterable[RepoOp]) -> bytes:
    tree = _Tree(root, blocks)
    for op in ops:
        key = op.path.encode()
        if op.cid is None:
            tree.insert(key, _given(op.prev))
        elif op.action == "create":
            tree.remove(key, op.cid)
        else:
            tree.replace(key, op.cid, _given(op.prev))
    return tree.cid()


def _given(prev: bytes | None) -> bytes:
    if prev is None:
        raise VerificationFailed(
            "inversion-mismatch", "an op that replaces or removes does not say what was there before"
        )
    return prev


class _Branch:
    """A node that may change. ``children`` are CIDs until somebody needs to look inside.

    ``origin`` and ``block`` are the CID and the bytes that it was loaded from. ``cid`` is None from the first change on,
    in it or below it; ``block`` is None once something in it but the links to its children has changed.
    """

    __slots__ = ("block", "children", "cid", "keys", "layer", "origin", "values")

    def __init__(self, layer: int, keys: list[bytes], values: list[bytes], children: list[_Child]) -> None:
        self.layer = layer
        self.keys = keys
        self.values = values
        self.children = children
        self.origin: bytes | None = None
        self.cid: bytes | None = None
        self.block: bytes | None = None

    def index(self, key: bytes) -> tuple[int, bool]:
        """Where the key is, or the gap in which it would be."""
        index = bisect_left(self.keys, key)
        return index, index < len(self.keys) and self.keys[index] == key

    def gap(self, index: int, own: Gap) -> Gap:
        """The gap of a child."""
        return gap_of_child(self.keys, index, own, self.layer)

    def finished(self) -> bytes:
        if self.cid is None:
            block = self.block
            for child in self.children:
                if isinstance(child, _Branch) and child.finished() != child.origin and block:
                    block = _patched(block, child.origin, child.finished())
            self.cid = cid_of(block or self._encoded())
        return self.cid

    def _encoded(self) -> bytes:
        links = [child.finished() if isinstance(child, _Branch) else child for child in self.children]
        return encode_node(Node(self.keys, self.values, links))


def _patched(block: bytes, old: bytes | None, new: bytes) -> bytes | None:
    """The block with another link in it, if the old one is found for certain: most nodes on the way to a key need no more."""
    return block.replace(old, new) if old and block.count(old) == 1 else None


_Child: TypeAlias = "bytes | _Branch | None"


def _read(blocks: Mapping[bytes, bytes], cid: bytes, gap: Gap) -> tuple[Node, int]:
    block = blocks.get(cid)
    if block is None:
        raise VerificationFailed("missing-block", "a node of the tree is not among the blocks")
    return read_node(cid, block, gap)


def _load(blocks: Mapping[bytes, bytes], cid: bytes, gap: Gap) -> _Branch:
    node, layer = _read(blocks, cid, gap)
    branch = _Branch(layer, node.keys, node.values, list(node.children))
    branch.origin = branch.cid = cid
    branch.block = blocks[cid]
    return branch


def _branch(layer: int, keys: list[bytes], values: list[bytes], children: list[_Child]) -> _Branch | None:
    """A node, or nothing where there is nothing to hold."""
    return _Branch(layer, keys, values, children) if keys or children[0] is not None else None


class _Tree:
    """A partial tree under edits. Recursion goes down one layer at a time, so it is at most ``max_layer`` deep."""

    def __init__(self, root: bytes, blocks: Mapping[bytes, bytes]) -> None:
        self._blocks = blocks
        self._root: bytes | _Branch = root

    def cid(self) -> bytes:
        """The CID of the tree as it is now: no root that only leads to the next layer."""
        root = self._root
        while isinstance(root, _Branch) and not root.keys and root.children[0] is not None:
            child = root.children[0]
            if isinstance(child, bytes) and child in self._blocks:
                child = _load(self._blocks, child, Gap(b"", None, root.layer - 1))
            root = child
        return root.finished() if isinstance(root, _Branch) else root

    def insert(self, key: bytes, value: bytes) -> None:
        layer = layer_of(key)
        if layer > NODE_LIMITS.max_layer:
            raise VerificationFailed("bad-node", f"a key of layer {layer}, at most {NODE_LIMITS.max_layer} is allowed")
        root = self._open(self._root, ROOT_GAP)
        if not root.keys and root.children[0] is None:
            root = _Branch(layer, [], [], [None])
        elif layer > root.layer:
            below, above = self._split(root, ROOT_GAP, key)
            children = [_raised(below, layer - 1), _raised(above, layer - 1)]
            self._root = _Branch(layer, [key], [value], children)
            return
        self._root = root
        self._insert(root, ROOT_GAP, key, value, layer)

    def remove(self, key: bytes, value: bytes) -> None:
        root = self._open(self._root, ROOT_GAP)
        self._root = self._remove(root, ROOT_GAP, key, value) or _Branch(0, [], [], [None])

    def replace(self, key: bytes, value: bytes, new: bytes) -> None:
        gap = ROOT_GAP
        branch = self._root = self._open(self._root, gap)
        branch.cid = None
        while not (at := branch.index(key))[1]:
            gap = branch.gap(at[0], gap)
            below = branch.children[at[0]] = self._open(branch.children[at[0]], gap)
            branch = below
            branch.cid = None
        self._expect(branch, at[0], value)
        branch.values[at[0]] = new
        branch.block = None

    def _open(self, child: _Child, gap: Gap) -> _Branch:
        if child is None:
            raise VerificationFailed("inversion-mismatch", "an op names a key that the tree does not have")
        return child if isinstance(child, _Branch) else _load(self._blocks, child, gap)

    def _expect(self, branch: _Branch, index: int, value: bytes) -> None:
        if branch.values[index] != value:
            raise VerificationFailed("inversion-mismatch", "an op names another CID than the tree has under its key")

    def _insert(self, branch: _Branch, gap: Gap, key: bytes, value: bytes, layer: int) -> None:
        branch.cid = None
        index, found = branch.index(key)
        if found:
            raise VerificationFailed("inversion-mismatch", "an op deletes a key that the tree still has")
        inner = branch.gap(index, gap)
        child = branch.children[index]
        if branch.layer == layer:
            branch.block = None
            branch.children[index : index + 1] = self._split(child, inner, key)
            branch.keys.insert(index, key)
            branch.values.insert(index, value)
            return
        below = _Branch(branch.layer - 1, [], [], [None]) if child is None else self._open(child, inner)
        branch.children[index] = below
        self._insert(below, inner, key, value, layer)

    def _remove(self, branch: _Branch, gap: Gap, key: bytes, value: bytes) -> _Branch | None:
        branch.cid = None
        index, found = branch.index(key)
        if found:
            self._expect(branch, index, value)
            low, high = branch.gap(index, gap).low, branch.gap(index + 1, gap).high
            left, right = branch.children[index : index + 2]
            merged = self._merge(left, right, key, Gap(low, high, branch.layer - 1))
            branch.block = None
            branch.children[index : index + 2] = [merged]
            del branch.keys[index], branch.values[index]
        else:
            inner = branch.gap(index, gap)
            below = self._remove(self._open(branch.children[index], inner), inner, key, value)
            branch.children[index] = below
            if below is None:
                branch.block = None
        return branch if branch.keys or branch.children[0] is not None else None

    def _split(self, child: _Child, gap: Gap, key: bytes) -> tuple[_Child, _Child]:
        """The parts of a subtree below and above a key that is not in it."""
        if child is None:
            return None, None
        branch = self._open(child, gap)
        index, _ = branch.index(key)
        below, above = self._split(branch.children[index], branch.gap(index, gap), key)
        return (
            _branch(branch.layer, branch.keys[:index], branch.values[:index], [*branch.children[:index], below]),
            _branch(branch.layer, branch.keys[index:], branch.values[index:], [above, *branch.children[index + 1 :]]),
        )

    def _merge(self, left: _Child, right: _Child, key: bytes, gap: Gap) -> _Child:
        """Two neighbouring subtrees as one, now that the key between them is gone."""
        if left is None or right is None:
            return left if right is None else right
        low_side, high_side = Gap(gap.low, key, gap.layer), Gap(key, gap.high, gap.layer)
        a, b = self._open(left, low_side), self._open(right, high_side)
        low = a.keys[-1] if a.keys else gap.low
        high = b.keys[0] if b.keys else gap.high
        inner = self._merge(a.children[-1], b.children[0], key, Gap(low, high, a.layer - 1))
        return _Branch(a.layer, a.keys + b.keys, a.values + b.values, [*a.children[:-1], inner, *b.children[1:]])


def _raised(child: _Child, layer: int) -> _Child:
    """A subtree under as many empty nodes as it takes for it to stand at ``layer``."""
    while isinstance(child, _Branch) and child.layer < layer:
        child = _Branch(child.layer + 1, [], [], [child])
    return child
