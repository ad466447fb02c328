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
Everything here and in ``tables.py`` leans on the insides of one version of moto; ``tests/infra/test_engine_moto.py`` fails
when they change.

    python -m infra.local.engine --port 4566 --file .local/engine.sqlite
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import waitress
from moto.core.common_models import BaseModel
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult
from moto.dynamodb import models as dynamodb_models
from moto.dynamodb import responses as dynamodb_responses
from moto.dynamodb.models import DynamoDBBackend, dynamodb_backends
from moto.dynamodb.responses import DynamoHandler
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.sqs.models import SQSBackend
from moto.sqs.responses import SQSResponse

from infra.local.tables import REGION, KeptTable, Store

ACCOUNT = "123456789012"
THREADS = 48
"""Requests at a time. A long poll of a queue holds one for up to 20 seconds."""


def embedded_aws(path: str) -> Any:
    """The WSGI application that serves DynamoDB, with the file at ``path`` (":memory:": none), and SQS. Once a process."""
    dynamodb_models.Table = KeptTable  # type: ignore[misc]
    dynamodb_responses.TRANSACTION_MAX_ITEMS = 100
    BaseModel.__new__ = lambda cls, *args, **kwargs: object.__new__(cls)  # type: ignore[method-assign, assignment]
    backend = dynamodb_backends[ACCOUNT][REGION]
    DynamoHandler.dynamodb_backend = property(lambda self: backend)  # type: ignore[method-assign, assignment]
    app = DomainDispatcherApplication(create_backend_app)
    store = Store(path, backend)
    store.load(app)
    _make_atomic(store)
    _make_queues_safe()
    return app


def _make_atomic(store: Store) -> None:
    lock, carry_out, update = threading.RLock(), DynamoHandler.call_action, DynamoDBBackend.update_item

    def update_item(self: DynamoDBBackend, table_name: str, key: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        table: Any = self.get_table(table_name)
        if all(name in key for name in table.table_key_attrs):
            table.note(table.key(key), mutated=True)  # moto changes the item that queries see
        return update(self, table_name, key, *args, **kwargs)

    def call_action(self: DynamoHandler) -> Any:
        with lock:
            KeptTable.journal.clear()
            try:
                answer = carry_out(self)
                if int(answer[0]) >= 400:
                    store.undo()
                else:
                    store.commit(self._get_action(), self.raw_body)
            except ServiceException as refusal:
                store.undo()
                answer = self.serialized(ActionResult(refusal))
            except BaseException:
                store.undo()
                raise
            return answer

    DynamoDBBackend.update_item = update_item  # type: ignore[method-assign]
    DynamoHandler.call_action = call_action  # type: ignore[method-assign]


def _make_queues_safe() -> None:
    """moto's queues lose messages and give them out twice when threads meet in them: one call at a time, but for waiting."""
    lock, carry_out, receive = threading.RLock(), SQSResponse.call_action, SQSBackend.receive_message

    def call_action(self: SQSResponse) -> Any:
        if self._get_action() == "ReceiveMessage":
            return carry_out(self)
        with lock:
            return carry_out(self)

    def receive_message(self: SQSBackend, name: str, count: int, wait: int, *args: Any, **kwargs: Any) -> Any:
        deadline = time.monotonic() + (wait or 0)
        while True:
            with lock:
                found = receive(self, name, count, 0, *args, **kwargs)
            if found or time.monotonic() >= deadline:
                return found
            self.get_queue(name).wait_for_messages(1)

    SQSResponse.call_action = call_action  # type: ignore[method-assign]
    SQSBackend.receive_message = receive_message  # type: ignore[method-assign]


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
