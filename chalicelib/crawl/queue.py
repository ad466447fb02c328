"""Messages of the crawl queue. A message is only a hint that something is due: what is to be done stands in the tables."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.atproto.errors import InvalidSyntax
from chalicelib.atproto.syntax import Did, Origin, parse_did
from chalicelib.telemetry import log

REDRIVE_MOST = 1_000
"""Dead letters that one order sends again."""


@dataclass(frozen=True)
class HostJob:
    """Walk through the repos of a host. ``refresh``: fetch the DID documents again, if they are few."""

    origin: Origin
    refresh: bool = False


@dataclass(frozen=True)
class RepoJob:
    """Bring the index of one repo up to date."""

    did: Did


@dataclass(frozen=True)
class DirectoryJob:
    """Read on in a directory."""

    origin: Origin


@dataclass(frozen=True)
class Order:
    """What an operator wants done to a host, a domain or a DID. See ``chalicelib.crawl.orders``."""

    action: str
    target: str
    who: str
    why: str
    id: str
    """Begins with the time of the order (16 digits, UTC ms). What comes twice is carried out once."""
    via: str = "cli"
    """The door that it came through: ``cli``, or ``http`` and the caller's address."""

    @property
    def at(self) -> int:
        """When it was given, UTC ms."""
        return int(self.id[:16])


Job = HostJob | RepoJob | DirectoryJob | Order
_ORDER = frozenset(field.name for field in fields(Order))


@dataclass(frozen=True)
class DeadLetter:
    """A message that was given up. ``sent_at``: when the job was sent, UTC ms."""

    body: str
    sent_at: int


class MalformedMessage(Exception):
    """A message that this service did not write: our own fault, so it ends in the dead-letter queue."""


def to_body(job: Job) -> str:
    """The message's text."""
    if isinstance(job, Order):
        return json.dumps({"order": asdict(job)})
    if isinstance(job, RepoJob):
        return json.dumps({"repo": job.did})
    if isinstance(job, DirectoryJob):
        return json.dumps({"directory": str(job.origin)})
    return json.dumps({"host": str(job.origin)} | ({"refresh": True} if job.refresh else {}))


def from_body(body: str) -> Job:
    """The job in a message's text. Raises ``MalformedMessage``."""
    try:
        match json.loads(body):
            case {"repo": str(did)}:
                return RepoJob(parse_did(did))
            case {"directory": str(key)}:
                return DirectoryJob(Origin.parse_key(key))
            case {"order": dict(order)} if order.keys() == _ORDER and all(isinstance(v, str) for v in order.values()):
                return Order(**order)
            case {"host": str(key), **rest}:
                return HostJob(Origin.parse_key(key), refresh=rest.get("refresh") is True)
    except (ValueError, InvalidSyntax, RecursionError) as error:
        raise MalformedMessage(f"{body[:200]!r}: {error}") from error
    raise MalformedMessage(repr(body[:200]))


class Queue:
    """Sends jobs. ``client`` is a boto3 SQS client. The dead letters of a queue are in another with ``-dead`` behind its URL."""

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self._url = url

    def send(self, job: HostJob | RepoJob | DirectoryJob) -> None:
        """Put the job into the queue. Where that fails, the sweep finds the work in the tables instead."""
        try:
            self._client.send_message(QueueUrl=self._url, MessageBody=to_body(job))
        except (BotoCoreError, ClientError) as error:
            log("queue-unavailable", job=to_body(job), error=str(error))

    def order(self, order: Order, *, delay_seconds: int = 0) -> None:
        """Put an order into the queue; it stands nowhere else. Botocore's errors are raised."""
        self._client.send_message(QueueUrl=self._url, MessageBody=to_body(order), DelaySeconds=delay_seconds)

    def redrive(self) -> int:
        """Send the dead letters again, at most REDRIVE_MOST. Returns how many. Botocore's errors are raised."""
        url, moved = f"{self._url}-dead", 0
        while moved < REDRIVE_MOST:
            received = self._client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            if not received.get("Messages"):
                break
            for message in received["Messages"]:
                self._client.send_message(QueueUrl=self._url, MessageBody=message["Body"])
                self._client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                moved += 1
        return moved

    def dead_letters(self) -> tuple[int, list[DeadLetter]]:
        """How many messages were given up, and some of them. They stay where they are. Botocore's errors are raised."""
        url = f"{self._url}-dead"
        count = "ApproximateNumberOfMessages"
        found = self._client.get_queue_attributes(QueueUrl=url, AttributeNames=[count])
        number = int(found["Attributes"][count])
        if not number:
            return 0, []
        received = self._client.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=10,
            VisibilityTimeout=0,  # whoever looks at them finds them all
            WaitTimeSeconds=1,  # asks all of SQS's servers, not some
            MessageSystemAttributeNames=["SentTimestamp"],
        ).get("Messages", [])
        return number, [
            DeadLetter(message["Body"], int(message["Attributes"]["SentTimestamp"])) for message in received
        ]
