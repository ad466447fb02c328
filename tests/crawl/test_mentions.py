"""A hold that nobody announced is found through the records that name it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chalicelib.atproto.syntax import Did, Origin, parse_origin
from chalicelib.crawl import budgets, jobs
from chalicelib.crawl.context import Context
from chalicelib.crawl.mentions import MENTION, Named
from chalicelib.crawl.queue import from_body, to_body
from chalicelib.crawl.repo_job import Deadline, Outcome, sync_repo
from simulator.host import Host
from simulator.thread import SimulatorThread
from tests.conftest import Stack

MakeContext = Callable[..., Context]
HOLDS = "io.atcr.hold.captain"
MANIFEST, PROFILE = "io.atcr.manifest", "io.atcr.sailor.profile"
PLC = "did:plc:" + "a" * 24


@pytest.mark.parametrize(
    ("path", "value", "names"),
    [
        (
            f"{MANIFEST}/a",
            {"holdDid": "did:web:a.com", "holdEndpoint": "https://a.com"},
            ["did:web:a.com", "https://a.com"],
        ),
        (f"{MANIFEST}/a", '{"holdEndpoint": "https://a.com"}', ["https://a.com"]),
        (f"{PROFILE}/self", {"defaultHold": "did:web:a.com"}, ["did:web:a.com"]),
        (f"{PROFILE}/self", {"defaultHold": None, "holdDid": "did:web:a.com"}, []),
        ("io.atcr.tag/a", {"holdDid": "did:web:a.com"}, []),
        (f"{MANIFEST}/a", {"holdDid": ["did:web:a.com"]}, []),
        (f"{MANIFEST}/a", "[]", []),
        (f"{MANIFEST}/a", None, []),
    ],
)
def test_which_fields_name_a_hold(path: str, value: object, names: list[str]) -> None:
    named = Named()
    named.note(path, value)
    assert list(named) == names


def landed(context: Context, host: Host, *names: str) -> str:
    """A user whose manifests name these holds, and whose repo is crawled."""
    records = [(f"{MANIFEST}/{number}", {"$type": MANIFEST, "holdDid": name}) for number, name in enumerate(names)]
    did = str(host.create_account(PLC, "user.test", records).did)
    context.writer.ask(Did(did))
    assert sync_repo(context, Did(did), deadline=Deadline(60)) is Outcome.LANDED
    return did


def sent(stack: Stack) -> list[str]:
    found = stack.sqs.receive_message(QueueUrl=stack.queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=0)
    return [to_body(from_body(message["Body"])) for message in found.get("Messages", [])]


def test_a_hold_that_started_while_we_were_down_is_found_through_a_users_manifest(
    sim: SimulatorThread, make_context: MakeContext, stack_env: Stack
) -> None:
    context = make_context()
    pds, hold = sim.call(sim.net.add_host()), sim.call(sim.net.add_hold())
    landed(context, pds, hold.did, hold.did)
    key = f"http://{hold.hostname}"
    row = context.hosts.load(Origin.parse_key(key))
    assert (row.kind, row.status) == ("named", "unconfirmed")
    assert f'{{"host": "{key}"}}' in sent(stack_env)
    jobs.work(context, f'{{"host": "{key}"}}')
    assert [entry.key.partition("#")[2] for entry in context.tables.listings.query(HOLDS)] == [hold.did]
    assert context.hosts.load(Origin.parse_key(key)).status == "active"


def test_a_hold_is_looked_into_once_whoever_names_it(
    sim: SimulatorThread, make_context: MakeContext, stack_env: Stack
) -> None:
    pds = sim.call(sim.net.add_host())
    for context in (make_context(), make_context()):
        context.mentions.follow_up(Did(PLC), [f"http://{pds.hostname}", "not a host", "did:web:a:b", "did:key:z"])
        origin = parse_origin(pds.hostname, allow_private=True)
        context.tables.hosts(str(origin)).delete()
    assert [row.id for row in context.state.all(MENTION)] == [str(origin)]
    assert sent(stack_env) == [f'{{"host": "{origin}"}}']
    assert context.hosts.load(origin) is None


def test_a_hold_that_is_known_is_left_alone_and_one_with_a_did_plc_is_asked_for(
    sim: SimulatorThread, make_context: MakeContext, stack_env: Stack
) -> None:
    context, known = make_context(), sim.call(sim.net.add_hold())
    origin = parse_origin(known.hostname, allow_private=True)
    context.hosts.admit(origin, confirmed=True)
    before = context.hosts.load(origin)
    context.mentions.follow_up(Did("did:plc:b"), [known.did, PLC])
    assert context.hosts.load(origin).attribute_values == before.attribute_values
    assert sent(stack_env) == [f'{{"repo": "{PLC}"}}']
    assert context.writer.load(Did(PLC)).claimed_by == "did:plc:b"


def test_nobody_has_us_look_for_holds_without_end(
    make_context: MakeContext, stack_env: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets, "NAMED_EACH", 3)
    context = make_context(MAX_UNREACHED_HOSTS="5")
    for did in ("did:plc:one", "did:plc:two"):
        context.mentions.follow_up(Did(did), [f"http://{did[-3:]}{number}.localhost:1" for number in range(10)])
    assert len(list(context.tables.hosts.scan())) == 5
