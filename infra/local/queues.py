"""The queues of the embedded AWS: moto's SQS, safe among threads, and at a cost that does not grow with what waits.

moto looks at every message at each call, several times, and loses or doubles messages when threads meet in a queue.
"""

from __future__ import annotations

import threading
import time
from itertools import islice
from typing import Any

from moto.sqs import models
from moto.sqs.exceptions import ReceiptHandleIsInvalid
from moto.sqs.models import Message, Queue, SQSBackend
from moto.sqs.responses import SQSResponse

LOOKED_AT = 50
"""Visible messages that a receive looks at; it hands out ten at most, and moves on those that were received too often."""


class LightQueue(Queue):
    """moto's queue, of which a call sees the head only."""

    @property
    def messages(self) -> list[Message]:
        now = time.time() * 1000
        visible = (each for each in self._messages if now > each.visible_at and now >= each.delayed_until)
        return list(islice(visible, LOOKED_AT))

    @property
    def approximate_number_of_messages(self) -> int:
        now = time.time() * 1000
        return sum(now > each.visible_at and now >= each.delayed_until for each in self._messages)

    @property
    def approximate_number_of_messages_not_visible(self) -> int:
        now = time.time() * 1000
        return sum(now <= each.visible_at for each in self._messages)

    @property
    def approximate_number_of_messages_delayed(self) -> int:
        now = time.time() * 1000
        return sum(now < each.delayed_until for each in self._messages)

    def delete_message(self, receipt_handle: str) -> None:
        if receipt_handle in self.deleted_messages:
            return
        for index, each in enumerate(self._messages):
            if receipt_handle == each.receipt_handle or receipt_handle in each._old_receipt_handles:
                self.pending_messages.discard(each)
                self.deleted_messages.update(handle for handle in each.all_receipt_handles if handle)
                del self._messages[index]
                return
        raise ReceiptHandleIsInvalid


def install() -> None:
    """Let moto's SQS use these queues, one call at a time but for the waiting of a long poll. Once a process."""
    lock, carry_out, receive = threading.RLock(), SQSResponse.call_action, SQSBackend.receive_message

    def call_action(self: Any) -> Any:
        if self._get_action() == "ReceiveMessage":
            return carry_out(self)
        with lock:
            return carry_out(self)

    def receive_message(self: Any, queue_name: str, count: int, wait: int, *args: Any, **kwargs: Any) -> Any:
        deadline = time.monotonic() + (wait or 0)
        while True:
            with lock:
                found = receive(self, queue_name, count, 0, *args, **kwargs)
            if found or time.monotonic() >= deadline:
                return found
            self.get_queue(queue_name).wait_for_messages(min(1, deadline - time.monotonic()))

    for owner, name, replacement in (
        (models, "Queue", LightQueue),
        (models, "unix_time", time.time),
        (models, "unix_time_millis", lambda: time.time() * 1000),
        (SQSResponse, "call_action", call_action),
        (SQSBackend, "receive_message", receive_message),
    ):
        setattr(owner, name, replacement)
