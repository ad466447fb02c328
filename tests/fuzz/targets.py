"""What reads bytes from strangers, each with sound inputs to begin with, ways to damage them, and what must hold all the same.

A target's ``read`` gives a word for how it took an input: ``accepted``, or why not. It lets out the errors that its
callers are told to expect, and AssertionError where something does not hold.
"""

from __future__ import annotations

import base64
import gzip
import json
import random
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from chalicelib import settings
from chalicelib.atproto import content_coding, drisl
from chalicelib.atproto.cid import cid_from_text, cid_to_text
from chalicelib.atproto.client import PdsClient
from chalicelib.atproto.crypto import PublicKey, parse_did_key, parse_multibase
from chalicelib.atproto.errors import (
    BadResponse,
    BadSignature,
    BudgetExceeded,
    InvalidSyntax,
    MalformedCar,
    MalformedCbor,
    MalformedData,
    MalformedDidDocument,
    MalformedFrame,
    MalformedKey,
    PassedOver,
    RemoteError,
    Unreachable,
    VerificationFailed,
)
from chalicelib.atproto.events import (
    CommitEvent,
    SyncEvent,
    decode_frame,
    peek,
)
from chalicelib.atproto.formats import parse_at_identifier, parse_at_uri, parse_datetime, parse_language, parse_uri
from chalicelib.atproto.identity import Resolver, parse_did_document
from chalicelib.atproto.net import MAX_RETRY_AFTER, Response, seconds_to_wait
from chalicelib.atproto.repo import Snapshot, SnapshotLimits, read_snapshot, verify_commit, verify_sync
from chalicelib.atproto.scope import Scope
from chalicelib.atproto.syntax import (
    Did,
    Origin,
    parse_did,
    parse_handle,
    parse_nsid,
    parse_origin,
    parse_record_path,
    parse_tid,
    tid_to_microseconds,
)
from chalicelib.crawl import queue
from simulator import export, forgeries, frames
from simulator.identity import did_document
from tests.fuzz.api import api
from tests.fuzz.mutations import changed_car, changed_cbor, changed_frame, changed_json, changed_text, damaged_cbor
from tests.fuzz.sound import (
    DID,
    HEAD,
    KEY,
    REV,
    SCOPE,
    SIGNER,
    TIME,
    backwards,
    documents,
    history,
    published,
    recorded,
    repo,
    small,
)
from tests.fuzz.target import ACCEPTED, Target


def all_targets(fixtures: Path) -> list[Target]:
    return [
        cars(fixtures),
        stream(fixtures),
        values(fixtures),
        did_documents(fixtures),
        answers(),
        api(),
        texts(fixtures),
        headers(),
        bodies(),
        messages(),
        variables(),
    ]


# -- repos


def cars(fixtures: Path) -> Target:
    """getRepo: read in pieces and with little memory, and true to the commit whatever else is in the file."""
    repos = [repo(0), repo(1), small(), repo(60)]
    orders = [export.reference, export.carstore, export.preorder, export.shuffled(1), backwards]
    seeds = [export.car(repo, order).encode() for repo in repos for order in orders]
    seeds += [forge(repos[2], export.reference).encode() for forge in (forgeries.bad_signature, forgeries.high_s)]
    seeds += [(fixtures / "cars" / name).read_bytes() for name in ("tiny.car", "empty.car")]
    dids = [DID, Did("did:plc:7hptvnhdyeu53xp6rz7e42iy"), Did("did:plc:mhkgaud2jb4rypzt4ph2a3co")]
    truth = {
        repo.head.cid: [(path, each.cid) for path, each in repo.records().items() if SCOPE.wants_key(path.encode())]
        for repo in repos
    }

    def read(data: bytes) -> str:
        number = zlib.crc32(data)
        size, lookahead, pending = 1 + number % 3_000, (0, 500, 65_536)[number % 3], (0, 4, 1_000)[number % 5 % 3]
        did = next((did for did in dids if did.encode() in data), DID)
        limits = SnapshotLimits(lookahead=lookahead, pending=pending)

        def read_once(keep_all: bool) -> Snapshot:
            chunks = (data[at : at + size] for at in range(0, len(data), size))
            return read_snapshot(chunks, did=did, scope=SCOPE, limits=limits, keep_all=keep_all)

        try:
            opened = read_once(keep_all=False)
        except PassedOver:
            opened = read_once(keep_all=True)
        with opened as snapshot:
            found = list(snapshot.records())
            paths = [record.path for record in found]
            assert paths == sorted(set(paths)), "not in order, or one twice"
            assert len(found) == snapshot.record_count
            for record in found:
                assert SCOPE.wants(parse_record_path(record.path)[0])
                assert (record.value is None) == (record.problem is not None)
                json.dumps(record.value)
            true = truth.get(snapshot.commit.cid)
            assert true is None or [(record.path, record.cid) for record in found] == true, "not what was signed"
            if did == DID:
                snapshot.commit.check_signature(KEY)
        return ACCEPTED

    return Target("car", 12, seeds, changed_car(SIGNER), read, (MalformedCar, BudgetExceeded, VerificationFailed))


