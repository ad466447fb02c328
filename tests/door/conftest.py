"""An internet for the door: names that resolve as a test says, one server behind every public address, and a canary behind all
others."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from chalicelib import process, settings
from chalicelib.atproto.net import Door
from chalicelib.atproto.transport import Timeouts
from chalicelib.crawl.context import Context
from infra import provision
from infra.local.engines import Endpoints
from simulator.identity import did_document
from simulator.keys import SigningKey
from simulator.scripted import Reply, Request, ScriptedServer, http
from tests.door.tricks import INSIDE, PUBLIC, PUBLIC_6, Trick

DIRECTORY = "plc.directory"
DOMAIN = "atcr.io"
UNBOUNDED = ("REQUEST_RATE", "MAX_ADDRESS_REQUESTS", "MAX_DOMAIN_HOSTS", "MAX_NEW_HOSTS", "MAX_UNREACHED_HOSTS")
KEY = SigningKey(b"\x01" * 32)


class World:
    """What a play sees of the internet, and what it did there."""

    def __init__(self, parts: ExitStack, engine: Endpoints) -> None:
        ca = trustme.CA()
        serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert(DIRECTORY, f"*.{DOMAIN}").configure_cert(serving)
        trusting = ssl.create_default_context()
        ca.configure_trust(trusting)
        self._server = parts.enter_context(ScriptedServer(self._answer, ssl_context=serving))
        self._canary = parts.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._canary.setblocking(False)
        self._numbers = count(1)
        self._looks: dict[str, list[Sequence[str]]] = {}
        self._locations: dict[str, str] = {}
        self._documents: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        """The names that were looked up, without those of ``document``."""
        self.requests: list[tuple[str, str]] = []
        """Host and path of what was asked of a public host, without those of ``document``."""
        self.looked_up: set[str] = set()
        """Names that anybody in this process looked up."""
        self.dialed: set[tuple[str, int]] = set()
        """Where anybody in this process connected to."""
        self._known = {self._server.port, *(urlsplit(url).port for url in (engine.dynamodb, engine.sqs))}
        self.door = parts.enter_context(
            Door(
                ssl_context=trusting,
                resolve=self._resolve,
                route=self._route,
                timeouts=Timeouts(connect=2, idle=2, total=5),
            )
        )

    @property
    def context(self) -> Context:
        """The service's parts, with this door."""
        context = process.context()
        context.door = self.door
        return context

    def stage(self, trick: Trick) -> str:
        """Set the trick up. Returns what stands where a host's name should."""
        names = {"name": self.new_name(), "inside": self.new_name()}
        self._looks[names["name"]] = list(trick.looks)
        self._looks[names["inside"]] = [(INSIDE,)]
        if trick.location is not None:
            self._locations[names["name"]] = trick.location.format(**names)
        self.asked.clear()
        self.requests.clear()
        return trick.host.format(**names)

    def new_name(self) -> str:
        """A name that nobody has used, at a public address."""
        return f"h{next(self._numbers)}.{DOMAIN}"

    def new_did(self) -> str:
        """A did:plc that nobody has used."""
        return "did:plc:" + "".join("abcdefghij"[int(digit)] for digit in f"{next(self._numbers):024d}")

    def document(self, did: str, pds: str) -> None:
        """Publish a document of ``did`` that names a PDS, by name or URL."""
        endpoint = pds if "://" in pds else f"https://{pds}"
        document = did_document(did, key=KEY, pds=endpoint, handle="somebody.atcr.io")
        where = f"{DIRECTORY}/{did}" if did.startswith("did:plc:") else f"{did[8:]}/.well-known/did.json"
        self._documents[where] = document

    def check(self) -> None:
        """Nobody has connected to the canary, nor gone around the door."""
        with pytest.raises(BlockingIOError):
            self._canary.accept()
        assert self.looked_up <= {"127.0.0.1"}
        assert self.dialed <= {("127.0.0.1", port) for port in self._known}

    def _resolve(self, host: str, port: int) -> Sequence[str]:
        if not self._is_ours(host):
            self.asked.append(host)
        answers = self._looks.get(host, [(PUBLIC,)])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def _route(self, address: str, port: int) -> tuple[str, int]:
        public = address in (PUBLIC, PUBLIC_6) and port == 443
        return "127.0.0.1", self._server.port if public else self._canary.getsockname()[1]

    def _is_ours(self, host: str) -> bool:
        return host == DIRECTORY or f"{host}/.well-known/did.json" in self._documents

    def _answer(self, request: Request) -> Reply:
        host, path = request.headers["host"], urlsplit(request.target).path
        if document := self._documents.get(f"{host}{path}"):
            return http(200, json.dumps(document).encode())
        self.requests.append((host, path))
        if location := self._locations.get(host):
            return http(302, location=location.encode().decode("latin-1"), connection="close")
        return http(503, connection="close")


@pytest.fixture(scope="module")
def world(engine: Endpoints, _clients: dict[str, Any]) -> Iterator[World]:
    """The service over tables of its own, in production mode, with the world behind its door."""
    made = provision.create("t-door", _clients["dynamodb"], _clients["sqs"])
    environment = engine.environment | {
        "DISCOVERY_TABLE_PREFIX": made.prefix,
        "DISCOVERY_QUEUE_URL": made.queue_url,
        "DISCOVERY_ALLOW_PRIVATE_HOSTS": "false",
        **{f"DISCOVERY_{name}": "0" for name in UNBOUNDED},
    }
    with pytest.MonkeyPatch.context() as patch, ExitStack() as parts:
        for name, value in environment.items():
            patch.setenv(name, value)
        for cached in (settings.current, process.context):
            cached.cache_clear()
            parts.callback(cached.cache_clear)
        world = World(parts, engine)
        look_up, connect = socket.getaddrinfo, socket.socket.connect

        def watched_look_up(host: Any, *rest: Any, **more: Any) -> Any:
            world.looked_up.add(str(host))
            return look_up(host, *rest, **more)

        def watched_connect(self: socket.socket, address: Any) -> None:
            world.dialed.add(address)
            connect(self, address)

        patch.setattr(socket, "getaddrinfo", watched_look_up)
        patch.setattr(socket.socket, "connect", watched_connect)
        yield world
