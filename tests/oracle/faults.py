"""The gate through which every call to DynamoDB goes: it names each write by the place in the code that makes it, and lets
something happen there."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError

from tests.oracle.engine import Call
from tests.oracle.processes import Killed, current, paused_here

KINDS = (
    "killed before",
    "killed after",
    "throttled",
    "timed out before",
    "answer lost",
    "answer lost, retried",
    "in conflict",
    "row changed",
    "paused before",
    "paused after",
)
"""What may happen at a write: the process dies before it or after it; the write does not take place and says so; or it takes
place and its answer is lost, whether boto sends it again or gives up; a transaction is in the way; somebody else changes
the row just before; or the writer stands still."""

WRITES = {"PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems", "BatchWriteItem"}


@dataclass
class Fault:
    """One thing that is to happen: at the ``after``-th next write of a ``place`` (empty: any)."""

    kind: str
    place: str = ""
    after: int = 0
    by: str = ""
    """A process whose name begins so; empty: any."""


class Gate:
    """Every call goes through ``pass_``."""

    def __init__(self, meddle: Callable[[dict[str, Any]], None]) -> None:
        self.armed: Fault | None = None
        self.writes: list[str] = []
        """The place of every write so far."""
        self.struck: Counter[tuple[str, str]] = Counter()
        """What happened where."""
        self._meddle = meddle

    @property
    def may_pause(self) -> bool:
        return self.armed is not None and self.armed.kind.startswith("paused")

    def pass_(self, operation: str, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        process = current()
        if process is not None and process.dead:
            raise Killed
        if process is None or operation not in WRITES:
            return call(operation, parameters)
        place = _place()
        self.writes.append(place)
        fault = self.armed
        if fault is None or fault.place not in ("", place) or not process.name.startswith(fault.by):
            return call(operation, parameters)
        if fault.after > 0:
            fault.after -= 1
            return call(operation, parameters)
        if fault.kind.startswith("paused") and paused_here() is None:
            return call(operation, parameters)
        self.armed = None
        self.struck[place, fault.kind] += 1
        return self._strike(fault.kind, operation, parameters, call)

    def _strike(self, kind: str, operation: str, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        process, paused = current(), paused_here()
        assert process is not None
        match kind:
            case "killed before":
                process.kill()
                raise Killed
            case "killed after":
                self._carry_out(operation, parameters, call)
                process.kill()
                raise Killed
            case "throttled":
                raise _refusal(operation, "ThrottlingException")
            case "timed out before":
                raise ReadTimeoutError(endpoint_url="dynamodb")
            case "answer lost":
                self._carry_out(operation, parameters, call)
                raise ReadTimeoutError(endpoint_url="dynamodb")
            case "answer lost, retried":
                answer = call(operation, parameters)
                # boto gives a transaction a token: the same one again is answered as before
                return answer if operation == "TransactWriteItems" else call(operation, parameters)
            case "in conflict" if operation == "TransactWriteItems":
                reasons = [{"Code": "TransactionConflict"}] + [{"Code": "None"}] * (
                    len(parameters["TransactItems"]) - 1
                )
                raise _refusal(operation, "TransactionCanceledException", CancellationReasons=reasons)
            case "in conflict":
                raise _refusal(operation, "TransactionConflictException")
            case "row changed":
                process_before = current()
                assert process_before is not None
                self._meddle(parameters)
            case "paused before":
                assert paused is not None
                paused.park()
            case "paused after":
                assert paused is not None
                answer = call(operation, parameters)
                paused.park()
                return answer
        return call(operation, parameters)

    @staticmethod
    def _carry_out(operation: str, parameters: dict[str, Any], call: Call) -> None:
        with suppress(ClientError):  # nobody hears of it
            call(operation, parameters)


def _refusal(operation: str, code: str, **more: Any) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": code}, **more}, operation)  # type: ignore[arg-type]


def _place() -> str:
    """The public function of the index that this write belongs to, and which part of it, such as ``writer.land: records``."""
    frame = sys._getframe(2)
    place, parts = "?", set()
    while frame is not None:
        code = frame.f_code
        if "/chalicelib/index/" in code.co_filename:
            name = code.co_name
            if name == "_write_under_token":
                parts.add("records")
            elif name == "_update" and "_update" in parts:
                parts.add("settle")
            parts.add(name)
            if not name.startswith(("_", "<")) and name not in ("decide", "landed"):
                place = f"{Path(code.co_filename).stem}.{name}"
        frame = frame.f_back  # type: ignore[assignment]
    for part in ("records", "settle"):
        if part in parts:
            return f"{place}: {part}"
    return place
