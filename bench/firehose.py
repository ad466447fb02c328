"""The firehose of the whole network, over TLS, of which one frame in a thousand is ours.

The product's own path: ``subscriber.connection`` with its websocket, filter and cursor, and its pipeline, which verifies
what is ours. Only the tables are not there: what is verified is kept in memory.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

from bench import frames
from bench.harness import Bench, Contender, Run, Target, sized
from bench.repos import DID, KEY
from chalicelib.atproto.cid import cid_to_text
from chalicelib.atproto.crypto import parse_did_key
from chalicelib.atproto.identity import Identity
from chalicelib.atproto.net import Door
from chalicelib.atproto.repo import VerifiedCommit
from chalicelib.atproto.syntax import Did, Origin
from chalicelib.index.tables import HostRow, RepoRow
from chalicelib.settings import read

HOST = "relay.atcr.io"
BARE = "websockets, nothing done"
_A_RELAY = {"DISCOVERY_STREAM_FRAMES_PER_SECOND": "1e6", "DISCOVERY_STREAM_BYTES_PER_SECOND": "1e10"}


def ours(count: int, ours_every: int, rate: int) -> Run:
    import uvloop

    from subscriber import memory
    from subscriber.connection import Connection
    from subscriber.pipeline import Pipeline

    memory.prepare()

    _, port, context = connect_to("bench.sender", count, ours_every, rate)
    last = frames.FIRST_SEQ + count - 1
    first = frames.commits(1, ours=True)[0]

    origin = Origin(HOST, 443, secure=True)
    data = cid_to_text(first.prev_data)  # multiformats takes its time to start

    async def follow() -> Any:
        tables = _Tables(first.since, data, origin)
        executor = ThreadPoolExecutor(4)
        settings = read(_A_RELAY)
        surroundings: Any = SimpleNamespace(
            settings=settings,
            clock=lambda: int(time.time() * 1000),
            door=Door(ssl_context=context, resolve=_resolve, route=lambda _, __: ("127.0.0.1", port)),
            tables=SimpleNamespace(repos=SimpleNamespace(by_host=SimpleNamespace(query=tables.query))),
            writer=tables,
            hosts=SimpleNamespace(note_stream=tables.note, save_cursor=lambda *_: True),
            queue=SimpleNamespace(send=tables.refuse),
            identities=SimpleNamespace(known=tables.identity, refresh=tables.refuse, get=tables.refuse),
        )
        pipeline = Pipeline(surroundings, executor)
        row = HostRow(str(origin), cursor=frames.FIRST_SEQ - 1, epoch=1)
        shared: Any = {
            "owner": "bench",
            "opening": asyncio.Semaphore(),
            "endings": memory.Endings(),
            "jitter": random.Random(),
        }
        connection = Connection(surroundings, pipeline, executor, row=row, **shared)
        task = asyncio.create_task(connection.run())
        while connection._tracker.durable != last:  # the cursor: all is done
            await asyncio.sleep(0.01)
            assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        executor.shutdown()
        return [connection.events, tables.applied, dict(pipeline.counts)]

    return _timed(follow, count, uvloop.run)


def sdk(count: int, ours_every: int, rate: int) -> Run:
    """``atproto``, the SDK: its way of reading a frame and a commit's ops, on the same websocket library. Nothing verified."""
    from atproto import firehose_models, parse_subscribe_repos_message

    def is_wanted(frame: bytes) -> bool:
        message: Any = parse_subscribe_repos_message(firehose_models.Frame.from_bytes(frame))  # type: ignore[arg-type]
        return any(op.path.startswith("io.atcr.") for op in message.ops)

    return _timed(_library(count, ours_every, rate, is_wanted), count, asyncio.run)


def bare(count: int, ours_every: int, rate: int) -> Run:
    """The websocket library on the same event loop as ours, and nothing done with a frame."""
    import uvloop

    return _timed(_library(count, ours_every, rate, lambda frame: False), count, uvloop.run)


def _library(count: int, ours_every: int, rate: int, is_wanted: Callable[[bytes], bool]) -> Any:
    from websockets.asyncio.client import connect

    _, port, context = connect_to("bench.sender", count, ours_every, rate)

    async def follow() -> Any:
        events = wanted = 0
        options: dict[str, Any] = {"ssl": context, "server_hostname": HOST, "max_size": None, "compression": None}
        async with connect(f"wss://{HOST}/", host="127.0.0.1", port=port, **options) as socket:
            async for frame in socket:
                wanted += is_wanted(cast(bytes, frame))
                events += 1
                if events == count:
                    break
        return [events, wanted, {"applied": wanted}]

    return follow


