"""Names that lead elsewhere: DNS that flips, certificates of others, and a script that registers hosts without end."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import Any

import trustme

from chalicelib.atproto.net import Door
from chalicelib.atproto.syntax import Origin
from simulator.scripted import ScriptedServer, http
from tests.hostile.conftest import Beside, Cost
from tests.oracle import engine

PUBLIC, PRIVATE = "93.184.216.34", "10.0.0.5"
Book = Callable[[str, str, Cost], None]


class Guarded(Door):
    """As strict as in production, but for ``localhost``, where the hold and the directory are. ``dialed``: what it was let
    connect to."""

    def __init__(self, answers: Callable[[str], Sequence[str]], port: int, **options: Any) -> None:
        self.dialed: list[str] = []
        self._strict = Door(route=self._noted)
        self._port = port
        super().__init__(
            allow_private=True,
            resolve=lambda host, _: ["127.0.0.1"] if host == "localhost" else answers(host),
            **options,
        )

    def _noted(self, address: str, port: int) -> tuple[str, int]:
        self.dialed.append(address)
        return "127.0.0.1", self._port

    def places(self, origin: Origin, found: Sequence[str]) -> list[tuple[str, int]]:
        return (super() if origin.hostname == "localhost" else self._strict).places(origin, found)


def test_a_name_that_leads_inside_once_it_is_let_in_is_not_connected_to(beside: Beside, book: Book) -> None:
    addresses = [PUBLIC]
    beside.door = Guarded(lambda _: addresses, beside.host.port)
    beside.make()
    assert beside.announce("http://flip.atcr.io:8000") == "accepted"
    addresses[:] = [PRIVATE]
    beside.door = again = Guarded(lambda _: addresses, beside.host.port)
    beside.make()
    beside.served()
    cost = beside.cost
    [row] = [row for row in engine.rows("hosts") if "flip" in row["origin"]]
    assert "not public" in row["last_error"]
    assert again.dialed == []
    assert cost.requests == 1
    book("DNS that flips to a private address", row["last_error"], cost)


def test_a_name_with_a_private_address_among_others_is_not_connected_to(beside: Beside, book: Book) -> None:
    beside.door = door = Guarded(lambda _: [PUBLIC, PRIVATE], beside.host.port)
    beside.make()
    refused = beside.announce("http://both.atcr.io:8000")
    beside.served()
    assert "not public" in refused
    assert door.dialed == []
    assert beside.cost.requests == 0
    book("DNS with a private address among others", refused, beside.cost)


def test_a_certificate_for_another_name_is_no_host(beside: Beside, book: Book) -> None:
    ca, server_side, ours = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    ca.issue_cert("other.atcr.io").configure_cert(server_side)
    ca.configure_trust(ours)
    with ScriptedServer(lambda request: http(body=b'{"did": "did:web:x.test"}'), ssl_context=server_side) as server:
        beside.door = Guarded(lambda _: [PUBLIC], server.port, ssl_context=ours)
        beside.make()
        refused = beside.announce("mine.atcr.io")
        beside.served()
        assert "ertificate" in refused
        assert server.requests == []
    book("a certificate for another name", refused.partition(": [")[0], beside.cost)


def test_a_script_that_names_a_thousand_hosts_is_refused_at_the_budget_of_its_address(
    beside: Beside, book: Book
) -> None:
    beside.door = door = Guarded(lambda _: [PUBLIC], beside.host.port)
    beside.make(MAX_ADDRESS_REQUESTS="20", MAX_DOMAIN_HOSTS="1000", REQUEST_RATE="100000")
    answers = [beside.announce(f"http://h{number}.atcr.io:8000", "198.51.100.7") for number in range(1_000)]
    cost = beside.cost
    beside.messages.clear()
    beside.served()
    assert answers.count("accepted") == 20
    assert "try again later" in answers[-1]
    assert len(door.dialed) <= 20
    assert cost.requests == 20
    book("a script that names 1,000 hosts; 20 an hour and address", answers[-1], cost)


def test_a_domain_that_registers_a_hundred_hosts_is_refused_at_its_budget(beside: Beside, book: Book) -> None:
    beside.door = Guarded(lambda _: [PUBLIC], beside.host.port)
    beside.make(MAX_DOMAIN_HOSTS="5", MAX_ADDRESS_REQUESTS="1000000")
    answers = [
        beside.announce(f"http://h{number}.many.example.com:8000", f"198.51.100.{number}") for number in range(100)
    ]
    cost = beside.cost
    beside.messages.clear()
    beside.served()
    assert answers.count("accepted") == 5
    assert "try again later" in answers[-1]
    book("a domain that registers 100 hosts from as many addresses; 5 a day", answers[-1], cost)
