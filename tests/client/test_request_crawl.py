"""``request-crawl``, in Python and as a shell script with curl and with wget: the same promises."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from discovery_client import Limits, SourceFailed, Unreachable
from discovery_client.request_crawl import Outcome, Registrar, main
from discovery_client.web import Retry
from simulator.discovery import refusal
from simulator.scripted import Request, http
from tests.client.conftest import Play
from tests.conftest import ROOT, absent

SCRIPT = ROOT / "scripts" / "request-crawl.sh"
HOST = "hold01.example.com"


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture(params=["python", "curl", "wget"])
def run(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs one of the three, without pauses, unless the test says how."""
    kind = request.param

    def python(*names: str, need: str = "one", attempts: int = 3, longest: int = 300, seconds: int = 20) -> Ran:
        options = ["--need", need, "--attempts", attempts, "--pause", 0, "--longest", longest, "--seconds", seconds]
        status = main([*map(str, options), *names])
        return Ran(status, *capsys.readouterr())

    def shell(*names: str, need: str = "one", attempts: int = 3, longest: int = 300, seconds: int = 20) -> Ran:
        if not shutil.which(kind):
            absent(f"{kind} is not here")
        options = {"NEED": need, "ATTEMPTS": attempts, "PAUSE": 0, "LONGEST": longest, "TIMEOUT": seconds, "WITH": kind}
        environment = {"PATH": os.environ["PATH"]} | {
            f"REQUEST_CRAWL_{name}": str(value) for name, value in options.items()
        }
        ran = subprocess.run(["sh", SCRIPT, *names], env=environment, capture_output=True, text=True, timeout=60)
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    return python if kind == "python" else shell


# -- the same in all three


def test_a_relay_is_asked_and_it_says_so(run: Run, play: Play) -> None:
    relay = play()
    ran = run(f"https://{HOST}/", relay.url)
    assert ran.status == 0, ran.err
    assert ran.out.splitlines()[0].endswith(f"{relay.url}: accepted") or f"{HOST} at {relay.url}: accepted" in ran.out
    (request,) = relay.server.requests
    assert (request.method, request.target) == ("POST", "/xrpc/com.atproto.sync.requestCrawl")
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.body) == {"hostname": HOST}


def test_one_may_be_down_another_slow_and_a_third_lie(run: Run, play: Play, nobody: str) -> None:
    slow, liar, good = play(), play(), play()
    slow.service.reply = None
    liar.server._answer = lambda request: itertools.chain([b"HTTP/1.1 200 OK\r\n\r\n"], itertools.repeat(b"x" * 65_536))
    ran = run(HOST, nobody, slow.url, liar.url, good.url, attempts=1, seconds=2)
    assert ran.status == 0, ran.err
    assert good.service.crawls == [HOST]
    lines = ran.out.splitlines()
    assert {line.partition(": ")[0].rpartition(" ")[2]: ": accepted" in line for line in lines} == {
        nobody: False,
        slow.url: False,
        liar.url: False,
        good.url: True,
    }


def test_one_is_enough_unless_all_are_needed(run: Run, play: Play) -> None:
    good, bad = play(), play()
    bad.service.reply = refusal(400, "HostBanned", "not here")
    assert run(HOST, bad.url, good.url).status == 0
    ran = run(HOST, bad.url, good.url, need="all")
    assert ran.status == 1
    assert "failed: 400 HostBanned not here" in ran.out
    assert run(HOST, bad.url).status == 1


def test_who_refuses_for_good_is_not_asked_again(run: Run, play: Play) -> None:
    relay = play()
    relay.service.reply = refusal(400, "InvalidRequest", "no")
    assert run(HOST, relay.url).status == 1
    assert relay.asked() == 1


@pytest.mark.parametrize(
    "first",
    [
        http(503),
        refusal(429, "RateLimitExceeded", "slowly", retry_after="0"),
        refusal(429, "RateLimitExceeded", "slowly", retry_after="1"),
        refusal(400, "HostNotFound", "its proxy is not up yet"),
        b"",
    ],
)
def test_who_may_agree_later_is_asked_again(run: Run, play: Play, first: bytes) -> None:
    relay, answers = play(), [first, http(500), http(200)]
    relay.server._answer = lambda request: [answers.pop(0)]
    ran = run(HOST, relay.url)
    assert ran.status == 0, ran.out + ran.err
    assert answers == []