def values(fixtures: Path) -> Target:
    """One item of DAG-CBOR: what is read is written again as it was."""
    seeds = [*small().blocks.values(), *(frame[drisl.decode_prefix(frame)[1] :] for frame in recorded(fixtures)[:20])]
    seeds += [base64.b64decode(case["cbor_base64"] + "==") for case in published(fixtures)]

    def read(data: bytes) -> str:
        value, end = drisl.decode_prefix(data)
        assert drisl.encode(value) == data[:end]
        form = drisl.to_json(value)
        json.dumps(form)
        with suppress(MalformedData):
            again = drisl.from_json(form)
            assert drisl.to_json(again) == form or drisl.encode(again) != data[:end]
        return ACCEPTED

    return Target("drisl", 18, seeds, changed_cbor, read, (MalformedCbor,))


# -- the stream


def stream(fixtures: Path) -> Target:
    """Frames: a glance and decoding agree, and what is verified is what was signed."""
    keys = {
        did: parse_did_document(Did(did), document, allow_private=False).key
        for did, document in documents(fixtures).items()
    }
    real = recorded(fixtures)
    simulated = [
        *(tell(commit, 7, TIME) for commit in history() for tell in (frames.commit, frames.legacy_commit, frames.sync)),
        frames.too_big_commit(history()[0], 8, TIME),
        frames.commit_block_last(history()[1], 9, TIME),
        frames.commit_badly_signed(history()[1], 10, TIME),
        frames.identity(DID, 11, TIME, "alice.atcr.io"),
        frames.account(DID, 2**40, TIME, False, "takendown"),
        frames.info("OutdatedCursor", "too old"),
        frames.error("FutureCursor"),
        frames.message("#tombstone", {"seq": 12, "did": DID, "time": TIME}),
    ]

    events = [decode_frame(frame) for frame in (*real, *simulated)]
    truth = {event.commit: event for event in reversed(events) if isinstance(event, CommitEvent) and event.ops}

    def read(frame: bytes) -> str:
        glance = peek(frame)
        event = decode_frame(frame)
        if glance is not None:
            assert isinstance(event, CommitEvent)
            seq, did, ops = glance
            assert (seq, did) == (event.seq, event.did), f"at a glance {glance}"
            assert all(op.path.encode() in ops for op in event.ops)
        if isinstance(event, CommitEvent | SyncEvent):
            try:
                verify(event, keys.get(event.did) or KEY)
            except BadSignature:
                verify(event, KEY)
        return ACCEPTED

    def verify(event: CommitEvent | SyncEvent, key: PublicKey) -> None:
        if isinstance(event, SyncEvent):
            found = verify_sync(event, key)
            assert (found.did, found.rev) == (event.did, event.rev)
            return
        commit = verify_commit(event, key, SCOPE)
        assert (commit.did, commit.rev) == (event.did, event.rev)
        true = truth.get(event.commit)
        if true and commit.inverted:
            wanted = [(op.path, op.cid) for op in true.ops if SCOPE.wants_key(op.path.encode())]
            assert sorted((change.path, change.cid) for change in commit.changes) == sorted(wanted), (
                "not what was signed"
            )
            assert commit.prev_data == true.prev_data
        for change in commit.changes:
            assert (change.cid is None) == (change.record is None)
            json.dumps(change.record and change.record.value)

    return Target(
        "frame", 20, [*real, *simulated * 3], changed_frame(SIGNER), read, (MalformedFrame, VerificationFailed)
    )


# -- answers of other servers


class _Door:
    """Answers every request alike."""

    def __init__(self, status: int, body: bytes) -> None:
        self._status = status
        self._body = body

    def get(self, url: str, *, max_bytes: int, **_: object) -> Response:
        url.encode("ascii")
        if len(self._body) > max_bytes:
            raise BudgetExceeded("too large")
        return Response(url, self._status, None, self._body)

    @contextmanager
    def stream(self, url: str, **_: object) -> Iterator[Any]:
        yield SimpleNamespace(
            url=url, status=self._status, retry_after=None, succeeded=self._status < 300, chunks=iter([self._body])
        )


