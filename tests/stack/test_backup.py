"""A copy of the state, taken while it changes, is one moment of it, and a stack that begins with it ends up exact."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import BotoCoreError

from infra import provision
from infra.local import engines
from simulator.thread import SimulatorThread
from tests.conftest import ROOT
from tests.local_stack import running
from tests.service import HOLDS, eventually

LAYERS = "io.atcr.hold.layer"
DEFINITION = {
    name: value
    for name, value in provision.resources("data", "AWS::DynamoDB::Table", "any")["Records"].items()
    if name in ("BillingMode", "AttributeDefinitions", "KeySchema")
}
pytestmark = pytest.mark.stack


def backup(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "infra.local.backup", *arguments]
    environment = {"DISCOVERY_LOCAL_DIR": str(state)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def done(ran: subprocess.CompletedProcess[str]) -> str:
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@contextmanager
def changing(sim: SimulatorThread, hold: Any) -> Iterator[None]:
    """The hold gets layer after layer, though not more than can be caught up with soon."""
    stopping = threading.Event()

    def write() -> None:
        for _ in range(300):
            if stopping.wait(0.005):
                break
            sim.call(hold.put, hold.did, *hold.author(hold.did).layer())

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        stopping.set()
        writer.join()


def test_what_was_backed_up_while_it_changed_is_restored_and_catches_up(tmp_path: Path) -> None:
    state, copy = tmp_path / "state", tmp_path / "copy.sqlite"
    with SimulatorThread(seed=3) as sim:
        holds = [sim.call(sim.net.add_hold(layers=40)) for _ in range(3)]
        busy, emptied, _ = holds
        with running(state, DISCOVERY_PLC_URL=sim.net.plc.url) as stack:
            for hold in holds:
                sim.call(hold.request_crawl(stack.url))
            eventually(lambda: stack.listing(HOLDS) == sim.net.truth(HOLDS))
            listed = stack.listing(HOLDS)
            with changing(sim, busy):
                assert "items" in done(backup(state, str(copy)))
            late = sim.call(sim.net.add_hold(layers=1))
            sim.call(late.request_crawl(stack.url))
            sim.call(emptied.delete_collection, emptied.did, LAYERS)
            eventually(lambda: late.did in stack.listing(HOLDS) and emptied.did not in stack.listing(LAYERS))
            assert "end the stack first" in backup(state, "--restore", str(copy)).stderr
            stack.kill()
        shutil.rmtree(state)

        assert "items of" in done(backup(state, "--restore", str(copy)))
        with running(state, DISCOVERY_PLC_URL=sim.net.plc.url) as stack:
            assert stack.listing(HOLDS) == listed
            sim.call(late.request_crawl(stack.url))  # as a hold does whenever it starts
            eventually(lambda: all(stack.listing(each) == sim.net.truth(each) for each in (HOLDS, LAYERS)))
        with engine(state / "engine.sqlite") as dynamodb:
            rows = dynamodb.query(
                TableName="atcr-discovery-dev-records",
                KeyConditionExpression="did = :did",
                ExpressionAttributeValues={":did": {"S": busy.did}},
            )["Items"]
            assert {row["path"]["S"] for row in rows} == set(sim.net.records(busy.did))


@contextmanager
def engine(file: Path) -> Iterator[Any]:
    """A client of an engine on ``file``."""
    port = engines.free_port()
    process = subprocess.Popen(
        engines.embedded_command(port, file), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        engines.wait_for_port(port, process)
        session = boto3.Session("local", "local", region_name="us-east-1")
        yield session.client("dynamodb", endpoint_url=f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()
        assert process.stdin
        process.stdin.close()


def turns(dynamodb: Any) -> list[int]:
    """The turn of which each row is."""
    return [int(item["turn"]["N"]) for item in dynamodb.scan(TableName="records")["Items"]]


def test_a_copy_holds_each_transaction_whole_and_all_that_was_answered_before_it(tmp_path: Path) -> None:
    state = tmp_path / "engine.sqlite"
    answered = 0
    with engine(state) as dynamodb:
        dynamodb.create_table(TableName="records", **DEFINITION)

        def write() -> None:
            nonlocal answered
            for turn in count(1):
                key = [{"did": {"S": "did:plc:a"}, "path": {"S": f"c/{number}"}} for number in range(10)]
                puts = [{"Put": {"TableName": "records", "Item": {**each, "turn": {"N": str(turn)}}}} for each in key]
                try:
                    dynamodb.transact_write_items(TransactItems=puts)
                except BotoCoreError:
                    return
                answered = turn

        threading.Thread(target=write, daemon=True).start()
        copies = []
        for number in range(5):
            eventually(lambda: answered > 0)
            before = answered
            copies.append((before, tmp_path / f"{number}.sqlite"))
            assert "10 items" in done(backup(tmp_path, str(copies[-1][1])))
    for before, file in copies:
        with engine(file) as dynamodb:
            found = turns(dynamodb)
            assert len(found) == 10
            assert len(set(found)) == 1
            assert found[0] >= before


def test_a_file_that_is_no_copy_replaces_nothing(tmp_path: Path) -> None:
    with engine(tmp_path / "engine.sqlite") as dynamodb:
        assert dynamodb.list_tables()["TableNames"] == []
    damaged = tmp_path / "damaged.sqlite"
    done(backup(tmp_path, str(damaged)))
    assert "exists already" in backup(tmp_path, str(damaged)).stderr
    before = (tmp_path / "engine.sqlite").read_bytes()
    damaged.write_bytes(damaged.read_bytes()[:5000] + b"\xff" * 3000)
    for file in (damaged, ROOT / "README.md", tmp_path / "none"):
        ran = backup(tmp_path, "--restore", str(file))
        assert ran.returncode == 1
        assert ran.stderr.startswith("backup: ")
        assert "Traceback" not in ran.stderr
    assert (tmp_path / "engine.sqlite").read_bytes() == before


def test_a_restore_keeps_what_it_replaces_be_it_damaged(tmp_path: Path) -> None:
    state, replaced = tmp_path / "engine.sqlite", tmp_path / "engine.sqlite.replaced"
    with engine(state) as dynamodb:
        dynamodb.create_table(TableName="records", **DEFINITION)
    first = done(backup(tmp_path)).split()[0]
    assert Path(first).parent == tmp_path / "backups"
    with engine(state) as dynamodb:
        dynamodb.put_item(TableName="records", Item={"did": {"S": "did:plc:a"}, "path": {"S": "c/0"}})
    done(backup(tmp_path, "--restore", first))
    with engine(replaced) as dynamodb:
        assert dynamodb.scan(TableName="records")["Count"] == 1
    with engine(state) as dynamodb:
        assert dynamodb.scan(TableName="records")["Count"] == 0

    state.write_bytes(b"what a broken disk left")
    done(backup(tmp_path, "--restore", first))
    assert replaced.read_bytes() == b"what a broken disk left"
    with engine(state) as dynamodb:
        assert dynamodb.list_tables()["TableNames"] == ["records"]
