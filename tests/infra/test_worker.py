"""The worker calls the app's functions as Lambda does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any

import pytest
from chalice.app import Chalice, CloudWatchEvent, Cron, Rate, SQSEvent

from infra.local.worker import Worker, seconds_of


class Calls:
    """An app whose functions hand on what they are called with."""

    def __init__(self, queue: str) -> None:
        self.app = Chalice(app_name="calls")
        self.messages: SimpleQueue[SQSEvent] = SimpleQueue()
        self.schedules: SimpleQueue[CloudWatchEvent] = SimpleQueue()
        self.fail: Callable[[str], bool] = lambda body: False

        @self.app.on_sqs_message(queue=queue, batch_size=1)
        def crawl(event: SQSEvent) -> None:
            self.messages.put(event)
            for message in event:
                if self.fail(message.body):
                    raise ValueError(message.body)

        @self.app.schedule(Rate(1, unit=Rate.MINUTES))
        def sweep(event: CloudWatchEvent) -> None:
            self.schedules.put(event)


@pytest.fixture
def calls(stack_env: Any) -> Calls:
    return Calls(f"{stack_env.prefix}-crawl")


@pytest.fixture
def worker(stack_env: Any, calls: Calls) -> Iterator[Worker]:
    worker = Worker(calls.app, stack_env.sqs, threads=2, pace=600)
    worker.start()
    yield worker
    worker.stop()


def left_in_the_queue(stack: Any) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = stack.sqs.get_queue_attributes(QueueUrl=stack.queue_url, AttributeNames=names)["Attributes"]
    return sum(map(int, found.values()))


def test_a_function_gets_the_event_that_sqs_sends(stack_env: Any, calls: Calls, worker: Worker) -> None:
    sent = stack_env.sqs.send_message(QueueUrl=stack_env.queue_url, MessageBody='{"a": 1}')
    (record,) = calls.messages.get(timeout=20).to_dict()["Records"]
    assert record["messageId"] == sent["MessageId"]
    assert record["body"] == '{"a": 1}'
    assert record["md5OfBody"] == sent["MD5OfMessageBody"]
    assert record["attributes"]["ApproximateReceiveCount"] == "1"
    assert record["eventSource"] == "aws:sqs"
    assert record["eventSourceARN"] == stack_env.queue_arn
    assert record["receiptHandle"]


def test_a_message_is_deleted_once_its_call_has_returned(stack_env: Any, calls: Calls, worker: Worker) -> None:
    for number in range(10):
        stack_env.sqs.send_message(QueueUrl=stack_env.queue_url, MessageBody=str(number))
    events = [calls.messages.get(timeout=20) for _ in range(10)]
    assert sorted(record["body"] for event in events for record in event.to_dict()["Records"]) == list("0123456789")
    assert all(len(event.to_dict()["Records"]) == 1 for event in events)
    worker.stop()
    assert left_in_the_queue(stack_env) == 0


def test_a_message_whose_call_failed_stays(stack_env: Any, calls: Calls, worker: Worker) -> None:
    calls.fail = lambda body: body == "bad"
    stack_env.sqs.send_message(QueueUrl=stack_env.queue_url, MessageBody="bad")
    stack_env.sqs.send_message(QueueUrl=stack_env.queue_url, MessageBody="good")
    for _ in range(2):
        calls.messages.get(timeout=20)
    worker.stop()
    assert left_in_the_queue(stack_env) == 1


def test_a_schedule_is_called_again_and_again(calls: Calls, worker: Worker) -> None:
    for _ in range(3):
        event = calls.schedules.get(timeout=20)
    assert event.detail_type == "Scheduled Event"
    assert event.source == "aws.events"
    worker.stop()
    while not calls.schedules.empty():
        calls.schedules.get()
    with pytest.raises(Empty):
        calls.schedules.get(timeout=0.3)


def test_rates_are_understood_in_both_spellings() -> None:
    assert seconds_of("rate(5 minutes)") == 300
    assert seconds_of(Rate(1, unit=Rate.HOURS)) == 3600
    assert seconds_of(Cron(0, 3, "*", "*", "?", "*")) is None
