"""The door: what it refuses, where it connects, what an answer may cost. Its internet is a port on loopback."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count

import pytest
import trustme

from chalicelib.atproto import transport
from chalicelib.atproto.errors import AddressRefused, BadResponse, BudgetExceeded, Unreachable
from chalicelib.atproto.net import MAX_ERROR, MAX_RETRY_AFTER, Door, seconds_to_wait
from chalicelib.atproto.transport import Timeouts
from simulator.scripted import Reply, Request, ScriptedServer, http

PUBLIC = "93.184.215.14"
OTHER_PUBLIC = "2606:4700::1111"
SHORT = Timeouts(connect=0.2, idle=0.2, total=5)


class Internet:
    """What the door's resolver says, and where its connections to public addresses end: all at one server."""

    def __init__(self, server: ScriptedServer) -> None:
        self.names: dict[str, list[Sequence[str]]] = {}
        """The answers for a name, one for each time that it is asked for; the last one stays."""
        self.asked: list[str] = []
        self.dialed: list[tuple[str, int]] = []
        self.dead: set[str] = set()
        self._server = server
        with socket.create_server(("127.0.0.1", 0)) as closed:
            self._nobody = int(closed.getsockname()[1])

    def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        answers = self.names.get(host, [[PUBLIC]])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def route(self, address: str, port: int) -> tuple[str, int]:
        self.dialed.append((address, port))
        return "127.0.0.1", self._nobody if address in self.dead else self._server.port


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def serve(opened: ExitStack) -> Callable[[Callable[[Request], Reply]], ScriptedServer]:
    return lambda answer: opened.enter_context(ScriptedServer(answer))


@pytest.fixture
def serve_tls(opened: ExitStack, ca: trustme.CA) -> Callable[[Callable[[Request], Reply]], ScriptedServer]:
    """A server that has a certificate for hold01.atcr.io and pds.atcr.io."""

    def start(answer: Callable[[Request], Reply]) -> ScriptedServer:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert("hold01.atcr.io", "pds.atcr.io").configure_cert(context)
        return opened.enter_context(ScriptedServer(answer, ssl_context=context))

    return start


@pytest.fixture
def guarded(opened: ExitStack, ca: trustme.CA) -> Callable[[Internet], Door]:
    """A door as in production, but for the CA that it trusts and the internet that it sees."""

    def make(internet: Internet) -> Door:
        context = ssl.create_default_context()
        ca.configure_trust(context)
        return opened.enter_context(
            Door(ssl_context=context, resolve=internet.resolve, route=internet.route, timeouts=SHORT)
        )

    return make


@pytest.fixture
def door(opened: ExitStack) -> Door:
    """A door in development mode, which reaches a server of the test by its address."""
    return opened.enter_context(Door(allow_private=True, user_agent="atcr-discovery/0 (+https://atcr.io)"))


Serve = Callable[[Callable[[Request], Reply]], ScriptedServer]
Guarded = Callable[[Internet], Door]


# What is asked, and what comes back


def test_an_answer_comes_whole_with_its_status(serve: Serve, door: Door) -> None:
    server = serve(lambda request: http(418, b'{"a": 1}'))
    answer = door.get(f"{server.url}/xrpc/x?did=did%3Aweb%3Alocalhost%253A80", max_bytes=100)
    assert (answer.status, answer.json(), answer.succeeded) == (418, {"a": 1}, False)
    assert server.requests[0].target == "/xrpc/x?did=did%3Aweb%3Alocalhost%253A80"


def test_a_request_says_who_asks_and_offers_gzip_alone(serve: Serve, door: Door) -> None:
    server = serve(lambda request: http())
    door.get(server.url, max_bytes=100, accept="application/vnd.ipld.car")
    headers = server.requests[0].headers
    assert headers["user-agent"] == "atcr-discovery/0 (+https://atcr.io)"
    assert headers["accept-encoding"] == "gzip"
    assert headers["accept"] == "application/vnd.ipld.car"
    assert headers["host"] == f"127.0.0.1:{server.port}"


