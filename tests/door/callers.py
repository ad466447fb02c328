"""The ways on which this service goes out to a host that a stranger names, each through the code that runs in production."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

import pytest

from bench.gateway import event
from chalicelib.atproto.errors import AtprotoError, InvalidSyntax
from chalicelib.atproto.identity import Resolver
from chalicelib.atproto.syntax import Did, parse_did
from chalicelib.crawl.jobs import work
from chalicelib.crawl.queue import MalformedMessage
from chalicelib.crawl.repo_job import Deadline, sync_repo
from chalicelib.index.tables import HostRow
from subscriber.connection import Connection, LeaseLost
from subscriber.memory import Endings
from subscriber.pipeline import Pipeline
from tests.door.conftest import World

XRPC = "/xrpc/com.atproto.sync"


@dataclass(frozen=True)
class Caller:
    """``call`` has the service ask ``host`` for ``path``, once, whatever becomes of it. ``is_open``: strangers name the host."""

    call: Callable[[World, str], None]
    path: str
    follows_redirects: bool = True
    is_open: bool = True


def request_crawl(world: World, host: str) -> None:
    """describeServer of a host that announces itself."""
    import app  # reads the settings

    assert world.context.door is world.door
    answer = app.app(event("POST", "com.atproto.sync.requestCrawl", {}, {"hostname": host}), None)
    error = json.loads(answer["body"])["error"]
    assert error in ("InvalidRequest", "HostNotFound"), answer["body"]


def list_repos(world: World, host: str) -> None:
    """The job of a host that has got into the table, by whatever way."""
    row = world.context.tables.hosts
    if host:
        row(host, status="active", first_seen_at=0).save()
    with suppress(MalformedMessage):  # such a name is not even read
        work(world.context, json.dumps({"host": host}))


def subscribe_repos(world: World, host: str) -> None:
    """The stream of a host that has got into the table."""

    async def follow() -> None:
        with ThreadPoolExecutor(1) as executor:
            connection = Connection(
                world.context,
                cast(Pipeline, None),  # no stream is ever opened
                executor,
                row=HostRow(host, epoch=0),
                owner="nobody",  # who has no lease on the host, and so finds out after the first attempt that it is lost
                opening=asyncio.Semaphore(1),
                endings=Endings(),
                jitter=random.Random(1),
            )
            await connection.run()

    try:
        asyncio.run(follow())
    except* (LeaseLost, InvalidSyntax):
        pass


def get_repo(world: World, host: str) -> None:
    """A repo that the PLC directory says to be there."""
    did = world.new_did()
    world.document(did, host)
    _sync(world, did)


def get_repo_status(world: World, host: str) -> None:
    """The account of a repo that the document of a did:web says to be there, after the stream said that it is gone."""
    did = f"did:web:{world.new_name()}"
    world.document(did, host)
    world.context.writer.ask(parse_did(did), claim="deactivated")
    _sync(world, did)


def did_web_document(world: World, host: str) -> None:
    """A repo whose DID is the host."""
    with suppress(InvalidSyntax):
        _sync(world, f"did:web:{host}")


def plc_directory(world: World, host: str) -> None:
    """A did:plc, where the directory is such a host."""
    url = host if "://" in host else f"https://{host}"
    with pytest.raises(AtprotoError):
        Resolver(world.door, url, allow_private=False).resolve(Did("did:plc:" + "a" * 24))


CALLERS: Mapping[str, Caller] = {
    "requestCrawl": Caller(request_crawl, "/xrpc/com.atproto.server.describeServer"),
    "listRepos": Caller(list_repos, f"{XRPC}.listRepos"),
    "getRepo": Caller(get_repo, f"{XRPC}.getRepo"),
    "getRepoStatus": Caller(get_repo_status, f"{XRPC}.getRepoStatus"),
    "subscribeRepos": Caller(subscribe_repos, f"{XRPC}.subscribeRepos", follows_redirects=False),
    "did-web": Caller(did_web_document, "/.well-known/did.json"),
    "plc": Caller(plc_directory, "/did:plc:" + "a" * 24, is_open=False),
}


def _sync(world: World, did: str) -> None:
    sync_repo(world.context, parse_did(did), deadline=Deadline(60), ask=True, refresh=True)
