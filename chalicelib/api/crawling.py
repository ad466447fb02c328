"""com.atproto.sync.requestCrawl: a host asks to be indexed, or says that it is alive."""

from __future__ import annotations

from chalice.app import Request, Response

from chalicelib import metrics, process
from chalicelib.api import xrpc
from chalicelib.api.xrpc import XrpcFailure
from chalicelib.atproto.errors import InvalidSyntax

EXAMPLE = '{"hostname":"hold01.atcr.io"}'
MAX_BODY = 8 * 1024
"""Bytes."""


def request_crawl(request: Request) -> Response:
    """Let the host in: 200 with zero bytes. Raises ``XrpcFailure``: ``InvalidRequest``, ``HostNotFound``, ``HostBanned``,
    ``RateLimitExceeded``."""
    hostname = _hostname(request)
    from chalicelib.crawl import admission  # not needed by a Lambda that only reads

    try:
        admission.request_crawl(process.context(), hostname, address=xrpc.address(request))
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


def _hostname(request: Request) -> str:
    """The hostname in the body ``{"hostname": "hold01.atcr.io"}``; what else is in it does not matter."""
    content = xrpc.json_body(request, EXAMPLE, most=MAX_BODY)
    match content:
        case {"hostname": str(hostname)}:
            return hostname
        case {"hostname": other}:
            raise xrpc.invalid_request(f"hostname must be a string, not {_kind(other)}")
        case dict():
            raise xrpc.invalid_request(f"hostname is missing: send {EXAMPLE}")
    raise xrpc.invalid_request(f"the body must be an object such as {EXAMPLE}, not {_kind(content)}")


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "an array", bool: "a boolean", type(None): "null", str: "a string"}
    return kinds.get(type(value), "a number")
