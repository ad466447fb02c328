"""The local stack as a user meets it: one command, one log, one state that outlives it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import boto3
import httpx
import pytest

from infra.local import engines
from infra.local.__main__ import settings
from tests.conftest import absent

pytestmark = pytest.mark.stack


class Running:
    """One run of the stack, and its log."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port, self.url = process, port, f"http://127.0.0.1:{port}"
        self.lines: SimpleQueue[str | None] = SimpleQueue()
        self.seen: list[str] = []
        Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.put(line.rstrip())
        self.lines.put(None)

    def until(self, pattern: str) -> str:
        """The next line of the log that ``pattern`` is found in."""
        while (line := self.lines.get(timeout=60)) is not None:
            self.seen.append(line)
            if re.search(pattern, line):
                return line
        raise AssertionError(f"the log ended without {pattern!r}:\n" + "\n".join(self.seen))

    @property
    def children(self) -> dict[str, int]:
        """Process ids of the parts."""
        listed = subprocess.run(
            ["ps", "-A", "-ww", "-o", "pid=,ppid=,command="], capture_output=True, text=True, check=True
        )
        found: dict[str, int] = {}
        for line in listed.stdout.splitlines():
            pid, parent, command = line.split(None, 2)
            if int(parent) == self.process.pid and "infra.local.child" in command:
                found[command.split("infra.local.child ", 1)[1].split()[0].rsplit(".", 1)[-1]] = int(pid)
        return found

    def traces(self, kind: str) -> dict[str, int]:
        """What the tiny app has counted in the state table."""
        (engine,) = [line.split()[-1] for line in self.seen if line.startswith("engine") and "http://" in line][-1:]
        session = boto3.Session("local", "local", region_name="us-east-1")
        rows = session.client("dynamodb", endpoint_url=engine).query(
            TableName="atcr-discovery-dev-state",
            KeyConditionExpression="kind = :kind",
            ExpressionAttributeValues={":kind": {"S": kind}},
            ConsistentRead=True,
        )["Items"]
        return {row["id"]["S"]: int(row["number"]["N"]) for row in rows}