def did_documents(fixtures: Path) -> Target:
    """What a directory or a did:web answers, through the resolver."""
    plc, web = Did("did:plc:ewvi7nxzyoun6zhxrhs64oiz"), Did("did:web:hold01.atcr.io")
    seeds = [json.dumps(document).replace(did, plc).encode() for did, document in documents(fixtures).items()]
    for did in (plc, web):
        for legacy in (False, True):
            made = did_document(did, key=SIGNER, pds="https://hold01.atcr.io", handle="hold01.atcr.io", legacy=legacy)
            seeds += [json.dumps(made).encode()] * 5

    def read(data: bytes) -> str:
        did = web if web.encode() in data else plc
        for private in (False, True):
            door: Any = _Door(200, data)
            found = Resolver(door, "https://plc.directory", private).resolve(did)
            assert found.did == did
            assert (found.key is None) == (found.key_problem is not None)
            assert (found.pds is None) == (found.pds_problem is not None)
            for text in (found.handle, found.key_problem, found.pds_problem):
                assert text is None or text.encode().decode() == text
            assert found.handle is None or parse_handle(found.handle)
            assert found.key is None or parse_multibase(found.key.multibase) == found.key
            assert found.pds is None or Origin.parse_key(str(found.pds)) == found.pds
            assert found.pds is None or private or str(found.pds) == found.pds.hostname
        return ACCEPTED if found.key and found.pds else "incomplete"

    return Target("did-document", 12, seeds, changed_json, read, (MalformedDidDocument, RemoteError))


def answers() -> Target:
    """What a PDS answers to each of our questions, as a success and as an error."""
    entry = {"did": DID, "head": HEAD, "rev": REV, "active": True}
    seeds: list[Any] = [
        {"did": "did:web:hold01.atcr.io", "availableUserDomains": [".atcr.io"], "inviteCodeRequired": True},
        {"repos": [entry, entry | {"active": False, "status": "takendown"}], "cursor": "2024-01-01T00:00Z::a"},
        {"repos": [entry | {"did": f"did:web:user{n}.atcr.io%3A8443"} for n in range(30)]},
        {"did": DID, "active": True, "rev": REV},
        {"did": DID, "active": False, "status": "deactivated"},
        {"error": "RepoNotFound", "message": "Could not find repo"},
    ]
    origin = Origin("hold01.atcr.io", 443, secure=True)

    def car(client: PdsClient) -> None:
        with client.repo_car(DID) as chunks:
            b"".join(chunks)

    questions: list[Callable[[PdsClient], object]] = [
        PdsClient.describe_server,
        PdsClient.list_repos,
        lambda client: client.get_repo_status(DID),
        car,
    ]

    def read(data: bytes) -> str:
        refusals = []
        for status, ask in product((200, 400), questions):
            door: Any = _Door(status, data)
            try:
                _check_answer(ask(PdsClient(door, origin)))
            except RemoteError as error:
                str(error).encode()
                refusals.append(error)
        if len(refusals) == 7:  # any body may be a CAR's beginning
            raise refusals[0]
        return ACCEPTED

    return Target("answer", 8, [json.dumps(seed).encode() for seed in seeds], changed_json, read, (RemoteError,))


def _check_answer(answer: Any) -> None:
    for each in (answer, *getattr(answer, "repos", ())):
        for name in ("did", "rev", "head", "status", "cursor"):
            text = getattr(each, name, None)
            assert text is None or (text.isprintable() and len(text) <= 2048)
        assert type(getattr(each, "active", True)) is bool


def headers() -> Target:
    """Retry-After and RateLimit-Reset."""
    seeds = [b"120", b"Wed, 21 Oct 2026 07:28:00 GMT", b"Wed, 21 Oct 2026 07:28:00", b"1782000000", b"0.5"]

    def read(data: bytes) -> str:
        text = data.decode(errors="surrogatepass")
        found = [seconds_to_wait({name: text}, 1.7e9) for name in ("retry-after", "ratelimit-reset")]
        assert all(seconds is None or 0 <= seconds <= MAX_RETRY_AFTER for seconds in found)
        return "ignored" if found == [None, None] else ACCEPTED

    return Target("header", 2, seeds, _changed_text, read)


