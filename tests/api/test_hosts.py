"""com.atproto.sync.listHosts and getHostStatus."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.index.tables import Tables
from tests.api.conftest import Answer, Api


def ask(api: Api, method: str, **parameters: Any) -> Answer:
    return api.get(f"/xrpc/com.atproto.sync.{method}", [(name, str(value)) for name, value in parameters.items()])


def store(tables: Tables, origin: str, first_seen_at: int = 1, **row: Any) -> None:
    tables.hosts(origin, **{"kind": "pds", "status": "active", "first_seen_at": first_seen_at} | row).save()


def test_hosts_come_in_pages_as_they_were_first_seen(api: Api, tables: Tables) -> None:
    names = [f"hold{number}.example.com" for number in range(7)]
    for number, name in enumerate(names):
        store(tables, name, first_seen_at=100 + number // 3)  # some at the same moment
    store(tables, "relay.example.com", kind="relay")
    found, more, sizes = list[str](), dict[str, Any](), list[int]()
    while True:
        page = ask(api, "listHosts", limit=3, **more).json
        found += [host["hostname"] for host in page["hosts"]]
        sizes.append(len(page["hosts"]))
        if "cursor" not in page:
            break
        more = {"cursor": page["cursor"]}
    assert sorted(found[:7]) == names
    assert [name[4] >= "3" for name in found[:7]] == [False] * 3 + [True] * 4
    assert (found[7:], sizes) == (["relay.example.com"], [3, 3, 2])


def test_a_host_is_shown_as_the_lexicon_has_it(api: Api, tables: Tables) -> None:
    store(tables, "hold01.example.com", cursor=77, repo_count=3)
    expected = {"hostname": "hold01.example.com", "seq": 77, "accountCount": 3, "status": "active"}
    assert ask(api, "listHosts").json == {"hosts": [expected]}
    assert ask(api, "getHostStatus", hostname="https://Hold01.example.com/").json == expected


@pytest.mark.parametrize(
    ("status", "shown"), [("offline", "offline"), ("banned", "banned"), ("paused", "idle"), ("unconfirmed", None)]
)
def test_the_status_is_one_of_the_lexicons(api: Api, tables: Tables, status: str, shown: str | None) -> None:
    store(tables, "hold01.example.com", status=status)
    hosts = [] if shown is None else [{"hostname": "hold01.example.com", "status": shown}]
    assert ask(api, "listHosts").json == {"hosts": hosts}
    answer = ask(api, "getHostStatus", hostname="hold01.example.com")
    assert answer.json == hosts[0] if hosts else answer.error == "HostNotFound"


@pytest.mark.parametrize(
    ("method", "parameters", "error"),
    [
        ("getHostStatus", {"hostname": "unknown.example.org"}, "HostNotFound"),
        ("getHostStatus", {"hostname": "localhost"}, "InvalidRequest"),
        ("getHostStatus", {}, "InvalidRequest"),
        ("listHosts", {"limit": 1001}, "InvalidRequest"),
        ("listHosts", {"cursor": "x"}, "InvalidRequest"),
    ],
)
def test_what_is_asked_wrongly_is_said(api: Api, method: str, parameters: dict[str, Any], error: str) -> None:
    answer = ask(api, method, **parameters)
    assert (answer.status, answer.error) == (400, error)
