"""com.atproto.sync.requestCrawl: a host asks to be indexed, or says that it is alive."""

from __future__ import annotations

import json

from chalice.app import Request, Response

from chalicelib import metrics, process
from chalicelib.api import xrpc
from chalicelib.api.xrpc import XrpcFailure
from chalicelib.atproto.errors import InvalidSyntax

MAX_BODY = 8 * 1024
"""Bytes."""


def request_crawl(request: Request) -> Response:
    """Let the host in: 200 with zero bytes. Raises ``XrpcFailure``: ``InvalidRequest``, ``HostNotFound``, ``HostBanned``,
    ``RateLimitExceeded``."""
    hostname = _hostname(request)
    from chalicelib.crawl import admission  # not needed by a Lambda that only reads

    try:
        admission.request_crawl(process.context(), hostname, address=_address(request))
    except InvalidSyntax as error:
        metrics.count("CrawlRequests", Outcome="InvalidRequest")
        raise xrpc.invalid_request(str(error)) from error
    except admission.AdmissionRefused as refused:
        metrics.count("CrawlRequests", Outcome=refused.error)
        raise XrpcFailure(
            refused.status, refused.error, refused.message, xrpc.retry_after(refused.retry_after)
        ) from refused
    metrics.count("CrawlRequests", Outcome="accepted")
    return Response("", {}, 200)


def _address(request: Request) -> str:
    """Of who asks, as the gateway saw it; what the caller's own headers say does not matter."""
    return str((request.context.get("identity") or {}).get("sourceIp") or "")


def _hostname(request: Request) -> str:
    """The hostname in the body ``{"hostname": "hold01.atcr.io"}``; what else is in it does not matter."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in ("application/json", ""):
        raise XrpcFailure(
            415, "UnsupportedMediaType", f"send the body as application/json, not as {xrpc.shown(media_type)}"
        )
    try:
        body = request.raw_body
        if len(body) > MAX_BODY:
            raise xrpc.invalid_request(f"the body has {len(body)} bytes: at most {MAX_BODY} are allowed")
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise xrpc.invalid_request('the body must be JSON such as {"hostname":"hold01.atcr.io"}') from None
    match content:
        case {"hostname": str(hostname)}:
            return hostname
        case {"hostname": other}:
            raise xrpc.invalid_request(f"hostname must be a string, not {_kind(other)}")
        case dict():
            raise xrpc.invalid_request('hostname is missing: send {"hostname":"hold01.atcr.io"}')
    raise xrpc.invalid_request(
        f'the body must be an object such as {{"hostname":"hold01.atcr.io"}}, not {_kind(content)}'
    )


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "an array", bool: "a boolean", type(None): "null", str: "a string"}
    return kinds.get(type(value), "a number")
