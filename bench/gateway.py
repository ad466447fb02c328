"""What API Gateway sends to the app."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

ROUTE = "/xrpc/{nsid}"


def event(method: str, nsid: str, query: Mapping[str, Sequence[str]], body: object = None) -> dict[str, Any]:
    """The event of a request for a method, with its parameters in ``query`` and its JSON ``body``."""
    return {
        "resource": ROUTE,
        "path": f"/xrpc/{nsid}",
        "httpMethod": method,
        "headers": {"content-type": "application/json"},
        "multiValueHeaders": {"content-type": ["application/json"]},
        "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
        "multiValueQueryStringParameters": dict(query) or None,
        "pathParameters": {"nsid": nsid},
        "stageVariables": None,
        "requestContext": {"httpMethod": method, "resourcePath": ROUTE, "identity": {"sourceIp": "198.51.100.7"}},
        "body": None if body is None else json.dumps(body),
        "isBase64Encoded": False,
    }