def test_attempts_have_an_end(run: Run, play: Play, nobody: str) -> None:
    relay = play()
    relay.service.reply = http(503)
    assert run(HOST, relay.url, nobody, attempts=2).status == 1
    assert relay.asked() == 2


def test_who_asks_for_a_longer_pause_than_is_allowed_is_given_up(run: Run, play: Play) -> None:
    relay = play()
    relay.service.reply = refusal(429, "RateLimitExceeded", "slowly", retry_after="3600")
    assert run(HOST, relay.url, longest=60).status == 1
    assert relay.asked() == 1


def test_what_a_relay_says_is_one_line_and_harmless(run: Run, play: Play) -> None:
    relay = play()
    relay.service.reply = refusal(400, "No", "a\x1b[31m\nb\u202e" + "x" * 5000)
    ran = run(HOST, relay.url)
    assert ran.status == 1
    assert "\x1b" not in ran.out
    assert "\u202e" not in ran.out
    assert len(ran.out) < 400
    assert len(ran.out.splitlines()) == 1


@pytest.mark.parametrize("host", ["", "a b", 'x","y":"', "$(id)", "a\nb"])
def test_what_is_no_host_is_not_asked_for(run: Run, play: Play, host: str) -> None:
    relay = play()
    ran = run(host, relay.url)
    assert ran.status == 2
    assert ran.err.startswith("request-crawl: ")
    assert relay.asked() == 0


def test_the_service_of_this_project_answers_as_a_relay_does(run: Run, real: str) -> None:
    ran = run("hold.example", real, attempts=1)
    assert ran.status == 1
    assert "failed: 400 InvalidRequest" in ran.out or "failed: 400 HostNotFound" in ran.out


# -- Python alone


def outcomes(hosts: list[str], *relays: str, **options: Any) -> list[Outcome]:
    async def asked() -> list[Outcome]:
        async with Registrar(relays, **options) as registrar:
            return await registrar.request_crawl(hosts, lambda outcome: None)

    return asyncio.run(asked())


def test_pauses_grow_and_are_as_long_as_is_asked_for(play: Play) -> None:
    relay, pauses = play(), []
    replies = [http(503)] * 3 + [refusal(429, "RateLimitExceeded", "", retry_after="7"), http(503), http(200)]
    relay.server._answer = lambda request: replies.pop(0)

    async def wait(seconds: float) -> None:
        pauses.append(seconds)

    (outcome,) = outcomes([HOST], relay.url, retry=Retry(attempts=6, pause=1, longest=10), wait=wait)
    assert (outcome.accepted, outcome.attempts) == (True, 6)
    assert pauses[3] == 7
    for pause, planned in zip(pauses[:3], (1, 2, 4), strict=True):
        assert planned * 0.75 <= pause <= planned * 1.25
    assert pauses[4] <= 12.5, "not longer than the longest"


def test_a_date_in_retry_after_is_understood(play: Play) -> None:
    relay, pauses = play(), []
    replies = [http(503, retry_after="Thu, 01 Jan 1970 00:00:00 GMT"), http(503, retry_after="soon"), http(200)]
    relay.server._answer = lambda request: replies.pop(0)

    async def wait(seconds: float) -> None:
        pauses.append(seconds)

    assert outcomes([HOST], relay.url, retry=Retry(attempts=3, pause=1), wait=wait)[0].accepted
    assert pauses[0] == 0
    assert pauses[1] > 1


HOSTS = [
    {"hostname": "hold01.example.com", "status": "active", "accountCount": 1},
    {"hostname": "hold02.example.com", "status": "banned"},
    {"hostname": "hold03.example.com", "status": "offline"},
    {"hostname": "hold04.example.com"},
    {"hostname": "hold05.example.com", "status": "idle", "seq": 7},
]