def _timed(follow: Any, count: int, loop: Any) -> Run:
    def run() -> tuple[Any, dict[str, float]]:
        cpu, wall = time.process_time(), time.perf_counter()
        coroutine: Coroutine[Any, Any, Any] = follow()
        result = loop(coroutine)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return result, {"share": 100 * cpu / wall}

    return run


class _Tables:
    """The one repo in scope, as the subscriber's tables have it."""

    def __init__(self, rev: str, data: str, origin: Origin) -> None:
        self._key = parse_did_key(KEY.did_key)
        self._origin = origin
        self.applied = 0
        self._row = RepoRow(
            DID,
            host=str(origin),
            scope_host=str(origin),
            rev=rev,
            data=data,
            sync="synced",
            active=True,
            collections={"io.atcr.hold.layer": 1},
            version=1,
        )

    def query(self, host: str) -> list[RepoRow]:
        return [self._row]

    def load_many(self, dids: Sequence[Did]) -> dict[str, RepoRow]:
        return {DID: self._row}

    def load(self, did: Did) -> RepoRow | None:
        return self._row if did == DID else None

    def identity(self, did: Did, *, newer_than: int | None = None) -> Identity:
        return Identity(Did(DID), self._key, self._origin, None)

    def apply(self, row: RepoRow, commit: VerifiedCommit) -> RepoRow:
        self.applied += 1
        self._row = RepoRow(**{**row.attribute_values, "rev": commit.rev, "data": cid_to_text(commit.data)})
        return self._row

    def note(self, *_: Any, error: str | None) -> bool:
        assert error is None, error
        return True

    def refuse(self, *arguments: Any, **_: Any) -> None:
        raise AssertionError(f"not to be asked for: {arguments}")

    ask = refuse


def _resolve(host: str, port: int) -> list[str]:
    return ["93.184.216.34"]  # public, so that the door lets it pass; the route leads elsewhere


def connect_to(module: str, *arguments: object) -> tuple[subprocess.Popen[str], int, ssl.SSLContext]:
    """Start a server of the benches, which ends with this process: itself, its port, and a context that trusts it."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    _started.append(process)
    assert process.stdout
    ready, port, file = process.stdout.readline().split(maxsplit=2)
    assert ready == "ready"
    return process, int(port), ssl.create_default_context(cafile=file.strip())


_started: list[subprocess.Popen[str]] = []  # they go when their input ends


def benches() -> list[Bench]:
    count, ours_every = sized(200, 40_000), sized(50, 1_000)
    live, rate = sized(200, 60_000), 2_000

    def check(name: str, result: Any) -> None:
        events, applied, counts = result
        assert events in (count, live), f"{name} saw {events} frames"
        assert name == BARE or applied == events // ours_every, f"{name} applied {applied} commits"
        assert counts == {"applied": applied}, counts

    def per_second(figures: Any) -> float:
        return float(count / figures["ours"].cpu_ms * 1000)

    def against(figures: Any) -> float:
        return float(figures["atproto (SDK)"].cpu_ms / figures["ours"].cpu_ms)

    def of_the_bare(figures: Any) -> float:
        return float(figures["ours"].cpu_ms / figures[BARE].cpu_ms)

    share = Target("% of a core", lambda figures: figures["ours"].more["share"], at_most=5)
    peers = [
        Contender(BARE, "bench.firehose:bare", (count, ours_every, 0)),
        Contender("atproto (SDK)", "bench.firehose:sdk", (count, ours_every, 0), ("atproto",)),
    ]
    return [
        Bench(
            "firehose",
            "firehose over TLS, 5.5 KB a frame, 0.1 % ours",
            [Contender("ours", "bench.firehose:ours", (count, ours_every, 0)), *peers],
            check,
            [
                Target("frames a second and core", per_second, at_least=60_000),
                Target("of the time of the bare websocket", of_the_bare),
                Target("times as fast as the SDK", against, needs=frozenset({"atproto (SDK)"})),
            ],
            unit=(count, "frame"),
        ),
        Bench(
            "live",
            f"the same at {rate:,} frames a second",
            [Contender("ours", "bench.firehose:ours", (live, ours_every, rate))],
            check,
            [share],
            unit=(live, "frame"),
            repeats=3,
        ),
    ]