def test_gzip_is_decoded(serve: Serve, door: Door) -> None:
    server = serve(lambda request: http(200, gzip.compress(b"x" * 1000, mtime=0), content_encoding="gzip"))
    assert door.get(server.url, max_bytes=1000).body == b"x" * 1000


@pytest.mark.parametrize("body", [b"<html>", b"", b'{"a": NaN}', b"[" * 100_000, b"9" * 5000, b'"\xff"', b"{} {}"])
def test_what_is_not_json_is_a_bad_response(body: bytes, serve: Serve, door: Door) -> None:
    server = serve(lambda request: http(200, body))
    with pytest.raises(BadResponse, match="not JSON"):
        door.get(server.url, max_bytes=200_000).json()


def test_connections_are_kept_and_shared_between_threads(serve: Serve, door: Door) -> None:
    server = serve(lambda request: http(200, request.target.encode()))
    with ThreadPoolExecutor(4) as threads:
        paths = [f"/{number}" for number in range(100)]
        bodies = list(threads.map(lambda path: door.get(server.url + path, max_bytes=100).body.decode(), paths))
    assert bodies == paths
    assert server.connections <= 4


def test_proxies_of_the_environment_and_cookies_of_answers_are_ignored(
    serve: Serve, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve(lambda request: http())
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    server = serve(lambda request: http(200, set_cookie="a=b; Path=/"))
    for _ in range(2):
        door.get(server.url, max_bytes=100)
    assert proxy.connections == 0
    assert "cookie" not in server.requests[1].headers


# What may be opened

REFUSED_URLS = [
    "http://hold01.atcr.io/",
    "https://hold01.atcr.io:8443/",
    "https://hold01.atcr.io:80/",
    "https://hold01.atcr.io:99999/",
    "https://user@hold01.atcr.io/",
    "https://user:password@hold01.atcr.io/",
    "https://hold01.atcr.io\\@127.0.0.1/",
    "https://93.184.215.14/",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://0177.0.0.1/",
    "https://0x7f.1/",
    "https://0x7f000001/",
    "https://2130706433/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[2606:4700::1111]/",
    "https://[fe80::1%25eth0]/",
    "https://①②⑦.⓪.⓪.①/",
    "https://localhost/",
    "https://LOCALHOST./",
    "https://hold/",
    "https://hold.local/",
    "https://hold.localhost/",
    "https://hold.internal/",
    "https://metadata.google.internal/",
    "https://hold.test/",
    "https://hold.example/",
    "https://hold.invalid/",
    "https://hold.onion/",
    "https://router.home.arpa/",
    "https://1.0.0.127.in-addr.arpa/",
    "https://ho%6cd.io/",
    "https://hold01.atcr.io%00.evil.com/",
    "https://hold 01.atcr.io/",
    "https://hold_01.atcr.io/",
    "https://-hold.atcr.io/",
    "https://hold..atcr.io/",
    "https://.atcr.io/",
    f"https://{'a' * 64}.io/",
    f"https://{'a.' * 130}io/",
    "https:///etc/passwd",
    "https:hold01.atcr.io",
    "//hold01.atcr.io/",
    "/xrpc/_health",
    "ftp://hold01.atcr.io/",
    "file:///etc/passwd",
    "gopher://hold01.atcr.io/",
    "javascript:alert(1)",
    "https://[::1/",
    "https://hold01.atcr.io:port/",
    "https://hold01.atcr.io\r\nHost: evil/",
    "",
]


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_a_url_that_cannot_be_public_is_refused_before_anything_is_asked(
    url: str, serve_tls: Serve, guarded: Guarded
) -> None:
    canary = serve_tls(lambda request: http())
    internet = Internet(canary)
    with pytest.raises(AddressRefused):
        guarded(internet).get(url, max_bytes=100)
    assert (internet.asked, internet.dialed, canary.connections) == ([], [], 0)


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.7"],
        ["169.254.169.254"],
        ["fd00:ec2::254"],
        ["::ffff:93.184.215.14"],
        ["2002:7f00:1::"],
        ["64:ff9b::5db8:d70e"],
        ["fe80::1%eth0"],
        ["0177.0.0.1"],
        [PUBLIC, "127.0.0.1"],
        [OTHER_PUBLIC, PUBLIC, "::1"],
        [*[f"93.184.215.{number}" for number in range(200)], "10.0.0.1"],
    ],
)
def test_one_address_that_is_not_public_refuses_the_whole_name(
    addresses: list[str], serve_tls: Serve, guarded: Guarded
) -> None:
    canary = serve_tls(lambda request: http())
    internet = Internet(canary)
    internet.names["hold01.atcr.io"] = [addresses]
    with pytest.raises(AddressRefused, match="not public"):
        guarded(internet).get("https://hold01.atcr.io/", max_bytes=100)
    assert (internet.dialed, canary.connections) == ([], 0)


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "169.254.170.2", "::ffff:169.254.169.254", "fd00:ec2::254", "100.100.100.200", "192.0.0.192"],
)
def test_where_a_cloud_serves_its_machines_nothing_is_opened_in_development_mode_either(
    address: str, serve: Serve, opened: ExitStack
) -> None:
    canary = serve(lambda request: http())
    internet = Internet(canary)
    internet.names["hold.internal"] = [["127.0.0.1", address]]
    door = opened.enter_context(Door(allow_private=True, resolve=internet.resolve, route=internet.route))
    for host in ("hold.internal", f"[{address}]" if ":" in address else address):
        with pytest.raises(AddressRefused, match="cloud metadata"):
            door.get(f"http://{host}/latest/meta-data/", max_bytes=100)
    assert (internet.dialed, canary.connections) == ([], 0)


