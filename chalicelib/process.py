"""What a process makes once, when it is first needed, with the imports that it needs and no others.

A Lambda that only reads listings starts cold often: it loads the plain DynamoDB client, and nothing of what crawls.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from chalicelib import metrics, settings, telemetry
from chalicelib.index.reader import Reader

if TYPE_CHECKING:
    from chalicelib.crawl.context import Context


def begin() -> None:
    """Log and measure as the settings say."""
    now = settings.current()
    telemetry.configure(now.log_format)
    metrics.configure(now.table_prefix if now.metrics == "emf" else None)


@cache
def reader() -> Reader:
    """The reader of listings."""
    # Not boto3: what it brings for S3 would be a third of a cold start.
    from botocore.config import Config
    from botocore.session import Session

    # Shorter than what a caller waits for: the gateway gives up after 29 seconds.
    bounds = Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
    return Reader(Session().create_client("dynamodb", config=bounds), settings.current().table_prefix)


@cache
def context() -> Context:
    """Everything that crawls."""
    from chalicelib.crawl.context import Context

    return Context(settings.current())
