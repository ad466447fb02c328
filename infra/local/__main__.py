"""The whole service on this machine: ``python -m infra.local``, or ``make run``.

    engine      DynamoDB and SQS: embedded, or Amazon's DynamoDB Local; none where AWS_ENDPOINT_URL names one
    api         app.py over HTTP on 127.0.0.1, PORT (8000)
    worker      the queue's consumers and the schedules of app.py
    subscriber  python -m subscriber

State is kept under ``.local/`` (DISCOVERY_LOCAL_DIR). Settings come from the environment, then from ``.env``.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import boto3

from infra import provision
from infra.env_file import read as read_env_file
from infra.local import engines
from infra.local.holding import InUse, hold
from infra.local.supervisor import Log, Part, Supervisor

SUBSCRIBER_PATIENCE = 22.0
"""The subscriber promises to have saved its cursors 20 seconds after SIGTERM."""
ENVIRONMENT = "environment"
"""Of the state folder: what the operator's commands need."""
TOKEN = "admin-token"  # noqa: S105 - a file's name
"""Of the state folder: what lets into /admin."""
READY_WITHIN = 120.0
HINTS = """
  atcr-discovery is ready on {url}    (Ctrl-C stops it; its state is in {folder})

  curl '{url}/xrpc/_health'
  curl '{url}/xrpc/com.atproto.sync.requestCrawl' -H 'content-type: application/json' -d '{{"hostname": "hold01.atcr.io"}}'
  curl '{url}/xrpc/com.atproto.sync.listReposByCollection?collection=io.atcr.hold.captain'
  curl '{url}/admin/listHosts' -H "authorization: Bearer $(cat {folder}/admin-token)"
  . {folder}/environment && .venv/bin/python -m chalicelib.cli --help
"""


class CannotStart(Exception):
    """The stack cannot run here; the message says why and what to do."""


def settings(environ: Mapping[str, str], env_file: Path) -> dict[str, str]:
    """The environment of the parts: what is set, then what ``env_file`` says, then what is right on a local machine."""
    values = read_env_file(env_file) | dict(environ)
    for name, value in {
        "DISCOVERY_ALLOW_PRIVATE_HOSTS": "true",
        "DISCOVERY_LOG_FORMAT": "text",
        "DISCOVERY_TABLE_PREFIX": "atcr-discovery-dev",
        "DISCOVERY_JOBS_PER_DOMAIN": "2",  # of the worker's four
        **engines.CREDENTIALS,
    }.items():
        if not values.get(name):
            values[name] = value
    return values


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.local", description="The whole service on this machine.")
    parser.add_argument("--address", default="127.0.0.1", help="where the API listens; 0.0.0.0 within a container")
    parser.add_argument(
        "--behind-proxy", action="store_true", help="nothing but a proxy can reach the API; callers are whom it names"
    )
    parser.add_argument("--engine", choices=engines.KINDS, default="embedded")
    parser.add_argument("--app", default="app:app", help="module:attribute of the Chalice app")
    parser.add_argument("--subscriber", default="subscriber", help="module of the subscriber")
    options = parser.parse_args()
    environment = settings(os.environ, engines.ROOT / ".env")
    log = Log(sys.stdout)
    stack = Supervisor(log)
    stopped = threading.Event()

    def stop(number: int, frame: object) -> None:
        if stopped.is_set():
            stack.kill()  # the second Ctrl-C
        stopped.set()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    try:
        start(stack, options, environment, stopped)
    except (CannotStart, engines.EngineUnavailable) as reason:
        stack.stop()
        print(f"\nmake run: {reason}", file=sys.stderr)
        return 1
    stopped.wait()
    log.line("stack", "stopping; the subscriber saves its cursors")
    stack.stop()
    log.line("stack", "stopped")
    return 0


