"""Verifying commits of the stream: decoded, signature checked, every op undone on the tree, records read."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from bench import frames
from bench.harness import Bench, Contender, Run, Target, sized
from bench.repos import KEY
from chalicelib.atproto.crypto import parse_did_key
from chalicelib.atproto.events import CommitEvent, decode_frame
from chalicelib.atproto.repo import verify_commit
from chalicelib.atproto.scope import Scope
from subscriber import memory


def ours(count: int) -> Run:
    told = _frames(count)
    memory.prepare()  # as the subscriber does
    key, scope = parse_did_key(KEY.did_key), Scope.parse("io.atcr.*")

    def run() -> tuple[Any, dict[str, float]]:
        changes = []
        for frame in told:
            event = decode_frame(frame)
            assert isinstance(event, CommitEvent)
            commit = verify_commit(event, key, scope)
            assert commit.inverted
            changes += [(change.path, change.cid) for change in commit.changes]
        return _result(changes), {}

    return run


def sdk(count: int) -> Run:
    """``atproto``, the SDK: frame and CAR decoded into its models. No signature, no hashes, no tree."""
    from atproto import CAR, firehose_models, parse_subscribe_repos_message

    told = _frames(count)

    def run() -> tuple[Any, dict[str, float]]:
        changes = []
        for frame in told:
            message: Any = parse_subscribe_repos_message(firehose_models.Frame.from_bytes(frame))  # type: ignore[arg-type]
            car = CAR.from_bytes(message.blocks)
            for op in message.ops:
                assert op.cid is None or car.blocks.get(op.cid) is not None
                changes.append((op.path, _bytes(op.cid)))
        return _result(changes), {}

    return run


def signatures(count: int) -> Run:
    """The floor: nothing but the signature, over bytes that lie ready."""
    import coincurve

    secret = coincurve.PrivateKey(bytes(range(1, 33)))
    public = secret.public_key
    signed = [(message, secret.sign(message)) for message in (b"message %d" % number for number in range(count))]

    def run() -> tuple[Any, dict[str, float]]:
        for message, signature in signed:
            assert public.verify(signature, message)
        return None, {}

    return run


def _frames(count: int) -> list[bytes]:
    return [
        frames.tell(commit, number + 1)
        for number, commit in enumerate(frames.commits(count, ours=True, records=_records()))
    ]


def _records() -> int:
    return sized(500, 20_000)


def _bytes(cid: Any) -> bytes | None:
    return None if cid is None else b"\x01\x71\x12\x20" + bytes(cid.hash.digest)


def _result(changes: list[tuple[str, bytes | None]]) -> Any:
    return [len(changes), sha256(repr(changes).encode()).hexdigest()]


def benches() -> list[Bench]:
    count = sized(20, 2_000)
    expected: list[Any] = []

    def check(name: str, result: Any) -> None:
        if not expected:
            made = frames.commits(count, ours=True, records=_records())
            expected.append(_result([(op.path, op.cid) for commit in made for op in commit.ops]))
        assert name == "signature alone" or result == expected[0], f"{name} read other ops"

    def rate(figures: Any) -> float:
        return float(count / figures["ours"].cpu_ms * 1000)

    def against(figures: Any) -> float:
        return float(figures["ours"].cpu_ms / figures["signature alone"].cpu_ms)

    return [
        Bench(
            "commits",
            "commits verified in full",
            [
                Contender("ours", "bench.commits:ours", (count,)),
                Contender("signature alone", "bench.commits:signatures", (count,)),
                Contender("atproto (SDK), unverified", "bench.commits:sdk", (count,), ("atproto",)),
            ],
            check,
            [
                Target("a second and core", rate, at_least=4_000),
                Target("times the signature alone", against, at_most=5),
            ],
            unit=(count, "commit"),
        )
    ]
