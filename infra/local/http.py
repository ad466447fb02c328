"""The API over HTTP: a WSGI application that does for the Chalice app what API Gateway's REST proxy does.

    python -m infra.local.http --port 8000

It finds the resource, makes the proxy event (format 1.0), calls ``app(event, context)`` and sends what comes back. As the
gateway does, it answers CORS preflights itself, and compresses. Two things differ: HEAD is answered as GET without its body,
and a path without a resource is a 404 in the API's own error format, as the deployment's gateway responses are.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import waitress

from infra.local.invocation import ACCOUNT, LambdaContext, load_app

TIMEOUT = 29.0
"""Seconds that API Gateway gives an integration."""
MAX_BODY_BYTES = 10 * 1024 * 1024
COMPRESSED_FROM = 1024
"""Bytes of a body, as minimum_compression_size in .chalice/config.json."""
STAGE = "api"
THREADS = 16
BEHIND_PROXY: Mapping[str, Any] = {
    "trusted_proxy": "*",
    "trusted_proxy_headers": {"x-forwarded-for"},
    "trusted_proxy_count": 1,
}
"""waitress's options where every request comes from one proxy, which puts the address of whoever asked it at the end of
X-Forwarded-For. Without them the header is what anyone may claim, and is dropped."""


class Gateway:
    """The WSGI application around one Chalice app."""

    def __init__(self, app: Any) -> None:
        self.app = _thread_safe(app)
        self.function_name = f"{app.app_name}-local"

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace") or "/"
        resource, parameters = self.resource(path)
        if resource is None:
            body = json.dumps({"error": "NotFound", "message": f"there is nothing at {path}"})
            answer: dict[str, Any] = {"statusCode": 404, "headers": {"Content-Type": "application/json"}, "body": body}
        elif method == "OPTIONS" and "OPTIONS" not in self.app.routes[resource]:
            answer = self.preflight(resource)
        else:
            as_get = method == "HEAD" and "HEAD" not in self.app.routes[resource]
            event = proxy_event(environ, "GET" if as_get else method, path, resource, parameters, self.is_binary)
            answer = self.app(event, LambdaContext(self.function_name, TIMEOUT))
        return _send(answer, method, start_response, compressed=_takes_gzip(environ))

    def resource(self, path: str) -> tuple[str | None, dict[str, str]]:
        """The route that ``path`` belongs to and what its {parameters} are; a literal route wins."""
        parts = (path.rstrip("/") or "/").split("/")
        for route in sorted(self.app.routes):  # "{" sorts after letters
            names = route.split("/")
            if len(names) == len(parts) and all(
                name == part or (name.startswith("{") and part) for name, part in zip(names, parts, strict=True)
            ):
                found = {name[1:-1]: part for name, part in zip(names, parts, strict=True) if name.startswith("{")}
                return route, found
        return None, {}

    def preflight(self, resource: str) -> dict[str, Any]:
        """What the mock integration answers that Chalice deploys for routes with CORS."""
        entries = self.app.routes[resource]
        cors = next((entry.cors for entry in entries.values() if entry.cors), None)
        if cors is None:
            return {"statusCode": 403, "headers": {}, "body": json.dumps({"message": "Missing Authentication Token"})}
        methods = ",".join(sorted({*entries, "OPTIONS"}))
        headers = {**cors.get_access_control_headers(), "Access-Control-Allow-Methods": methods}
        return {"statusCode": 200, "headers": headers, "body": ""}

    def is_binary(self, content_type: str) -> bool:
        kind = content_type.partition(";")[0].strip()
        return kind in self.app.api.binary_types or "*/*" in self.app.api.binary_types


def proxy_event(
    environ: Mapping[str, Any], method: str, path: str, resource: str, parameters: Mapping[str, str], is_binary: Any
) -> dict[str, Any]:
    """The event of a REST API's Lambda proxy integration (docs: "Input format of a Lambda function for proxy integration")."""
    source = environ.get("REMOTE_ADDR", "127.0.0.1")
    headers = _request_headers(environ)
    headers["X-Forwarded-For"] = ", ".join(filter(None, [headers.get("X-Forwarded-For"), source]))
    headers["X-Forwarded-Proto"] = environ.get("wsgi.url_scheme", "http")
    query: dict[str, list[str]] = {}
    for name, value in parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True, errors="replace"):
        query.setdefault(name, []).append(value)
    body = environ["wsgi.input"].read()
    encoded = bool(body) and is_binary(headers.get("Content-Type", ""))
    now = time.time()
    return {
        "resource": resource,
        "path": path,
        "httpMethod": method,
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": dict(parameters) or None,
        "stageVariables": None,
        "requestContext": {
            "resourceId": "local",
            "resourcePath": resource,
            "httpMethod": method,
            "requestTime": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
            "requestTimeEpoch": int(now * 1000),
            "path": path,  # as under a domain of its own: no stage in it
            "accountId": ACCOUNT,
            "protocol": environ.get("SERVER_PROTOCOL", "HTTP/1.1"),
            "stage": STAGE,
            "requestId": str(uuid.uuid4()),
            "identity": {"sourceIp": source, "userAgent": headers.get("User-Agent")},
            "domainName": headers.get("Host", "localhost"),
            "apiId": "local",
        },
        "body": (base64.b64encode(body).decode() if encoded else body.decode("utf-8", "replace")) if body else None,
        "isBase64Encoded": encoded,
    }


