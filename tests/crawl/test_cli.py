"""The operator's commands, as typed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import boto3
import moto
import pytest

from chalicelib import cli
from chalicelib.atproto.syntax import Did, parse_origin
from chalicelib.crawl import orders
from chalicelib.crawl.context import Context
from chalicelib.crawl.host_job import crawl_host
from simulator.host import Host
from simulator.thread import SimulatorThread

Run = Callable[..., tuple[int, list[Any]]]


@pytest.fixture
def context(make_context: Callable[..., Context]) -> Context:
    return make_context()


@pytest.fixture
def hold(context: Context, sim: SimulatorThread) -> Host:
    host: Host = sim.call(sim.net.add_hold(method="plc"))
    origin = parse_origin(host.hostname, allow_private=True)
    context.hosts.admit(origin, confirmed=True)
    crawl_host(context, origin)
    return host


@pytest.fixture
def run(context: Context, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(
        logging.getLogger("discovery"), "propagate", False
    )  # a test before this one may have set up logs

    def run(*arguments: str) -> tuple[int, list[Any]]:
        status = cli.main(list(arguments), context)
        shown = capsys.readouterr()
        lines = (shown.out if status == 0 else shown.err).splitlines()
        return status, [json.loads(line) if line.startswith("{") else line for line in lines]

    return run


def test_hosts_and_repos_are_shown(run: Run, hold: Host) -> None:
    status, (host,) = run("hosts")
    assert (status, host["status"], host["repoCount"]) == (0, "active", 1)
    assert run("hosts", "--status", "banned") == (0, [])
    _, (host,) = run("host", hold.hostname)
    assert (host["reposInScope"], host["epoch"]) == (1, 0)
    assert host["crawledAt"].endswith("Z")
    _, (repo,) = run("repo", hold.did)
    assert (repo["sync"], repo["collections"]["io.atcr.hold.captain"]) == ("synced", 1)


def test_an_order_is_carried_out_and_kept(run: Run, hold: Host, context: Context) -> None:
    assert run("takedown", hold.did, "--why", "spam", "--who", "alice") == (0, ["taken down"])
    assert context.writer.load(Did(hold.did)).taken_down == "spam"
    assert run("ban", "*.example.net", "--why", "all bad") == (0, ["banned, and 0 known hosts with it"])
    assert run("bans") == (0, [{"domain": "example.net", "why": "all bad"}])
    _, entries = run("audit")
    assert [(entry["action"], entry["outcome"]) for entry in entries] == [
        ("ban", "banned, and 0 known hosts with it"),
        ("takedown", "taken down"),
    ]
    assert (entries[1]["who"], entries[1]["via"]) == ("alice", "cli")
    assert run("dead-letters") == (0, [{"messages": 0, "some": []}])
    assert run("redrive", "--why", "mended") == (0, ["0 messages sent again"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ban", "not a host", "--why", "x"), "refused: "),
        (("ban", "hold01.atcr.io", "--why", ""), "refused: say why"),
        (("ban", "hold01.atcr.io", "--why", "x", "--who", " "), "refused: say who"),
        (("takedown", "hold01.atcr.io", "--why", "x"), "refused: takedown takes a DID"),
        (("repo", "did:web:nobody.example.com"), "refused: did:web:nobody.example.com is not known"),
        (("repo", "nonsense"), "refused: not a DID"),
        (("host", "hold01.atcr.io"), "refused: hold01.atcr.io is not known"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(run: Run, arguments: tuple[str, ...], said: str) -> None:
    status, lines = run(*arguments)
    assert status == 1
    assert len(lines) == 1
    assert lines[0].startswith(said)


def test_a_repo_at_which_a_job_is_is_left_to_it(run: Run, hold: Host, context: Context) -> None:
    context.writer.claim(Did(hold.did), ask=True)
    assert run("purge", hold.did, "--why", "x") == (1, ["a job is at this repo: try again in a minute"])


def test_every_order_is_in_the_audit_log_once_be_it_refused_or_not(run: Run, hold: Host) -> None:
    given = [
        *(("crawl", hold.hostname), ("pause", hold.hostname), ("crawl", hold.hostname), ("resume", hold.hostname)),
        *(("ban", hold.hostname), ("unban", hold.hostname), ("ban", "*.example.net"), ("unban", "*.example.net")),
        *(("resync", hold.did), ("takedown", hold.did), ("restore", hold.did), ("purge", hold.did)),
        *(("purge", hold.hostname), ("redrive",)),
    ]
    assert {action for action, *_ in given} == orders.ACTIONS.keys()
    statuses = [run(*order, "--why", "a reason", "--who", "alice")[0] for order in given]
    _, entries = run("audit")
    assert [entry["status"] == "refused" for entry in reversed(entries)] == [status == 1 for status in statuses]
    assert [(entry["action"], *filter(None, [entry["target"]])) for entry in reversed(entries)] == given
    assert {(entry["who"], entry["why"], entry["via"]) for entry in entries} == {("alice", "a reason", "cli")}
    assert statuses.index(1) == 2


def test_the_list_of_holds_is_printed_or_put_into_a_bucket(
    run: Run, hold: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, (document,) = run("holds")
    assert [one["did"] for one in document["holds"]] == [hold.did]
    with moto.mock_aws(config={"core": {"passthrough": {"services": ["dynamodb"]}}}):
        s3 = boto3.client("s3", region_name="us-east-1")
        s3.create_bucket(Bucket="static")
        made = boto3.client("dynamodb")
        monkeypatch.setattr(cli.boto3, "client", {"s3": s3, "dynamodb": made}.__getitem__)
        assert run("holds", "--to", "s3://static/.well-known/holds.json") == (
            0, [{"holds": 1, "at": "s3://static/.well-known/holds.json"}]
        )  # fmt: skip
        put = s3.get_object(Bucket="static", Key=".well-known/holds.json")
        assert json.loads(put["Body"].read())["holds"] == document["holds"]
        assert (put["ContentType"], put["CacheControl"]) == ("application/json", "public, max-age=300")
    assert run("holds", "--to", "static/holds.json")[0] == 1
