"""The reference PDS and PLC directory as one Python object: real servers, on loopback, for as long as a test session.

What an account does goes through the PDS's own XRPC API, as a client would do it; only starting and stopping the PDS,
new signing keys, tombstones and asking for the newest seq go to the Node process that holds both servers
(``network/server.mjs``).

When a method has returned, the PDS has done what was asked and its event has a seq. A PDS that was stopped and started
again is the same PDS: same port, accounts, keys, seqs. When the network is closed, or the process that made it dies,
the servers end.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import random
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
from websockets.sync.client import connect

WRITES_IN_A_COMMIT = 200
"""How many writes the PDS takes in one applyWrites, and so in one commit."""

_SECONDS_FOR_AN_ANSWER = 60.0
_SECONDS_TO_END = 10.0
_SECONDS_BETWEEN_FRAMES = 20.0


class NetworkFailed(Exception):
    """The Node process ended or refused; the message has what it said last."""


class RefusedByPds(Exception):
    """The PDS answered an XRPC error. ``name`` is the error's name, such as ``RepoDeactivated``."""

    def __init__(self, nsid: str, status: int, name: str, message: str) -> None:
        super().__init__(f"{nsid}: {status} {name}: {message}")
        self.status = status
        self.name = name


@dataclass(frozen=True)
class Account:
    """An account on the PDS, and the session that it writes with."""

    did: str
    handle: str
    access_token: str = field(repr=False)


@dataclass(frozen=True)
class PublishedRecord:
    """A record as the PDS shows it: ``path`` is ``collection/rkey``, ``value`` is the atproto JSON form."""

    path: str
    cid: str
    value: dict[str, Any]


