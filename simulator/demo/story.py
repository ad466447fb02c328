"""What is told: hosts that announce themselves, change, fall silent and come back, and what the listing says each time."""

from __future__ import annotations

import time

from simulator.atcr import CAPTAIN, CREW, LAYER, MANIFEST, SAILOR_PROFILE, SCAN, STATS, TAG
from simulator.demo.index import left_in
from simulator.demo.narrator import Narrator, StepFailed
from simulator.demo.service import Service
from simulator.demo.stack import TABLE_PREFIX, LocalStack
from simulator.host import Host
from simulator.neighbourhood import Neighbourhood

COLLECTIONS = (CAPTAIN, CREW, LAYER, STATS, SCAN, MANIFEST, TAG, SAILOR_PROFILE)


class Story:
    """Three holds, a PDS and the service. Each method is a step; ``tell`` has their order."""

    def __init__(self, net: Neighbourhood, stack: LocalStack, service: Service, narrator: Narrator) -> None:
        self._net = net
        self._stack = stack
        self._service = service
        self._narrator = narrator
        self._first: Host
        self._second: Host
        self._third: Host
        self._pds: Host
        self._kept_cursor = ""

    async def tell(self) -> None:
        """All of it. Raises ``StepFailed`` where something does not come about."""
        await self._a_neighbourhood()
        await self._the_service_starts()
        await self._what_is_wrong_is_refused()
        await self._holds_register()
        await self._users_are_found()
        await self._pages_are_walked()
        await self._a_hold_changes()
        await self._a_hold_leaves()
        await self._a_hold_returns()
        await self._a_hold_is_silent()
        await self._an_account_is_deactivated()
        await self._the_service_stops()

    async def _a_neighbourhood(self) -> None:
        with self._narrator.step("A neighbourhood: three holds, a PDS with twelve users, a PLC directory"):
            net, says, names = self._net, self._narrator.says, self._service.names
            self._first = await net.add_hold(crew=2)
            self._second = await net.add_hold(crew=1, method="plc", curve="p256")
            self._third = await net.add_hold(crew=3, curve="p256")
            self._pds = await net.add_pds(accounts=12, sailors=3)
            holds = {"hold 1": self._first, "hold 2": self._second, "hold 3": self._third}
            for name, hold in holds.items():
                names[hold.did] = name
                says(f"{name}  {hold.url}  {hold.did}, key {hold.accounts[hold.did].repo.key.curve}")
            names |= {did: f"user {number}" for number, did in enumerate(self._pds.accounts, 1)}
            says(f"PDS     {self._pds.url}  12 users with a did:plc; users 1 to 3 have images on ATCR")
            says(f"PLC     {net.plc.url}")

    async def _the_service_starts(self) -> None:
        with self._narrator.step("The service starts, as `make run` starts it, with a state folder of its own"):
            variables = " ".join(f"{name}={value}" for name, value in self._stack.variables.items())
            self._narrator.request(f"{variables} \\\n    python -m infra.local")
            await self._stack.start()
            await self._service.is_well(self._stack.ended)
            await self._service.lists(CAPTAIN, [])

    async def _what_is_wrong_is_refused(self) -> None:
        with self._narrator.step("What is wrong is refused, with a message that says why"):
            await self._service.refuses_host("https://hold01.atcr.io/v2/images")
            await self._service.refuses_host("hold01")
            await self._service.refuses_listing("CollectionNotIndexed", collection="app.bsky.feed.post")

    async def _holds_register(self) -> None:
        with self._narrator.step("Holds register themselves, and are listed in the order of their coming"):
            came: list[str] = []
            for hold in (self._first, self._second, self._third):
                await self._service.admits(hold)
                came.append(hold.did)
                await self._service.lists(CAPTAIN, came)

    async def _users_are_found(self) -> None:
        with self._narrator.step("A PDS registers: of its twelve users, those with images are listed"):
            await self._service.admits(self._pds)
            await self._service.lists(MANIFEST, list(self._net.truth(MANIFEST)), in_order=False)
            self._narrator.says("From now on the service follows what happens, over a stream from each host:")
            await self._service.follows(4)

    async def _pages_are_walked(self) -> None:
        with self._narrator.step("The listing, page by page"):
            first, second, third = self._first.did, self._second.did, self._third.did
            self._kept_cursor = await self._service.page([first, second], more=True, collection=CAPTAIN, limit="2")
            await self._service.page([third], more=False, collection=CAPTAIN, limit="2", cursor=self._kept_cursor)
            self._narrator.says("A cursor belongs to its collection:")
            await self._service.refuses_listing("InvalidRequest", collection=CREW, cursor=self._kept_cursor)

    async def _a_hold_changes(self) -> None:
        with self._narrator.step("A hold changes its captain record, and gets its first push"):
            hold, author = self._second, self._second.author(self._second.did)
            await self._service.lists(LAYER, [])
            self._wrote(hold.put(hold.did, *author.captain(public=False)).rev, "hold 2 is not public any more")
            self._wrote(hold.add(hold.did, [author.layer() for _ in range(4)]).rev, "a push of four layers to hold 2")
            self._narrator.says(
                "A commit is taken only as the continuation of the one before it: "
                "when the layers are there, so is the new captain record. The last step looks at its value."
            )
            await self._service.lists(LAYER, [hold.did])

    async def _a_hold_leaves(self) -> None:
        with self._narrator.step("A hold deletes its last captain record: it leaves that listing, and no other"):
            hold = self._first
            self._wrote(hold.delete_collection(hold.did, CAPTAIN).rev, f"hold 1 deletes all of {CAPTAIN}")
            await self._service.lists(CAPTAIN, [self._second.did, self._third.did])
            await self._service.lists(CREW, list(self._net.truth(CREW)), in_order=False)

    async def _a_hold_returns(self) -> None:
        with self._narrator.step("It comes back, and sorts last: whoever kept a cursor sees it as new"):
            hold = self._first
            self._wrote(hold.put(hold.did, *hold.author(hold.did).captain()).rev, "hold 1 has a captain again")
            await self._service.lists(CAPTAIN, [self._second.did, self._third.did, hold.did])
            self._narrator.says("The cursor of the first page, kept since then:")
            await self._service.page(
                [self._third.did, hold.did], more=False, collection=CAPTAIN, limit="2", cursor=self._kept_cursor
            )

    async def _a_hold_is_silent(self) -> None:
        with self._narrator.step("A hold goes away, stays listed, and comes back with news"):
            hold, captains = self._third, [self._second.did, self._third.did, self._first.did]
            await hold.stop()
            self._narrator.says(f"Nothing listens on {hold.url} any more.")
            await self._service.follows(3)
            await self._service.lists(CAPTAIN, captains)
            self._wrote(
                hold.put(hold.did, *hold.author(hold.did).scan()).rev, "hold 3 scans an image, cut off as it is"
            )
            await self._service.lists(SCAN, [])
            await hold.start()
            self._narrator.says("It is back, and announces itself as it does whenever it starts.")
            await self._service.admits(hold)
            await self._service.lists(SCAN, [hold.did])
            await self._service.lists(CAPTAIN, captains)
            await self._service.follows(4)

    async def _an_account_is_deactivated(self) -> None:
        with self._narrator.step("A user deactivates their account, and activates it again"):
            user = next(iter(self._pds.accounts))
            others = [did for did in await self._service.dids(MANIFEST) if did != user]
            self._pds.set_status(user, "deactivated")
            self._narrator.says("The PDS says that user 1 is deactivated.")
            await self._service.lists(MANIFEST, others)
            self._pds.set_status(user, None)
            self._narrator.says("The PDS says that user 1 is active.")
            await self._service.lists(MANIFEST, [*others, user])

    async def _the_service_stops(self) -> None:
        with self._narrator.step("The service stops. What its tables hold is what the repos hold, to the value"):
            await self._service.lists_union(COLLECTIONS, {did for name in COLLECTIONS for did in self._net.truth(name)})
            began = time.monotonic()
            if code := await self._stack.stop():
                raise StepFailed(f"the stack ended with code {code}")
            self._narrator.right("stopped, all cursors saved", time.monotonic() - began)
            began = time.monotonic()
            dids = list(self._net.homes)
            index = await left_in(self._stack.engine_file, TABLE_PREFIX, COLLECTIONS, dids)
            for name in COLLECTIONS:
                if set(index.listings[name]) != set(self._net.truth(name)):
                    raise StepFailed(f"{name}: listed are {self._service.called(index.listings[name])}")
            for did in dids:
                if index.records[did] != self._records(did):
                    raise StepFailed(
                        f"the index does not have the records of {self._service.called([did])} as they are"
                    )
            count = sum(map(len, index.records.values()))
            self._narrator.right(f"{len(COLLECTIONS)} listings, {count} records", time.monotonic() - began)
            captain = index.records[self._second.did][f"{CAPTAIN}/self"]
            self._narrator.says(
                f"hold 2, {CAPTAIN}/self: public is {str(captain['public']).lower()}, as it was changed."
            )

    def _records(self, did: str) -> dict[str, object]:
        """The records that should be indexed."""
        records = self._net.records(did)
        return {path: record.value for path, record in records.items() if path.startswith("io.atcr.")}

    def _wrote(self, rev: str, what: str) -> None:
        self._narrator.says(f"{what}  (rev {rev})")
