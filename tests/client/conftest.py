"""Discovery services on the loopback: scripted ones, and this project's own over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Thread
from typing import Any

import pytest
import waitress

from infra.local.http import Gateway
from simulator.discovery import DiscoveryService
from simulator.scripted import ScriptedServer
from tests.conftest import Stack
from tests.service import forget_settings


@dataclass(frozen=True)
class Played:
    """A scripted service and the server that speaks for it."""

    service: DiscoveryService
    server: ScriptedServer

    @property
    def url(self) -> str:
        return self.server.url

    def asked(self) -> int:
        """How many requests have come since this was asked last."""
        number = len(self.server.requests)
        self.server.requests.clear()
        return number


Play = Callable[..., Played]


@pytest.fixture
def play() -> Iterator[Play]:
    """Starts a scripted service that lists these DIDs."""
    with ExitStack() as running:

        def start(*dids: str, collection: str = "io.atcr.hold.captain") -> Played:
            service = DiscoveryService()
            service.listings[collection] = list(dids)
            return Played(service, running.enter_context(ScriptedServer(service)))

        yield start


@pytest.fixture
def nobody() -> str:
    """Where nobody listens."""
    with ScriptedServer(lambda request: None) as server:
        return server.url


@pytest.fixture
def real(stack_env: Stack) -> Iterator[str]:
    """This project's API over empty tables, at its URL."""
    import app

    forget_settings()
    server: Any = waitress.create_server(Gateway(app.app), host="127.0.0.1", port=0, threads=4)
    thread = Thread(target=server.run)
    thread.start()
    yield f"http://127.0.0.1:{server.effective_port}"
    server.close()
    thread.join()
    forget_settings()