class ReferenceNetwork:
    """A running PLC directory and PDS. A context manager: both end with it.

    ``folder`` gets the PDS's state and ``server.log``. ``installed`` is the folder with the installed packages and
    ``server.mjs``. The ports stay the same for the life of the network.
    """

    def __init__(
        self, folder: Path, installed: Path, *, pds_port: int | None = None, plc_port: int | None = None
    ) -> None:
        self.folder = folder
        self._data = folder / "data"
        self._log = folder / "server.log"
        self._ids = itertools.count(1)
        self._answers: queue.Queue[str] = queue.Queue()
        settings = {
            "folder": str(folder),
            "pds_port": pds_port or free_port(),
            "plc_port": plc_port or free_port(),
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["node", "server.mjs", json.dumps(settings)],
                cwd=installed,
                env={**os.environ, "TMPDIR": str(folder), "LOG_ENABLED": "false"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        threading.Thread(target=self._read_answers, name="reference-network", daemon=True).start()
        try:
            ready = self._next_answer("start")
        except NetworkFailed:
            self.close()
            raise
        self.pds_url: str = ready["pds"]
        self.plc_url: str = ready["plc"]
        self._admin = {"authorization": ready["admin_authorization"]}
        # Proxies of the environment are not for loopback.
        self._http = httpx.Client(base_url=self.pds_url, timeout=_SECONDS_FOR_AN_ANSWER, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End both servers, and wait until they are gone."""
        if hasattr(self, "_http"):
            self._http.close()
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    # Where things are

    @property
    def pds_host(self) -> str:
        """``localhost:PORT``: what a requestCrawl for this PDS says."""
        return urlsplit(self.pds_url).netloc

    # The PDS as a process

    def stop_pds(self) -> None:
        """Close the PDS and its connections: from now on its port refuses. The PLC directory stays."""
        self._command("stop_pds")

    def start_pds(self) -> None:
        """Start the stopped PDS on its old port with its old state."""
        self._command("start_pds")

    def restart_pds(self) -> None:
        """Stop and start."""
        self.stop_pds()
        self.start_pds()

    @contextmanager
    def pds_stopped(self) -> Iterator[None]:
        """The port is dead inside the ``with``."""
        self.stop_pds()
        try:
            yield
        finally:
            self.start_pds()

    def backup(self, into: Path) -> None:
        """Copy the state of the PDS, which is stopped for that, into a folder that does not exist yet."""
        with self.pds_stopped():
            shutil.copytree(self._data, into)

    def put_back(self, backup: Path) -> None:
        """Restore a backup: the PDS forgets newer accounts, commits and seqs (the PLC directory forgets nothing)."""
        with self.pds_stopped():
            shutil.rmtree(self._data)
            shutil.copytree(backup, self._data)

    def clear(self) -> None:
        """Have the PDS forget every account, commit and seq: it is as new."""
        with self.pds_stopped():
            shutil.rmtree(self._data)
            self._data.mkdir()

    # Accounts

    def create_account(self, name: str | None = None) -> Account:
        """A new account with the handle ``NAME.test``; ``name`` has 3 to 18 letters, digits and hyphens."""
        handle = f"{name or f'account-{next(self._ids)}'}.test"
        made = self._post(
            "com.atproto.server.createAccount",
            {"handle": handle, "email": f"mail@{handle}", "password": "correct horse battery staple"},
        )
        return Account(did=made["did"], handle=made["handle"], access_token=made["accessJwt"])

    def change_handle(self, account: Account, name: str) -> Account:
        """Take the handle ``NAME.test``, in the directory too: an ``#identity`` event."""
        handle = f"{name}.test"
        self._post("com.atproto.identity.updateHandle", {"handle": handle}, account)
        return Account(did=account.did, handle=handle, access_token=account.access_token)

    def rotate_key(self, account: Account) -> None:
        """A new signing key, in the directory too: an empty commit, told by an ``#identity`` and a ``#sync`` event."""
        self._command("rotate_key", did=account.did)

    def tombstone(self, account: Account) -> None:
        """Delete the DID from the directory, which from then on says that it is gone; the PDS goes on as it was."""
        self._command("tombstone", did=account.did)

    def deactivate_account(self, account: Account) -> None:
        """By the user: status ``deactivated``."""
        self._post("com.atproto.server.deactivateAccount", {}, account)

    def activate_account(self, account: Account) -> None:
        """By the user, after ``deactivate_account``."""
        self._post("com.atproto.server.activateAccount", None, account)  # it refuses any body

    def take_down_account(self, account: Account) -> None:
        """By the operator: status ``takendown``."""
        self._set_takedown(account, applied=True)

    def restore_account(self, account: Account) -> None:
        """By the operator, after ``take_down_account``."""
        self._set_takedown(account, applied=False)

    def delete_account(self, account: Account) -> None:
        """By the operator (the user's way needs a mailed token, and does the same): the repo goes, with its events."""
        self._post("com.atproto.admin.deleteAccount", {"did": account.did}, headers=self._admin)

    # Records

    def put_record(
        self, account: Account, collection: str, rkey: str, value: Mapping[str, Any] | None = None
    ) -> PublishedRecord:
        """Create the record, or update it; one commit, or none if it had this very value. ``$type`` is added."""
        record = {"$type": collection, **(value or {})}
        done = self._post(
            "com.atproto.repo.putRecord",
            {"repo": account.did, "collection": collection, "rkey": rkey, "record": record, "validate": False},
            account,
        )
        return PublishedRecord(f"{collection}/{rkey}", done["cid"], record)

    def delete_record(self, account: Account, collection: str, rkey: str) -> None:
        """Delete the record; no commit if it is not there."""
        self._post(
            "com.atproto.repo.deleteRecord", {"repo": account.did, "collection": collection, "rkey": rkey}, account
        )

    def import_records(
        self,
        account: Account,
        collection: str,
        values: Iterable[Mapping[str, Any]],
        *,
        in_a_commit: int = WRITES_IN_A_COMMIT,
    ) -> list[PublishedRecord]:
        """Create a record of each value under a key that the PDS chooses, ``in_a_commit`` at a time."""
        records = [{"$type": collection, **value} for value in values]
        published: list[PublishedRecord] = []
        for start in range(0, len(records), in_a_commit):
            batch = records[start : start + in_a_commit]
            writes = [
                {"$type": "com.atproto.repo.applyWrites#create", "collection": collection, "value": record}
                for record in batch
            ]
            done = self._post(
                "com.atproto.repo.applyWrites", {"repo": account.did, "writes": writes, "validate": False}, account
            )
            for record, result in zip(batch, done["results"], strict=True):
                path = result["uri"].removeprefix(f"at://{account.did}/")
                published.append(PublishedRecord(path, result["cid"], record))
        return published

    # The truth that an index is compared with, as the PDS itself tells it

    def repos(self) -> dict[str, dict[str, Any]]:
        """Every repo of the PDS by DID, as ``listRepos`` shows it."""
        return {repo["did"]: repo for repo in self._pages("com.atproto.sync.listRepos", "repos", {"limit": 1000})}

    def repo_status(self, did: str) -> dict[str, Any]:
        """``getRepoStatus``; RefusedByPds ``RepoNotFound`` for a deleted account."""
        return self._get("com.atproto.sync.getRepoStatus", {"did": did})

    def records(self, did: str) -> dict[str, PublishedRecord]:
        """Every live record of an active repo, by path."""
        found: dict[str, PublishedRecord] = {}
        for collection in self._collections(did):
            of_it: dict[str, str | int] = {"repo": did, "collection": collection, "limit": 100}
            for record in self._pages("com.atproto.repo.listRecords", "records", of_it):
                path = record["uri"].removeprefix(f"at://{did}/")
                found[path] = PublishedRecord(path, record["cid"], record["value"])
        return found

    def dids_with(self, collection: str) -> set[str]:
        """The active accounts with a live record in the collection: what a listing of it must be."""
        return {did for did, repo in self.repos().items() if repo["active"] and collection in self._collections(did)}

    def repo_car(self, did: str) -> bytes:
        """The whole repo (``getRepo``)."""
        return self._response("GET", "com.atproto.sync.getRepo", params={"did": did}).content

    def did_document(self, did: str) -> dict[str, Any]:
        """What the PLC directory says now."""
        response = self._http.get(f"{self.plc_url}/{did}")
        response.raise_for_status()
        document: dict[str, Any] = response.json()
        return document

    # The stream

    def latest_seq(self) -> int:
        """The seq of the newest event; 0 before the first."""
        seq: int = self._command("latest_seq")["seq"]
        return seq

    @contextmanager
    def frames(self, cursor: int | None = 0) -> Iterator[Iterator[bytes]]:
        """Open ``subscribeRepos`` after ``cursor`` (None: the live tip). TimeoutError when no frame comes for long."""
        query = "" if cursor is None else f"?cursor={cursor}"
        url = f"{self.pds_url.replace('http', 'ws', 1)}/xrpc/com.atproto.sync.subscribeRepos{query}"
        with connect(url, proxy=None, compression=None, max_size=None) as socket:

            def received() -> Iterator[bytes]:
                while True:
                    yield socket.recv(timeout=_SECONDS_BETWEEN_FRAMES, decode=False)

            yield received()

    # How it is done

    def _set_takedown(self, account: Account, *, applied: bool) -> None:
        subject = {"$type": "com.atproto.admin.defs#repoRef", "did": account.did}
        self._post(
            "com.atproto.admin.updateSubjectStatus",
            {"subject": subject, "takedown": {"applied": applied}},
            headers=self._admin,
        )

    def _collections(self, did: str) -> list[str]:
        collections: list[str] = self._get("com.atproto.repo.describeRepo", {"repo": did})["collections"]
        return collections

    def _pages(self, nsid: str, items: str, parameters: Mapping[str, str | int]) -> Iterator[dict[str, Any]]:
        cursor: dict[str, str] = {}
        while True:
            page = self._get(nsid, {**parameters, **cursor})
            yield from page[items]
            if not page[items] or "cursor" not in page:
                return
            cursor = {"cursor": page["cursor"]}

    def _get(self, nsid: str, parameters: Mapping[str, str | int]) -> dict[str, Any]:
        answer: dict[str, Any] = self._response("GET", nsid, params=parameters).json()
        return answer

    def _post(
        self,
        nsid: str,
        body: Mapping[str, Any] | None,
        account: Account | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        sent = dict(headers or {})
        if account is not None:
            sent["authorization"] = f"Bearer {account.access_token}"
        response = self._response("POST", nsid, json=body, headers=sent)
        answer: dict[str, Any] = response.json() if response.content else {}
        return answer

    def _response(self, method: str, nsid: str, **request: Any) -> httpx.Response:
        response = self._http.request(method, f"/xrpc/{nsid}", **request)
        if response.is_success:
            return response
        try:
            error = response.json()
        except ValueError:
            error = {"message": response.text[:200]}
        raise RefusedByPds(nsid, response.status_code, error.get("error", ""), error.get("message", ""))

    def _command(self, name: str, **values: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"command": name, **values}) + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise NetworkFailed(f"{name}: the Node process has ended{self._last_words()}") from error
        return self._next_answer(name)

    def _next_answer(self, command: str) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=_SECONDS_FOR_AN_ANSWER)
        except queue.Empty:
            raise NetworkFailed(f"{command}: no answer in {_SECONDS_FOR_AN_ANSWER:g} s{self._last_words()}") from None
        if not line:
            raise NetworkFailed(f"{command}: the Node process has ended{self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise NetworkFailed(f"{command}: {answer['error']}{self._last_words()}")
        return answer

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._answers.put(line)
        self._answers.put("")

    def _last_words(self) -> str:
        said = self._log.read_text(errors="replace")[-2000:]
        return f"; it said:\n{said}" if said else ""


def free_port() -> int:
    """A loopback port that nobody listens on, from below the ports that the system gives to outgoing connections.

    From among those, a port whose server is stopped for a while could be taken by any client, and a client that dials a
    dead port there can by chance connect to itself.
    """
    ports = range(20_000, 32_000)
    for port in random.sample(ports, k=len(ports)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port from {ports.start} to {ports.stop}")
