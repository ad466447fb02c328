"""A neighbourhood of hosts around one PLC directory, that knows the truth about all of them."""

from __future__ import annotations

import random
from collections.abc import Iterable, KeysView
from types import TracebackType
from typing import Literal

from .cbor import Value
from .clock import Clock
from .host import HOLD, PDS, Account, Host, Shape, Status
from .identity import Identities, PlcDirectory, new_did_plc
from .keys import Curve
from .relay import Relay
from .repo import Record


class Neighbourhood:
    """Use as an async context manager: all that it started ends with it.

    What is random comes from ``seed``, time from ``clock``. ``homes`` has the host that each DID's document names.
    """

    def __init__(self, seed: int = 0, clock: Clock | None = None, *, plc_port: int = 0) -> None:
        self.rng = random.Random(seed)
        self.clock = clock or Clock()
        self.identities = Identities()
        self.plc = PlcDirectory(self.identities, plc_port)
        self.hosts: list[Host] = []
        self.relays: list[Relay] = []
        self.homes: dict[str, Host] = {}

    async def __aenter__(self) -> Neighbourhood:
        await self.plc.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in (*self.relays, *self.hosts, self.plc):
            await server.close()

    # Growing

    async def add_host(self, shape: Shape = PDS, *, port: int = 0, start: bool = True) -> Host:
        """An empty host."""
        host = Host(self.identities, self.clock, random.Random(self.rng.random()), shape=shape, port=port)
        self.hosts.append(host)
        if start:
            await host.start()
        return host

    async def add_relay(self, *hosts: Host) -> Relay:
        """A relay that follows ``hosts``."""
        relay = Relay(self.identities, self.clock, random.Random(self.rng.random()))
        self.relays.append(relay)
        relay.follow(*hosts)
        await relay.start()
        return relay

    async def add_hold(
        self,
        *,
        crew: int = 1,
        layers: int = 0,
        method: Literal["web", "plc"] = "web",
        curve: Curve = "k256",
        shape: Shape = HOLD,
        port: int = 0,
        start: bool = True,
    ) -> Host:
        """A hold: one repo, with captain, crew and layers. Its DID is did:web of the host, or a did:plc."""
        host = await self.add_host(shape, port=port, start=start)
        did = host.did_web if method == "web" else new_did_plc(self.rng)
        self.add_account(host, did, host.author(did).hold(crew=crew, layers=layers), curve=curve)
        return host

    async def add_pds(
        self,
        *,
        accounts: int = 10,
        sailors: int = 2,
        manifests: int = 3,
        noise: int = 20,
        shape: Shape = PDS,
        port: int = 0,
    ) -> Host:
        """A PDS with users: the first ``sailors`` use ATCR, all have ``noise`` records of another app."""
        host = await self.add_host(shape, port=port)
        for number in range(accounts):
            did = new_did_plc(self.rng)
            author = host.author(did)
            pushes = author.sailor(manifests=manifests) if number < sailors else ()
            self.add_account(host, did, (*pushes, *author.noise(noise)))
        return host

    def add_account(
        self,
        host: Host,
        did: str | None = None,
        records: Iterable[tuple[str, Value]] = (),
        *,
        curve: Curve = "k256",
        legacy_key: bool = False,
    ) -> Account:
        """An account on ``host``, by default with a new did:plc."""
        did = did or new_did_plc(self.rng)
        self.homes[did] = host
        return host.create_account(did, f"user{len(self.homes)}.test", records, curve=curve, legacy_key=legacy_key)

    # Moving

    def migrate(
        self,
        did: str,
        to: Host,
        *,
        farewell: Status | None = "deactivated",
        curve: Curve | None = None,
        announce: bool = True,
    ) -> Account:
        """Move an account: a copy of its repo on ``to``, signed anew (``curve``: by a new key), and its document.

        The old host says ``farewell``, or nothing: then it goes on as if the account were its own.
        """
        old = self.homes[did]
        left = old.accounts[did]
        moved = Account(did, left.handle, left.repo.copy())
        self.identities.update(did, pds=to.url)
        self.homes[did] = to
        to.accounts[did] = moved
        if curve:
            to.rotate_key(did, curve, sign=False, announce=False)
        moved.repo.apply([])
        to.adopt(moved)
        if farewell == "deleted":
            old.delete_account(did, announce=announce)
        elif farewell:
            old.set_status(did, farewell, announce=announce)
        return moved

    async def move_host(self, host: Host, *, curve: Curve | None = None) -> None:
        """The host stops, and starts on another port; its accounts' documents follow, with new keys if ``curve``.

        As a did:plc hold does whose URL was changed. A did:web can't follow.
        """
        await host.stop()
        host.take_new_port()
        for did in host.accounts:
            if self.homes[did] is host:
                self.identities.update(did, pds=host.url)
                if curve:
                    host.rotate_key(did, curve)
        await host.start()

    # The truth

    def account(self, did: str) -> Account | None:
        """The account of ``did`` on the host that its document names."""
        return self.homes[did].accounts.get(did) if did in self.homes else None

    def truth(self, collection: str) -> KeysView[str]:
        """The DIDs that belong in the listing of ``collection``, an ordered set, the oldest account first."""
        found: dict[str, None] = {}
        for did in self.homes:
            account = self.account(did)
            if account and account.public and next(account.repo.paths(collection), None):
                found[did] = None
        return found.keys()

    def records(self, did: str) -> dict[str, Record]:
        """The live records of ``did`` by path, in order of keys; none where the account is not public."""
        account = self.account(did)
        return account.repo.records() if account and account.public else {}
