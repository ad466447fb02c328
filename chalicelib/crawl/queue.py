"""Messages of the crawl queue. A message is only a hint that something is due: what is to be done stands in the tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.atproto.errors import InvalidSyntax
from chalicelib.atproto.syntax import Did, Origin, parse_did
from chalicelib.telemetry import log


@dataclass(frozen=True)
class HostJob:
    """Walk through the repos of a host. ``refresh``: fetch the DID documents again, if they are few."""

    origin: Origin
    refresh: bool = False


@dataclass(frozen=True)
class RepoJob:
    """Bring the index of one repo up to date."""

    did: Did


class MalformedMessage(Exception):
    """A message that this service did not write: our own fault, so it ends in the dead-letter queue."""


def to_body(job: HostJob | RepoJob) -> str:
    """The message's text."""
    if isinstance(job, RepoJob):
        return json.dumps({"repo": job.did})
    return json.dumps({"host": str(job.origin)} | ({"refresh": True} if job.refresh else {}))


def from_body(body: str) -> HostJob | RepoJob:
    """The job in a message's text. Raises ``MalformedMessage``."""
    try:
        match json.loads(body):
            case {"repo": str(did)}:
                return RepoJob(parse_did(did))
            case {"host": str(key), **rest}:
                return HostJob(Origin.parse_key(key), refresh=rest.get("refresh") is True)
    except (ValueError, InvalidSyntax, RecursionError) as error:
        raise MalformedMessage(f"{body[:200]!r}: {error}") from error
    raise MalformedMessage(repr(body[:200]))


class Queue:
    """Sends jobs. ``client`` is a boto3 SQS client."""

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self._url = url

    def send(self, job: HostJob | RepoJob) -> None:
        """Put the job into the queue. Where that fails, the sweep finds the work in the tables instead."""
        try:
            self._client.send_message(QueueUrl=self._url, MessageBody=to_body(job))
        except (BotoCoreError, ClientError) as error:
            log("queue-unavailable", job=to_body(job), error=str(error))
