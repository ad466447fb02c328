"""_health: whether the tables can be read and a subscriber is alive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chalice.app import Request, Response

from chalicelib import process, settings
from chalicelib.api import xrpc
from chalicelib.index.clock import now_ms
from chalicelib.index.state import SUBSCRIBER
from chalicelib.telemetry import log

SHORTEST_SILENCE = 30
"""Seconds without a heartbeat after which a subscriber may be taken to be dead, however often it should beat."""


def health(request: Request) -> Response:
    """200, or 503 with the reasons in ``problems``; the rest is the same.

    ``subscriber``: ``age``, seconds since the last heartbeat (``null``: there was none); ``alive``, how many subscribers
    there are; ``hosts``, how many hosts they follow, and ``open``, how many of those streams are open.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        heartbeats, problems = _heartbeats(), list[str]()
    except (BotoCoreError, ClientError) as error:
        log("health-tables", exception=error)
        heartbeats, problems = [], ["the tables cannot be read"]
    limit = longest_silence()
    alive = [beat for beat in heartbeats if _age(beat) <= limit]
    age = min(map(_age, heartbeats), default=None)
    if not alive and not problems:
        silence = "never" if age is None else f"{age:.0f} s ago, more than the {limit:.0f} s that it may be"
        problems = [f"no subscriber is alive: the last heartbeat was {silence}"]
    report = {
        "version": settings.VERSION,
        "subscriber": {
            "age": None if age is None else round(age, 1),
            "alive": len(alive),
            "hosts": sum(beat.get("hosts", 0) for beat in alive),
            "open": sum(beat.get("open", 0) for beat in alive),
        },
        "problems": problems,
    }
    if problems:
        report = {"error": "Unhealthy", "message": "; ".join(problems)} | report
    response = xrpc.answer(report)
    response.status_code = 503 if problems else 200
    response.headers["Cache-Control"] = "no-store"
    return response


def longest_silence() -> float:
    """Seconds without a heartbeat after which a subscriber is taken to be dead."""
    return max(SHORTEST_SILENCE, 4 * settings.current().heartbeat_seconds)


def _heartbeats() -> list[Mapping[str, Any]]:
    return [beat for beat in process.reader().state(SUBSCRIBER).values() if beat["at"]]  # 0: it has ended


def _age(heartbeat: Mapping[str, Any]) -> float:
    return max(0, now_ms() - int(heartbeat["at"])) / 1000
