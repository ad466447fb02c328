"""The oracle's own DynamoDB answers as a real engine does: whole histories are carried out by both, call by call."""

from __future__ import annotations

import json
import os
from typing import Any
from unittest import mock

from botocore.client import BaseClient
from botocore.exceptions import ClientError

from tests.conftest import Stack
from tests.oracle import engine
from tests.oracle.engine import PREFIX, NotUnderstood
from tests.oracle.histories import tell

HISTORIES = int(os.environ.get("ORACLE_HISTORIES") or 600) // 100


class Twins:
    """A call is carried out by the oracle's engine and by the one at ``client``; both must say the same."""

    def __init__(self, client: Any) -> None:
        self.calls = 0
        self._client = client
        self._own, self._empty, self._real = engine.call, engine.empty_tables, BaseClient._make_api_call  # type: ignore[attr-defined]
        self._number = 0

    def empty_tables(self) -> None:
        self._empty()
        for table in engine.definitions():
            if self._number:
                self._there("DeleteTable", {"TableName": table["TableName"]})
        self._number += 1
        for table in engine.definitions():
            self._there("CreateTable", table)

    def call(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self.calls += 1
        here = self._answer(self._own, operation, parameters)
        there = self._answer(self._there, operation, parameters)
        if _told(here) != _told(there):
            raise NotUnderstood(f"{operation} {parameters}: {here}, and there {there}")
        if isinstance(here, ClientError):
            raise here
        return here

    @staticmethod
    def _answer(call: Any, operation: str, parameters: dict[str, Any]) -> Any:
        try:
            return call(operation, parameters)
        except ClientError as error:
            return error

    def _there(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        text = json.dumps(parameters).replace(f'"{PREFIX}-', f'"{PREFIX}-{os.getpid()}-{self._number}-')
        answer: Any = self._real(self._client, operation, json.loads(text))
        return answer


def _told(answer: Any) -> Any:
    """What an answer says, whatever its order and form."""
    if isinstance(answer, ClientError):
        response: Any = answer.response
        reasons = [reason["Code"] for reason in response.get("CancellationReasons", ())]
        return response["Error"]["Code"], reasons
    if "Responses" in answer:
        return sorted((_item(item) for items in answer["Responses"].values() for item in items), key=_sorted)
    return [_item(item) for item in answer.get("Items", ())], _item(answer.get("Item")), _item(answer.get("Attributes"))


def _sorted(item: Any) -> str:
    return json.dumps(item, sort_keys=True)


def _item(item: Any) -> Any:
    return item and {name: float(value["N"]) if "N" in value else value for name, value in item.items()}


def test_the_oracles_engine_answers_as_a_real_one_does(stack_env: Stack) -> None:
    twins = Twins(stack_env.dynamodb)
    with (
        mock.patch.object(engine, "call", twins.call),
        mock.patch.object(engine, "empty_tables", twins.empty_tables),
    ):
        tell(1, HISTORIES, steps=25, shrink=False)
    print(f"{twins.calls} calls")
    assert twins.calls > 100 * HISTORIES
