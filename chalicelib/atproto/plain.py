"""DAG-CBOR in its plainest form, as regular expressions: how messages, commits and nodes are read quickly.

Their fields stand in one order, and nearly all have the same types and short texts of printable ASCII. What matches is read
at the speed of the regular expression engine; whatever differs, or has another length than it says, is for the decoder.
A pattern has a group for each part of the value. A text is followed by a literal, of which the engine finds the last one that
fits in one step: the name of the next field is of printable ASCII as well, head included, and what follows it may be too.
"""

from __future__ import annotations

import re
from typing import Final

LINK: Final = rb"\xd8\*X%\x00(\x01[qU]\x12 .{32})"
"""To any block. The group is the CID. Needs re.DOTALL, as all of them do."""
LINK_TO_NODE: Final = rb"\xd8\*X%\x00(\x01q\x12 .{32})"
"""To a block of DAG-CBOR."""
LINK_LENGTH: Final = 41
TEXT: Final = rb"([\x60-\x77]|x[\x18-\xff])([ -~]{0,255})"
"""A text of at most 255 characters: its head, to be checked with ``is_length``, and the characters."""
TID: Final = rb"m([ -~]{13})"
NUMBER: Final = rb"([\x00-\x17]|\x18.|\x19..|\x1a.{4}|\x1b.{8})"
"""A number from 0 on, to be checked with ``is_shortest``."""
MAX_SHORT: Final = 23
"""Entries of the arrays and maps whose head is one byte."""


def uncaptured(pattern: bytes) -> bytes:
    """The pattern without its groups."""
    return re.sub(rb"\((?!\?)", b"(?:", pattern)


def is_length(head: bytes, length: int) -> bool:
    """Whether the head of a text or of bytes below 256 gives this length."""
    return head[-1] == length if len(head) == 2 else head[0] & 31 == length


def is_shortest(head: bytes) -> bool:
    """Whether the number in a head could not be told in a shorter one."""
    size = len(head) - 1
    number = int.from_bytes(head[1:], "big")
    return size == 0 or (number > MAX_SHORT if size == 1 else number >> (4 * size) > 0)
