"""The gate through which every call to DynamoDB goes: it names each write by the place in the code that makes it, and lets
something happen there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError

from tests.oracle.engine import Call
from tests.oracle.places import here
from tests.oracle.processes import Killed, Process, current, paused_here

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

    @property
    def pauses(self) -> bool:
        return self.kind.startswith("paused")


class Gate:
    """Every call goes through ``pass_``."""

    def __init__(self, meddle: Callable[[dict[str, Any]], None], spend: Callable[[], None]) -> None:
        self.armed: list[Fault] = []
        self.writes: list[str] = []
        """The place of every write so far."""
        self.struck: Counter[tuple[str, str]] = Counter()
        """What happened where."""
        self._meddle = meddle
        self._spend = spend

    def may_pause(self, process: Process) -> bool:
        """Whether something is to make this process stand still."""
        return any(fault.pauses and process.name.startswith(fault.by) for fault in self.armed)

    def pass_(self, operation: str, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        process = current()
        if process is not None and process.dead:
            raise Killed
        if process is None or operation not in WRITES:
            return call(operation, parameters)
        place = here()
        self.writes.append(place)
        self._spend()
        for fault in [
            fault for fault in self.armed if fault.place in ("", place) and process.name.startswith(fault.by)
        ]:
            if fault.after > 0:
                fault.after -= 1
            elif not fault.pauses or paused_here() is not None:
                self.armed.remove(fault)
                self.struck[place, fault.kind] += 1
                return self._strike(fault.kind, operation, parameters, call)
        return call(operation, parameters)

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
