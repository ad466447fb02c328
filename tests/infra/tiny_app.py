"""A small Chalice app for the tests of the local stack: an API, a consumer and a schedule that leave traces in the tables."""

from __future__ import annotations

import os
from threading import Barrier
from typing import Any

import boto3
from chalice.app import Chalice, CloudWatchEvent, Rate, Response, SQSEvent

app = Chalice(app_name="tiny")
app.api.binary_types.append("application/vnd.ipld.car")
PAIR = Barrier(2)
PREFIX = os.environ.get("DISCOVERY_TABLE_PREFIX", "")


def trace(kind: str, name: str) -> None:
    """Count one more of ``kind``, ``name`` in the state table."""
    boto3.client("dynamodb").update_item(
        TableName=f"{PREFIX}-state",
        Key={"kind": {"S": kind}, "id": {"S": name}},
        UpdateExpression="ADD #n :one",
        ExpressionAttributeNames={"#n": "number"},
        ExpressionAttributeValues={":one": {"N": "1"}},
    )


@app.route("/xrpc/_health", cors=True)
def health() -> dict[str, str]:
    return {"status": "fine"}


@app.route("/xrpc/echo", methods=["GET", "POST"], cors=True, content_types=["application/json", "text/plain", "*/*"])
def echo() -> dict[str, Any]:
    request = app.current_request
    context = app.lambda_context
    seen = {name: value for name, value in request.to_dict().items() if name != "headers"}
    return seen | {
        "headers": dict(request.headers),
        "body": request.raw_body.decode("latin-1"),
        "many": request.query_params.getlist("many") if request.query_params and "many" in request.query_params else [],
        "remaining": context.get_remaining_time_in_millis(),
    }


@app.route("/xrpc/paired/{name}")
def paired(name: str) -> dict[str, Any]:
    PAIR.wait(30)
    return {"name": app.current_request.uri_params["name"], "argument": name}


@app.route("/xrpc/bytes")
def some_bytes() -> Response:
    return Response(b"\x00\xff", headers={"Content-Type": "application/octet-stream"})


@app.route("/xrpc/{nsid}")
def unknown(nsid: str) -> Response:
    return Response({"error": "MethodNotImplemented", "message": nsid}, status_code=501)


@app.on_sqs_message(queue=f"{PREFIX}-crawl", batch_size=1)
def crawl(event: SQSEvent) -> None:
    for message in event:
        trace("crawl", message.body)
        if message.body.startswith("bad"):
            raise ValueError(message.body)


@app.schedule(Rate(1, unit=Rate.MINUTES))
def sweep(event: CloudWatchEvent) -> None:
    trace("sweep", event.detail_type)
