"""Asking for what is new and for everything, in any order, against a service whose listing changes: held against the truth."""

from __future__ import annotations

import asyncio
import json
import tempfile
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import discovery_client.web
from discovery_client import AsyncClient, NoAnswer, Retry, State

DIDS = [f"did:plc:{letter}" for letter in "abcdefgh"]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("list"), st.sampled_from(DIDS)),
        st.tuples(st.just("leave"), st.sampled_from(DIDS)),
        st.tuples(st.sampled_from(["discover", "whole", "down", "lose", "forget"]), st.none()),
    ),
    max_size=40,
)


class Listing:
    """A listing in the order of first listing; a cursor is the last place on a page, as the service of this project has it.
    Those of another epoch are refused."""

    def __init__(self, page: int, etags: bool) -> None:
        self.page, self.etags = page, etags
        self.rows: list[tuple[int, str]] = []
        self.fails, self.epoch = 0, 0
        self._place = 0

    @property
    def dids(self) -> tuple[str, ...]:
        return tuple(did for _, did in self.rows)

    def add(self, did: str) -> None:
        if did not in self.dids:
            self._place += 1
            self.rows.append((self._place, did))

    def remove(self, did: str) -> None:
        self.rows = [row for row in self.rows if row[1] != did]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.fails:
            self.fails -= 1
            return answer(500)
        epoch, _, place = (request.url.params.get("cursor") or f"{self.epoch}-0").partition("-")
        if int(epoch) != self.epoch:
            return answer(400)
        rest = [row for row in self.rows if row[0] > int(place)]
        body: dict[str, Any] = {"repos": [{"did": did} for _, did in rest[: self.page]]}
        if len(rest) > self.page:
            body["cursor"] = f"{self.epoch}-{rest[self.page - 1][0]}"
        etag = f'"{hash(json.dumps(body))}"'
        if self.etags and request.headers.get("if-none-match") == etag:
            return answer(304)
        return answer(200, json.dumps(body), **({"etag": etag} if self.etags else {}))


def answer(status: int, body: str = "", **headers: str) -> httpx.Response:
    """As from a network: to be read yet."""
    return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body.encode()))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(steps=STEPS, page=st.integers(1, 3), etags=st.booleans())
def test_nobody_is_missed_and_who_left_is_gone_after_everything(
    steps: list[tuple[str, str | None]], page: int, etags: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = Listing(page, etags)
    made = httpx.AsyncClient(transport=httpx.MockTransport(listing))
    monkeypatch.setattr(discovery_client.web, "client", lambda seconds: made)

    async def main(folder: str) -> None:
        known: tuple[str, ...] = ()
        last: tuple[str, ...] | None = None
        async with AsyncClient(["https://a.example.com"], cache=folder, retry=Retry(attempts=1)) as client:
            for what, did in [*steps, ("discover", None), ("whole", None)]:
                match what:
                    case "list":
                        listing.add(str(did))
                    case "leave":
                        listing.remove(str(did))
                    case "down":
                        listing.fails = 1
                    case "lose":
                        listing.fails = 0
                    case "forget":
                        listing.epoch += 1
                    case _:
                        try:
                            found = await client.discover(whole=what == "whole")
                        except NoAnswer:
                            assert last is None
                            continue
                        (report,) = found.reports
                        assert len(set(found.dids)) == len(found.dids)
                        if report.state is State.CACHED:
                            assert found.dids == last
                            continue
                        assert report.state is State.FRESH
                        assert set(found.dids) >= set(listing.dids)
                        assert set(found.dids) - set(listing.dids) <= set(known)
                        if what == "whole":
                            assert found.dids == listing.dids
                        last = found.dids
                        known = tuple({*known, *found.dids})

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(folder))
