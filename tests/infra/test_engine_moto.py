"""The embedded engine replaces parts of moto's insides: this fails as soon as they are not what it was written for.

After a change of moto: read what changed in the functions named here, mend ``infra/local/tables.py`` and ``queues.py``,
run the engine's other tests on both engines, and take over the new digests.
"""

from __future__ import annotations

import hashlib
import inspect
from typing import Any

import moto
import pytest
from moto.core import responses as core_responses
from moto.core.common_models import BaseModel
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.dynamo_type import DynamoType, Item, LimitedSizeDict
from moto.dynamodb.models.table import SecondaryIndex, Table
from moto.dynamodb.models.utilities import DynamoJsonEncoder
from moto.dynamodb.responses import DynamoHandler, DynamoResult
from moto.sqs.models import Message, Queue, SQSBackend
from moto.sqs.responses import SQSResponse

LEANED_ON = {
    "BaseModel.__new__": (BaseModel.__new__, "08cf0ef20e88"),
    "BaseResponse.call_action": (core_responses.BaseResponse.call_action, "26076963fd17"),
    "method_names_from_class": (core_responses.__dict__["method_names_from_class"], "9dbac89d082b"),
    "DynamoDBBackend.transact_write_items": (DynamoDBBackend.transact_write_items, "81db2cb7d94e"),
    "DynamoDBBackend.update_item": (DynamoDBBackend.update_item, "218984588dd6"),
    "DynamoDBBackend.delete_item": (DynamoDBBackend.delete_item, "083a4bb1af18"),
    "DynamoDBBackend.query": (DynamoDBBackend.query, "b8f2b308cd13"),
    "DynamoDBBackend.create_table": (DynamoDBBackend.create_table, "2bb8105ad9fa"),
    "DynamoHandler.call_action": (DynamoHandler.call_action, "ce5f57cf83cd"),
    "DynamoHandler.batch_write_item": (DynamoHandler.batch_write_item, "26221a09e2b2"),
    "DynamoHandler.update_item": (DynamoHandler.update_item, "638893af1afd"),
    "DynamoHandler.delete_item": (DynamoHandler.delete_item, "677cb014c5c4"),
    "DynamoResult": (DynamoResult, "60bf60c38edb"),
    "DynamoJsonEncoder": (DynamoJsonEncoder, "12d1ed849e68"),
    "DynamoType": (DynamoType, "72b795ad49f1"),
    "LimitedSizeDict": (LimitedSizeDict, "c956079ac955"),
    "Item": (Item, "0bfbb18c90ab"),
    "SecondaryIndex": (SecondaryIndex, "254d446a8153"),
    "Table": (Table, "09672fce9d21"),
    "Message": (Message, "a6471a329358"),
    "Queue": (Queue, "b5a48ab23b8f"),
    "SQSBackend.receive_message": (SQSBackend.receive_message, "065f3e5e7d21"),
    "SQSResponse": (SQSResponse, "7f5bcf1b9930"),
}


def test_moto_is_the_version_that_the_engine_was_written_for() -> None:
    assert moto.__version__ == "5.2.5"


@pytest.mark.parametrize("name", LEANED_ON)
def test_what_the_engine_leans_on_in_moto_is_unchanged(name: str) -> None:
    found, digest = LEANED_ON[name]
    assert digest_of(found) == digest, f"moto's {name} is another one: see this file's docstring"


def digest_of(code: Any) -> str:
    return hashlib.sha256(inspect.getsource(inspect.unwrap(code)).encode()).hexdigest()[:12]
