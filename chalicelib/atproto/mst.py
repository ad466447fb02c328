"""The Merkle Search Tree of a repo: the walk over a range of its keys. Nodes are in ``node.py``, inversion in ``invert.py``."""

from __future__ import annotations

from collections.abc import Sequence

from chalicelib.atproto.cid import cid_of
from chalicelib.atproto.drisl import encode
from chalicelib.atproto.errors import VerificationFailed
from chalicelib.atproto.invert import find, invert
from chalicelib.atproto.node import NODE_LIMITS, ROOT_GAP, Gap, NodeLimits, layer_of, read_node

__all__ = ["EMPTY_TREE", "RangeWalk", "find", "invert", "layer_of"]

EMPTY_TREE = cid_of(encode({"e": [], "l": None}))
"""The root of a repo without records."""


class RangeWalk:
    """Which nodes are still needed to know every key of some ranges under a root.

    ``want`` has the CID of each such node and the gap that it hangs in; it starts with the root, and once it is empty all
    keys of the ranges have been told: the range is proven complete, given that the root is. ``ranges`` are half-open, and
    a subtree whose gap overlaps none of them is never asked for.
    """

    def __init__(self, root: bytes, ranges: Sequence[tuple[bytes, bytes]], limits: NodeLimits = NODE_LIMITS) -> None:
        self._ranges = ranges
        self._limits = limits
        self.want: dict[bytes, Gap] = {root: ROOT_GAP}

    def visit(self, cid: bytes, block: bytes) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
        """Take a wanted node. Returns the children that are now wanted, and the ``(key, value)`` that lie in the ranges.

        Raises VerificationFailed (``wrong-hash``, ``bad-node``).
        """
        gap = self.want.pop(cid)
        node, layer = read_node(cid, block, gap, self._limits)
        children = []
        low = gap.low
        for child, high in zip(node.children, (*node.keys, gap.high), strict=True):
            if child is not None and self._overlaps(low, high):
                children.append(self._descend(child, Gap(low, high, layer - 1)))
            low = high or b""
        leaves = [
            (key, value)
            for key, value in zip(node.keys, node.values, strict=True)
            if any(start <= key < end for start, end in self._ranges)
        ]
        return children, leaves

    def _descend(self, cid: bytes, gap: Gap) -> bytes:
        if cid in self.want:
            raise VerificationFailed("bad-node", "a node hangs in two places of the tree")
        self.want[cid] = gap
        return cid

    def _overlaps(self, low: bytes, high: bytes | None) -> bool:
        return any(low < end and (high is None or start < high) for start, end in self._ranges)