def test_the_connection_goes_to_the_checked_address_under_the_name(serve_tls: Serve, guarded: Guarded) -> None:
    server = serve_tls(lambda request: http(200, b"hello"))
    internet = Internet(server)
    assert guarded(internet).get("https://HOLD01.atcr.io./", max_bytes=100).body == b"hello"
    assert internet.dialed == [(PUBLIC, 443)]
    assert server.server_names == ["hold01.atcr.io"]
    assert server.requests[0].headers["host"] == "hold01.atcr.io"


def test_a_name_that_changes_after_the_check_is_not_asked_again(serve_tls: Serve, guarded: Guarded) -> None:
    server = serve_tls(lambda request: http(200, b"hello", connection="close"))
    internet = Internet(server)
    internet.names["hold01.atcr.io"] = [[PUBLIC], ["127.0.0.1"]]
    door = guarded(internet)
    assert door.get("https://hold01.atcr.io/", max_bytes=100).body == b"hello"
    assert (internet.asked, internet.dialed) == (["hold01.atcr.io"], [(PUBLIC, 443)])
    with pytest.raises(AddressRefused):  # a new connection is a new check
        door.get("https://hold01.atcr.io/", max_bytes=100)
    assert (internet.dialed, server.connections) == ([(PUBLIC, 443)], 1)


def test_the_next_address_is_tried_where_one_does_not_answer(serve_tls: Serve, guarded: Guarded) -> None:
    server = serve_tls(lambda request: http(200, b"hello"))
    internet = Internet(server)
    internet.names["hold01.atcr.io"] = [[OTHER_PUBLIC, PUBLIC]]
    internet.dead = {OTHER_PUBLIC}
    assert guarded(internet).get("https://hold01.atcr.io/", max_bytes=100).body == b"hello"


