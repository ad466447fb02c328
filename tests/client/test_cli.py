"""``discover``: what it prints, and what it exits with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from discovery_client.__main__ import main
from tests.client.conftest import Play

A, B, C = (f"did:web:{name}.example.com" for name in "abc")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cache, if nobody says another."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "atcr-discovery"


def test_it_prints_one_did_a_line_and_tells_of_the_sources_aside(
    play: Play, nobody: str, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    service = play(B, A)
    assert (
        main(["io.atcr.hold.captain", "--service", service.url, "--service", nobody, "--registered", "c.example.com"])
        == 0
    )
    out, err = capsys.readouterr()
    assert out.splitlines() == [B, A, C]
    assert f"{service.url}: fresh, 2 repos\n{nobody}: failed, 0 repos: it cannot be reached" in err
    assert len(list(cache.iterdir())) == 1


def test_it_tells_everything_as_json(
    play: Play, tmp_path: Path, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    listed = tmp_path / "holds.json"
    listed.write_text(json.dumps({"version": 1, "holds": [{"did": A, "record": {"public": True}}]}))
    service = play(B)
    assert main(["--service", service.url, "--file", str(listed), "--json", "--no-cache"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["collection"] == "io.atcr.hold.captain"
    assert found["repos"] == [
        {"did": B, "sources": [service.url]},
        {"did": A, "sources": [str(listed)], "record": {"public": True}},
    ]
    assert [(source["source"], source["state"]) for source in found["sources"]] == [
        (service.url, "fresh"), (str(listed), "fresh"),
    ]  # fmt: skip
    assert not cache.exists()


def test_in_order_one_is_enough(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    second = play(B)
    assert main(["--first", "--service", play(A).url, "--service", second.url]) == 0
    assert capsys.readouterr().out.split() == [A]
    assert second.asked() == 0


def test_it_fails_where_nobody_answers(nobody: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--service", nobody]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert nobody in err


@pytest.mark.parametrize("arguments", [[], ["--service", "no host"], ["--registered", "?"], ["--compare", "x", "x"]])
def test_a_wrong_question_is_said_to_be_wrong(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("discover: ")


def test_two_services_are_compared(play: Play, nobody: str, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = play(A, B), play(B, C)
    assert main(["--compare", first.url, second.url]) == 1
    assert capsys.readouterr().out.splitlines() == [f"only {first.url}: {A}", f"only {second.url}: {C}"]
    assert main(["--compare", first.url, second.url, "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"onlyFirst": [A], "onlySecond": [C], "both": 1}
    assert main(["--compare", first.url, second.url, "--collection", "io.atcr.hold.crew"]) == 0
    assert main(["--compare", first.url, nobody]) == 2
