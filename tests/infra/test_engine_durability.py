"""An engine that is ended and started again has everything that it answered for: the embedded one after kill -9, Amazon's
after SIGTERM. (Killed, DynamoDB Local lost the transactions of its last moments in one of ten tries.)"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from infra import provision
from infra.local import engines
from tests.conftest import absent

TABLE = "records"
DEFINITION = {
    name: value
    for name, value in provision.resources("data", "AWS::DynamoDB::Table", "any")["Records"].items()
    if name in ("BillingMode", "AttributeDefinitions", "KeySchema")
} | {"TableName": TABLE}


@contextmanager
def started(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, cwd=engines.ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        engines.wait_for_port(port, process)
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdin
        process.stdin.close()


def embedded(port: int, folder: Path) -> list[str]:
    return engines.embedded_command(port, folder / "engine.sqlite")


def dynamodb_local(port: int, folder: Path) -> list[str]:
    try:
        command = engines.dynamodb_local_command(port, folder)
    except engines.EngineUnavailable as reason:
        absent(str(reason))
    return command[command.index("--") + 1 :]  # Java itself, to be killed itself


def connect(port: int) -> Any:
    options = Config(retries={"total_max_attempts": 1}, max_pool_connections=20)
    session = boto3.Session("local", "local", region_name="us-east-1")
    return session.client("dynamodb", endpoint_url=f"http://127.0.0.1:{port}", config=options)


class Writer(Thread):
    """Puts, updates and transactions of ten on one hash key, until the engine is gone."""

    def __init__(self, dynamodb: Any, number: int, life: int, kept: dict[str, str], answers: SimpleQueue[None]) -> None:
        super().__init__()
        self.dynamodb, self.did, self.life, self.answers = dynamodb, {"S": f"did:plc:{number}"}, life, answers
        self.answered = kept
        """Path to cid of every row whose writing was answered."""
        self.sent: dict[str, str] = {}
        """The rows of the write in progress."""

    def run(self) -> None:
        try:
            for turn in count():
                self.write(turn)
                self.answered.update(self.sent)
                self.answers.put(None)
        except (BotoCoreError, ClientError):
            return

    def write(self, turn: int) -> None:
        paths = [f"c/{(turn + offset) % 50}" for offset in range(10 if turn % 3 == 0 else 1)]
        cid = {"S": f"{self.life}.{turn}"}
        self.sent = dict.fromkeys(paths, cid["S"])
        keys = [{"did": self.did, "path": {"S": path}} for path in paths]
        if turn % 3 == 0:
            puts = [{"Put": {"TableName": TABLE, "Item": {**key, "cid": cid}}} for key in keys]
            self.dynamodb.transact_write_items(TransactItems=puts)
        elif turn % 3 == 1:
            self.dynamodb.put_item(TableName=TABLE, Item={**keys[0], "cid": cid})
        else:
            values = {"ExpressionAttributeValues": {":cid": cid}}
            self.dynamodb.update_item(TableName=TABLE, Key=keys[0], UpdateExpression="SET cid = :cid", **values)

    def found(self, dynamodb: Any) -> dict[str, str]:
        values = {"ExpressionAttributeValues": {":did": self.did}}
        rows = dynamodb.query(TableName=TABLE, KeyConditionExpression="did = :did", **values)["Items"]
        return {row["path"]["S"]: row["cid"]["S"] for row in rows}


@pytest.mark.parametrize(
    ("command", "end", "lives"), [(embedded, signal.SIGKILL, (200, 37, 90)), (dynamodb_local, signal.SIGTERM, (100,))]
)
def test_nothing_that_was_answered_is_lost(
    command: Callable[[int, Path], list[str]], end: signal.Signals, lives: Sequence[int], tmp_path: Path
) -> None:
    kept: list[dict[str, str]] = [{} for _ in range(4)]
    for life, writes in enumerate(lives):
        port = engines.free_port()
        with started(command(port, tmp_path), port) as process:
            dynamodb = connect(port)
            if life == 0:
                _create_table(dynamodb)
            answers: SimpleQueue[None] = SimpleQueue()
            writers = [Writer(dynamodb, number, life, kept[number], answers) for number in range(4)]
            for writer in writers:
                writer.start()
            for _ in range(writes):
                answers.get(timeout=30)
            process.send_signal(end)
            process.wait(30)
            for writer in writers:
                writer.join()
        port = engines.free_port()
        with started(command(port, tmp_path), port):
            dynamodb = connect(port)
            for number, writer in enumerate(writers):
                found = writer.found(dynamodb)
                # The write in progress is there whole, or not at all.
                assert found in (writer.answered, writer.answered | writer.sent)
                kept[number] = found


def test_definitions_and_expiry_survive_too(tmp_path: Path) -> None:
    for life in range(2):
        port = engines.free_port()
        with started(embedded(port, tmp_path), port) as process:
            dynamodb = connect(port)
            if life == 0:
                _create_table(dynamodb)
                expiry = {"AttributeName": "expires_at", "Enabled": True}
                dynamodb.update_time_to_live(TableName=TABLE, TimeToLiveSpecification=expiry)
                dynamodb.create_table(**DEFINITION | {"TableName": "gone"})
                dynamodb.put_item(TableName="gone", Item={"did": {"S": "did:plc:a"}, "path": {"S": "c/1"}})
                dynamodb.delete_table(TableName="gone")
                process.kill()
                continue
            assert dynamodb.list_tables()["TableNames"] == [TABLE]
            found = dynamodb.describe_time_to_live(TableName=TABLE)["TimeToLiveDescription"]
            assert found == {"AttributeName": "expires_at", "TimeToLiveStatus": "ENABLED"}


def test_every_type_of_value_comes_back_as_it_was(tmp_path: Path) -> None:
    item = {
        "did": {"S": "did:plc:ü"},
        "path": {"S": "c/1"},
        "n": {"N": "12345678901234567890.5"},
        "b": {"B": b"\x00\xff"},
        "m": {"M": {"l": {"L": [{"BOOL": True}, {"NULL": True}, {"M": {"s": {"S": ""}}}]}}},
        "ss": {"SS": ["a", "b"]},
        "ns": {"NS": ["1", "2"]},
        "bs": {"BS": [b"\x01"]},
    }
    for life in range(2):
        port = engines.free_port()
        with started(embedded(port, tmp_path), port) as process:
            dynamodb = connect(port)
            if life == 0:
                _create_table(dynamodb)
                dynamodb.put_item(TableName=TABLE, Item=item)
            key = {"did": item["did"], "path": item["path"]}
            assert dynamodb.get_item(TableName=TABLE, Key=key)["Item"] == item
            process.kill()


def test_one_engine_at_a_time_has_the_file(tmp_path: Path) -> None:
    port = engines.free_port()
    with started(embedded(port, tmp_path), port):
        _create_table(connect(port))
        second = subprocess.Popen(
            embedded(engines.free_port(), tmp_path), cwd=engines.ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert second.stdin
        assert second.stderr
        with second.stdin, second.stderr:
            assert b"is held by another process" in second.stderr.read()
            assert second.wait(30) != 0


def test_the_engine_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    port = engines.free_port()
    with started(embedded(port, tmp_path), port) as process:
        assert process.stdin
        process.stdin.close()
        assert process.wait(30) == 0


def _create_table(dynamodb: Any) -> None:
    dynamodb.create_table(**DEFINITION)
    dynamodb.get_waiter("table_exists").wait(TableName=TABLE, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
