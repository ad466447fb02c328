"""A look at the tables that a local stack has left, past the API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from boto3.dynamodb.conditions import Key
from botocore.config import Config

from chalicelib.index.reader import Reader
from infra.local import engines
from simulator.demo.narrator import StepFailed


@dataclass(frozen=True)
class Index:
    """``listings``: DIDs by collection, in order. ``records``: values by path, for each DID."""

    listings: Mapping[str, Sequence[str]]
    records: Mapping[str, Mapping[str, Any]]


async def left_in(file: Path, table_prefix: str, collections: Iterable[str], dids: Iterable[str]) -> Index:
    """What stands in an embedded engine's file. An engine is started on it for the moment: no other may have it open."""
    engine = await asyncio.create_subprocess_exec(
        *engines.embedded_command(0, file),
        cwd=engines.ROOT,
        stdin=asyncio.subprocess.PIPE,  # when it closes, the engine ends
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us
    )
    assert engine.stdout
    try:
        url = (await engine.stdout.readline()).decode().strip()  # it says where it listens
        if not url:
            raise StepFailed(f"the tables in {file} cannot be opened")
        return await asyncio.to_thread(_read, url, table_prefix, tuple(collections), tuple(dids))
    finally:
        if engine.returncode is None:
            engine.terminate()
        await engine.wait()


def _read(url: str, table_prefix: str, collections: Sequence[str], dids: Sequence[str]) -> Index:
    session = boto3.Session("local", "local", region_name="us-east-1")
    options = Config(retries={"total_max_attempts": 1})
    reader = Reader(session.client("dynamodb", endpoint_url=url, config=options), table_prefix)
    rows = session.resource("dynamodb", endpoint_url=url, config=options).Table(f"{table_prefix}-records")
    return Index(
        {name: reader.page([name], limit=2000, after={}).dids for name in collections},
        {did: _values(rows.query(KeyConditionExpression=Key("did").eq(did))["Items"]) for did in dids},
    )


def _values(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {str(row["path"]): json.loads(str(row["value"])) if "value" in row else None for row in rows}