def test_all_hosts_of_a_service_are_registered_with_another(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    service, relay = play(), play()
    service.service.hosts = [*HOSTS, {"hostname": "no host!"}, {}]
    assert main(["--all", "--service", service.url, relay.url]) == 0
    assert sorted(relay.service.crawls) == [f"hold0{number}.example.com" for number in (1, 4, 5)]
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert err == "3 hosts, 3 of 3 requests accepted\n"


def test_a_relay_that_does_not_answer_is_not_asked_about_every_host(play: Play, nobody: str) -> None:
    busy, good = play(), play()
    busy.service.reply = http(503)
    found = outcomes([f"hold{n}.example.com" for n in range(40)], nobody, busy.url, good.url, retry=Retry(attempts=1))
    asked = {relay: sum(one.attempts for one in found if one.relay == relay) for relay in (nobody, busy.url, good.url)}
    assert asked[good.url] == 40
    assert 3 <= asked[nobody] <= 3 + 4
    assert 3 <= asked[busy.url] <= 3 + 4
    assert [one.accepted for one in found if one.relay != good.url] == [False] * 80


def test_among_all_hosts_one_that_is_down_is_asked_for_once(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    service, relay = play(), play()
    service.service.hosts = HOSTS[:1]
    relay.service.reply = refusal(400, "HostNotFound", "it does not answer")
    assert main(["--all", "--service", service.url, relay.url]) == 1
    assert "failed: 400 HostNotFound" in capsys.readouterr().out
    assert relay.asked() == 1


def test_a_host_that_no_relay_takes_fails_the_whole(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    service, relay = play(), play()
    service.service.hosts = HOSTS
    answer = relay.server._answer

    def picky(request: Request) -> Any:
        return refusal(400, "HostBanned", "") if b"hold04" in request.body else answer(request)

    relay.server._answer = picky
    assert main(["--all", "--service", service.url, relay.url, "--json"]) == 1
    found = {outcome["host"]: outcome["accepted"] for outcome in json.loads(capsys.readouterr().out)}
    assert found == {"hold01.example.com": True, "hold04.example.com": False, "hold05.example.com": True}


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (http(200, b'{"hosts": [], "cursor": "1"}'), "in a circle"),
        (http(200, b'{"repos": []}'), "something else than a page of hosts"),
        (http(501), "501"),
    ],
)
def test_a_list_of_hosts_that_makes_no_sense_registers_nobody(
    play: Play, reply: bytes, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    service, relay = play(), play()
    service.service.reply = reply
    assert main(["--all", "--service", service.url, relay.url, "--attempts", "1"]) == 2
    assert why in capsys.readouterr().err
    assert relay.asked() == 0


def test_a_list_of_hosts_that_never_ends_is_left(play: Play) -> None:
    service = play()
    service.service.reply = None

    async def listed() -> None:
        async with Registrar(["relay.example.com"]) as registrar:
            await registrar.hosts_of(service.url, limits=Limits(seconds=0.2))

    with pytest.raises(Unreachable, match="no whole list of hosts within"):
        asyncio.run(listed())
    assert issubclass(Unreachable, SourceFailed)


@pytest.mark.parametrize(
    "arguments", [["--all", "relay.example.com"], ["--service", "a.example.com", HOST], [], [HOST, "a b"]]
)
def test_a_wrong_request_is_said_to_be_wrong(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("request-crawl: ")


def test_who_is_asked_if_nobody_is_named_is_in_the_environment(
    play: Play, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    relays = [play(), play()]
    for arguments in ([sys.executable, "-m", "discovery_client.request_crawl", HOST], ["sh", str(SCRIPT), HOST]):
        environment = {"PATH": os.environ["PATH"], "REQUEST_CRAWL_RELAYS": " ".join(relay.url for relay in relays)}
        assert subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, timeout=60).returncode == 0
    assert [relay.service.crawls for relay in relays] == [[HOST, HOST]] * 2


# -- the shell script and what starts it


def test_the_script_needs_curl_or_wget(tmp_path: Path) -> None:
    for name in ("sh", "mktemp", "rm"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    ran = subprocess.run(["sh", SCRIPT, HOST], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert ran.returncode == 2
    assert "neither curl nor wget" in ran.stderr


def test_the_script_leaves_nothing_behind(play: Play, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)}
    subprocess.run(["sh", SCRIPT, HOST, play().url], env=environment, check=True, capture_output=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    text = (SCRIPT.parent / "request-crawl@.service").read_text()
    unit = tmp_path / "request-crawl@hold01.example.com.service"
    unit.write_text(text.replace("/usr/local/bin/request-crawl.sh", str(SCRIPT)))
    ran = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert unit.name not in ran.stderr, ran.stderr


def test_the_compose_file_starts_the_script() -> None:
    (service,) = yaml.safe_load((SCRIPT.parent / "request-crawl.compose.yaml").read_text())["services"].values()
    assert service["volumes"] == ["./request-crawl.sh:/request-crawl.sh:ro"]
    assert service["entrypoint"] == ["/bin/sh", "/request-crawl.sh"]
    assert set(service["environment"]) <= {
        word for word in SCRIPT.read_text().split() if word.startswith("REQUEST_CRAWL_")
    }
