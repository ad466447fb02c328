"""What an operator orders: checked at once, carried out by the crawl Lambda."""

from __future__ import annotations

from chalice.app import Request, Response

from chalicelib import process
from chalicelib.api import xrpc
from chalicelib.crawl import orders
from chalicelib.crawl.orders import Refused

MAX_BODY = 16 * 1024
"""Bytes."""
EXAMPLE = '{"target": "hold01.atcr.io", "why": "too loud", "who": "alice"}'


def give(request: Request) -> Response:
    """Send the order that the path names: 202 with its ``id``, by which getOrder knows it. Raises ``XrpcFailure``."""
    body = xrpc.json_body(request, EXAMPLE, most=MAX_BODY)
    if not isinstance(body, dict):
        raise xrpc.invalid_request(f"the body must be an object such as {EXAMPLE}")
    fields = {name: body.get(name, "") for name in ("target", "who", "why")}
    for name, value in fields.items():
        if not isinstance(value, str):
            raise xrpc.invalid_request(f"{name} must be a string")
    action, context = (request.uri_params or {})["name"], process.context()
    try:
        order = orders.new_order(context, action, **fields, via=f"http {xrpc.address(request)}")
    except Refused as reason:
        raise xrpc.invalid_request(str(reason)) from reason
    context.queue.order(order)
    response = xrpc.answer({"id": order.id, "status": "sent"})
    response.status_code = 202
    return response
