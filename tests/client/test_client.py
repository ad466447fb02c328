"""The client against scripted services, and against this project's own."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import discovery_client.sources
from chalicelib.index.tables import Tables
from discovery_client import AsyncClient, Client, Discovered, Limits, Mode, NoAnswer, Retry, SourceFailed, State
from simulator.discovery import refusal
from simulator.scripted import http
from tests.client.conftest import Play, Played
from tests.conftest import ROOT, Stack

HOLDS, CREW = "io.atcr.hold.captain", "io.atcr.hold.crew"
A, B, C, D = (f"did:web:{name}.example.com" for name in "abcd")
ONCE = Retry(attempts=1)


def discover(*services: Played | str, **options: Any) -> Discovered:
    options = {"retry": ONCE} | options
    with Client([service if isinstance(service, str) else service.url for service in services], **options) as client:
        return client.discover()


def states(found: Discovered) -> list[State]:
    return [report.state for report in found.reports]


# -- putting together


def test_the_union_has_each_did_once_with_all_who_know_it(play: Play) -> None:
    first, second = play(C, A, B), play(A, D)
    found = discover(first, second)
    assert found.dids == (C, A, B, D)
    assert {repo.did: repo.sources for repo in found.repos} == {
        C: (first.url,),
        A: (first.url, second.url),
        B: (first.url,),
        D: (second.url,),
    }
    assert states(found) == [State.FRESH, State.FRESH]
    assert found.complete


def test_one_did_in_two_spellings_is_one(play: Play) -> None:
    found = discover(play("did:web:localhost:8080", A), play("did:web:localhost%3a8080"))
    assert found.dids == ("did:web:localhost%3A8080", A)


def test_in_order_the_first_that_answers_counts_and_the_others_are_not_asked(play: Play, nobody: str) -> None:
    second, third = play(B), play(C)
    found = discover(nobody, second, third, mode=Mode.FIRST)
    assert found.dids == (B,)
    assert found.complete
    assert states(found) == [State.FAILED, State.FRESH]
    assert third.asked() == 0


def test_in_order_a_whole_answer_counts_more_than_a_cached_or_broken_one(play: Play, tmp_path: Path) -> None:
    first, second = play(A), play(B)
    discover(first, mode=Mode.FIRST, cache=tmp_path)
    first.service.reply = http(500)
    assert discover(first, second, mode=Mode.FIRST, cache=tmp_path).dids == (B,)
    second.service.reply = http(500)
    found = discover(first, second, mode=Mode.FIRST, cache=tmp_path)
    assert found.dids == (A,)
    assert not found.complete


def test_files_and_registrations_are_sources_like_the_others(play: Play, tmp_path: Path) -> None:
    lines = tmp_path / "holds.txt"
    lines.write_text(f"# ours\n{B}\n\nhold.example.org  # new\n")
    found = discover(play(A), files=[lines], registered=["https://Registered.example.com/", A, "http://localhost:8080"])
    assert found.dids == (
        A, B, "did:web:hold.example.org", "did:web:registered.example.com", "did:web:localhost%3A8080",
    )  # fmt: skip
    assert found.repos[0].sources[1] == "registered"
    assert [repo.host for repo in found.repos][2:4] == ["hold.example.org", "registered.example.com"]


@pytest.mark.parametrize("services", [["no host"], ["ftp://x.example.com"], ["https://x.example.com?a=b"]])
def test_what_is_no_service_is_refused_at_once(services: list[str]) -> None:
    with pytest.raises(ValueError, match="not the address of a service"):
        Client(services)


def test_with_nobody_to_ask_nothing_is_asked() -> None:
    with pytest.raises(ValueError, match="name a service"):
        Client()
    with pytest.raises(ValueError, match="neither a DID nor a host"):
        Client(registered=["a b"])


# -- lists of holds


def holds(*entries: dict[str, Any], version: int = 1) -> bytes:
    content = {"version": version, "generatedAt": "2026-11-23T02:00:00.000Z", "holds": list(entries), "later": "more"}
    jsonschema.validate(
        content, json.loads((ROOT / "docs" / "holds.schema.json").read_text())
    ) if version == 1 else None
    return json.dumps(content).encode()


CAPTAIN = {"did": A, "host": "a.example.com", "record": {"public": True}, "indexedAt": "2026-11-23T01:00:00.000Z"}


def test_a_list_of_holds_brings_their_records_and_hosts(play: Play) -> None:
    service = play(B, A)
    service.service.files["/.well-known/holds.json"] = holds(CAPTAIN, {"did": C})
    found = discover(service, files=[f"{service.url}/.well-known/holds.json"])
    assert found.dids == (B, A, C)
    assert found.repos[1].host == "a.example.com"
    assert found.repos[1].record == {"public": True}


def test_a_record_that_is_nested_too_deep_is_left_out(tmp_path: Path) -> None:
    path, record = tmp_path / "holds.json", '{"a":' * 300 + "1" + "}" * 300
    path.write_text(
        f'{{"version": 1, "holds": [{{"did": "{A}", "record": {record}}}, {{"did": "{B}", "record": {{"b": [1]}}}}]}}'
    )
    found = discover(files=[path], cache=tmp_path / "cache")
    assert [(repo.did, repo.record) for repo in found.repos] == [(A, None), (B, {"b": [1]})]
    assert states(found) == [State.FRESH]


def test_a_list_that_has_not_changed_is_not_sent_again(play: Play, tmp_path: Path) -> None:
    served = play()
    served.service.files["/holds.json"] = holds(CAPTAIN)
    for _ in range(2):
        found = discover(files=[f"{served.url}/holds.json"], cache=tmp_path)
        assert found.repos[0].record == {"public": True}
        assert states(found) == [State.FRESH]
    assert [("if-none-match" in request.headers) for request in served.server.requests] == [False, True]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{", "something else than JSON"),
        (b"{}", "neither a list"),
        (b'{"version": NaN, "holds": []}', "something else than JSON"),
        (holds(version=2), "version 2"),
        (b"<html>no</html>", "neither a DID nor a host"),
        (b"\xff", "decode"),
    ],
)
def test_what_is_no_list_is_said_to_be_none(content: bytes, why: str, tmp_path: Path, play: Play) -> None:
    path = tmp_path / "list"
    path.write_bytes(content)
    found = discover(play(A), files=[path])
    assert found.dids == (A,)
    assert why in (found.reports[1].error or "")


def test_a_file_that_is_not_there_is_a_source_that_failed(play: Play, tmp_path: Path) -> None:
    found = discover(play(A), files=[tmp_path / "absent"])
    assert states(found) == [State.FRESH, State.FAILED]
    assert "No such file" in (found.reports[1].error or "")


def test_a_list_of_holds_says_nothing_of_other_collections(tmp_path: Path) -> None:
    path = tmp_path / "holds.json"
    path.write_bytes(holds(CAPTAIN))
    with Client(files=[path]) as client, pytest.raises(NoAnswer, match="nothing about"):
        client.discover(CREW)


# -- who is down


def test_all_but_one_may_be_down_and_it_says_why(play: Play, nobody: str) -> None:
    broken, lost = play(), play()
    broken.service.reply = refusal(503, "Unhealthy", "the tables\n\x1b[31mcannot be read")
    lost.service.reply = [b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"]
    found = discover(nobody, broken, lost, play(A))
    assert found.dids == (A,)
    assert not found.complete
    assert states(found) == [State.FAILED] * 3 + [State.FRESH]
    whys = [report.error or "" for report in found.reports]
    assert "ConnectError" in whys[0]
    assert whys[1] == "503 Unhealthy the tables��[31mcannot be read"
    assert "cannot be reached" in whys[2]


def test_if_nobody_answers_it_is_no_empty_list(nobody: str) -> None:
    with pytest.raises(NoAnswer, match=nobody) as raised:
        discover(nobody)
    assert states_of(raised.value) == [State.FAILED]


def states_of(nobody: NoAnswer) -> list[State]:
    return [report.state for report in nobody.reports]


def test_those_who_are_registered_are_there_without_anybody(nobody: str) -> None:
    assert discover(nobody, registered=[A]).dids == (A,)


def test_with_the_cache_all_may_be_down(play: Play, tmp_path: Path) -> None:
    first, second = play(A, B, C), play(D)
    before = discover(first, second, cache=tmp_path, clock=lambda: 1000.0)
    for service in (first, second):
        service.service.reply = http(502)
    found = discover(first, second, cache=tmp_path, clock=lambda: 9e9)
    assert found.repos == before.repos
    assert states(found) == [State.CACHED, State.CACHED]
    assert [report.asked_at for report in found.reports] == [1000.0, 1000.0]
    assert not found.complete


@pytest.mark.parametrize("reply", [None, [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", b"{"], "dribble"])
def test_who_is_slow_is_not_waited_for_longer_than_is_said(play: Play, reply: Any) -> None:
    slow = play()
    slow.service.reply = dribble(slow) if reply == "dribble" else reply
    found = discover(slow, play(A), limits=Limits(seconds=0.3))
    assert found.dids == (A,)
    assert states(found) == [State.FAILED, State.FRESH]


def dribble(played: Played) -> Iterator[bytes]:
    """One byte of a header after the other, each soon enough, until the client leaves."""
    yield b"HTTP/1.1 200 OK\r\nx: "
    while True:
        played.server.hung_up.wait(0.02)
        yield b"x"


def test_who_asks_for_patience_is_asked_again(play: Play) -> None:
    answers = [refusal(429, "RateLimitExceeded", "slowly", retry_after="0"), http(503), http(200, b'{"repos":[]}')]
    busy = play()
    busy.server._answer = lambda request: answers.pop(0)
    found = discover(busy, retry=Retry(attempts=3, pause=0))
    assert states(found) == [State.FRESH]
    assert found.reports[0].requests == 3


def test_who_asks_for_more_patience_than_there_is_is_left_alone(play: Play) -> None:
    busy = play()
    busy.service.reply = refusal(429, "RateLimitExceeded", "slowly", retry_after="3600")
    with pytest.raises(NoAnswer, match="429 RateLimitExceeded slowly"):
        discover(busy, retry=Retry(attempts=3, pause=0))
    assert busy.asked() == 1


# -- who lies


def endless(path: str, played: Played) -> bytes:
    return http(200, json.dumps({"repos": [{"did": A}], "cursor": str(len(played.server.requests))}).encode())


def circle(path: str, played: Played) -> bytes:
    cursor = "2" if "cursor=1" in path else "1"
    return http(200, json.dumps({"repos": [{"did": A}], "cursor": cursor}).encode())


@pytest.mark.parametrize(("lie", "why"), [(endless, "more than 20 pages"), (circle, "in a circle")])
def test_pages_without_end_are_left(play: Play, lie: Callable[[str, Played], bytes], why: str) -> None:
    liar = play()
    liar.server._answer = lambda request: lie(request.target, liar)
    found = discover(liar, play(B), limits=Limits(pages=20))
    assert found.dids == (A, B)
    assert states(found) == [State.PARTIAL, State.FRESH]
    assert why in (found.reports[0].error or "")
    assert liar.asked() <= 20


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (http(200, b"<html>"), "something else than JSON"),
        (http(200, b"[]"), "something else than a page of repos"),
        (http(200, b'{"repos": {}}'), "something else than a page of repos"),
        (http(200, b'{"repos": [], "cursor": 7}'), "no plain text"),
        (http(200, b'{"repos": [], "cursor": "\\ud800"}'), "no plain text"),
        (http(200, b"[" * 100_000), "something else than JSON"),
        (http(200, b'{"repos": [' + b" " * 8_000_000 + b"]}"), "more bytes"),
        (http(200, gzip.compress(b" " * 10_000_000), content_encoding="gzip"), "more bytes"),
        (http(200, b" " * 6_000_000 + b'{"repos": []}'), "more bytes"),
        (http(200, b"not gzip", content_encoding="gzip"), "something else than the gzip"),
        (http(200, gzip.compress(b'{"repos":[]}')[:-4], content_encoding="gzip"), "ends too early"),
        (http(200, b"{}", content_encoding="br"), "a coding that it was not asked for"),
        (http(302, location="https://elsewhere.example.com/"), "sends on to https://elsewhere.example.com/"),
        (http(304), "sends on to"),
        (http(404, b"\xff\x00"), "404"),
        (b"nonsense\r\n\r\n", "cannot be reached"),
    ],
    ids=lambda value: value if isinstance(value, str) else "reply",
)
def test_nonsense_is_refused_and_named(play: Play, reply: bytes, why: str) -> None:
    liar = play()
    liar.service.reply = reply
    found = discover(liar, play(A), limits=Limits(bytes=7_000_000))
    assert found.dids == (A,)
    assert states(found) == [State.FAILED, State.FRESH]
    assert why in (found.reports[0].error or "")


def test_what_is_no_did_is_passed_over(play: Play) -> None:
    liar = play()
    items = [{"did": A}, {"did": "x"}, {}, 7, None, {"did": 7}, {"did": "did:web:" + "a" * 3000}, {"did": f"{B}\n"}]
    liar.service.reply = http(200, json.dumps({"repos": items}).encode())
    assert discover(liar).dids == (A,)


def test_an_answer_in_gzip_is_read(play: Play) -> None:
    packed = play()
    packed.service.reply = http(
        200, gzip.compress(json.dumps({"repos": [{"did": A}]}).encode()), content_encoding="gzip"
    )
    assert discover(packed).dids == (A,)


def test_a_broken_answer_adds_to_the_last_whole_one_and_is_not_kept(play: Play, tmp_path: Path) -> None:
    service = play(A, B)
    discover(service, cache=tmp_path)
    service.server._answer = lambda request: circle(request.target, service).replace(A.encode(), C.encode())
    found = discover(service, cache=tmp_path)
    assert found.dids == (A, B, C)
    assert states(found) == [State.PARTIAL]
    service.server._answer = lambda request: http(500)
    assert discover(service, cache=tmp_path).dids == (A, B)


# -- the cache


def test_after_the_first_time_only_what_is_new_is_asked_for(play: Play, tmp_path: Path) -> None:
    service = play(A, B, C)
    discover(service, cache=tmp_path)
    assert service.asked() == 2
    found = discover(service, cache=tmp_path)
    assert (found.dids, found.reports[0].requests) == ((A, B, C), 1)
    (request,) = service.server.requests
    assert "cursor=2" in request.target
    assert "if-none-match" in request.headers
    service.service.listings[HOLDS] += [D]
    assert discover(service, cache=tmp_path).dids == (A, B, C, D)


def test_those_who_left_are_noticed_when_all_is_asked_for_again(play: Play, tmp_path: Path) -> None:
    now = [1000.0]
    service = play(A, B, C)

    def found() -> tuple[str, ...]:
        return discover(service, cache=tmp_path, whole_every=60, clock=lambda: now[0]).dids

    found()
    service.service.listings[HOLDS] = [A, C, D]
    assert found() == (A, B, C, D)
    now[0] += 61
    assert found() == (A, C, D)


def test_everything_is_asked_for_at_once_if_that_is_wanted(play: Play, tmp_path: Path) -> None:
    service = play(A, B, C)
    with Client([service.url], cache=tmp_path) as client:
        client.discover()
        service.service.listings[HOLDS] = [C]
        assert client.discover(whole=True).dids == (C,)


def test_a_service_that_forgot_its_cursor_is_asked_for_everything(play: Play, tmp_path: Path) -> None:
    service = play(A, B, C)
    discover(service, cache=tmp_path)
    answer = service.server._answer
    service.service.listings[HOLDS] = [D]

    def forgetful(request: Any) -> Any:
        return refusal(400, "InvalidRequest", "whose cursor?") if "cursor" in request.target else answer(request)

    service.server._answer = forgetful
    found = discover(service, cache=tmp_path)
    assert found.dids == (D,)
    assert states(found) == [State.FRESH]


def test_a_cursor_forgotten_on_the_way_is_as_one_forgotten_before(play: Play, tmp_path: Path) -> None:
    service = play(A, B, C)
    discover(service, cache=tmp_path)
    service.service.listings[HOLDS] = [D, A, B, C, "did:plc:new"]
    answer, replies = service.server._answer, [None, refusal(400, "InvalidRequest", "whose cursor?")]
    service.server._answer = lambda request: (replies.pop(0) if replies else None) or answer(request)
    found = discover(service, cache=tmp_path)
    assert found.dids == (D, A, B, C, "did:plc:new")
    assert states(found) == [State.FRESH]


def test_each_collection_and_each_service_has_a_cache_of_its_own(play: Play, tmp_path: Path) -> None:
    service = play(A)
    service.service.listings[CREW] = [B]
    with Client([service.url], cache=tmp_path, retry=ONCE) as client:
        assert (client.discover(HOLDS).dids, client.discover(CREW).dids) == ((A,), (B,))
        service.service.reply = http(500)
        assert (client.discover(HOLDS).dids, client.discover(CREW).dids) == ((A,), (B,))


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"format": 1}', b'{"format": 9}', b"\xff\xff"])
def test_a_damaged_cache_is_none(play: Play, tmp_path: Path, damage: bytes) -> None:
    service = play(A, B, C)
    discover(service, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage)
    found = discover(service, cache=tmp_path)
    assert found.dids == (A, B, C)
    assert states(found) == [State.FRESH]
    assert json.loads(file.read_bytes())["source"] == service.url


def test_a_cache_is_replaced_whole_or_not_at_all(play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = play(A)
    discover(service, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    before = file.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    service.service.listings[HOLDS] = [B]
    found = discover(service, cache=tmp_path)
    assert found.dids == (B,)
    assert "could not be cached (No space left" in (found.reports[0].error or "")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


# -- comparing


def test_two_services_are_compared(play: Play) -> None:
    first, second = play(A, B, C), play(B, D)
    with Client([first.url, second.url]) as client:
        found = client.compare()
    assert (found.only_first, found.only_second, found.both, found.same) == ((A, C), (D,), 1, False)


def test_what_was_not_answered_is_not_compared(play: Play, nobody: str) -> None:
    with Client([play(A).url, nobody], retry=ONCE) as client, pytest.raises(SourceFailed, match=nobody):
        client.compare()


# -- sync and async


def test_the_same_from_an_event_loop(play: Play) -> None:
    service = play(A)

    async def main() -> tuple[tuple[str, ...], tuple[str, ...]]:
        async with AsyncClient([service.url]) as client:
            found = await client.discover()
        with Client([service.url]) as blocking:  # also where a loop runs
            return found.dids, blocking.discover().dids

    assert asyncio.run(main()) == ((A,), (A,))


# -- this project's service


def enter(stack: Stack, *dids: str) -> None:
    """List DIDs, after those that are listed."""
    tables = Tables(stack.prefix)
    first = 1 + sum(1 for _ in tables.listings.query(HOLDS))
    for number, did in enumerate(dids, start=first):
        key = f"{number:016d}"
        tables.repos(did, sync="synced", collections={HOLDS: 1}, listed={HOLDS: key}).save()
        tables.listings(HOLDS, f"{key}#{did}").save()


def test_it_works_with_the_service_of_this_project(
    real: str, stack_env: Stack, play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery_client.sources, "PAGE", 2)
    enter(stack_env, C, A, B)
    found = discover(real, play(D), cache=tmp_path)
    assert found.dids == (C, A, B, D)
    assert found.complete
    assert found.reports[0].requests == 2
    enter(stack_env, "did:plc:new")
    found = discover(real, cache=tmp_path)
    assert found.dids == (C, A, B, "did:plc:new")
    assert found.reports[0].requests == 1
    with Client([real], retry=ONCE) as client, pytest.raises(NoAnswer, match="400 CollectionNotIndexed"):
        client.discover("app.bsky.feed.post")