@contextmanager
def stack(folder: Path, *arguments: str, **variables: str) -> Iterator[Running]:
    port = engines.free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DISCOVERY_"))}
    environment |= {"PORT": str(port), "DISCOVERY_LOCAL_DIR": str(folder)} | variables
    tiny = ["--app", "tests.infra.tiny_app:app", "--subscriber", "tests.infra.tiny_subscriber"]
    process = subprocess.Popen(
        [sys.executable, "-m", "infra.local", *tiny, *arguments],
        cwd=engines.ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield Running(process, port)
    finally:
        process.terminate()
        process.wait(60)


def test_one_command_starts_everything_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    with stack(tmp_path) as running:
        running.until(r"subscriber \| listening")
        running.until(rf"stack +\| .*ready on {running.url}")
        running.until(r"listReposByCollection")
        assert httpx.get(f"{running.url}/xrpc/_health").json() == {"status": "fine"}
        assert set(running.children) == {"engine", "http", "worker", "tiny_subscriber"}
        assert "\x1b" not in "".join(running.seen)
        parts = running.children.values()
        running.process.send_signal(signal.SIGINT)
        running.until(r"subscriber \| drained")
        running.until(r"stack +\| stopped")
        assert running.process.wait(30) == 0
    assert not [pid for pid in parts if _alive(pid)]


def test_state_survives_kill_9_of_everything(tmp_path: Path) -> None:
    with stack(tmp_path) as running:
        running.until(r"ready on")
        while not running.traces("sweep"):
            pass
        before = running.traces("sweep")["Scheduled Event"]
        parts = running.children.values()
        running.process.kill()
        for pid in parts:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _await_end(pid)
    with stack(tmp_path) as again:
        again.until(r"ready on")
        assert again.traces("sweep")["Scheduled Event"] >= before


def test_the_parts_end_when_the_stack_is_killed(tmp_path: Path) -> None:
    with stack(tmp_path) as running:
        running.until(r"ready on")
        parts = running.children.values()
        running.process.kill()
        for pid in parts:
            _await_end(pid)


def test_a_part_that_crashes_comes_back(tmp_path: Path) -> None:
    with stack(tmp_path) as running:
        running.until(r"ready on")
        os.kill(running.children["http"], signal.SIGKILL)
        running.until(r"api +\| ended with signal SIGKILL; it is started again")
        while True:
            try:
                assert httpx.get(f"{running.url}/xrpc/_health").status_code == 200
                break
            except httpx.ConnectError:
                continue


def test_the_engine_comes_back_with_its_items_and_fresh_queues(tmp_path: Path) -> None:
    with stack(tmp_path) as running:
        running.until(r"ready on")
        while not running.traces("sweep"):
            pass
        os.kill(running.children["engine"], signal.SIGKILL)
        running.until(r"engine +\| ended with signal SIGKILL")
        running.until(r"engine +\| http://")
        before = running.traces("sweep")["Scheduled Event"]
        assert before >= 1
        session = boto3.Session("local", "local", region_name="us-east-1")
        engine = running.seen[-1].split()[-1]
        sqs = session.client("sqs", endpoint_url=engine)
        while not (queues := sqs.list_queues().get("QueueUrls", [])) or len(queues) < 2:
            pass
        url = next(each for each in queues if each.endswith("-crawl"))
        sqs.send_message(QueueUrl=url, MessageBody="after")
        while running.traces("crawl") != {"after": 1}:
            pass


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with stack(tmp_path) as first:
        first.until(r"ready on")
        with stack(tmp_path) as second:
            second.until(r"is in use: another `make run`\?")
            assert second.process.wait(30) == 1


def test_a_port_that_is_taken_is_said_so(tmp_path: Path) -> None:
    with stack(tmp_path / "a") as first:
        first.until(r"ready on")
        with stack(tmp_path / "b", PORT=str(first.port)) as second:
            second.until(rf"port {first.port} cannot be used .*PORT=8080 make run")
            assert second.process.wait(30) == 1


def test_a_user_s_own_aws_profile_does_not_matter(tmp_path: Path) -> None:
    with stack(tmp_path, AWS_PROFILE="none-such", AWS_REGION="eu-north-1") as running:
        running.until(r"ready on")


def test_with_an_endpoint_no_engine_is_started(tmp_path: Path) -> None:
    with engines.running("embedded") as endpoints, stack(tmp_path, AWS_ENDPOINT_URL=endpoints.sqs) as running:
        running.until(r"ready on")
        assert set(running.children) == {"http", "worker", "tiny_subscriber"}


def test_it_runs_on_dynamodb_local(tmp_path: Path) -> None:
    try:
        engines.dynamodb_local_command(1, None)
    except engines.EngineUnavailable as reason:
        absent(str(reason))
    with stack(tmp_path, "--engine", "dynamodb-local") as running:
        running.until(r"ready on")
        assert set(running.children) == {"engine", "--", "http", "worker", "tiny_subscriber"}
    assert list((tmp_path / "dynamodb-local").iterdir())


def test_the_environment_wins_over_the_file_and_the_file_over_what_is_local(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(
        "# a comment\nexport DISCOVERY_COLLECTIONS='app.example.*'\nPORT=9\nDISCOVERY_ALLOW_PRIVATE_HOSTS=false\n"
    )
    found: dict[str, Any] = settings({"PORT": "8"}, file)
    assert found["PORT"] == "8"
    assert found["DISCOVERY_COLLECTIONS"] == "app.example.*"
    assert found["DISCOVERY_ALLOW_PRIVATE_HOSTS"] == "false"
    assert settings({}, tmp_path / "none")["DISCOVERY_ALLOW_PRIVATE_HOSTS"] == "true"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _await_end(pid: int) -> None:
    while _alive(pid):
        pass
