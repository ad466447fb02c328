"""What API Gateway answers by itself, in the form of XRPC: no such path, too many requests, a body that is too large.

    python -m infra.gateway prod

``make deploy`` sees to it, and a template of infra/package.py has it. Plain ``chalice deploy`` writes the API anew without it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

CONFIGURATION = Path(__file__).resolve().parent.parent / ".chalice"

_NOWHERE = ("404", "NotFound", "there is nothing at this path: methods are at /xrpc/NSID")
_ANSWERS: Mapping[str, tuple[str | None, str, str | None]] = {
    "MISSING_AUTHENTICATION_TOKEN": _NOWHERE,  # how the gateway says it, and the next where a request has credentials
    "INVALID_SIGNATURE": _NOWHERE,
    "THROTTLED": ("429", "RateLimitExceeded", "there are too many requests; try again in some seconds"),
    "REQUEST_TOO_LARGE": ("413", "PayloadTooLarge", "the body is too large"),
    "DEFAULT_4XX": (None, "InvalidRequest", None),
    "DEFAULT_5XX": (None, "InternalServerError", "something went wrong here; try again later"),
}
"""Status, error and message by the gateway's type of response; ``None``: its own."""


def responses() -> dict[str, dict[str, Any]]:
    """The gateway's responses by type, as ``x-amazon-apigateway-gateway-responses`` has them."""
    return {kind: _response(kind, *answer) for kind, answer in _ANSWERS.items()}


def _response(kind: str, status: str | None, error: str, message: str | None) -> dict[str, Any]:
    headers = {"Access-Control-Allow-Origin": "'*'"} | ({"Retry-After": "'5'"} if kind == "THROTTLED" else {})
    text = "$context.error.messageString" if message is None else json.dumps(message)
    return {
        **({} if status is None else {"statusCode": status}),
        "responseParameters": {f"gatewayresponse.header.{name}": value for name, value in headers.items()},
        "responseTemplates": {"application/json": f'{{"error":"{error}","message":{text}}}'},
    }


def client() -> Any:
    """A client that is patient: an account may deploy an API once in five seconds, and delete one in thirty."""
    return boto3.client("apigateway", config=Config(retries={"mode": "standard", "total_max_attempts": 10}))


def put(rest_api: str, api_stage: str) -> None:
    """Have an API answer so. Botocore's errors are raised as they are."""
    api = client()
    for kind, response in responses().items():
        api.put_gateway_response(restApiId=rest_api, responseType=kind, **response)
    api.create_deployment(restApiId=rest_api, stageName=api_stage)


def deployed(stage: str, chalice: Path = CONFIGURATION) -> dict[str, dict[str, Any]]:
    """What Chalice noted of a stage that it deployed: resources by name; none if there is no such stage."""
    noted = chalice / "deployed" / f"{stage}.json"
    resources = json.loads(noted.read_text(encoding="utf-8"))["resources"] if noted.exists() else []
    return {resource["name"]: resource for resource in resources}


def put_of_stage(stage: str, chalice: Path = CONFIGURATION) -> None:
    """Have the API of a deployed stage answer so. Raises ``LookupError`` if there is none."""
    api = deployed(stage, chalice).get("rest_api")
    if api is None:
        raise LookupError(f"no deployment of {stage} is noted in .chalice/deployed")
    url: str = api["rest_api_url"]
    put(api["rest_api_id"], url.rstrip("/").rpartition("/")[2])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.gateway", description=__doc__.partition("\n")[0])
    parser.add_argument("stage")
    try:
        put_of_stage(parser.parse_args().stage)
    except (LookupError, BotoCoreError, ClientError) as reason:
        print(f"gateway: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
