"""Whose a host is, as far as its name tells."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from chalicelib.atproto.syntax import Origin

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList


def registrable_domain(origin: Origin) -> str:
    """The part of the host's name that somebody registered: ``example.co.uk`` of ``hold.example.co.uk``, but all of
    ``alice.github.io``, by the Public Suffix List with its private section. Of an address, or a single label, all of it."""
    name = origin.hostname
    if ":" in name or name.rpartition(".")[2].isdigit():
        return name
    return _list().privatesuffix(name) or name


@cache
def _list() -> PublicSuffixList:
    from publicsuffixlist import PublicSuffixList  # a tenth of a second, which most jobs and requests need not spend

    return PublicSuffixList()
