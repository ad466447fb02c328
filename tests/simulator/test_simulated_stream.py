"""The simulator's event stream over real websockets: cursors, order, breaks."""

from __future__ import annotations

from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from simulator import HOLD, PDS, Host, Shape, SimulatorThread, faults, frames
from simulator.cbor import decode, encode

SUBSCRIBE = "com.atproto.sync.subscribeRepos"


def follow(host: Host, cursor: int | str | None = None) -> ClientConnection:
    query = "" if cursor is None else f"?cursor={cursor}"
    return connect(f"ws://localhost:{host.port}/xrpc/{SUBSCRIBE}{query}", compression=None, proxy=None, open_timeout=5)


def parse(frame: bytes) -> tuple[Any, Any]:
    for header in ({"op": 1, "t": kind} for kind in ("#commit", "#sync", "#identity", "#account", "#info")):
        if frame.startswith(encode(header)):
            return header["t"], decode(frame[len(encode(header)) :])
    assert frame.startswith(encode({"op": -1}))
    return "error", decode(frame[len(encode({"op": -1})) :])


def read(socket: ClientConnection, count: int) -> list[tuple[Any, Any]]:
    frames = []
    for _ in range(count):
        frame = socket.recv(timeout=5)
        assert isinstance(frame, bytes)
        frames.append(parse(frame))
    return frames


def seqs(messages: list[tuple[Any, Any]]) -> list[int]:
    return [body["seq"] for _, body in messages]


def push(sim: SimulatorThread, host: Host) -> Any:
    return sim.call(host.put, host.did, *host.author(host.did).layer())


@pytest.fixture
def hold(sim: SimulatorThread) -> Host:
    host = sim.call(sim.net.add_hold())
    assert isinstance(host, Host)
    return host


def test_a_new_account_is_announced(hold: Host) -> None:
    with follow(hold, 0) as socket:
        assert [kind for kind, _ in read(socket, 3)] == ["#identity", "#account", "#sync"]


def test_without_a_cursor_only_what_comes_is_sent(sim: SimulatorThread, hold: Host) -> None:
    with follow(hold) as socket:
        sim.call(hold.subscribed())
        commit = push(sim, hold)
        ((kind, body),) = read(socket, 1)
    assert kind == "#commit"
    assert (body["repo"], body["rev"], body["since"]) == (hold.did, commit.rev, commit.since)
    assert body["prevData"].cid == commit.prev_data
    assert body["commit"].cid == commit.cid
    assert [op["path"] for op in body["ops"]] == [op.path for op in commit.ops]


def test_with_a_cursor_the_backlog_comes_first_and_then_what_is_new(sim: SimulatorThread, hold: Host) -> None:
    push(sim, hold)
    with follow(hold, 2) as socket:
        backlog = read(socket, 2)
        push(sim, hold)
        assert seqs(backlog + read(socket, 1)) == [3, 4, 5]


def test_an_inclusive_cursor_sends_its_event_again(sim: SimulatorThread) -> None:
    host = sim.call(sim.net.add_host(Shape(inclusive_cursor=True)))
    sim.call(sim.net.add_account, host)
    with follow(host, 2) as socket:
        assert seqs(read(socket, 2)) == [2, 3]


def test_a_cursor_before_the_backlog_is_told_and_gets_all_there_is(sim: SimulatorThread, hold: Host) -> None:
    for _ in range(4):
        push(sim, hold)
    sim.call(hold.stream.trim, 2)
    with follow(hold, 1) as socket:
        (kind, body), *rest = read(socket, 3)
        assert (kind, body["name"]) == ("#info", "OutdatedCursor")
        assert seqs(rest) == [6, 7]
    with follow(hold, 5) as socket:
        assert seqs(read(socket, 2)) == [6, 7]


def test_a_cursor_in_the_future_is_an_error_and_the_end(hold: Host) -> None:
    with follow(hold, 99) as socket:
        ((kind, body),) = read(socket, 1)
        assert (kind, body["error"]) == ("error", "FutureCursor")
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=5)


def test_a_cursor_that_is_no_number_is_refused(hold: Host) -> None:
    with pytest.raises(InvalidStatus):
        follow(hold, "abc")


