"""The Lambda that lists, started cold: from the zip as it is deployed, in a fresh interpreter, imports and first page.

Beside it a Chalice app as one writes it at first: packaged by Chalice alone, all of requirements.txt imported, the page
queried through PynamoDB. Both stand unpacked, as on AWS, and may write no byte code there. What is measured is what the
process does after Python itself is up; neither opens TLS, since the engine is a local one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boto3

from bench import gateway
from bench.harness import SIZE, Bench, Contender, Figure, Run, Target
from infra import package, provision
from infra.local import engines

CACHE = package.ROOT / ".local" / "bench" / "cold-start"
COLLECTION = "io.atcr.hold.captain"
DIDS = [f"did:plc:{number:024d}" for number in range(20)]
METHOD = "com.atproto.sync.listReposByCollection"
NEEDLESS = ("boto3", "cbor2", "coincurve", "cryptography", "httpx", "multiformats", "pynamodb", "websockets")
"""Packages that the handler does not need."""

_PLAIN = """
import os
import boto3, cbor2, coincurve, cryptography.hazmat.primitives.asymmetric.ec, httpx, multiformats, pynamodb, websockets
from chalice import Chalice
from pynamodb.attributes import UnicodeAttribute
from pynamodb.models import Model

app = Chalice(app_name="plain")


class Listing(Model):
    class Meta:
        table_name = os.environ.get("DISCOVERY_TABLE_PREFIX", "") + "-listings"
        region = os.environ.get("AWS_REGION")

    collection = UnicodeAttribute(hash_key=True)
    key = UnicodeAttribute(range_key=True)


@app.route("/xrpc/{nsid}")
def list_repos(nsid):
    rows = Listing.query(app.current_request.query_params["collection"], limit=500, consistent_read=True)
    return {"repos": [{"did": row.key.partition("#")[2]} for row in rows]}
"""

_START = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
event = json.loads(sys.argv[2])
wall, cpu = time.perf_counter(), time.process_time()
import app
imported = time.process_time()
answer = app.app(event, None)
spent = time.process_time()
print(json.dumps({
    "cpu_ms": 1000 * (spent - cpu),
    "imports_ms": 1000 * (imported - cpu),
    "wall_ms": 1000 * (time.perf_counter() - wall),
    "modules": sorted(sys.modules),
    "answer": answer,
}))
"""


_KEPT: list[ExitStack] = []


def start(kind: str) -> Run:
    """Each run is one cold start of ``ours`` or ``plain``. The small size starts the project as it stands, unpackaged."""
    command, zip_mb = [sys.executable, "-c", _START, str(package.ROOT)], 0.0
    if SIZE == "full":
        package_file, python = packaged(kind)
        zip_mb = package_file.stat().st_size / 1e6
        folder = CACHE / kind
        shutil.rmtree(folder, ignore_errors=True)
        with zipfile.ZipFile(package_file) as zipped:
            zipped.extractall(folder)
        command = [str(python), "-I", "-S", "-B", "-c", _START, str(folder)]
    environment, asked = _listing(), json.dumps(gateway.event("GET", METHOD, {"collection": [COLLECTION]}))

    def run() -> tuple[Any, dict[str, float]]:
        done = subprocess.run([*command, asked], env=environment, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        figures = {name: found[name] for name in ("cpu_ms", "imports_ms", "wall_ms")}
        repos = json.loads(found["answer"]["body"])["repos"]
        loaded = [name for name in NEEDLESS if name in found["modules"]]
        return (
            {"dids": [repo["did"] for repo in repos], "needless": loaded},
            {**figures, "modules": len(found["modules"]), "zip_mb": zip_mb},
        )

    run()  # both from a disk that has been read
    return run


def packaged(kind: str) -> tuple[Path, Path]:
    """The zip, made anew, and the Python that it is for. Raises ``package.CannotPackage``."""
    out = CACHE / f"{kind}-built"
    if kind == "ours":
        python = package.tools(package.TOOLS)
        return package.build(out, python=python), python
    python = package.tools(package.TOOLS.with_name("package-plain"), "-r", str(package.ROOT / "requirements.txt"))
    shutil.rmtree(out, ignore_errors=True)
    project = out / "project"
    (project / ".chalice").mkdir(parents=True)
    (project / ".chalice" / "config.json").write_text('{"version": "2.0", "app_name": "plain", "stages": {"dev": {}}}')
    (project / "app.py").write_text(_PLAIN)
    shutil.copy(package.ROOT / "requirements.txt", project)
    return package.chalice_package(python, project, out), python


def _listing() -> dict[str, str]:
    """An engine that lives as long as this process, with a listing in it; and the environment that leads there."""
    running = ExitStack()
    engine = running.enter_context(engines.running("embedded"))
    _KEPT.append(running)
    session = boto3.Session("local", "local", region_name="us-east-1")
    dynamodb = session.client("dynamodb", endpoint_url=engine.dynamodb)
    made = provision.create("bench", dynamodb, session.client("sqs", endpoint_url=engine.sqs))
    for number, did in enumerate(DIDS, start=1):
        item = {"collection": {"S": COLLECTION}, "key": {"S": f"{number:016d}#{did}"}}
        dynamodb.put_item(TableName="bench-listings", Item=item)
    return engine.environment | {"DISCOVERY_TABLE_PREFIX": made.prefix, "DISCOVERY_QUEUE_URL": made.queue_url}


def check(name: str, result: Any) -> None:
    assert result["dids"] == DIDS, f"{name} answered {result}"
    assert name != "ours" or not result["needless"], f"loaded without need: {result['needless']}"


def benches() -> list[Bench]:
    """The row about cold starts."""

    def share(figures: Mapping[str, Figure]) -> float:
        return 100 * figures["ours"].cpu_ms / figures["plain"].cpu_ms

    def zipped(figures: Mapping[str, Figure]) -> float:
        return figures["ours"].more["zip_mb"]

    names = ("ours",) if SIZE == "small" else ("ours", "plain")
    contenders = [Contender(name, "bench.cold_start:start", (name,)) for name in names]
    targets = [Target("MB of the zip", zipped, at_most=25)]
    if SIZE == "full":
        targets.append(Target("% of a plain app's time", share, at_most=35))
    return [
        Bench("cold start", "imports and first page of listReposByCollection", contenders, check, targets, repeats=9)
    ]
