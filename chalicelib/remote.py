"""A service elsewhere, through its operators' door: ``/admin``, with the token."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx

from chalicelib.crawl import orders
from chalicelib.crawl.inspection import Entry
from chalicelib.crawl.orders import Refused

ATTEMPTS = 30
"""A second apart, to learn what came of an order."""
QUESTIONS = {
    "audit": ("listAudit", "entries"),
    "bans": ("listBans", "bans"),
    "dead-letters": ("listDeadLetters", None),
    "host": ("getHost", None),
    "hosts": ("listHosts", "hosts"),
    "repo": ("getRepo", None),
}
"""The method of each command, and where in its answer the entries are."""


def client(url: str, token: str) -> httpx.Client:
    """For ``Remote``. Raises ``Refused`` where the token would go in the open."""
    base = httpx.URL(url)
    if base.scheme != "https" and base.host not in ("127.0.0.1", "::1", "localhost"):
        raise Refused(f"the token goes over https only, not to {url}")
    return httpx.Client(base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=30)


class Remote:
    """What the commands do, there. Raises ``Refused`` for whatever does not succeed."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def order(self, action: str, target: str, *, who: str, why: str) -> str:
        """Give an order, and wait a while for what comes of it."""
        id = self._ask("POST", action, json={"target": target, "who": who, "why": why})["id"]
        for _ in range(ATTEMPTS):
            time.sleep(1)
            entry = self._ask("GET", "getOrder", params={"id": id})
            if entry["status"] == orders.REFUSED:
                raise Refused(entry["outcome"])
            if entry["status"] == orders.DONE:
                return str(entry["outcome"])
        return f"sent, and not carried out yet: {id}"

    def read(self, command: str, parameters: dict[str, str]) -> Iterator[Entry]:
        """What a command shows, page by page."""
        method, key = QUESTIONS[command]
        while True:
            page = self._ask("GET", method, params=parameters)
            yield from [page] if key is None else page[key]
            if key is None or "cursor" not in page:
                return
            parameters = parameters | {"cursor": page["cursor"]}

    def _ask(self, verb: str, method: str, **request: Any) -> Any:
        try:
            answer = self._client.request(verb, f"admin/{method}", **request)
            content = answer.json()
        except httpx.HTTPError as error:
            raise Refused(f"{self._client.base_url} cannot be asked: {error}") from error
        except ValueError:
            raise Refused(f"{self._client.base_url} is answered with {answer.status_code}, and no JSON") from None
        if not answer.is_success:
            raise Refused(f"{content.get('error')}: {content.get('message')}")
        return content