def test_after_a_restore_the_old_cursor_is_in_the_future(sim: SimulatorThread, hold: Host) -> None:
    backup = sim.call(hold.backup)
    rev = hold.accounts[hold.did].repo.rev
    push(sim, hold)
    with follow(hold, 3) as socket:
        assert seqs(read(socket, 1)) == [4]
        sim.call(hold.restore, backup)
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=5)
    assert hold.accounts[hold.did].repo.rev == rev
    with follow(hold, 4) as socket:
        assert read(socket, 1)[0][1]["error"] == "FutureCursor"
    push(sim, hold)
    with follow(hold, 3) as socket:
        assert seqs(read(socket, 1)) == [4]


def test_events_are_repeated_and_reordered_on_demand(sim: SimulatorThread, hold: Host) -> None:
    with follow(hold) as socket:
        sim.call(hold.subscribed())
        push(sim, hold)
        sim.call(hold.stream.repeat)
        sim.call(hold.stream.hold_back)
        push(sim, hold)
        push(sim, hold)
        sim.call(hold.stream.release, reversed)
        assert seqs(read(socket, 4)) == [4, 4, 6, 5]


def test_a_slow_consumer_is_told_and_closed(sim: SimulatorThread, hold: Host) -> None:
    with follow(hold) as socket:
        sim.call(hold.subscribed())
        sim.call(hold.stream.fail, "ConsumerTooSlow")
        assert read(socket, 1)[0][1]["error"] == "ConsumerTooSlow"
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=5)


def test_a_frozen_stream_answers_no_ping_until_it_thaws(sim: SimulatorThread, hold: Host) -> None:
    with follow(hold) as socket:
        sim.call(hold.subscribed())
        assert socket.ping().wait(5)
        sim.call(hold.stream.freeze)
        push(sim, hold)
        pong = socket.ping()
        assert not pong.wait(0.2)
        sim.call(hold.stream.thaw)
        assert pong.wait(5)
        assert seqs(read(socket, 1)) == [4]


def test_stopping_the_host_breaks_the_stream_and_events_wait_for_its_return(sim: SimulatorThread, hold: Host) -> None:
    with follow(hold) as socket:
        sim.call(hold.subscribed())
        sim.call(hold.stop())
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=5)
    push(sim, hold)
    sim.call(hold.start())
    with follow(hold, 3) as socket:
        assert seqs(read(socket, 1)) == [4]


def test_a_fault_can_refuse_the_handshake(sim: SimulatorThread, hold: Host) -> None:
    sim.call(hold.fail, SUBSCRIBE, faults.status(502, "BadGateway"), times=1)
    with pytest.raises(InvalidStatus):
        follow(hold)
    with follow(hold):
        pass


def test_status_changes_are_told(sim: SimulatorThread, hold: Host) -> None:
    with follow(hold) as socket:
        sim.call(hold.subscribed())
        sim.call(hold.set_status, hold.did, "deactivated")
        sim.call(hold.set_status, hold.did, None)
        sim.call(hold.rotate_key, hold.did)
        sim.call(hold.delete_account, hold.did)
        told = read(socket, 5)
    assert [kind for kind, _ in told] == ["#account", "#account", "#identity", "#commit", "#account"]
    assert [(body.get("active"), body.get("status")) for kind, body in told if kind == "#account"] == [
        (False, "deactivated"),
        (True, None),
        (False, "deleted"),
    ]


def test_commits_can_be_told_in_other_ways(sim: SimulatorThread, hold: Host) -> None:
    with follow(hold) as socket:
        sim.call(hold.subscribed())
        author = hold.author(hold.did)
        for telling in (frames.legacy_commit, frames.too_big_commit, frames.commit_with(rev="x", since=...)):
            sim.call(hold.put, hold.did, *author.captain(), telling=telling)
        (_, legacy), (_, big), (_, forged) = read(socket, 3)
    assert "prevData" not in legacy
    assert "prev" not in legacy["ops"][0]
    assert big["tooBig"]
    assert big["ops"] == []
    assert forged["rev"] == "x"
    assert "since" not in forged


@pytest.mark.parametrize("shape", [PDS, HOLD])
def test_a_giant_commit_is_one_frame(sim: SimulatorThread, shape: Shape) -> None:
    host = sim.call(sim.net.add_host(shape))
    account = sim.call(sim.net.add_account, host)
    author = host.author(account.did)
    sim.call(host.add, account.did, [author.layer() for _ in range(500)])
    frame = host.stream.backlog[-1].frame
    assert len(parse(frame)[1]["ops"]) == 500
