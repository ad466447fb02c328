"""The description of the API says what is served, and what is served is as the description says."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, given, strategies
from openapi_spec_validator import validate
from schemathesis import checks
from schemathesis.generation import GenerationMode

from chalicelib import process, settings
from chalicelib.api import methods, openapi
from chalicelib.api.admin import methods as operators_methods
from chalicelib.atproto.client import PdsClient
from chalicelib.atproto.errors import BadResponse
from chalicelib.atproto.syntax import Origin
from chalicelib.crawl import jobs
from chalicelib.crawl.queue import Order, to_body
from chalicelib.index.state import SUBSCRIBER
from infra.local.http import Gateway
from tests.api.conftest import Api
from tests.conftest import Stack

EXAMPLES = 10
"""Sound requests to each operation, and as many that are not."""
TOKEN = "sixteen-letters-or-more"
HOST, DID, REV = "hold01.atcr.io", "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "3mbd3542kzc22"
COLLECTION = "io.atcr.hold.captain"
ORDER = "0001764000000000-0123abcd"
CID = "bafyreibj4lsc3aqnrvphp5xmrnfoorvru4wynt6lwidqbm2623a6tatzdu"
OTHERS = {"/.well-known/holds.json", "/openapi.json", "/v1/listCollections"}
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.allow_header_conformance,
    checks.negative_data_rejection,
]


def test_every_method_has_a_lexicon_of_its_name_and_verb() -> None:
    for nsid, method in methods.METHODS.items():
        if nsid != "_health":
            lexicon = openapi.lexicon(nsid)
            kind = {"query": "GET", "procedure": "POST"}[lexicon["defs"]["main"]["type"]]
            assert (lexicon["id"], kind) == (nsid, method.verb)


def test_the_description_is_current() -> None:
    assert json.loads(openapi.FILE.read_text()) == openapi.document(), "python -m chalicelib.api.openapi writes it"


def test_the_description_is_openapi_and_has_each_method() -> None:
    document = openapi.document()
    validate(document)
    served = {f"/xrpc/{name}": method.verb for name, method in methods.METHODS.items()}
    served |= {f"/admin/{name}": method.verb for name, method in operators_methods.METHODS.items()}
    described = {path: next(iter(verbs)).upper() for path, verbs in document["paths"].items() if len(verbs) == 1}
    assert described == served | dict.fromkeys(OTHERS, "GET")


def test_each_route_is_described_or_is_a_page(bare_api: Api) -> None:
    pages = {path for path, verbs in bare_api.app.routes.items() if verbs and verbs["GET"].view_name == "page"}
    assert {path for path, verbs in bare_api.app.routes.items() if verbs} - pages == OTHERS | {
        "/xrpc/{nsid}",
        "/admin/{name}",
    }


def test_the_description_is_served_to_everyone(bare_api: Api) -> None:
    answer = bare_api.get("/openapi.json")
    assert answer.json == openapi.document()
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


# -- what is served is as it says


@pytest.fixture
def gateway(api: Api, stack_env: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """The API over a host with a repo, an order and a dead letter, before a network in which one host in two is there."""
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setenv("DISCOVERY_ADMIN_TOKEN_FROM", f"file:{tmp_path / 'token'}")
    monkeypatch.setenv("DISCOVERY_ALLOW_PRIVATE_HOSTS", "false")
    settings.current.cache_clear()
    context = process.context()
    context.hosts.admit(Origin(HOST, 443, secure=True), confirmed=True)
    key, path = f"{1:016d}", f"{COLLECTION}/self"
    context.tables.listings(COLLECTION, f"{key}#{DID}").save()
    context.tables.records(DID, path, cid=CID, rev=REV, value='{"a":1}', indexed_at=context.clock()).save()
    context.tables.repos(
        DID,
        sync="synced",
        host=HOST,
        scope_host=HOST,
        rev=REV,
        head=CID,
        collections={COLLECTION: 1},
        listed={COLLECTION: key},
    ).save()
    now = int(time.time() * 1000)
    context.state.write(SUBSCRIBER, "a", {"at": now, "hosts": 1, "open": 1}, number=now)
    jobs.work(context, to_body(Order("ban", "*.example.net", "alice", "a reason", ORDER)))
    stack_env.sqs.send_message(QueueUrl=stack_env.dead_letter_url, MessageBody=f'{{"repo":"{DID}"}}')

    def describe_server(client: PdsClient) -> None:
        if len(client.origin.hostname) % 2:
            raise BadResponse("nobody is there")

    monkeypatch.setattr(PdsClient, "describe_server", describe_server)
    return Gateway(api.app)


KNOWN = {
    "collection": (COLLECTION,),
    "did": (DID,),
    "hostname": (HOST, "hold99.example.com"),
    "id": (ORDER,),
    "repo": (DID,),
    "rkey": ("self",),
    "target": (HOST, HOST),
    "who": ("alice",),
    "why": ("a reason",),
}
"""Values of parameters that lead to something."""


def operations(gateway: Gateway) -> Iterator[Any]:
    """What is described; of some parameters with the values that lead to something, among others."""
    document = json.loads(openapi.FILE.read_text())
    for operation in (operation for verbs in document["paths"].values() for operation in verbs.values()):
        operation.pop("security", None)  # the token is always sent
        bodies = operation.get("requestBody", {}).get("content", {}).values()
        of_query = {parameter["name"]: parameter["schema"] for parameter in operation.get("parameters", [])}
        for name, schema in chain(of_query.items(), *(body["schema"]["properties"].items() for body in bodies)):
            if name in KNOWN:
                one = schema.get("items", schema)
                others = strategies.from_regex(one["pattern"]) if "pattern" in one else strategies.text()
                known = (DID,) if one.get("description") == "a DID" else KNOWN[name]
                kind = f"a-{name}-{len(known)}"
                schemathesis.openapi.format(kind, strategies.one_of(*[strategies.sampled_from(known)] * 7, others))
                one.clear()
                one |= {"type": "string", "format": kind}
    schema = schemathesis.openapi.from_dict(document)
    schema.app = gateway
    for found in schema.get_all_operations():
        yield found.ok()


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_every_answer_is_one_that_the_description_knows(gateway: Gateway, mode: GenerationMode) -> None:
    answered: dict[str, set[int]] = defaultdict(set)

    def ask(case: Any) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}", "Accept-Encoding": "identity"}
        response = case.call(base_url="http://localhost", headers=headers)
        answered[case.operation.label].add(response.status_code)
        case.validate_response(response, checks=CHECKS)

    bounds = hypothesis.settings(
        max_examples=EXAMPLES, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    for operation in operations(gateway):
        if mode is GenerationMode.POSITIVE or operation.query or operation.body:  # else nothing can be wrong
            bounds(given(case=operation.as_strategy(generation_mode=mode))(ask))()
    if mode is GenerationMode.POSITIVE:
        assert {label for label, statuses in answered.items() if min(statuses) >= 400} == set(), "are only refused"
