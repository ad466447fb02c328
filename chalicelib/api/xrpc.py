"""XRPC over HTTP: the parameters of a method, and errors as ``{"error": Name, "message": text}``.

    request -> answered( methods.call -> view -> Response ) -> response
                 |         `---------------`---- XrpcFailure and whatever Chalice refuses
                 `-- one shape for every error; CORS on what is read

Specification: https://atproto.com/specs/xrpc
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from chalice.app import ChaliceUnhandledError, Request, Response

from chalicelib.api import caching
from chalicelib.atproto.errors import InvalidSyntax

MAX_PARAMETER = 2048
"""Characters in one value of a parameter."""
MAX_MESSAGE = 1000
"""Characters in the message of an error."""

ROUTE: Mapping[str, Any] = {"methods": ["GET", "POST", "OPTIONS"], "content_types": ["*/*"]}
"""How a method is routed: with both verbs of XRPC, so that we, and not the gateway, say which one is right."""
READ: Mapping[str, Any] = {"methods": ["GET"], "content_types": ["*/*"]}
"""How all else that is only read is routed."""

View = Callable[[Request], Response]
T = TypeVar("T")

_ERROR_OF_STATUS = {405: "MethodNotAllowed", 415: "UnsupportedMediaType"}
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")


class XrpcFailure(ChaliceUnhandledError):
    """Ends a request with an error. ``error`` is its XRPC name, ``message`` tells a developer what would be right."""

    def __init__(
        self, status: int, error: str, message: str, headers: Mapping[str, str | list[str]] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message
        self.headers = dict(headers or {})


def invalid_request(message: str) -> XrpcFailure:
    """The caller sent something that is not what it should be."""
    return XrpcFailure(400, "InvalidRequest", message)


# -- requests


class Parameters:
    """The query parameters of a request. Those that are not asked for are ignored. Each method raises ``XrpcFailure``."""

    def __init__(self, request: Request) -> None:
        self._values: Mapping[str, Sequence[str]] = request.to_original_event()["multiValueQueryStringParameters"] or {}

    def many(self, name: str, *, most: int) -> tuple[str, ...]:
        """The values of a parameter that may be repeated, in their order."""
        values = tuple(self._values.get(name) or ())
        if len(values) > most:
            may = "once" if most == 1 else f"{most} times"
            raise invalid_request(f"{name} was given {len(values)} times: it may be given {may} at most")
        for value in values:
            if len(value) > MAX_PARAMETER:
                raise invalid_request(
                    f"{name} is too long: {len(value)} characters, at most {MAX_PARAMETER} are allowed"
                )
        return values

    def one(self, name: str) -> str | None:
        """The value of a parameter that may be given once."""
        return next(iter(self.many(name, most=1)), None)

    def parsed(self, name: str, parse: Callable[[str], T], example: str) -> T:
        """The value of a parameter that must be given once, as ``parse`` (which may raise ``InvalidSyntax``) understands it.
        ``example`` is one that would be right."""
        text = self.one(name)
        if text is None:
            raise invalid_request(f"{name} is missing: give one such as {name}={example}")
        try:
            return parse(text)
        except InvalidSyntax:
            raise invalid_request(f"{name} must be one such as {example}, not {shown(text)}") from None

    def boolean(self, name: str) -> bool:
        """``true`` or ``false``; not given: false."""
        text = self.one(name)
        if text not in (None, "true", "false"):
            raise invalid_request(f"{name} must be true or false, not {shown(text or '')}")
        return text == "true"

    def integer(self, name: str, low: int, high: int, *, default: int) -> int:
        """A whole number from ``low`` to ``high`` in its plain decimal form."""
        text = self.one(name)
        if text is None:
            return default
        if not _INTEGER.fullmatch(text) or not low <= int(text) <= high:
            raise invalid_request(f"{name} must be a whole number from {low} to {high}, not {shown(text)}")
        return int(text)


def json_body(request: Request, example: str, *, most: int) -> Any:
    """What is in a body of at most ``most`` bytes of JSON; ``example`` is for the messages. Raises ``XrpcFailure``."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in ("application/json", ""):
        raise XrpcFailure(415, "UnsupportedMediaType", f"send the body as application/json, not as {shown(media_type)}")
    try:
        body = request.raw_body
        if len(body) > most:
            raise invalid_request(f"the body has {len(body)} bytes: at most {most} are allowed")
        return json.loads(body)
    except (ValueError, RecursionError):
        raise invalid_request(f"the body must be JSON such as {example}") from None


def address(request: Request) -> str:
    """Of who asks, as the gateway saw it; what the caller's own headers say does not matter."""
    return str((request.context.get("identity") or {}).get("sourceIp") or "")


# -- answers


def answer(body: Any) -> Response:
    """200 with compact JSON."""
    return _json(200, body, {})


def answered(request: Request | None, get_response: Callable[[Any], Response]) -> Response:
    """What ``get_response`` answers, with every error in XRPC's shape. For Chalice's middleware."""
    try:
        response = get_response(request)
        if isinstance(response.body, dict) and response.body.keys() == {"Code", "Message"}:
            raise _failure_of_chalice(response)
    except XrpcFailure as failure:
        body = {"error": failure.error, "message": failure.message[:MAX_MESSAGE]}
        response = _json(failure.status, body, failure.headers)
    if request is not None:
        response = caching.kept(request, response)
    if request is not None and _may_be_read_anywhere(request, response):
        response.headers.update(_CORS)
        if request.method == "OPTIONS":
            response.headers.update(_PREFLIGHT)
    return response


_CORS = {"Access-Control-Allow-Origin": "*"}
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, OPTIONS",
    "Access-Control-Allow-Headers": "*, Authorization",
    "Access-Control-Max-Age": "86400",
}


def _may_be_read_anywhere(request: Request, response: Response) -> bool:
    # A procedure's preflight goes without: other sites' pages have no business to call it.
    if request.path.startswith("/admin/"):
        return False
    return request.method == "GET" or (request.method == "OPTIONS" and "POST" not in response.headers.get("Allow", ""))


def _failure_of_chalice(response: Response) -> XrpcFailure:
    status, headers = response.status_code, dict(response.headers)
    if status >= 500:  # Chalice has logged it, with its traceback
        return XrpcFailure(status, "InternalServerError", "something went wrong here; try again later")
    if status == 405 and not headers.get("Allow"):  # how Chalice answers for a path that it does not know
        return XrpcFailure(404, "NotFound", "there is nothing at this path: methods are at /xrpc/NSID")
    return XrpcFailure(status, _ERROR_OF_STATUS.get(status, "InvalidRequest"), str(response.body["Message"]), headers)


def retry_after(seconds: float | None) -> dict[str, str]:
    """The header that says when to try again, if that is known."""
    return {} if seconds is None else {"Retry-After": str(math.ceil(seconds))}


def _json(status: int, body: Any, headers: Mapping[str, str | list[str]]) -> Response:
    text = json.dumps(body, separators=(",", ":"))
    return Response(text, {"Content-Type": "application/json", **headers}, status)


def shown(text: str) -> str:
    """A value that a caller sent, for a message to them."""
    return repr(text if len(text) <= 100 else f"{text[:100]}…")
