"""The reference network, one for the whole session: tests make accounts of their own and leave the others alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import absent
from tests.reference.install import NodeAbsent, install
from tests.reference.reference_network import ReferenceNetwork


@pytest.fixture(scope="session")
def reference_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReferenceNetwork]:
    """The reference PDS and PLC directory, running. Installs them where that was not done yet (some minutes)."""
    try:
        installed = install()
    except NodeAbsent as reason:
        absent(str(reason))
    with ReferenceNetwork(tmp_path_factory.mktemp("reference"), installed) as network:
        yield network
