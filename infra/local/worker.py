"""What calls the Lambda functions that are not called over HTTP: the queue's consumers and the schedules.

    python -m infra.local.worker

The functions are found in the Chalice app: each ``@app.on_sqs_message`` gets threads that long-poll its queue and call it
with the event that AWS would send, each ``@app.schedule`` a thread that calls it at its rate, only ``PACE`` times as
often. A message is deleted when its call returns; after an exception it stays, and comes back when it is visible again.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from chalice.app import ScheduledEventConfig, SQSEventConfig

from infra.local.invocation import ACCOUNT, REGION, LambdaContext, load_app

PACE = 12.0
"""Schedules run so many times as often as on AWS: each five seconds instead of each minute."""
TIMEOUT = 300.0
"""Seconds that a function is given."""
PATIENCE = 5.0
"""Seconds that a call in progress is given when the worker has to end. What it leaves is found again by the sweep."""
_UNITS = {"minute": 60.0, "hour": 3600.0, "day": 86400.0}

log = logging.getLogger("worker")


def sqs_event(messages: Sequence[Mapping[str, Any]], queue_arn: str) -> dict[str, Any]:
    """The event that Lambda makes of received messages (docs: "Using Lambda with Amazon SQS")."""
    return {
        "Records": [
            {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": dict(message.get("Attributes", {})),
                "messageAttributes": dict(message.get("MessageAttributes", {})),
                "md5OfBody": message["MD5OfBody"],
                "eventSource": "aws:sqs",
                "eventSourceARN": queue_arn,
                "awsRegion": queue_arn.split(":")[3],
            }
            for message in messages
        ]
    }


def scheduled_event(name: str) -> dict[str, Any]:
    """The event that EventBridge sends for a schedule."""
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": ACCOUNT,
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": REGION,
        "resources": [f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{name}"],
        "detail": {},
    }


def seconds_of(expression: Any) -> float | None:
    """The seconds between two runs of ``rate(5 minutes)`` or Chalice's ``Rate``; None for a cron expression."""
    text = expression if isinstance(expression, str) else expression.to_string()
    found = re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", text)
    return int(found[1]) * _UNITS[found[2]] if found else None


class Worker:
    """Calls the functions of one app until it is stopped."""

    def __init__(self, app: Any, sqs: Any, *, threads: int, pace: float = PACE) -> None:
        self.app, self.sqs, self.threads, self.pace = app, sqs, threads, pace
        self.stopping = threading.Event()
        self.running: list[threading.Thread] = []

    def start(self) -> None:
        for source in self.app.event_sources:
            function = self.app.handler_map[source.name]
            if isinstance(source, SQSEventConfig):
                for _ in range(self.threads):
                    self._run(self.consume, source, function)
            elif isinstance(source, ScheduledEventConfig):
                self._run(self.repeat, source, function)
            else:
                log.warning("%s: nothing here sends it events", source.name)

    def stop(self, patience: float = PATIENCE) -> None:
        """Begin no more calls, and give those in progress ``patience`` seconds."""
        self.stopping.set()
        deadline = time.monotonic() + patience
        for thread in self.running:
            thread.join(max(0.0, deadline - time.monotonic()))

    def consume(self, source: Any, function: Any) -> None:
        """Receive, call, delete."""
        name = source.queue or source.queue_arn.rsplit(":", 1)[-1]
        url: str | None = None
        while not self.stopping.is_set():
            try:
                url = url or self.sqs.get_queue_url(QueueName=name)["QueueUrl"]
                answer = self.sqs.receive_message(
                    QueueUrl=url,
                    MaxNumberOfMessages=min(source.batch_size, 10),
                    WaitTimeSeconds=2,  # also the time that a stop may take
                    AttributeNames=["All"],
                    MessageAttributeNames=["All"],
                )
                messages = answer.get("Messages", [])
                arn = source.queue_arn or f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"
                if messages and self._call(source.name, function, sqs_event(messages, arn)):
                    for message in messages:
                        self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            except (BotoCoreError, ClientError) as fault:
                log.warning("queue %s: %s", name, fault)
                self.stopping.wait(1)

    def repeat(self, source: Any, function: Any) -> None:
        """Call at the schedule's rate, never twice at a time."""
        seconds = seconds_of(source.schedule_expression)
        if seconds is None:
            log.warning("%s: cron expressions are not run here", source.name)
            return
        while True:
            self._call(source.name, function, scheduled_event(source.name))
            if self.stopping.wait(seconds / self.pace):
                return

    def _call(self, name: str, function: Any, event: dict[str, Any]) -> bool:
        try:
            function(event, LambdaContext(name, TIMEOUT))
        except Exception:  # as Lambda does with what a function raises, whatever it is
            log.exception("%s failed", name)
            return False
        return True

    def _run(self, work: Any, source: Any, function: Any) -> None:
        thread = threading.Thread(target=work, args=(source, function), name=source.name, daemon=True)
        self.running.append(thread)
        thread.start()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m infra.local.worker", description="Consumers and schedules.")
    parser.add_argument("--app", default="app:app", help="module:attribute of the Chalice app")
    parser.add_argument("--pace", type=float, default=PACE, help="schedules run so many times as often as on AWS")
    options = parser.parse_args()
    log.addHandler(logging.StreamHandler())  # its own; the app sets up the rest
    log.propagate = False
    threads = int(os.environ.get("DISCOVERY_WORKER_THREADS") or 4)
    sqs = boto3.client("sqs", config=Config(max_pool_connections=threads + 2))
    worker = Worker(load_app(options.app), sqs, threads=threads, pace=options.pace)
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    worker.start()
    stopped.wait()
    worker.stop()
    os._exit(0)


if __name__ == "__main__":
    main()
