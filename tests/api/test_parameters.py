"""Parameters as strangers write them: each is understood in one way or refused with 400, in the app and over HTTP alike."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest
import waitress

from infra.local.http import Gateway
from tests.api.conftest import Api

LIST = "/xrpc/com.atproto.sync.listReposByCollection"
STATUS = "/xrpc/com.atproto.sync.getRepoStatus"
CAPTAIN = "io.atcr.hold.captain"

ODD = [
    *("", " ", "\0", "\ud800", "\udfff\ud800", "\u202e", "é", "e\u0301", "ｉo.atcr.hold.captain", "%", "%zz", "%00"),
    *(
        "null",
        "None",
        "[]",
        "{}",
        "'",
        '"',
        "-1",
        "1e3",
        "٣",
        "nan",
        "\n",
        "\r\nX: y",
        "../..",
        "did:web:a#b",
        "did:web:",
    ),
    *("a" * 2048, "a" * 2049, "a" * 100_000),
    *(f"{CAPTAIN}{more}" for more in ("\0", "/self", "#", f",{CAPTAIN}")),
    f"changes:{CAPTAIN}",
]


@pytest.mark.parametrize("value", ODD, ids=lambda value: ascii(value[:30]))
def test_an_odd_value_is_refused_with_the_name_of_its_parameter(bare_api: Api, value: str) -> None:
    known = ("collection", CAPTAIN)
    for path, name, others in [
        (LIST, "collection", ()),
        (LIST, "limit", (known,)),
        (LIST, "cursor", (known,)),
        (STATUS, "did", ()),
    ]:
        if name == "cursor" and not value:
            continue  # an empty one is none
        answer = bare_api.get(path, [*others, (name, value)])
        assert (answer.status, answer.error) == (400, "InvalidRequest")
        assert answer.json["message"].startswith(name)
        assert answer.text.isascii()
        assert len(answer.text) < 1200


QUERIES = {
    "nothing": "",
    "only separators": "&&==&=&",
    "a name alone": "collection",
    "an empty value": "collection=",
    "half an escape": "collection=%",
    "no escape": "collection=%zz",
    "an escaped NUL": f"collection={CAPTAIN}%00",
    "a slash in too many bytes": "collection=io.atcr.hold%c0%af",
    "a dot in too many bytes": "collection=io%c0%aeatcr.hold.captain",
    "half a surrogate pair": "collection=%ed%a0%80",
    "bytes that are no UTF-8": "collection=%ff%fe",
    "escaped twice": "collection=io%252eatcr.hold.captain",
    "a name in brackets": f"collection[]={CAPTAIN}",
    "a name with an index": f"collection[0]={CAPTAIN}",
    "a name in capitals": f"Collection={CAPTAIN}",
    "a name with a space": f"collection+={CAPTAIN}",
    "eleven collections": "&".join(["collection=a.b.c"] * 11),
    "ten thousand collections": "&".join(["collection=a.b.c"] * 10_000),
    "ten thousand others": "&".join(f"x{number}=1" for number in range(10_000)),
    "two limits": f"collection={CAPTAIN}&limit=1&limit=1",
    "an escaped limit": f"collection={CAPTAIN}&limit=%31%30%30%30%30",
    "a cursor of a hundred thousand": f"collection={CAPTAIN}&cursor={'A' * 100_000}",
}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The API over HTTP, where there are no tables."""
    import app

    kind = type(app.app)
    server: Any = waitress.create_server(Gateway(app.app), map={}, host="127.0.0.1", port=0, threads=2)
    thread = Thread(target=server.run)
    thread.start()
    yield server.effective_port
    server.close()
    thread.join()
    app.app.__class__ = kind  # the gateway has made it one of many threads


def send(port: int, request: bytes) -> tuple[int, bytes]:
    """Status and body of what is answered to these bytes; 0 where the server hangs up on them."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        except ConnectionError:
            return 0, b""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_an_odd_query_is_refused_over_http(port: int, query: str) -> None:
    status, body = send(port, f"GET {LIST}?{query} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    assert (status, json.loads(body)["error"]) == (400, "InvalidRequest")


CRAWL = b"POST /xrpc/com.atproto.sync.requestCrawl HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
REQUESTS = {
    "headers of 300,000 bytes": b"GET /xrpc/_health HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 300_000 + b"\r\n\r\n",
    "ten thousand headers": b"GET /xrpc/_health HTTP/1.1\r\n" + b"X: %s\r\n" % (b"y" * 30) * 10_000 + b"\r\n",
    "a path of 300,000 bytes": b"GET /xrpc/" + b"a" * 300_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "a NUL in the path": b"GET /xrpc/%00 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "a path that goes up": b"GET /xrpc/%2e%2e/admin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "bytes that are no UTF-8 in the path": b"GET /xrpc/%ff HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "two lengths": CRAWL + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "a body that is no UTF-8": CRAWL + b'Content-Length: 16\r\n\r\n{"hostname":"\xff"}',
    "a body that is half there": CRAWL + b'Content-Length: 11\r\n\r\n{"hostname"',
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS.keys())
def test_an_odd_request_is_refused_over_http_and_the_next_is_served(port: int, request_: bytes) -> None:
    assert send(port, request_)[0] in (0, 400, 404, 431, 501)
    assert send(port, f"GET {LIST} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())[0] == 400


@pytest.mark.parametrize(
    "hostname",
    [
        "",
        " ",
        "\0",
        "\ud800",
        "a" * 10_000,
        "hold\0.atcr.io",
        "hold01.atcr.io\n",
        "ｈold.atcr.io",
        "hold。atcr.io",
        [],
        None,
        7,
        {},
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_an_odd_hostname_is_refused(bare_api: Api, hostname: Any) -> None:
    answer = bare_api.announce(json.dumps({"hostname": hostname}))
    assert (answer.status, answer.error) == (400, "InvalidRequest")
    assert answer.text.isascii()
