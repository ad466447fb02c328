"""The search: from a DID, a hostname or the name of a collection to its page."""

from __future__ import annotations

from collections.abc import Callable

from chalice.app import Request, Response

from chalicelib import settings
from chalicelib.api import xrpc
from chalicelib.api.xrpc import Parameters, XrpcFailure
from chalicelib.atproto.errors import InvalidSyntax
from chalicelib.atproto.syntax import parse_did, parse_nsid, parse_origin
from chalicelib.pages import hosts
from chalicelib.pages.frame import Site, headers
from chalicelib.pages.parts import INSECURE


def search(request: Request, site: Site) -> Response:
    """303 to the page of what was asked for. Raises ``XrpcFailure`` that says what is not known."""
    text = (Parameters(request).one("q") or "").strip().removeprefix("at://").rstrip("/")
    if not text:
        raise xrpc.invalid_request("Say a DID, a hostname, or the name of a collection.")
    if _is(parse_did, text):
        return _sent_to(site.place("repos", text))
    now, shown = settings.current(), xrpc.shown(text)
    if _is(parse_nsid, text) and now.collections.wants(text):
        return _sent_to(site.place("collections", text))
    if (row := hosts.find(text)) is not None:
        return _sent_to(site.place("hosts", row["origin"].removeprefix(INSECURE)))
    try:
        parse_origin(text, allow_private=now.allow_private_hosts)
    except InvalidSyntax:
        raise xrpc.invalid_request(f"{shown} is no DID, no hostname and no name of a collection.") from None
    indexed = ", ".join(now.collections.patterns)
    raise XrpcFailure(
        404,
        "NotFound",
        f"No host {shown} is followed here: it has to call requestCrawl. Collections that are indexed: {indexed}. "
        "An account is found by its DID, not by its handle.",
    )


def _is(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except InvalidSyntax:
        return False
    return True


def _sent_to(place: str) -> Response:
    return Response("", {**headers(), "Location": place}, 303)
