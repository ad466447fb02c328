"""The Lambdas: each entry point is one call into chalicelib. What crawls is imported by the Lambdas that crawl."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from chalice.app import Chalice, CloudWatchEvent, Rate, Request, Response, SQSEvent

from chalicelib import metrics, process, settings
from chalicelib.api import methods, xrpc

MAX_CRAWLS = 10
"""Crawl jobs that run at a time."""

app = Chalice(app_name="atcr-discovery", configure_logs=False)
process.begin()


@app.middleware("all")
def measure(event: Any, get_response: Callable[[Any], Any]) -> Any:
    try:
        return get_response(event)
    finally:
        metrics.flush()


@app.middleware("http")
def answer_in_xrpc(request: Request | None, get_response: Callable[[Any], Response]) -> Response:
    return xrpc.answered(request, get_response)


@app.route("/xrpc/{nsid}", **xrpc.ROUTE)
def method(nsid: str) -> Response:
    return methods.call(app, nsid)


@app.route("/admin/{name}", methods=["GET", "POST"], content_types=["*/*"])
def admin(name: str) -> Response:
    from chalicelib.api.admin import methods as operators_methods

    return operators_methods.call(app, name)


@app.route("/v1/listCollections", **xrpc.READ)
def list_collections() -> Response:
    from chalicelib.api import collections

    return collections.list_collections(app.current_request)


@app.route("/.well-known/holds.json", **xrpc.READ)
def holds_json() -> Response:
    from chalicelib.api import holds

    return holds.holds_json(app.current_request)


@app.route("/openapi.json", **xrpc.READ)
def description() -> Response:
    from chalicelib.api import openapi

    return openapi.served()


@app.route("/", **xrpc.READ)
@app.route("/hosts", **xrpc.READ)
@app.route("/hosts/{name}", **xrpc.READ)
@app.route("/repos/{did}", **xrpc.READ)
@app.route("/collections/{nsid}", **xrpc.READ)
@app.route("/search", **xrpc.READ)
@app.route("/docs", **xrpc.READ)
def page(**variables: str) -> Response:
    from chalicelib.pages import site

    return site.answer(cast(Request, app.current_request), *variables.values())


@app.on_sqs_message(queue=settings.current().queue_name, batch_size=1, maximum_concurrency=MAX_CRAWLS)
def crawl(event: SQSEvent) -> None:
    from chalicelib.crawl.jobs import work

    for message in event:
        work(process.context(), message.body)


@app.schedule(Rate(1, unit=Rate.MINUTES))
def sweep(event: CloudWatchEvent) -> None:
    from chalicelib.crawl import sweep as sweeping

    sweeping.sweep(process.context())


@app.schedule(Rate(1, unit=Rate.HOURS))
def survey(event: CloudWatchEvent) -> None:
    from chalicelib.crawl import survey as surveying

    surveying.survey(process.context())
