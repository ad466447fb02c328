"""The embedded AWS: moto's server with DynamoDB and SQS on 127.0.0.1, its items kept in one SQLite file.

What it promises beyond moto:

- A call to DynamoDB is answered after its changes are committed to the file; a refused or failed call changes nothing, in
  memory or on disk. Calls are carried out one at a time: transactions and conditional writes are atomic.
- After ``kill -9`` everything that was answered is there. The file is in WAL mode with ``synchronous=NORMAL``: a commit is
  handed to the operating system before the answer, and outlives the process; only a crash of the machine may lose the
  last commits, and even then the file is whole. ``FULL`` would add an fsync to each write for that case alone.
- A query reads the items of its page, not the table; a transaction remembers the items that it touches, not the tables.
- Memory follows the items that exist. (moto itself keeps every object that it ever made.)

Queues are not kept: what is to be done is in the tables. There is one region and one account, whatever the caller says.
The parts, ``tables.py`` and ``queues.py``, lean on the insides of one version of moto, pinned in ``requirements-local.txt``;
``tests/infra/test_engine_moto.py`` fails when they change.

    python -m infra.local.engine --port 4566 --file .local/engine.sqlite
"""

from __future__ import annotations

import argparse
import os
import signal
from functools import cache
from pathlib import Path
from typing import Any

import waitress
from moto.core import responses
from moto.core.common_models import BaseModel
from moto.core.request import Request
from moto.dynamodb.responses import DynamoHandler
from moto.sqs.responses import SQSResponse
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from infra.local import queues, tables

THREADS = 48
"""Requests at a time. A long poll of a queue holds one for up to 20 seconds."""


class AwsRequest(Request):
    """A request to the engine, as moto wants it."""

    from_wsgi_server = True


def embedded_aws(path: str) -> Any:
    """The WSGI application that serves DynamoDB, its items in the file at ``path`` (":memory:": in none), and SQS. Once a
    process."""

    def app(environ: Any, start_response: Any) -> Any:
        of_dynamodb = environ.get("HTTP_X_AMZ_TARGET", "").startswith("DynamoDB_")
        try:
            status, headers, body = (DynamoHandler if of_dynamodb else SQSResponse).dispatch(AwsRequest(environ))
        except HTTPException as refusal:
            return refusal(environ, start_response)
        return Response(body, status, headers)(environ, start_response)

    for owner, name, replacement in (
        (BaseModel, "__new__", lambda cls, *args, **kwargs: object.__new__(cls)),  # moto's keeps every object for ever
        (responses, "method_names_from_class", cache(vars(responses)["method_names_from_class"])),  # asked at each call
    ):
        setattr(owner, name, replacement)
    tables.install(path, app)
    queues.install()
    return app


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m infra.local.engine", description="DynamoDB and SQS on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=0, help="0, the default: any that is free")
    parser.add_argument(
        "--file", default=":memory:", help="the SQLite file that keeps the items; without it nothing is kept"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))  # what was answered is in the file
    if options.file != ":memory:":
        Path(options.file).parent.mkdir(parents=True, exist_ok=True)
    server: Any = waitress.create_server(
        embedded_aws(options.file), host="127.0.0.1", port=options.port, threads=THREADS
    )
    print(f"http://127.0.0.1:{server.effective_port}", flush=True)
    server.run()


if __name__ == "__main__":
    main()