def test_an_address_that_swallows_packets_leaves_time_for_the_next(serve_tls: Serve, opened: ExitStack) -> None:
    full = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    for _ in range(4):  # the queue of connections that nobody accepts is full: further ones are not even refused
        waiting = opened.enter_context(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex(full.getsockname())
    server = serve_tls(lambda request: http(200, b"hello"))
    ports = {OTHER_PUBLIC: int(full.getsockname()[1]), PUBLIC: server.port}
    door = opened.enter_context(
        Door(
            resolve=lambda host, port: [OTHER_PUBLIC, PUBLIC],
            route=lambda address, port: ("127.0.0.1", ports[address]),
            timeouts=SHORT,
        )
    )
    with pytest.raises(Unreachable, match="certificate"):  # of an authority that this door doesn't know: it got there
        door.get("https://hold01.atcr.io/", max_bytes=100)


def test_a_name_with_endless_addresses_is_tried_at_a_few(serve_tls: Serve, guarded: Guarded) -> None:
    internet = Internet(serve_tls(lambda request: http()))
    addresses = [f"93.184.215.{number}" for number in range(200)]
    internet.names["hold01.atcr.io"] = [addresses]
    internet.dead = set(addresses)
    with pytest.raises(Unreachable):
        guarded(internet).get("https://hold01.atcr.io/", max_bytes=100)
    assert len(internet.dialed) == 4


def test_a_certificate_for_another_name_is_refused(serve_tls: Serve, guarded: Guarded) -> None:
    server = serve_tls(lambda request: http())
    with pytest.raises(Unreachable, match="certificate"):
        guarded(Internet(server)).get("https://evil.atcr.io/", max_bytes=100)
    assert server.requests == []


def test_a_certificate_of_an_unknown_authority_is_refused(serve_tls: Serve, opened: ExitStack) -> None:
    server = serve_tls(lambda request: http())
    internet = Internet(server)
    door = opened.enter_context(Door(resolve=internet.resolve, route=internet.route))
    with pytest.raises(Unreachable, match="certificate"):
        door.get("https://hold01.atcr.io/", max_bytes=100)


# Redirects


def test_a_redirect_is_followed_and_checked(serve_tls: Serve, guarded: Guarded) -> None:
    def answer(request: Request) -> Reply:
        moved = {"/a": "/b?c=d", "/b?c=d": "https://pds.atcr.io/e#f"}.get(request.target)
        return http(302, location=moved) if moved else http(200, request.headers["host"].encode())

    server = serve_tls(answer)
    internet = Internet(server)
    got = guarded(internet).get("https://hold01.atcr.io/a", max_bytes=100)
    assert (got.body, got.url) == (b"pds.atcr.io", "https://pds.atcr.io/e")
    assert internet.asked == ["hold01.atcr.io", "hold01.atcr.io", "pds.atcr.io"]


# What has no host of its own, or ends at a line break, stays at the host that it came from.
ELSEWHERE = [url for url in REFUSED_URLS if "://" in url and ":///" not in url and "\r" not in url]


@pytest.mark.parametrize("location", ELSEWHERE)
def test_a_redirect_to_what_cannot_be_public_is_refused(location: str, serve_tls: Serve, guarded: Guarded) -> None:
    server = serve_tls(lambda request: http(307, location=location.encode().decode("latin-1")))
    internet = Internet(server)
    with pytest.raises(AddressRefused):
        guarded(internet).get("https://hold01.atcr.io/", max_bytes=100)
    assert (internet.asked, len(server.requests)) == (["hold01.atcr.io"], 1)


def test_a_redirect_to_a_name_with_a_private_address_is_refused(serve_tls: Serve, guarded: Guarded) -> None:
    server = serve_tls(lambda request: http(302, location="https://pds.atcr.io/"))
    internet = Internet(server)
    internet.names["pds.atcr.io"] = [["169.254.169.254"]]
    with pytest.raises(AddressRefused):
        guarded(internet).get("https://hold01.atcr.io/", max_bytes=100)
    assert (internet.dialed, len(server.requests)) == ([(PUBLIC, 443)], 1)


def test_a_redirect_back_to_a_name_that_has_changed_is_checked_anew(serve_tls: Serve, guarded: Guarded) -> None:
    server = serve_tls(lambda request: http(302, location="https://hold01.atcr.io/again", connection="close"))
    internet = Internet(server)
    internet.names["hold01.atcr.io"] = [[PUBLIC], ["127.0.0.1"]]
    with pytest.raises(AddressRefused):
        guarded(internet).get("https://hold01.atcr.io/", max_bytes=100)
    assert internet.dialed == [(PUBLIC, 443)]


def test_a_downgrade_is_refused_in_development_mode_too(serve: Serve, serve_tls: Serve, ca: trustme.CA) -> None:
    canary = serve(lambda request: http())
    server = serve_tls(lambda request: http(301, location=canary.url))
    internet = Internet(server)
    context = ssl.create_default_context()
    ca.configure_trust(context)
    with (
        Door(allow_private=True, ssl_context=context, resolve=internet.resolve, route=internet.route) as door,
        pytest.raises(AddressRefused, match="from https to http"),
    ):
        door.get("https://hold01.atcr.io/", max_bytes=100)
    assert canary.connections == 0


def test_three_redirects_are_followed_and_not_four(serve: Serve, door: Door) -> None:
    server = serve(
        lambda request: http(302, location=f"/{int(request.target[1:]) - 1}") if request.target != "/0" else http()
    )
    assert door.get(f"{server.url}/3", max_bytes=100).status == 200
    with pytest.raises(BadResponse, match="more than 3 redirects"):
        door.get(f"{server.url}/4", max_bytes=100)


def test_a_redirect_without_a_target_is_an_answer(serve: Serve, door: Door) -> None:
    server = serve(lambda request: http(302, b"nowhere"))
    assert door.get(server.url, max_bytes=100).status == 302


# What an answer may cost


def test_an_answer_over_its_bytes_is_not_read_on(serve: Serve, door: Door) -> None:
    def endless() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while True:
            yield b"x" * 100_000

    server = serve(lambda request: endless())
    with pytest.raises(BudgetExceeded, match="larger than 50000 bytes"):
        door.get(server.url, max_bytes=50_000)
    assert server.hung_up.wait(5)


def test_a_gzip_bomb_is_not_decoded_on(serve: Serve, door: Door) -> None:
    bomb = http(200, gzip.compress(bytes(20 * 1024 * 1024)), content_encoding="gzip")
    server = serve(lambda request: bomb)
    with pytest.raises(BudgetExceeded):
        door.get(server.url, max_bytes=50_000)


def test_an_error_is_cut_where_an_answer_would_be_refused(serve: Serve, door: Door) -> None:
    server = serve(lambda request: http(404, b"x" * 1_000_000))
    assert door.get(server.url, max_bytes=100).body == b"x" * MAX_ERROR


def test_leaving_a_stream_hangs_up(serve: Serve, door: Door) -> None:
    def endless() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while True:
            yield b"x" * 100_000

    server = serve(lambda request: endless())
    with door.stream(server.url, max_bytes=10**9) as answer:
        assert next(answer.chunks)
    assert server.hung_up.wait(5)


def test_a_server_that_says_nothing_is_unreachable(serve: Serve, opened: ExitStack) -> None:
    server = serve(lambda request: None)
    door = opened.enter_context(Door(allow_private=True, timeouts=SHORT))
    with pytest.raises(Unreachable, match="not answer in time"):
        door.get(server.url, max_bytes=100)


def test_a_tls_handshake_that_says_nothing_is_unreachable(serve: Serve, opened: ExitStack) -> None:
    server = serve(lambda request: None)
    door = opened.enter_context(Door(allow_private=True, timeouts=SHORT))
    with pytest.raises(Unreachable):
        door.get(server.url.replace("http:", "https:"), max_bytes=100)


def dribble(*, headers: bool) -> Iterator[bytes]:
    """A byte every few milliseconds, so that no pause is long."""
    pause = threading.Event()
    yield b"HTTP/1.1 200 OK\r\nx: " if headers else b"HTTP/1.1 200 OK\r\n\r\n"
    while not pause.wait(0.01):
        yield b"x"


@pytest.mark.parametrize("headers", [True, False])
def test_an_answer_that_dribbles_ends_at_the_total_time(headers: bool, serve: Serve, opened: ExitStack) -> None:
    server = serve(lambda request: dribble(headers=headers))
    limits = Timeouts(connect=1, idle=1, total=0.3, min_rate=0)
    door = opened.enter_context(Door(allow_private=True, timeouts=limits))
    with pytest.raises(BudgetExceeded, match="too long"):
        door.get(server.url, max_bytes=100_000)
    assert server.hung_up.wait(5)


@pytest.mark.parametrize("headers", [True, False])
def test_an_answer_that_dribbles_ends_for_its_rate(headers: bool, serve: Serve, opened: ExitStack) -> None:
    server = serve(lambda request: dribble(headers=headers))
    limits = Timeouts(connect=1, idle=0.2, total=60, min_rate=10_000)
    door = opened.enter_context(Door(allow_private=True, timeouts=limits))
    with pytest.raises(BudgetExceeded, match="slower than 10000 bytes a second"):
        door.get(server.url, max_bytes=100_000)


def test_time_that_the_reader_takes_is_not_the_senders_fault(serve: Serve, door: Door) -> None:
    server = serve(lambda request: http(200, b"x" * 5_000_000))
    busy = threading.Event()
    with door.stream(server.url, max_bytes=10**7, timeouts=Timeouts(idle=0.2, min_rate=1e7)) as answer:
        size = len(next(answer.chunks))
        busy.wait(0.5)
        size += sum(map(len, answer.chunks))
    assert size == 5_000_000


@pytest.mark.parametrize("after", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n1234"], ids=["at once", "amid"])
def test_who_watches_may_end_a_request_while_nothing_comes(
    serve: Serve, door: Door, monkeypatch: pytest.MonkeyPatch, after: bytes
) -> None:
    monkeypatch.setattr(transport, "_WATCH", 0.02)
    looks = count()

    def watch() -> None:
        if next(looks) == 5:
            raise InterruptedError("enough")

    def silence() -> Iterator[bytes]:
        yield after
        ended.wait(30)

    ended = threading.Event()
    server = serve(lambda _: silence())
    with pytest.raises(InterruptedError):
        door.get(server.url, max_bytes=100, timeouts=Timeouts(watch=watch))
    ended.set()
    assert not door._transport._pool.connections, "the connection is closed"


def test_an_answer_that_is_watched_comes_whole_however_long_it_took(
    serve_tls: Serve, guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through TLS too, whose reads are cut short again and again."""
    monkeypatch.setattr(transport, "_WATCH", 0.02)
    looks = threading.Semaphore(0)

    def slowly() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        for _ in range(5):
            for _ in range(4):
                assert looks.acquire(timeout=30)
            yield b"x" * 50_000

    answer = guarded(Internet(serve_tls(lambda _: slowly()))).get(
        "https://hold01.atcr.io/", max_bytes=10**6, timeouts=Timeouts(watch=looks.release)
    )
    assert answer.body == b"x" * 250_000


def test_watching_does_not_make_a_request_longer(serve: Serve, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_WATCH", 0.02)
    server = serve(lambda _: None)
    with pytest.raises(Unreachable, match="in time"):
        door.get(server.url, max_bytes=100, timeouts=Timeouts(idle=0.1, watch=lambda: None))


def test_a_stall_in_the_middle_is_over_the_budget(serve: Serve, opened: ExitStack) -> None:
    stalled = threading.Event()

    def answer() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"
        stalled.wait(10)

    server = serve(lambda request: answer())
    opened.callback(stalled.set)
    door = opened.enter_context(Door(allow_private=True, timeouts=SHORT))
    with pytest.raises(BudgetExceeded, match="too long"):
        door.get(server.url, max_bytes=100)


def test_a_resolver_that_hangs_costs_no_more_than_the_time_to_connect(opened: ExitStack) -> None:
    hung = threading.Event()
    opened.callback(hung.set)

    def resolve(host: str, port: int) -> Sequence[str]:
        hung.wait(10)
        return []

    door = opened.enter_context(Door(resolve=resolve, timeouts=SHORT))
    with pytest.raises(Unreachable, match="not resolved in time"):
        door.get("https://hold01.atcr.io/", max_bytes=100)


@pytest.mark.parametrize(
    "failure", [socket.gaierror(-2, "no such name"), TimeoutError(), UnicodeError("label too long"), OSError()]
)
def test_a_name_that_does_not_resolve_is_unreachable(failure: Exception, opened: ExitStack) -> None:
    def resolve(host: str, port: int) -> Sequence[str]:
        raise failure

    door = opened.enter_context(Door(resolve=resolve))
    with pytest.raises(Unreachable, match="resolve"):
        door.get("https://hold01.atcr.io/", max_bytes=100)


def test_a_name_without_addresses_is_unreachable(opened: ExitStack) -> None:
    door = opened.enter_context(Door(resolve=lambda host, port: []))
    with pytest.raises(Unreachable, match="no address"):
        door.get("https://hold01.atcr.io/", max_bytes=100)


def test_a_closed_port_is_unreachable(serve: Serve, door: Door) -> None:
    with ScriptedServer(lambda request: None) as server:
        pass
    with pytest.raises(Unreachable, match="can't be reached"):
        door.get(server.url, max_bytes=100)


@pytest.mark.parametrize(
    "cut",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nabc",
        http(200, gzip.compress(b"abc", mtime=0)[:-2], content_encoding="gzip"),
    ],
)
def test_an_answer_that_is_cut_off_is_no_answer(cut: bytes, serve: Serve, door: Door) -> None:
    server = serve(lambda request: [cut])
    with pytest.raises(Unreachable):
        door.get(server.url, max_bytes=100)


@pytest.mark.parametrize(
    "noise",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: %s\r\n" % (n, b"y" * 100) for n in range(2000)) + b"\r\n",
        http(200, b"abc", content_encoding="br"),
    ],
)
def test_what_is_no_http_is_a_bad_response(noise: bytes, serve: Serve, door: Door) -> None:
    server = serve(lambda request: [noise])
    with pytest.raises(BadResponse):
        door.get(server.url, max_bytes=1000)


# When to ask again


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "120"}, 120),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "999999999"}, MAX_RETRY_AFTER),
        ({"retry-after": "Tue, 14 Nov 2023 22:14:20 GMT"}, 60),
        ({"retry-after": "Tue, 14 Nov 2023 22:14:20 -0000"}, 60),
        ({"retry-after": "Tue, 14 Nov 2023 23:14:20 +0100"}, 60),
        ({"retry-after": "Tue, 14 Nov 2000 22:14:20 GMT"}, 0),
        ({"retry-after": "Tue, 14 Nov 9999 22:14:20 GMT"}, MAX_RETRY_AFTER),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "9" * 5000}, None),
        ({"retry-after": "Tue, 14 Nov 99999 22:14:20 GMT"}, None),
        ({"ratelimit-reset": "30"}, 30),
        ({"ratelimit-reset": "1700000090"}, 90),
        ({"ratelimit-reset": "1600000000"}, 0),
        ({"ratelimit-reset": "nan"}, None),
        ({"retry-after": "soon", "ratelimit-reset": "30"}, 30),
        ({"retry-after": "10", "ratelimit-reset": "30"}, 10),
    ],
)
def test_how_long_to_wait_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert seconds_to_wait(headers, now=1_700_000_000) == seconds


@pytest.mark.parametrize(("status", "seconds"), [(429, 30), (503, 30), (200, None), (500, None)])
def test_only_a_refusal_for_load_asks_to_wait(status: int, seconds: float | None, serve: Serve, door: Door) -> None:
    server = serve(lambda request: http(status, retry_after="30"))
    assert door.get(server.url, max_bytes=100).retry_after == seconds
