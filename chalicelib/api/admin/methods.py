"""The operators' methods, at ``/admin/NAME``: closed but for who has the token.

GET   reads, which the API does itself
POST  orders: checked here, and sent to the crawl Lambda, which has the rights for them; getOrder tells what came of it
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from chalice.app import Chalice, Request, Response

from chalicelib.api import methods
from chalicelib.api.admin import bearer
from chalicelib.api.methods import Method
from chalicelib.api.xrpc import XrpcFailure

ACTIONS = ("ban", "crawl", "pause", "purge", "redrive", "restore", "resume", "resync", "takedown", "unban")
"""Those of ``crawl.orders``, which is not loaded for somebody without the token."""

_NOT_KEPT = {"Cache-Control": "no-store"}  # by a CDN, which would give it to those who have no token

METHODS: Mapping[str, Method] = {
    "getHost": Method("GET", "admin.reads:get_host"),
    "getOrder": Method("GET", "admin.reads:get_order"),
    "getRepo": Method("GET", "admin.reads:get_repo"),
    "listAudit": Method("GET", "admin.reads:list_audit"),
    "listBans": Method("GET", "admin.reads:list_bans"),
    "listDeadLetters": Method("GET", "admin.reads:list_dead_letters"),
    "listHosts": Method("GET", "admin.reads:list_hosts"),
    **{action: Method("POST", "admin.orders:give") for action in ACTIONS},
}


def call(app: Chalice, name: str) -> Response:
    """Answer the request to ``app`` for an operator's method. Who has no token learns nothing, not even which methods there
    are. Raises ``XrpcFailure``."""
    try:
        bearer.admit(cast(Request, app.current_request))
        response = methods.call(app, name, METHODS)
    except XrpcFailure as failure:
        failure.headers |= _NOT_KEPT
        raise
    response.headers.update(_NOT_KEPT)
    return response
