"""What is attacked."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from tests.fuzz.mutations import Mutate

ACCEPTED = "accepted"
Read = Callable[[bytes], str]


@dataclass(frozen=True)
class Target:
    """``share``: how many of a hundred inputs it gets. ``around``: what has to be in place while it reads."""

    name: str
    share: int
    seeds: Sequence[bytes]
    mutate: Mutate
    read: Read
    refusals: tuple[type[Exception], ...] = ()
    around: Callable[[], AbstractContextManager[object]] = field(default=nullcontext)

    def input(self, seed: int, number: int) -> bytes:
        """An input by its number: the same one each time."""
        rng = random.Random(f"{seed}/{self.name}/{number}")
        return self.mutate(rng, rng.choice(self.seeds))
