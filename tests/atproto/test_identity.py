"""DID documents and where they are found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chalicelib.atproto.errors import (
    AddressRefused,
    BadResponse,
    BudgetExceeded,
    DidNotFound,
    MalformedDidDocument,
    Unreachable,
)
from chalicelib.atproto.identity import MAX_DOCUMENT, Identity, Resolver, parse_did_document
from chalicelib.atproto.net import Door
from chalicelib.atproto.syntax import Did, parse_did
from simulator.scripted import Reply, Request, ScriptedServer, http

PLC = Did("did:plc:ewvi7nxzyoun6zhxrhs64oiz")
# One key in both forms, from the DID specification.
MULTIKEY = "zQ3shXjHeiBuRCKmM36cuYnm7YEMzhGnCmCyW92sRJ9pribSF"
LEGACY = "zQYEBzXeuTM9UR3rfvNag6L3RNAs5pQZyYPsomTsgQhsxLdEgCrPTLgFna8yqCnxPpNT7DBk6Ym3dgPKNu86vt9GR"
OTHER_MULTIKEY = "zQ3shPkJyX6ZanqXmNb2q7rqc2enkEGLdDUpvomMCQo91uhEk"


def method(did: str = PLC, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"{did}#atproto",
        "type": "Multikey",
        "controller": did,
        "publicKeyMultibase": MULTIKEY,
    } | changes


def service(**changes: Any) -> dict[str, Any]:
    return {
        "id": "#atproto_pds",
        "type": "AtprotoPersonalDataServer",
        "serviceEndpoint": "https://pds.atcr.io",
    } | changes


def document(did: str = PLC, **changes: Any) -> dict[str, Any]:
    return {
        "@context": ["https://www.w3.org/ns/did/v1"],
        "id": did,
        "alsoKnownAs": ["at://alice.atcr.io"],
        "verificationMethod": [method(did)],
        "service": [service()],
    } | changes


def parsed(did: Did = PLC, *, allow_private: bool = False, **changes: Any) -> Identity:
    return parse_did_document(did, document(did, **changes), allow_private=allow_private)


# The document


def test_a_document_gives_key_pds_and_handle() -> None:
    identity = parsed()
    assert identity.key is not None
    assert (identity.key.curve, identity.key.multibase) == ("k256", MULTIKEY)
    assert (str(identity.pds), identity.handle) == ("pds.atcr.io", "alice.atcr.io")
    assert (identity.key_problem, identity.pds_problem) == (None, None)


def test_real_documents_are_read(fixtures_dir: Path) -> None:
    documents = json.loads((fixtures_dir / "firehose" / "did_docs.json").read_text())
    identities = [parse_did_document(parse_did(did), doc, allow_private=False) for did, doc in documents.items()]
    assert all(identity.key and identity.pds and identity.handle for identity in identities)


def test_a_legacy_key_is_the_same_key() -> None:
    legacy = method(id="#atproto", type="EcdsaSecp256k1VerificationKey2019", publicKeyMultibase=LEGACY)
    assert parsed(verificationMethod=[legacy]).key == parsed().key


@pytest.mark.parametrize("id_", ["#atproto", f"{PLC}#atproto"])
def test_the_key_is_found_under_an_absolute_or_a_relative_id(id_: str) -> None:
    assert parsed(verificationMethod=[method(id=id_)]).key is not None


def test_the_first_valid_key_counts() -> None:
    others = [
        "no object",
        method(id="#atproto_label", publicKeyMultibase=OTHER_MULTIKEY),
        method(id="did:plc:aaaaaaaaaaaaaaaaaaaaaaaa#atproto", publicKeyMultibase=OTHER_MULTIKEY),
        method(controller="did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", publicKeyMultibase=OTHER_MULTIKEY),
        method(type="JsonWebKey2020"),
        method(publicKeyMultibase="z" + "1" * 60_000),
    ]
    later = method(publicKeyMultibase=OTHER_MULTIKEY)
    key = parsed(verificationMethod=[*others, method(), later]).key
    assert key is not None
    assert key.multibase == MULTIKEY


@pytest.mark.parametrize(
    ("methods", "problem"),
    [
        (None, "no verification method"),
        ([], "no verification method"),
        ({"id": "#atproto"}, "no verification method"),
        ([method(id="#atproto2")], "no verification method"),
        ([method(id="atproto")], "no verification method"),
        ([method(id=f"{PLC}#atproto#atproto")], "no verification method"),
        ([method(id=7)], "no verification method"),
        ([method(controller="did:web:evil.com")], "another controller"),
        ([method(controller=None)], "another controller"),
        ([method(publicKeyMultibase=None)], "no publicKeyMultibase"),
        ([method(type=["Multikey"])], "no type"),
        ([method(type="Ed25519VerificationKey2020")], "malformed"),
        ([method(publicKeyMultibase=MULTIKEY[:-1])], "malformed"),
        ([method(publicKeyMultibase="")], "malformed"),
        ([method(publicKeyMultibase="z\ud800")], "malformed"),
        ([method(publicKeyMultibase=LEGACY)], "malformed"),
        ([method(publicKeyMultibase="z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK")], "malformed"),  # Ed25519
    ],
)
def test_without_a_usable_key_the_document_says_why(methods: Any, problem: str) -> None:
    identity = parsed(verificationMethod=methods)
    assert identity.key is None
    assert problem in (identity.key_problem or "")
    assert identity.pds is not None


def test_the_first_matching_service_counts() -> None:
    services = [
        service(id="#atproto_labeler", serviceEndpoint="https://a.atcr.io"),
        service(type="SomethingElse", serviceEndpoint="https://b.atcr.io"),
        service(id=f"{PLC}#atproto_pds", serviceEndpoint="https://c.atcr.io/"),
        service(serviceEndpoint="https://d.atcr.io"),
    ]
    assert str(parsed(service=services).pds) == "c.atcr.io"


@pytest.mark.parametrize(
    "endpoint",
    [
        None,
        7,
        ["https://pds.atcr.io"],
        {"uri": "https://pds.atcr.io"},
        "",
        "pds.atcr.io",
        "http://pds.atcr.io",
        "https://pds.atcr.io/path",
        "https://pds.atcr.io?query",
        "https://user@pds.atcr.io",
        "https://pds.atcr.io:8443",
        "https://127.0.0.1",
        "https://[::1]",
        "https://localhost",
        "https://pds.internal",
        "https://pds",
        "did:web:pds.atcr.io",
        "wss://pds.atcr.io",
        f"https://{'a' * 50_000}.io",
    ],
)
def test_without_a_usable_pds_the_document_says_why(endpoint: Any) -> None:
    identity = parsed(service=[service(serviceEndpoint=endpoint), service()])
    assert identity.pds is None
    assert "serviceEndpoint" in (identity.pds_problem or "")
    assert identity.key is not None


def test_a_document_without_pds_says_so() -> None:
    for services in (None, [], [7], [service(type="X")], {}, "x"):
        assert "no service" in (parsed(service=services).pds_problem or "")


def test_in_development_a_local_pds_is_one() -> None:
    local = [service(serviceEndpoint="http://localhost:2583")]
    assert str(parsed(service=local, allow_private=True).pds) == "http://localhost:2583"
    assert parsed(service=local).pds is None


@pytest.mark.parametrize(
    ("names", "handle"),
    [
        (["at://Alice.atcr.io"], "alice.atcr.io"),
        (
            [
                "https://alice.atcr.io",
                "at://",
                "at://-",
                7,
                "at://one",
                "at://a.b/c",
                "at://a-.b",
                "at://a.-b",
                "at://a.0",
                "at://bob.atcr.io",
            ],
            "bob.atcr.io",
        ),
        (["at://alice.atcr.io\n"], None),
        ([f"at://{'a.' * 130}io"], None),
        ("at://alice.atcr.io", None),
        (None, None),
    ],
)
def test_the_handle_is_the_first_valid_one(names: Any, handle: str | None) -> None:
    assert parsed(alsoKnownAs=names).handle == handle


@pytest.mark.parametrize("asked", ["did:web:localhost%3A8080", "did:web:localhost%3a8080", "did:web:localhost:8080"])
@pytest.mark.parametrize("said", ["did:web:localhost%3A8080", "did:web:localhost%3a8080", "did:web:localhost:8080"])
def test_each_spelling_of_a_port_is_the_same_did(asked: str, said: str) -> None:
    identity = parse_did_document(Did(asked), document(said), allow_private=False)
    assert (identity.did, identity.key is not None) == ("did:web:localhost%3A8080", True)


@pytest.mark.parametrize("id_", [None, 7, "", [PLC], PLC.upper(), f"{PLC}#atproto", "did:web:evil.com", "\ud800"])
def test_the_document_of_another_did_is_malformed(id_: Any) -> None:
    with pytest.raises(MalformedDidDocument):
        parsed(id=id_)


@pytest.mark.parametrize("value", [None, [], "did", 7, True, {}, [document()]])
def test_what_is_no_document_is_malformed(value: Any) -> None:
    with pytest.raises(MalformedDidDocument):
        parse_did_document(PLC, value, allow_private=False)


# Where it is found

Serve = Callable[[Callable[[Request], Reply]], ScriptedServer]


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def serve(opened: ExitStack) -> Serve:
    return lambda answer: opened.enter_context(ScriptedServer(answer))


@pytest.fixture
def door(opened: ExitStack) -> Door:
    return opened.enter_context(Door(allow_private=True))


def says(value: Any) -> Callable[[Request], Reply]:
    return lambda request: http(200, json.dumps(value).encode())


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_did_plc_is_looked_up_in_the_directory(slash: str, serve: Serve, door: Door) -> None:
    server = serve(says(document()))
    identity = Resolver(door, f"{server.url}{slash}", True).resolve(PLC)
    assert identity == parsed()
    assert [request.target for request in server.requests] == [f"/{PLC}"]


@pytest.mark.parametrize("spelling", ["%3A", "%3a", ":"])
def test_a_did_web_is_looked_up_at_its_host(spelling: str, serve: Serve, door: Door) -> None:
    server = serve(lambda request: says(document(f"did:web:localhost%3A{server.port}"))(request))
    identity = Resolver(door, "http://localhost:1", True).resolve(Did(f"did:web:localhost{spelling}{server.port}"))
    assert identity.did == f"did:web:localhost%3A{server.port}"
    assert [request.target for request in server.requests] == ["/.well-known/did.json"]


def test_a_did_web_may_redirect(serve: Serve, door: Door) -> None:
    def answer(request: Request) -> Reply:
        if request.target == "/.well-known/did.json":
            return http(301, location="/did.json")
        return says(document(f"did:web:localhost%3A{server.port}"))(request)

    server = serve(answer)
    assert Resolver(door, "http://localhost:1", True).resolve(Did(f"did:web:localhost%3A{server.port}")).key


@pytest.mark.parametrize(("status", "message"), [(404, "not known"), (410, "tombstoned")])
def test_a_did_that_is_gone_is_not_found(status: int, message: str, serve: Serve, door: Door) -> None:
    server = serve(lambda request: http(status, b"<html>" * 100_000))
    with pytest.raises(DidNotFound, match=message):
        Resolver(door, server.url, True).resolve(PLC)


@pytest.mark.parametrize("status", [201, 400, 403, 429, 500, 503])
def test_any_other_status_is_no_statement_about_the_did(status: int, serve: Serve, door: Door) -> None:
    server = serve(lambda request: http(status, b"oops", retry_after="30"))
    with pytest.raises(BadResponse) as error:
        Resolver(door, server.url, True).resolve(PLC)
    assert error.value.retry_after == (30 if status in (429, 503) else None)


def test_a_directory_that_is_down_is_unreachable(door: Door) -> None:
    with ScriptedServer(lambda request: None) as server:
        pass
    with pytest.raises(Unreachable):
        Resolver(door, server.url, True).resolve(PLC)


def test_a_document_that_is_too_large_or_too_deep_is_refused(serve: Serve, door: Door) -> None:
    server = serve(lambda request: http(200, b"[" * MAX_DOCUMENT))
    with pytest.raises(BadResponse, match="not JSON"):
        Resolver(door, server.url, True).resolve(PLC)
    server = serve(lambda request: http(200, b" " * (MAX_DOCUMENT + 1)))
    with pytest.raises(BudgetExceeded):
        Resolver(door, server.url, True).resolve(PLC)


def test_a_document_of_another_did_is_refused(serve: Serve, door: Door) -> None:
    server = serve(says(document("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")))
    with pytest.raises(MalformedDidDocument):
        Resolver(door, server.url, True).resolve(PLC)


@pytest.mark.parametrize(
    ("did", "message"),
    [
        ("did:key:zQ3shXjHeiBuRCKmM36cuYnm7YEMzhGnCmCyW92sRJ9pribSF", "neither"),
        ("did:plc:short", "neither"),
        ("did:plc:EWVI7NXZYOUN6ZHXRHS64OIZ", "neither"),
        ("did:plc:ewvi7nxzyoun6zhxrhs64oiz.", "neither"),
        ("did:plc:..%2F..%2Fadmin", "neither"),
        ("did:web:pds.atcr.io:users:alice", "path"),
        ("did:web:pds.atcr.io%2Fusers", "path"),
        ("did:web:user%40pds.atcr.io", "path"),
        ("did:web:pds.atcr.io%3A8443", "port"),
        ("did:web:pds.atcr.io:8443", "port"),
        ("did:web:localhost%3A2583", "port"),
        ("did:web:localhost", "public"),
        ("did:web:127.0.0.1", "public"),
        ("did:web:127.1", "public"),
        ("did:web:pds", "public"),
        ("did:web:pds.internal", "public"),
        ("did:web:pds_.atcr.io", "public"),
        ("did:web:PDS.atcr.io", "otherwise: did:web:pds.atcr.io"),
        ("did:web:pds.atcr.io.", "otherwise"),
    ],
)
def test_a_did_that_atproto_does_not_have_is_refused_without_a_question(did: str, message: str) -> None:
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return []

    with Door(resolve=resolve) as door, pytest.raises(DidNotFound, match=message):
        Resolver(door, "https://plc.directory", False).resolve(parse_did(did))
    assert asked == []


def test_a_did_web_on_a_private_address_is_refused() -> None:
    with (
        ScriptedServer(lambda request: http()) as canary,
        Door(resolve=lambda host, port: ["127.0.0.1"], route=lambda _, __: ("127.0.0.1", canary.port)) as door,
    ):
        with pytest.raises(AddressRefused):
            Resolver(door, "https://plc.directory", False).resolve(Did("did:web:hold01.atcr.io"))
        assert canary.connections == 0
