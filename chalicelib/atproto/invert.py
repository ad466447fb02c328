"""Undoing a commit: from the partial tree that it carries back to the root before it (Sync v1.1).

A commit event brings the nodes on the way to each key that it changed. They are enough to undo its operations one by one
and to arrive at the CID of the tree before, which shows that the operations are all that happened: nothing was left out.

Specification: https://atproto.com/specs/sync, proposal 0006 of Sync v1.1
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias, cast

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
    if not ops:
        return root
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
    tree = _Tree(root, blocks)
    return [tree.find(path.encode()) for path in paths]


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
    """A node that may change, in its gap. ``children`` are CIDs until somebody looks inside.

    ``origin`` and ``block`` are the CID and the bytes that it was loaded from, ``opened`` the children that were loaded since.
    ``cid`` is None from the first change on, in it or below it; ``block`` is None once something in it but the links to
    opened children has changed.
    """

    __slots__ = ("block", "children", "cid", "gap", "keys", "layer", "opened", "origin", "values")

    def __init__(
        self,
        layer: int,
        gap: Gap,
        keys: list[bytes],
        values: list[bytes],
        children: list[_Child],
        cid: bytes | None = None,
        block: bytes | None = None,
    ) -> None:
        self.layer = layer
        self.gap = gap
        self.keys = keys
        self.values = values
        self.children = children
        self.opened: list[_Branch] = []
        self.origin = self.cid = cid
        self.block = block

    def is_empty(self) -> bool:
        return not self.keys and self.children[0] is None

    def finished(self) -> bytes:
        """The CID of the node as it is now."""
        if self.cid is None:
            self.cid = cid_of(self._patched() or self._encoded())
        return self.cid

    def _patched(self) -> bytes | None:
        """Its bytes with other links in them, where the old ones are found for certain. Most nodes need no more."""
        block = self.block
        for child in self.opened:
            if block is None:
                break
            old, new = cast(bytes, child.origin), child.finished()
            if old != new:
                block = block.replace(old, new) if block.count(old) == 1 else None
        return block

    def _encoded(self) -> bytes:
        links = [child.finished() if isinstance(child, _Branch) else child for child in self.children]
        return encode_node(Node(self.keys, self.values, links))


_Child: TypeAlias = "bytes | _Branch | None"


class _Tree:
    """A partial tree under edits. Recursion goes down one layer at a time, so it is at most ``max_layer`` deep."""

    def __init__(self, root: bytes, blocks: Mapping[bytes, bytes]) -> None:
        self._blocks = blocks
        self._root = self._load(root, ROOT_GAP)

    def cid(self) -> bytes:
        """The CID of the tree as it is now: no root that only leads to the next layer."""
        root = self._root
        while not root.keys and (child := root.children[0]) is not None:
            if isinstance(child, bytes) and child not in self._blocks:
                return child
            root = self._child(root, 0)
        return root.finished()

    def find(self, key: bytes) -> bytes | None:
        """The value under a key, None where there is none."""
        branch = self._root
        while True:
            index = bisect_left(branch.keys, key)
            if index < len(branch.keys) and branch.keys[index] == key:
                return branch.values[index]
            if branch.children[index] is None:
                return None
            branch = self._child(branch, index)

    def insert(self, key: bytes, value: bytes) -> None:
        layer = layer_of(key)
        if layer > NODE_LIMITS.max_layer:
            raise VerificationFailed("bad-node", f"a key of layer {layer}, at most {NODE_LIMITS.max_layer} is allowed")
        branch = self._root
        if branch.is_empty():
            branch = self._root = _Branch(layer, ROOT_GAP, [], [], [None])
        elif layer > branch.layer:
            children: list[_Child] = [_raised(part, layer - 1) for part in self._split(branch, key)]
            self._root = _Branch(layer, ROOT_GAP, [key], [value], children)
            return
        while True:
            branch.cid = None
            index = bisect_left(branch.keys, key)
            if index < len(branch.keys) and branch.keys[index] == key:
                raise VerificationFailed("inversion-mismatch", "an op deletes a key that the tree still has")
            if branch.layer == layer:
                break
            if branch.children[index] is None:
                gap = gap_of_child(branch.keys, index, branch.gap, branch.layer)
                branch.children[index] = _Branch(branch.layer - 1, gap, [], [], [None])
                branch.block = None
            branch = self._child(branch, index)
        apart = (None, None) if branch.children[index] is None else self._split(self._child(branch, index), key)
        branch.block = None
        branch.children[index : index + 1] = apart
        branch.keys.insert(index, key)
        branch.values.insert(index, value)

    def remove(self, key: bytes, value: bytes) -> None:
        path = self._path(key, value)
        branch, index = path.pop()
        merged = self._merged(branch, index, branch, index + 1)
        branch.block = None
        branch.children[index : index + 2] = [merged]
        del branch.keys[index], branch.values[index]
        while branch.is_empty():
            if not path:
                self._root = _Branch(0, ROOT_GAP, [], [], [None])
                return
            branch, index = path.pop()
            branch.block = None
            branch.children[index] = None

    def replace(self, key: bytes, value: bytes, new: bytes) -> None:
        branch, index = self._path(key, value)[-1]
        branch.values[index] = new
        branch.block = None

    def _path(self, key: bytes, value: bytes) -> list[tuple[_Branch, int]]:
        """The way down to a key that is to change, and has this value now."""
        branch, path = self._root, []
        while True:
            branch.cid = None
            keys = branch.keys
            index = bisect_left(keys, key)
            path.append((branch, index))
            if index < len(keys) and keys[index] == key:
                break
            branch = self._child(branch, index)
        if branch.values[index] != value:
            raise VerificationFailed("inversion-mismatch", "an op names another CID than the tree has under its key")
        return path

    def _child(self, branch: _Branch, index: int) -> _Branch:
        """A child to look inside."""
        child = branch.children[index]
        if type(child) is bytes:
            child = self._load(child, gap_of_child(branch.keys, index, branch.gap, branch.layer))
            branch.children[index] = child
            branch.opened.append(child)
        if type(child) is _Branch:
            return child
        raise VerificationFailed("inversion-mismatch", "an op names a key that the tree does not have")

    def _load(self, cid: bytes, gap: Gap) -> _Branch:
        block = self._blocks.get(cid)
        if block is None:
            raise VerificationFailed("missing-block", "a node of the tree is not among the blocks")
        (keys, values, links), layer = read_node(cid, block, gap)
        children: list[_Child] = links  # type: ignore[assignment] # its own: no list of it is kept elsewhere
        return _Branch(layer, gap, keys, values, children, cid, block)

    def _split(self, branch: _Branch, key: bytes) -> tuple[_Branch | None, _Branch | None]:
        """The parts of a subtree below and above a key that is not in it."""
        layer, (low, high, _) = branch.layer, branch.gap
        index = bisect_left(branch.keys, key)
        inner = (None, None) if branch.children[index] is None else self._split(self._child(branch, index), key)
        keys, values, children = branch.keys, branch.values, branch.children
        below = _Branch(layer, Gap(low, key, layer), keys[:index], values[:index], [*children[:index], inner[0]])
        above = _Branch(layer, Gap(key, high, layer), keys[index:], values[index:], [inner[1], *children[index + 1 :]])
        return None if below.is_empty() else below, None if above.is_empty() else above

    def _merged(self, left: _Branch, index: int, right: _Branch, next_index: int) -> _Child:
        """Two neighbouring children as one, now that the key between them goes."""
        if left.children[index] is None or right.children[next_index] is None:
            return left.children[index] or right.children[next_index]
        a, b = self._child(left, index), self._child(right, next_index)
        inner = self._merged(a, len(a.keys), b, 0)
        gap = Gap(a.gap.low, b.gap.high, a.layer)
        return _Branch(a.layer, gap, a.keys + b.keys, a.values + b.values, [*a.children[:-1], inner, *b.children[1:]])


def _raised(child: _Branch | None, layer: int) -> _Branch | None:
    """A subtree under as many empty nodes as it takes for it to stand at ``layer``."""
    while child and child.layer < layer:
        child = _Branch(child.layer + 1, child.gap, [], [], [child])
    return child
