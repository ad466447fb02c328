"""Calls of the API as the gateway makes them: through ``app(event, context)``, with events of a REST API's proxy integration."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from chalicelib import process, settings
from chalicelib.api.admin import token
from chalicelib.index.tables import Tables
from tests.conftest import Stack


@dataclass(frozen=True)
class Answer:
    """What the gateway would send on."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        """The body, which has to be JSON."""
        assert self.headers["Content-Type"] == "application/json"
        return json.loads(self.text)

    @property
    def error(self) -> str:
        """The name of the XRPC error, whose shape is checked."""
        assert self.status >= 400
        assert {"error", "message"} <= self.json.keys()
        assert self.json["message"]
        return str(self.json["error"])


class Api:
    """Calls the app."""

    def __init__(self, app: Any, prefix: str) -> None:
        self.app = app
        self.prefix = prefix

    def call(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        *,
        headers: dict[str, str] | None = None,
        body: str | None = None,
    ) -> Answer:
        """Send one request."""
        got = self.app(self.event(method, path, query, headers=headers, body=body), None)
        assert not got.get("isBase64Encoded")
        return Answer(got["statusCode"], got["headers"], got["body"])

    def get(self, path: str, query: Sequence[tuple[str, str]] = (), **rest: Any) -> Answer:
        """Send a GET."""
        return self.call("GET", path, query, **rest)

    def list(self, *collections: str, **parameters: Any) -> Answer:
        """Call listReposByCollection."""
        query = [("collection", name) for name in collections] + [
            (name, str(value)) for name, value in parameters.items()
        ]
        return self.get("/xrpc/com.atproto.sync.listReposByCollection", query)

    def announce(self, body: str | None, content_type: str | None = "application/json") -> Answer:
        """Call requestCrawl."""
        headers = {} if content_type is None else {"content-type": content_type}
        return self.call("POST", "/xrpc/com.atproto.sync.requestCrawl", headers=headers, body=body)

    def event(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        *,
        headers: dict[str, str] | None = None,
        body: str | None = None,
    ) -> dict[str, Any]:
        """The event of a request."""
        folder, _, last = path.rpartition("/")
        variable = "name" if folder == "/admin" else "nsid"
        resource = path if path in self.app.routes else f"{'/admin' if variable == 'name' else '/xrpc'}/{{{variable}}}"
        sent = {"Host": "abc.execute-api.us-east-1.amazonaws.com", "User-Agent": "test"} | (headers or {})
        values: dict[str, list[str]] = {}
        for name, value in query:
            values.setdefault(name, []).append(value)
        event = {
            "resource": resource,
            "path": path,
            "httpMethod": method,
            "headers": sent,
            "multiValueHeaders": {name: [value] for name, value in sent.items()},
            "queryStringParameters": {name: several[-1] for name, several in values.items()} or None,
            "multiValueQueryStringParameters": values or None,
            "pathParameters": {variable: last} if resource != path else None,
            "stageVariables": None,
            "requestContext": {
                "accountId": "123456789012",
                "apiId": "abc",
                "domainName": sent["Host"],
                "httpMethod": method,
                "identity": {"sourceIp": "198.51.100.7", "userAgent": "test"},
                "path": f"/api{path}",
                "protocol": "HTTP/1.1",
                "requestId": "0fd7a5f6-1f0c-4a3c-9d9e-000000000000",
                "resourceId": "x1y2z3",
                "resourcePath": resource,
                "stage": "api",
            },
            "body": body,
            "isBase64Encoded": False,
        }
        decoded: dict[str, Any] = json.loads(json.dumps(event))  # as it arrives: what JSON cannot carry is no event
        return decoded


@pytest.fixture
def forget() -> Iterator[None]:
    """What a process keeps is made anew before the test and after it."""
    kept = (settings.current, process.reader, process.context, token.current)
    for function in kept:
        function.cache_clear()
    yield
    for function in kept:
        function.cache_clear()


@pytest.fixture
def api(stack_env: Stack, forget: None) -> Api:
    """The API over empty tables."""
    import app

    return Api(app.app, stack_env.prefix)


@pytest.fixture
def bare_api(monkeypatch: pytest.MonkeyPatch, forget: None) -> Api:
    """The API where there are no tables: for what is answered without them."""
    for name in [name for name in os.environ if name.startswith(("DISCOVERY_", "AWS_"))]:
        monkeypatch.delenv(name)
    import app

    return Api(app.app, settings.current().table_prefix)


@pytest.fixture
def tables(api: Api) -> Tables:
    """The tables that the API reads."""
    return Tables(api.prefix)
