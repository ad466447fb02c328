"""What a process makes once, when it is first needed, with the imports that it needs and no others.

A Lambda that only reads listings starts cold often: it loads the plain DynamoDB client, and nothing of what crawls.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from chalicelib import settings
from chalicelib.index.reader import Reader

if TYPE_CHECKING:
    from chalicelib.crawl.context import Context


@cache
def reader() -> Reader:
    """The reader of listings."""
    import boto3
    from botocore.config import Config

    # Shorter than what a caller waits for: the gateway gives up after 29 seconds.
    bounds = Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
    return Reader(boto3.client("dynamodb", config=bounds), settings.current().table_prefix)


@cache
def context() -> Context:
    """Everything that crawls."""
    from chalicelib.crawl.context import Context

    return Context(settings.current())
