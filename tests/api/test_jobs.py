"""The Lambdas of the queue and of the schedule."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib import process
from chalicelib.crawl import jobs
from chalicelib.crawl.queue import MalformedMessage
from tests.api.conftest import Api


def sqs_event(*bodies: str) -> dict[str, Any]:
    """An event of SQS for Lambda."""
    records = [
        {
            "messageId": f"059f36b4-87a3-44ab-83d2-66197{number:07d}",
            "receiptHandle": "AQEBwJnK",
            "body": body,
            "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1545082649183"},
            "messageAttributes": {},
            "md5OfBody": "",
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:atcr-discovery-dev-crawl",
            "awsRegion": "us-east-1",
        }
        for number, body in enumerate(bodies)
    ]
    return {"Records": records}


def test_a_message_is_worked_on(bare_api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    import app

    done: list[Any] = []
    monkeypatch.setattr(jobs, "work", lambda context, body: done.append((context, body)))
    app.crawl(sqs_event('{"repo":"did:web:a.example"}'), None)
    assert done == [(process.context(), '{"repo":"did:web:a.example"}')]


@pytest.mark.parametrize("body", ["not ours", "{}", "[" * 100_000, '{"repo":"x"}', '{"host":"x y"}'])
def test_our_own_fault_gives_the_message_back(bare_api: Api, body: str) -> None:
    import app

    with pytest.raises(MalformedMessage):
        app.crawl(sqs_event(body), None)


@pytest.mark.parametrize("name", ["sweep", "survey"])
def test_a_schedule_does_its_work(bare_api: Api, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    import app

    done: list[Any] = []
    monkeypatch.setattr(f"chalicelib.crawl.{name}.{name}", done.append)
    event = {"version": "0", "id": "x", "detail-type": "Scheduled Event", "source": "aws.events", "account": "1"}
    event |= {"time": "2026-01-02T03:04:05Z", "region": "us-east-1", "resources": [], "detail": {}}
    getattr(app, name)(event, None)
    assert done == [process.context()]


def test_each_lambda_has_its_source(bare_api: Api) -> None:
    sources = {source.name: source for source in bare_api.app.event_sources}
    assert sources.keys() == {"crawl", "sweep", "survey"}
    assert (sources["crawl"].batch_size, sources["crawl"].maximum_concurrency) == (1, 10)
    assert sources["crawl"].queue.endswith("-crawl")
    assert sources["sweep"].schedule_expression.to_string() == "rate(1 minute)"
    assert sources["survey"].schedule_expression.to_string() == "rate(1 hour)"
