"""The pages over the local gateway, with a neighbourhood in the tables as it is in life."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from threading import Thread
from typing import Any

import pytest
import waitress
from waitress import wasyncore

from chalicelib import process, settings
from chalicelib.index.state import SUBSCRIBER
from chalicelib.index.tables import Tables
from infra.local.http import Gateway
from tests.conftest import Stack

CAPTAIN = "io.atcr.hold.captain"
DAY = 86_400_000
"""Milliseconds."""


@dataclass(frozen=True)
class Answer:
    """What a browser gets."""

    status: int
    headers: dict[str, str]
    text: str


class Read(HTMLParser):
    """What a browser makes of a source."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


class Web:
    """The service over HTTP, without a socket; and its tables."""

    def __init__(self, prefix: str) -> None:
        import app

        self.gateway = Gateway(app.app)
        self.tables = Tables(prefix)

    def get(self, path: str, query: str = "", *, domain: str = "discovery.example.com") -> Answer:
        """Ask for a page."""
        answers: list[tuple[str, list[tuple[str, str]]]] = []
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "HTTP_HOST": domain,
            "HTTP_ACCEPT": "text/html,image/avif,*/*;q=0.8",
            "wsgi.input": io.BytesIO(),
        }
        body = b"".join(self.gateway(environ, lambda status, headers: answers.append((status, headers))))
        status, headers = answers[0]
        return Answer(int(status[:3]), dict(headers), body.decode())

    @contextmanager
    def serving(self) -> Iterator[str]:
        """The URL at which a browser finds it, as long as the context lasts."""
        sockets: dict[int, Any] = {}
        server: Any = waitress.create_server(self.gateway, map=sockets, host="127.0.0.1", port=0, threads=4)
        thread = Thread(target=server.run)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.effective_port}"
        finally:
            # A browser keeps its connections: closed by the thread that reads from them, which ends with the last.
            server.trigger.pull_trigger(lambda: wasyncore.close_all(sockets, ignore_all=True))
            thread.join()
            server.task_dispatcher.shutdown()

    # -- what is in the tables

    def add_host(self, origin: str, **attributes: Any) -> None:
        """A host."""
        now = int(time.time() * 1000)
        found = {"status": "active", "kind": "pds", "first_seen_at": now - 40 * DAY, "repo_count": 1} | attributes
        self.tables.hosts(origin, **found).save()

    def add_repo(self, did: str, host: str, records: dict[str, Any], *, position: int, **attributes: Any) -> None:
        """A repo with these records by path, listed in each of their collections."""
        names = [path.partition("/")[0] for path in records]
        listed = dict.fromkeys(names, f"{position:016d}")
        counts = {name: names.count(name) for name in listed}
        found = {"sync": "synced", "rev": "3mbd3542kzc22", "head": "bafyrei", "scope_shard": "0"} | attributes
        self.tables.repos(did, host=host, listed=listed, collections=counts, **found).save()
        for name in listed:
            self.tables.listings(name, f"{position:016d}#{did}").save()
        for path, value in records.items():
            text = value if isinstance(value, str) else json.dumps(value)
            self.tables.records(did, path, cid="bafyrei", rev="3mbd3542kzc22", value=text, indexed_at=1).save()

    def add_subscriber(self, *, hosts: int, streams: int) -> None:
        """A subscriber that is alive."""
        now = int(time.time() * 1000)
        beat = {"at": now, "hosts": hosts, "open": streams}
        self.tables.state(SUBSCRIBER, "s1", content=beat, number=now).save()


@pytest.fixture
def web(stack_env: Stack) -> Iterator[Web]:
    """The pages over empty tables."""
    kept = (settings.current, process.reader, process.context)
    for function in kept:
        function.cache_clear()
    yield Web(stack_env.prefix)
    for function in kept:
        function.cache_clear()


PLACES = [
    ("hold01.atcr.io", "eu-central", "hetzner", True),
    ("layers.example.net", "eu-central-1", "aws", True),
    ("hold.works.example.org", "us-east", "fly.io", False),
    ("oci.lakeside.example.org", "ca-central", "ovh", True),
    ("hold.kobo.example.net", "ap-northeast-1", "aws", False),
    ("registry.home.example.com", None, None, True),
]


def settle(web: Web, places: Sequence[tuple[str, str | None, str | None, bool]] = PLACES) -> None:
    """A neighbourhood: holds on hosts of their own, users on a large PDS, a host that is offline."""
    now = int(time.time() * 1000)
    for number, (name, region, provider, public) in enumerate(places):
        captain = {
            "$type": CAPTAIN,
            "owner": "did:plc:ewvi7nxzyoun6zhxrhs64oiz",
            "public": public,
            "deployedAt": "2026-10-01T08:00:00Z",
        }
        captain |= {name: value for name, value in (("region", region), ("provider", provider)) if value}
        records = {f"{CAPTAIN}/self": captain, "io.atcr.hold.crew/a": {}, "io.atcr.hold.crew/b": {}}
        records |= {f"io.atcr.hold.layer/{each}": {} for each in range(3 + number)}
        seen = now - (4_000 if number else 3 * DAY) * (number + 1)
        web.add_host(name, first_seen_at=now - (60 - number) * DAY, connected_at=seen, crawled_at=seen, owner="s1")
        web.add_repo(f"did:web:{name}", name, records, position=(now - (60 - number) * DAY) * 1000)
    web.add_host(
        "hold.oldtown.example.com",
        status="offline",
        crawled_at=now - 9 * DAY,
        failures=31,
        last_error="connection refused",
        last_error_at=now - 600_000,
        due_at=now + 3_000_000,
        owner="s1",
        stream_error="connection refused",
    )
    web.add_host("pds.example.com", kind="named", repo_count=231_877, crawled_at=now - 3_600_000)
    user = {"io.atcr.manifest/a": {}, "io.atcr.tag/latest": {}, "io.atcr.sailor.profile/self": {}}
    for number in range(8):
        did = f"did:plc:user{number:020d}".replace("0", "a").replace("1", "b").replace("9", "c")
        web.add_repo(did, "pds.example.com", user, position=(now - number * DAY) * 1000)
    web.add_subscriber(hosts=len(places) + 1, streams=len(places))
