"""``atproto``, the Python SDK from PyPI: pages through everything, and its own models are held against each answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from atproto_client import Client, models
from atproto_client.exceptions import BadRequestError
from atproto_client.models.utils import get_or_create

from tests.clients.conftest import CAPTAIN, TAG, TAGS, Running

ANSWERS: dict[str, Any] = {
    "com.atproto.sync.listReposByCollection": models.ComAtprotoSyncListReposByCollection.Response,
    "com.atproto.sync.listHosts": models.ComAtprotoSyncListHosts.Response,
    "com.atproto.sync.listRepos": models.ComAtprotoSyncListRepos.Response,
    "com.atproto.sync.getRepoStatus": models.ComAtprotoSyncGetRepoStatus.Response,
    "com.atproto.sync.getLatestCommit": models.ComAtprotoSyncGetLatestCommit.Response,
    "com.atproto.sync.getHostStatus": models.ComAtprotoSyncGetHostStatus.Response,
    "com.atproto.repo.listRecords": models.ComAtprotoRepoListRecords.Response,
    "com.atproto.repo.getRecord": models.ComAtprotoRepoGetRecord.Response,
    "com.atproto.repo.describeRepo": models.ComAtprotoRepoDescribeRepo.Response,
}


@pytest.fixture
def client(service: Running) -> Client:
    return Client(base_url=f"{service.url}/xrpc")


def pages(method: Callable[[dict[str, Any]], Any], **parameters: Any) -> Iterator[Any]:
    cursor = None
    while True:
        page = method(parameters | ({"cursor": cursor} if cursor else {}))
        yield page
        cursor = page.cursor
        if cursor is None:
            return


def test_it_pages_through_the_listing_of_a_collection(client: Client, service: Running) -> None:
    found = list(pages(client.com.atproto.sync.list_repos_by_collection, collection=CAPTAIN, limit=2))
    assert [repo.did for page in found for repo in page.repos] == list(service.dids[:-1])
    assert [len(page.repos) for page in found] == [2, 2, 2]


def test_it_pages_through_hosts_and_repos(client: Client, service: Running) -> None:
    hosts = [host for page in pages(client.com.atproto.sync.list_hosts, limit=2) for host in page.hosts]
    assert [host.hostname for host in hosts] == list(service.hosts)
    assert (hosts[0].seq, hosts[0].account_count) == (77, 1)
    repos = [repo for page in pages(client.com.atproto.sync.list_repos, limit=3) for repo in page.repos]
    assert sorted(repo.did for repo in repos) == sorted(service.dids)
    status = {repo.did: (repo.active, repo.status) for repo in repos}
    assert status[service.dids[0]] == (True, "desynchronized")
    assert status[service.dids[-1]] == (False, "takendown")


def test_it_asks_for_one_repo_and_one_host(client: Client, service: Running) -> None:
    sync = client.com.atproto.sync
    for did in service.dids[:-1]:
        assert (sync.get_repo_status({"did": did}).active, sync.get_repo_status({"did": did}).did) == (True, did)
        assert sync.get_latest_commit({"did": did}).rev == sync.get_repo_status({"did": did}).rev
    for host in service.hosts:
        assert sync.get_host_status({"hostname": host}).hostname == host


def test_it_reads_the_records_of_a_repo(client: Client, service: Running) -> None:
    repo = client.com.atproto.repo
    did = service.dids[1]
    assert set(repo.describe_repo({"repo": did}).collections) == {CAPTAIN, TAG}
    found = [record for page in pages(repo.list_records, repo=did, collection=TAG, limit=2) for record in page.records]
    assert [record.value["tag"] for record in found] == [f"v{number}" for number in range(TAGS)]
    (captain,) = repo.list_records({"repo": did, "collection": CAPTAIN}).records
    record = repo.get_record({"repo": did, "collection": CAPTAIN, "rkey": "self"})
    assert (record.uri, record.cid, record.value) == (captain.uri, captain.cid, captain.value)


def test_its_errors_have_their_names(client: Client, service: Running) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.com.atproto.sync.get_latest_commit({"did": service.dids[-1]})
    assert caught.value.response is not None
    assert caught.value.response.content.error == "RepoTakendown"  # type: ignore[union-attr]


def test_its_strict_models_take_every_answer(client: Client, service: Running) -> None:
    did, host = service.dids[0], service.hosts[0]
    asked: list[tuple[str, dict[str, Any]]] = [
        ("com.atproto.sync.listReposByCollection", {"collection": CAPTAIN, "limit": 2}),
        ("com.atproto.sync.listHosts", {"limit": 2}),
        ("com.atproto.sync.listHosts", {}),
        ("com.atproto.sync.listRepos", {}),
        *(("com.atproto.sync.getRepoStatus", {"did": did}) for did in service.dids),
        ("com.atproto.sync.getLatestCommit", {"did": did}),
        ("com.atproto.sync.getHostStatus", {"hostname": host}),
        ("com.atproto.repo.listRecords", {"repo": did, "collection": TAG, "limit": 2}),
        ("com.atproto.repo.listRecords", {"repo": did, "collection": CAPTAIN, "reverse": True}),
        ("com.atproto.repo.getRecord", {"repo": did, "collection": CAPTAIN, "rkey": "self"}),
        *(("com.atproto.repo.describeRepo", {"repo": did}) for did in service.dids[:-1]),
    ]
    for nsid, parameters in asked:
        answer = client.request.get(f"{service.url}/xrpc/{nsid}", params=parameters).content
        model = get_or_create(answer, ANSWERS[nsid], strict_string_format=True)
        assert model is not None
        assert not model.model_extra, nsid
    assert {nsid for nsid, _ in asked} == ANSWERS.keys()