def _request_headers(environ: Mapping[str, Any]) -> dict[str, str]:
    names = {name[5:]: value for name, value in environ.items() if name.startswith("HTTP_")}
    names |= {name: environ[name] for name in ("CONTENT_TYPE", "CONTENT_LENGTH") if environ.get(name)}
    return {name.replace("_", "-").title(): value for name, value in names.items()}


def _takes_gzip(environ: Mapping[str, Any]) -> bool:
    codings = [coding.strip().lower() for coding in environ.get("HTTP_ACCEPT_ENCODING", "").split(",")]
    return "gzip" in codings  # with a weight the gateway does not know it either


def _send(answer: Mapping[str, Any], method: str, start_response: Any, *, compressed: bool) -> list[bytes]:
    text = answer.get("body") or ""
    body = base64.b64decode(text) if answer.get("isBase64Encoded") else text.encode()
    headers = [(name, str(value)) for name, value in answer.get("headers", {}).items()]
    for name, values in (answer.get("multiValueHeaders") or {}).items():
        headers += [(name, str(value)) for value in values]
    headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
    if compressed and len(body) >= COMPRESSED_FROM:
        body = gzip.compress(body, mtime=0)
        headers.append(("Content-Encoding", "gzip"))
    headers.append(("Content-Length", str(len(body))))
    status = int(answer["statusCode"])
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Unknown"
    start_response(f"{status} {phrase}", headers)
    return [] if method == "HEAD" else [body]


def _thread_safe(app: Any) -> Any:
    """``app`` with a request and a context for each thread. A Lambda has one call at a time, and Chalice keeps both on
    the app."""
    kept = threading.local()

    def of_the_thread(name: str) -> property:
        return property(lambda self: getattr(kept, name, None), lambda self, value: setattr(kept, name, value))

    names = {name: of_the_thread(name) for name in ("current_request", "lambda_context")}
    app.__class__ = type("ThreadSafe", (type(app),), names)
    return app


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m infra.local.http", description="The API over HTTP.")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--behind-proxy", action="store_true", help="callers' addresses are those that a proxy says")
    parser.add_argument("--app", default="app:app", help="module:attribute of the Chalice app")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))  # a request cut off has no effect or a whole one
    waitress.serve(
        Gateway(load_app(options.app)),
        host=options.address,
        port=options.port,
        threads=THREADS,
        max_request_body_size=MAX_BODY_BYTES,
        _quiet=True,
        **(BEHIND_PROXY if options.behind_proxy else {}),
    )


if __name__ == "__main__":
    main()
