"""What the Lambda that reads listings does not load."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.api.conftest import Api
from tests.conftest import ROOT, Stack

HEAVY = [
    "boto3",
    "cbor2",
    "coincurve",
    "cryptography",
    "httpx",
    "idna",
    "multiformats",
    "pynamodb",
    "s3transfer",
    "websockets",
]

PROGRAM = """
import json, sys
import app
before = sorted(sys.modules)
answers = [app.app(event, None) for event in json.load(sys.stdin)]
print(json.dumps({"answers": answers, "before": before, "after": sorted(sys.modules)}))
"""


def test_reading_loads_nothing_of_what_crawls(api: Api, stack_env: Stack) -> None:
    events = [
        api.event("GET", "/xrpc/com.atproto.sync.listReposByCollection", [("collection", "io.atcr.hold.captain")]),
        api.event("GET", "/xrpc/com.atproto.sync.listReposByCollection", [("collection", "x")]),
        api.event("GET", "/xrpc/_health"),
        api.event(
            "POST", "/xrpc/com.atproto.sync.requestCrawl", headers={"content-type": "application/json"}, body="x"
        ),
    ]
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(events),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        env=stack_env.environment,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert [answer["statusCode"] for answer in found["answers"]] == [200, 400, 503, 400]
    assert not set(HEAVY) & set(found["after"])
    assert not [name for name in found["after"] if name.startswith("chalicelib.pages")]
    assert "botocore" not in found["before"], "the client is made by who needs it"
