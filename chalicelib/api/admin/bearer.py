"""Who is let in by the operators' door: who sends ``Authorization: Bearer TOKEN`` (RFC 6750)."""

from __future__ import annotations

import hashlib
import hmac
import re

from chalice.app import Request

from chalicelib import metrics
from chalicelib.api import xrpc
from chalicelib.api.admin import token
from chalicelib.api.admin.token import TokenUnavailable
from chalicelib.api.xrpc import XrpcFailure
from chalicelib.telemetry import log

_HEADER = re.compile(rf"bearer +({token.FORM})", re.IGNORECASE | re.ASCII)


def admit(request: Request) -> None:
    """Raises ``XrpcFailure`` unless the request has the token: ``AuthenticationRequired``, whatever else it asks for; and
    ``AdminUnavailable`` while nobody can tell, as the token cannot be read. Each is counted, and logged with the address."""
    kept, given = token.current(), _given(request)
    if not kept.is_named:
        raise _refused(
            request, "closed", "this door is closed: DISCOVERY_ADMIN_TOKEN_FROM does not say where its token is"
        )
    if given is None:
        raise _refused(request, "no token", "send the header Authorization: Bearer TOKEN, once")
    try:
        expected = kept.digest()
    except TokenUnavailable as reason:
        failure = _failure(request, "unavailable", 503, "AdminUnavailable", str(reason))
        failure.headers |= xrpc.retry_after(token.RETRY_SECONDS)
        raise failure from reason
    if not hmac.compare_digest(hashlib.sha256(given.encode()).digest(), expected):
        raise _refused(request, "wrong token", "this is not the token")


def _given(request: Request) -> str | None:
    """The token that was sent. The gateway's other form of the headers has only the last of several."""
    headers = request.to_original_event().get("multiValueHeaders") or {}
    values = [value for name, several in headers.items() if name.lower() == "authorization" for value in several]
    match = _HEADER.fullmatch(values[0].strip()) if len(values) == 1 else None
    return match[1] if match else None


def _refused(request: Request, reason: str, message: str) -> XrpcFailure:
    failure = _failure(request, reason, 401, "AuthenticationRequired", message)
    failure.headers["WWW-Authenticate"] = "Bearer"
    return failure


def _failure(request: Request, reason: str, status: int, error: str, message: str) -> XrpcFailure:
    metrics.count("AdminRefused", Reason=reason)
    log("admin-refused", reason=reason, address=xrpc.address(request))
    return XrpcFailure(status, error, message)