def start(
    stack: Supervisor, options: argparse.Namespace, environment: dict[str, str], stopped: threading.Event
) -> None:
    """Start the parts one after the other and say when the service is ready. Raises ``CannotStart``."""
    text = environment.get("PORT") or "8000"
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise CannotStart(f"PORT={text} is not a port: say a number from 1 to 65535")
    port = int(text)
    folder = engines.state_folder(environment)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        hold(folder / "lock")
    except InUse:
        raise CannotStart(f"{folder} is in use: another `make run`? DISCOVERY_LOCAL_DIR names another folder") from None
    _check_free(options.address, port)
    if not environment.get("AWS_ENDPOINT_URL"):
        start_engine(stack, options.engine, folder, environment)
    environment["DISCOVERY_QUEUE_URL"] = made(environment).queue_url
    if not environment.get("DISCOVERY_ADMIN_TOKEN_FROM"):
        environment["DISCOVERY_ADMIN_TOKEN_FROM"] = f"file:{write_token(folder / TOKEN).resolve()}"
    write_environment(folder / ENVIRONMENT, environment)
    app = ("--app", options.app)
    proxy = ("--behind-proxy",) if options.behind_proxy else ()
    for name, arguments, patience in (
        ("api", ("infra.local.http", "--address", options.address, "--port", str(port), *proxy, *app), 5.0),
        ("worker", ("infra.local.worker", *app), 10.0),
        ("subscriber", (options.subscriber,), SUBSCRIBER_PATIENCE),
    ):
        stack.start(Part(name, engines.child_command(*arguments), environment, patience))
    url = f"http://127.0.0.1:{port}"
    threading.Thread(target=_say_when_ready, args=(stack.log, url, folder, stopped), daemon=True).start()


def write_environment(file: Path, environment: Mapping[str, str]) -> None:
    """Leave what a shell needs to give orders to this stack (``. FILE``), for nobody but its owner."""
    wanted = {name: value for name, value in environment.items() if name.startswith(("AWS_", "DISCOVERY_"))}
    file.touch(mode=0o600)
    file.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(wanted.items())))


def write_token(file: Path) -> Path:
    """Make a token for /admin, unless there is one, for nobody but its owner. Returns ``file``."""
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(32) + "\n")
    return file


def start_engine(stack: Supervisor, kind: str, folder: Path, environment: dict[str, str]) -> None:
    """Start the engine and put its endpoints into ``environment``; after a crash its queues are made again."""
    ports = {"engine": engines.free_port()}
    commands = {"engine": engines.embedded_command(ports["engine"], folder / "engine.sqlite")}
    if kind == "dynamodb-local":
        ports["dynamodb"] = engines.free_port()
        commands["dynamodb"] = engines.dynamodb_local_command(ports["dynamodb"], folder / "dynamodb-local")
    for values in (environment, os.environ):
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            values.pop(name, None)  # of an account that is not used here
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    environment.update(engines.Endpoints(urls.get("dynamodb", urls["engine"]), urls["engine"]).environment)

    def ready() -> None:
        for name, port in ports.items():
            process = next(part.process for part in stack.parts if part.name == name)
            engines.wait_for_port(port, process)

    def mend() -> None:
        ready()
        made(environment)

    for name, command in commands.items():
        stack.start(Part(name, command, environment, foundation=True, after_restart=mend))
    ready()


def made(environment: Mapping[str, str]) -> provision.Installation:
    """The tables and queues, made where they were not there."""
    session = boto3.Session(
        environment["AWS_ACCESS_KEY_ID"],
        environment["AWS_SECRET_ACCESS_KEY"],
        environment.get("AWS_SESSION_TOKEN") or None,
        environment["AWS_REGION"],
    )

    shared = environment.get("AWS_ENDPOINT_URL")
    dynamodb = session.client("dynamodb", endpoint_url=environment.get("AWS_ENDPOINT_URL_DYNAMODB") or shared)
    sqs = session.client("sqs", endpoint_url=environment.get("AWS_ENDPOINT_URL_SQS") or shared)
    return provision.create(environment["DISCOVERY_TABLE_PREFIX"], dynamodb, sqs)


def _check_free(address: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as fault:
            raise CannotStart(
                f"port {port} cannot be used ({fault.strerror}); PORT=8080 make run takes another"
            ) from fault


def _say_when_ready(log: Log, url: str, folder: Path, stopped: threading.Event) -> None:
    """Print the hints once the API says that it and the subscriber are well."""
    deadline = time.monotonic() + READY_WITHIN
    while not stopped.wait(0.3):
        try:
            with urllib.request.urlopen(f"{url}/xrpc/_health", timeout=5) as answer:  # noqa: S310 (our own)
                if answer.status == 200:
                    break
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                log.line("stack", f"not ready after {READY_WITHIN:g} s; {url}/xrpc/_health says why")
                return
    if not stopped.is_set():
        for line in HINTS.format(url=url, folder=os.path.relpath(folder)).splitlines():
            log.line("stack", line)


if __name__ == "__main__":
    sys.exit(main())