def bodies() -> Target:
    """A gzipped body: no more comes of it than is allowed."""
    seeds = [gzip.compress(b'{"repos": []}'), gzip.compress(b"a" * 300_000), gzip.compress(bytes(2**20))]
    seeds += [gzip.compress(random.Random(1).randbytes(500) * 20)]

    def read(data: bytes) -> str:
        size = 1 + zlib.crc32(data) % 700
        pieces = (data[at : at + size] for at in range(0, len(data), size))
        assert sum(map(len, content_coding.decode(pieces, "gzip", 300_000))) <= 300_000
        return ACCEPTED

    def mutate(rng: random.Random, data: bytes) -> bytes:
        return (
            damaged_cbor(rng, data)
            if rng.random() < 0.8
            else gzip.compress(damaged_cbor(rng, gzip.decompress(data)), 1)
        )

    return Target("gzip", 2, seeds, mutate, read, (BadResponse, BudgetExceeded, Unreachable))


# -- texts


def texts(fixtures: Path) -> Target:
    """Every parser of a text: a refusal, or a value that is its own normal form."""

    def origin(private: bool) -> Callable[[str], object]:
        def check(text: str) -> object:
            found = parse_origin(text, allow_private=private)
            assert Origin.parse_key(str(found)) == found == parse_origin(found.url, allow_private=private)
            assert re.fullmatch(r"[a-z0-9.:-]+", found.hostname)
            assert private or str(found) == found.hostname
            return parse_did(found.did_web)

        return check

    def tid(text: str) -> None:
        assert 0 <= tid_to_microseconds(parse_tid(text)) < 1 << 54

    def cid(text: str) -> None:
        assert cid_to_text(cid_from_text(text)) == text

    def key(text: str) -> None:
        assert f"did:key:{parse_did_key(text).multibase}" == text

    parsers: list[Callable[[str], object]] = [
        *(
            parse_did,
            parse_handle,
            parse_nsid,
            parse_record_path,
            tid,
            cid,
            key,
            Origin.parse_key,
            origin(False),
            origin(True),
        ),
        *(parse_at_identifier, parse_at_uri, parse_datetime, parse_language, parse_uri, Scope.parse),
    ]
    seeds = [
        line
        for file in sorted((fixtures / "interop/syntax").glob("*.txt"))
        for line in file.read_bytes().split(b"\n")
        if line and len(line) < 1_000
    ]
    seeds += [
        SIGNER.did_key.encode(),
        HEAD.encode(),
        b"io.atcr.*,app.bsky.feed.post",
        b"https://hold01.atcr.io:8443/",
    ] * 20
    seeds += [b"[::1]:2583", b"http://localhost:2583", b"did:web:localhost%3A2583", b"h\xc3\xb6ld.example.org"] * 20

    def read(data: bytes) -> str:
        text = data.decode(errors="surrogatepass")
        refusals: list[InvalidSyntax | MalformedKey] = []
        for parse in parsers:
            try:
                parse(text)
            except (InvalidSyntax, MalformedKey) as error:
                refusals.append(error)
        assert all(len(str(error)) < 1_000 for error in refusals)
        if len(refusals) == len(parsers):
            raise refusals[0]
        return ACCEPTED

    return Target("text", 13, seeds, _changed_text, read, (InvalidSyntax, MalformedKey))


def messages() -> Target:
    """Messages of the queue."""
    seeds = [b'{"repo": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"}', b'{"host": "hold01.atcr.io", "refresh": true}']

    def read(data: bytes) -> str:
        job = queue.from_body(data.decode(errors="replace"))
        assert queue.from_body(queue.to_body(job)) == job
        return ACCEPTED

    return Target("message", 2, seeds, changed_json, read, (queue.MalformedMessage,))


def variables() -> Target:
    """Settings: usable, or one error that names them."""
    seeds = [
        settings.PREFIX + line for line in settings.example().replace(settings.PREFIX, "").split("\n") if "=" in line
    ]

    def read(data: bytes) -> str:
        name, _, value = data.decode(errors="surrogatepass").partition("=")
        settings.read({name: value})
        return ACCEPTED

    return Target("setting", 1, [seed.encode() for seed in seeds], _changed_text, read, (settings.InvalidSetting,))


def _changed_text(rng: random.Random, data: bytes) -> bytes:
    text = data.decode()
    for _ in range(rng.choice((1, 1, 2))):
        text = changed_text(rng, text)
    return text.encode(errors="surrogatepass")
