"""The simulator's hosts over HTTP: endpoints, faults on demand, counts, ports that die and come back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest

from simulator import PDS, Host, Shape, SimulatorThread, export, faults, forgeries

SYNC = "com.atproto.sync."


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=5) as opened:
        yield opened


def get(client: httpx.Client, host: Host, nsid: str, **params: Any) -> httpx.Response:
    return client.get(f"{host.url}/xrpc/{nsid}", params=params)


def test_a_hold_answers_as_holds_do(sim: SimulatorThread, client: httpx.Client) -> None:
    hold = sim.call(sim.net.add_hold(crew=2, layers=5))
    assert hold.did == hold.did_web == f"did:web:localhost%3A{hold.port}"
    repos = get(client, hold, SYNC + "listRepos", limit=1).json()
    assert repos == {
        "repos": [{"did": hold.did, "head": repos["repos"][0]["head"], "rev": hold.accounts[hold.did].repo.rev}]
    }
    assert get(client, hold, SYNC + "getLatestCommit", did=hold.did).status_code == 501
    assert get(client, hold, "_health").json()["version"]
    assert get(client, hold, "com.atproto.server.describeServer").json()["did"] == hold.did
    document = client.get(f"{hold.url}/.well-known/did.json").json()
    assert document["id"] == hold.did
    assert document["service"][0]["serviceEndpoint"] == hold.url
    described = get(client, hold, "com.atproto.repo.describeRepo", repo=hold.did).json()
    assert described["collections"] == [
        f"io.atcr.hold.{name}" for name in ("captain", "crew", "layer", "scan", "stats")
    ]
    body = get(client, hold, SYNC + "getRepo", did=hold.did).content
    assert body == export.car(hold.accounts[hold.did].repo, export.carstore).encode()
    assert hold.requests[SYNC + "getRepo"] == 1
    assert hold.bytes_sent[SYNC + "getRepo"] == len(body)


def test_a_did_web_is_found_under_both_spellings(sim: SimulatorThread, client: httpx.Client) -> None:
    hold = sim.call(sim.net.add_hold())
    for did in (hold.did, f"did:web:localhost:{hold.port}"):
        assert get(client, hold, SYNC + "getRepoStatus", did=did).json()["did"] == hold.did


def test_nothing_newer_than_since_is_zero_bytes(sim: SimulatorThread, client: httpx.Client) -> None:
    hold = sim.call(sim.net.add_hold())
    rev = hold.accounts[hold.did].repo.rev
    assert get(client, hold, SYNC + "getRepo", did=hold.did, since=rev).content == b""
    sim.call(hold.put, hold.did, *hold.author(hold.did).layer())
    assert len(get(client, hold, SYNC + "getRepo", did=hold.did, since=rev).content) > 200


def test_a_pds_pages_its_repos_and_tells_their_status(sim: SimulatorThread, client: httpx.Client) -> None:
    pds = sim.call(sim.net.add_pds(accounts=5, sailors=1))
    dids = list(pds.accounts)
    sim.call(pds.set_status, dids[1], "takendown")
    first = get(client, pds, SYNC + "listRepos", limit=3).json()
    rest = get(client, pds, SYNC + "listRepos", limit=3, cursor=first["cursor"]).json()
    assert [repo["did"] for repo in first["repos"] + rest["repos"]] == dids
    assert "cursor" not in rest
    assert (first["repos"][1]["active"], first["repos"][1]["status"]) == (False, "takendown")
    assert get(client, pds, SYNC + "getRepoStatus", did=dids[1]).json() == {
        "did": dids[1],
        "active": False,
        "status": "takendown",
    }
    assert get(client, pds, SYNC + "getRepo", did=dids[1]).json()["error"] == "RepoTakendown"
    assert get(client, pds, SYNC + "getRepo", did="did:plc:none").json()["error"] == "RepoNotFound"
    assert get(client, pds, SYNC + "listRepos", limit=0).status_code == 400
    assert get(client, pds, SYNC + "getLatestCommit", did=dids[0]).json()["rev"] == pds.accounts[dids[0]].repo.rev


def test_the_plc_directory_has_documents_and_tombstones(sim: SimulatorThread, client: httpx.Client) -> None:
    pds = sim.call(sim.net.add_pds(accounts=2, sailors=0))
    did, gone = pds.accounts
    document = client.get(f"{sim.net.plc.url}/{did}").json()
    assert document["service"][0]["serviceEndpoint"] == pds.url
    assert document["verificationMethod"][0]["publicKeyMultibase"] == pds.accounts[did].repo.key.multibase
    sim.call(pds.delete_account, gone, tombstone=True)
    assert client.get(f"{sim.net.plc.url}/{gone}").status_code == 410
    assert client.get(f"{sim.net.plc.url}/did:plc:aaaaaaaaaaaaaaaaaaaaaaaa").status_code == 404
    assert sim.net.plc.requests["did"] == 3
    assert sim.net.plc.asked[:2] == [did, gone]


def test_records_can_be_read_one_by_one_and_in_pages(sim: SimulatorThread, client: httpx.Client) -> None:
    hold = sim.call(sim.net.add_hold(layers=5))
    where = {"repo": hold.did, "collection": "io.atcr.hold.layer"}
    first = get(client, hold, "com.atproto.repo.listRecords", **where, limit=3).json()
    rest = get(client, hold, "com.atproto.repo.listRecords", **where, limit=3, cursor=first["cursor"]).json()
    assert len(first["records"] + rest["records"]) == 5
    record = first["records"][0]
    rkey = record["uri"].rpartition("/")[2]
    assert get(client, hold, "com.atproto.repo.getRecord", **where, rkey=rkey).json() == record
    proof = get(client, hold, SYNC + "getRecord", did=hold.did, collection="io.atcr.tag", rkey="none").content
    assert proof == hold.accounts[hold.did].repo.proof("io.atcr.tag/none").encode()


def test_a_stopped_host_refuses_and_comes_back_on_its_port(sim: SimulatorThread, client: httpx.Client) -> None:
    hold = sim.call(sim.net.add_hold())
    url = hold.url
    sim.call(hold.stop())
    with pytest.raises(httpx.ConnectError):
        client.get(f"{url}/xrpc/_health")
    sim.call(hold.put, hold.did, *hold.author(hold.did).captain(public=False))
    sim.call(hold.start())
    assert hold.url == url
    assert get(client, hold, SYNC + "listRepos").json()["repos"][0]["rev"] == hold.accounts[hold.did].repo.rev


def test_a_fault_strikes_as_often_as_it_was_told(sim: SimulatorThread, client: httpx.Client) -> None:
    pds = sim.call(sim.net.add_pds(accounts=2, sailors=0))
    sim.call(pds.fail, SYNC + "listRepos", faults.status(503, "Unavailable"), times=2)
    assert [get(client, pds, SYNC + "listRepos").status_code for _ in range(3)] == [503, 503, 200]
    fault = sim.call(pds.fail, "*", faults.rate_limited(7))
    assert get(client, pds, "_health").headers["Retry-After"] == "7"
    sim.call(fault.clear)
    assert get(client, pds, "_health").status_code == 200
    one, other = pds.accounts
    sim.call(pds.fail, SYNC + "getRepo", faults.status(404, "RepoNotFound"), only={"did": one})
    assert [get(client, pds, SYNC + "getRepo", did=did).status_code for did in (one, other)] == [404, 200]
    sim.call(pds.heal)
    assert get(client, pds, SYNC + "getRepo", did=one).status_code == 200


def test_bodies_are_cut_truncated_and_stalled(sim: SimulatorThread, client: httpx.Client) -> None:
    hold = sim.call(sim.net.add_hold(layers=50))
    whole = get(client, hold, SYNC + "getRepo", did=hold.did).content
    sim.call(hold.fail, SYNC + "getRepo", cut_after=1000, times=1)
    with pytest.raises(httpx.RemoteProtocolError):
        get(client, hold, SYNC + "getRepo", did=hold.did)
    sim.call(hold.fail, SYNC + "getRepo", edit=faults.truncate(-1), times=1)
    assert get(client, hold, SYNC + "getRepo", did=hold.did).content == whole[:-1]
    sim.call(hold.fail, SYNC + "getRepo", stall_after=1000, times=1)
    with pytest.raises(httpx.ReadTimeout):
        client.get(f"{hold.url}/xrpc/{SYNC}getRepo", params={"did": hold.did}, timeout=0.2)
    assert get(client, hold, SYNC + "getRepo", did=hold.did).content == whole


def test_a_host_that_hangs_can_still_be_stopped(sim: SimulatorThread, client: httpx.Client) -> None:
    hold = sim.call(sim.net.add_hold())
    sim.call(hold.fail, "_health", hang=True)
    with pytest.raises(httpx.ReadTimeout):
        client.get(f"{hold.url}/xrpc/_health", timeout=0.2)
    sim.call(hold.stop())
    assert not hold.running


def test_a_client_that_hangs_up_is_counted(sim: SimulatorThread, client: httpx.Client) -> None:
    hold = sim.call(sim.net.add_hold(layers=20_000))
    with client.stream("GET", f"{hold.url}/xrpc/{SYNC}getRepo", params={"did": hold.did}) as response:
        next(response.iter_bytes())
    sim.call(hold.until(lambda: hold.hang_ups[SYNC + "getRepo"] == 1))
    assert hold.bytes_sent[SYNC + "getRepo"] < len(export.car(hold.accounts[hold.did].repo, export.carstore).encode())


def test_list_repos_can_be_endless_and_huge(sim: SimulatorThread, client: httpx.Client) -> None:
    pds = sim.call(sim.net.add_host(PDS))
    sim.call(pds.fail, SYNC + "listRepos", faults.endless_repos(10), times=2)
    first = get(client, pds, SYNC + "listRepos").json()
    second = get(client, pds, SYNC + "listRepos", cursor=first["cursor"]).json()
    assert len({repo["did"] for repo in first["repos"] + second["repos"]}) == 20
    assert second["cursor"]
    sim.call(pds.fail, SYNC + "listRepos", faults.huge_repos(5000))
    assert len(get(client, pds, SYNC + "listRepos").json()["repos"]) == 5000


def test_a_forgery_is_sent_in_the_place_of_the_repo(sim: SimulatorThread, client: httpx.Client) -> None:
    hold = sim.call(sim.net.add_hold())
    true = get(client, hold, SYNC + "getRepo", did=hold.did).content
    hold.forgeries[hold.did] = forgeries.wrong_root
    assert get(client, hold, SYNC + "getRepo", did=hold.did).content != true
    del hold.forgeries[hold.did]
    assert get(client, hold, SYNC + "getRepo", did=hold.did).content == true


def test_servers_can_spell_a_did_web_decoded(sim: SimulatorThread, client: httpx.Client) -> None:
    hold = sim.call(sim.net.add_hold(shape=Shape(decoded_did_web=True)))
    assert get(client, hold, SYNC + "listRepos").json()["repos"][0]["did"] == f"did:web:localhost:{hold.port}"


def test_a_host_asks_to_be_crawled(sim: SimulatorThread) -> None:
    hold = sim.call(sim.net.add_hold())
    bodies: list[bytes] = []

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    service = HTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=service.handle_request)
    thread.start()
    answer = sim.call(hold.request_crawl(f"http://localhost:{service.server_port}/"))
    thread.join()
    service.server_close()
    assert answer.status == 200
    assert bodies == [f'{{"hostname": "localhost:{hold.port}"}}'.encode()]
