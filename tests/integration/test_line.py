"""From requestCrawl to listReposByCollection, with everything real but the network beyond loopback."""

from __future__ import annotations

from simulator import faults, frames
from simulator.host import OLD_PDS, Shape
from simulator.thread import SimulatorThread
from tests.service import HOLDS, Service, eventually

TAGS = "io.atcr.tag"


def agrees(service: Service, sim: SimulatorThread, *collections: str) -> bool:
    """Whether each listing is the truth."""
    return all(set(service.listing(name)) == set(sim.call(sim.net.truth, name)) for name in collections)


def same_records(service: Service, sim: SimulatorThread, did: str) -> bool:
    """Whether what is indexed of a repo is the truth, to the values."""
    truth = sim.call(sim.net.records, did)
    wanted = {path: record.value for path, record in truth.items() if path.startswith("io.atcr.")}
    return {path: value for path, (_, value) in service.records(did).items()} == wanted


def settled(service: Service, host) -> None:
    """Wait until the host was crawled after its stream was opened, and nothing is due."""
    eventually(lambda: (row := service.host(host)).crawled_epoch == row.epoch == 1 and service.is_idle())


def listed(service: Service, sim: SimulatorThread, **hold):
    """A hold that asked to be crawled, and is listed and followed."""
    host = sim.call(sim.net.add_hold(**hold))
    assert service.request_crawl(host.hostname) == (200, "")
    eventually(lambda: host.did in service.listing(HOLDS))
    sim.call(host.subscribed())
    settled(service, host)
    assert same_records(service, sim, host.did)
    return host


def test_a_hold_that_asks_to_be_crawled_is_listed_with_its_records(service: Service, sim) -> None:
    hold = listed(service, sim, crew=3, layers=5)
    assert service.listing(HOLDS) == [hold.did]
    assert agrees(service, sim, "io.atcr.hold.crew", "io.atcr.hold.layer", "io.atcr.hold.stats", TAGS)


def test_a_hold_with_a_did_plc_and_a_p256_key_is_listed(service: Service, sim) -> None:
    hold = listed(service, sim, method="plc", curve="p256")
    assert service.listing(HOLDS) == [hold.did]
    assert hold.did.startswith("did:plc:")


def test_what_a_hold_writes_shows_at_once(service: Service, sim) -> None:
    hold = listed(service, sim)
    for public in (True, False):
        sim.call(hold.put, hold.did, *hold.author(hold.did).captain(public=public))
        eventually(lambda: same_records(service, sim, hold.did))
    assert hold.requests["com.atproto.sync.getRepo"] == 1  # the stream told the rest


def test_the_last_record_of_a_collection_takes_the_hold_out_of_its_listing(service: Service, sim) -> None:
    hold = listed(service, sim)
    sim.call(hold.delete_collection, hold.did, HOLDS)
    eventually(lambda: service.listing(HOLDS) == [])
    assert agrees(service, sim, "io.atcr.hold.crew")
    sim.call(hold.put, hold.did, *hold.author(hold.did).captain(public=True))
    eventually(lambda: service.listing(HOLDS) == [hold.did])
    assert same_records(service, sim, hold.did)


def test_who_left_and_came_back_sorts_behind_those_who_stayed(service: Service, sim) -> None:
    first, second = listed(service, sim), listed(service, sim)
    assert service.listing(HOLDS) == [first.did, second.did]
    sim.call(first.delete_collection, first.did, HOLDS)
    eventually(lambda: service.listing(HOLDS) == [second.did])
    sim.call(first.put, first.did, *first.author(first.did).captain(public=True))
    eventually(lambda: service.listing(HOLDS) == [second.did, first.did])


def test_users_of_a_pds_are_found_among_those_who_are_not(service: Service, sim) -> None:
    pds = sim.call(sim.net.add_pds(accounts=60, sailors=3, manifests=2, noise=5))
    service.request_crawl(pds.hostname)
    eventually(lambda: len(service.listing(TAGS)) == 3)
    assert agrees(service, sim, TAGS, "io.atcr.manifest", "io.atcr.sailor.profile")
    for did in service.listing(TAGS):
        assert same_records(service, sim, did)


def test_a_user_who_begins_with_atcr_is_found_through_the_stream(service: Service, sim) -> None:
    pds = sim.call(sim.net.add_pds(accounts=3, sailors=0, noise=3))
    service.request_crawl(pds.hostname)
    sim.call(pds.subscribed())
    did = next(iter(pds.accounts))
    sim.call(pds.put, did, *pds.author(did).sailor_profile())
    eventually(lambda: service.listing("io.atcr.sailor.profile") == [did])


def test_commits_without_anything_of_ours_are_followed_without_a_crawl(service: Service, sim) -> None:
    pds = sim.call(sim.net.add_pds(accounts=2, sailors=1, noise=3))
    service.request_crawl(pds.hostname)
    eventually(lambda: agrees(service, sim, TAGS) and service.listing(TAGS))
    settled(service, pds)
    [did] = service.listing(TAGS)
    author = pds.author(did)
    eventually(lambda: service.follows(did))
    before = pds.requests["com.atproto.sync.getRepo"]
    for _ in range(20):
        sim.call(pds.put, did, *author.post())
    sim.call(pds.add, did, [author.manifest()])
    eventually(lambda: same_records(service, sim, did))
    for _ in range(3):
        sim.call(pds.put, did, *author.post())
    head = pds.accounts[did].repo.rev
    eventually(lambda: service.row(did).rev == head)
    assert pds.requests["com.atproto.sync.getRepo"] == before


def test_accounts_that_go_away_leave_the_listing_and_come_back_with_their_records(service: Service, sim) -> None:
    pds = sim.call(sim.net.add_pds(accounts=3, sailors=3, noise=1))
    service.request_crawl(pds.hostname)
    eventually(lambda: len(service.listing(TAGS)) == 3)
    sim.call(pds.subscribed())
    one, two, three = pds.accounts
    before = pds.requests["com.atproto.sync.getRepo"]
    for did, status in ((one, "deactivated"), (two, "suspended"), (three, "takendown")):
        sim.call(pds.set_status, did, status)
    eventually(lambda: service.listing(TAGS) == [])
    assert service.records(one)
    for did in (one, two, three):
        sim.call(pds.set_status, did, None)
    eventually(lambda: agrees(service, sim, TAGS))
    assert pds.requests["com.atproto.sync.getRepo"] == before  # the rev still fits: nothing is downloaded again


def test_throttled_and_desynchronized_accounts_stay_listed(service: Service, sim) -> None:
    pds = sim.call(sim.net.add_pds(accounts=2, sailors=2, noise=1))
    service.request_crawl(pds.hostname)
    eventually(lambda: len(service.listing(TAGS)) == 2)
    sim.call(pds.subscribed())
    one, two = pds.accounts
    sim.call(pds.set_status, one, "throttled")
    sim.call(pds.set_status, two, "desynchronized")
    eventually(lambda: (service.row(one).status, service.row(two).status) == ("throttled", "desynchronized"))
    assert set(service.listing(TAGS)) == {one, two}


def test_a_deleted_account_leaves_with_its_records(service: Service, sim) -> None:
    pds = sim.call(sim.net.add_pds(accounts=2, sailors=2, noise=1))
    service.request_crawl(pds.hostname)
    eventually(lambda: len(service.listing(TAGS)) == 2)
    sim.call(pds.subscribed())
    gone, stays = pds.accounts
    sim.call(pds.delete_account, gone)
    eventually(lambda: service.listing(TAGS) == [stays])
    eventually(lambda: service.records(gone) == {})


def test_an_unreachable_hold_stays_listed_and_its_news_are_had_when_it_is_back(service: Service, sim) -> None:
    hold = listed(service, sim)
    sim.call(hold.put, hold.did, *hold.author(hold.did).captain(public=True))
    eventually(lambda: service.host(hold).cursor is not None)
    sim.call(hold.stop())
    sim.call(hold.put, hold.did, *hold.author(hold.did).captain(public=False))
    eventually(lambda: service.host(hold).stream_error is not None)
    assert service.listing(HOLDS) == [hold.did]
    sim.call(hold.start())
    eventually(lambda: same_records(service, sim, hold.did))
    assert hold.requests["com.atproto.sync.getRepo"] == 1  # the cursor went on where it was


def test_what_happened_while_no_subscriber_ran_is_had_from_the_cursor(service: Service, sim) -> None:
    hold = listed(service, sim)
    sim.call(hold.put, hold.did, *hold.author(hold.did).captain(public=False))
    eventually(lambda: same_records(service, sim, hold.did))
    service.unfollow()
    sim.call(hold.delete_collection, hold.did, HOLDS)
    service.follow()
    eventually(lambda: service.listing(HOLDS) == [])
    assert hold.requests["com.atproto.sync.getRepo"] == 1


def test_a_hold_without_a_cursor_yet_is_crawled_again_after_each_break(service: Service, sim) -> None:
    hold = listed(service, sim)
    assert service.host(hold).cursor is None
    service.unfollow()
    sim.call(hold.delete_collection, hold.did, HOLDS)
    sim.call(hold.stream.trim, 0)  # not even the backlog has it
    service.follow()
    eventually(lambda: service.listing(HOLDS) == [])


def test_an_outdated_cursor_is_made_good_by_a_crawl(service: Service, sim) -> None:
    hold = listed(service, sim)
    sim.call(hold.put, hold.did, *hold.author(hold.did).captain(public=False))
    eventually(lambda: service.host(hold).cursor is not None)
    epoch = service.host(hold).epoch
    service.unfollow()
    sim.call(hold.delete_collection, hold.did, HOLDS)
    sim.call(hold.put, hold.did, *hold.author(hold.did).crew(7))
    sim.call(hold.stream.trim, 1)
    service.follow()
    eventually(lambda: service.listing(HOLDS) == [] and same_records(service, sim, hold.did))
    assert service.host(hold).epoch > epoch


def test_a_hold_restored_from_a_backup_is_followed_again(service: Service, sim) -> None:
    hold = listed(service, sim)
    backup = sim.call(hold.backup)
    for public in (True, False, True):
        sim.call(hold.put, hold.did, *hold.author(hold.did).captain(public=public))
    eventually(lambda: service.host(hold).cursor == hold.stream.seq)
    sim.call(hold.restore, backup)
    sim.call(hold.delete_collection, hold.did, HOLDS)
    eventually(lambda: service.listing(HOLDS) == [])
    eventually(lambda: same_records(service, sim, hold.did))


def test_a_commit_that_is_too_big_for_the_stream_is_crawled(service: Service, sim) -> None:
    hold = listed(service, sim)
    entries = [hold.author(hold.did).layer() for _ in range(300)]
    sim.call(hold.add, hold.did, entries, telling=frames.too_big_commit)
    eventually(lambda: same_records(service, sim, hold.did))
    sim.call(hold.add, hold.did, [hold.author(hold.did).layer() for _ in range(150)])  # more than one transaction holds
    eventually(lambda: same_records(service, sim, hold.did))


def test_a_frame_over_the_limit_costs_the_connection_and_nothing_else(make_service, sim) -> None:
    service = make_service(MAX_FRAME_BYTES="50000")
    service.follow()
    hold = listed(service, sim)
    sim.call(hold.add, hold.did, [hold.author(hold.did).layer() for _ in range(300)])
    eventually(lambda: same_records(service, sim, hold.did))
    sim.call(hold.subscribed())
    sim.call(hold.delete_collection, hold.did, HOLDS)
    eventually(lambda: service.listing(HOLDS) == [])


def test_a_host_from_before_sync_1_1_is_followed_by_signature_and_record_proof(service: Service, sim) -> None:
    hold = listed(service, sim, shape=OLD_PDS)
    before = hold.requests["com.atproto.sync.getRepo"]
    for public in (False, True, False):
        sim.call(hold.put, hold.did, *hold.author(hold.did).captain(public=public))
    eventually(lambda: same_records(service, sim, hold.did))
    assert hold.requests["com.atproto.sync.getRepo"] == before


def test_such_a_host_is_crawled_at_each_commit_where_the_operator_is_strict(make_service, sim) -> None:
    service = make_service(STRICT_PREV_DATA="true")
    service.follow()
    hold = listed(service, sim, shape=OLD_PDS)
    before = hold.requests["com.atproto.sync.getRepo"]
    sim.call(hold.put, hold.did, *hold.author(hold.did).captain(public=False))
    eventually(lambda: same_records(service, sim, hold.did))
    assert hold.requests["com.atproto.sync.getRepo"] > before


def test_a_commit_that_nobody_told_is_made_good_at_the_next(service: Service, sim) -> None:
    hold = listed(service, sim)
    author = hold.author(hold.did)
    account = hold.accounts[hold.did]
    sim.call(lambda: hold.write(hold.did, [account.repo.put(*author.captain(public=False))], silent=True))
    sim.call(hold.put, hold.did, *author.crew(7))
    eventually(lambda: same_records(service, sim, hold.did))


def test_a_sync_event_is_followed_by_a_crawl(service: Service, sim) -> None:
    hold = listed(service, sim)
    author = hold.author(hold.did)
    sim.call(
        lambda: hold.write(hold.did, [hold.accounts[hold.did].repo.put(*author.captain(public=False))], silent=True)
    )
    sim.call(hold.emit_sync, hold.did)
    eventually(lambda: same_records(service, sim, hold.did))


def test_a_new_signing_key_is_taken_from_the_document(service: Service, sim) -> None:
    hold = listed(service, sim, method="plc")
    sim.call(hold.rotate_key, hold.did, announce=False)
    sim.call(hold.put, hold.did, *hold.author(hold.did).captain(public=False))
    eventually(lambda: same_records(service, sim, hold.did))
    sim.call(hold.rotate_key, hold.did, "p256")
    sim.call(hold.delete_collection, hold.did, HOLDS)
    eventually(lambda: service.listing(HOLDS) == [])


def test_a_badly_signed_commit_changes_nothing(service: Service, sim) -> None:
    hold = listed(service, sim)
    before = service.records(hold.did)
    sim.call(hold.put, hold.did, *hold.author(hold.did).captain(public=False), telling=frames.commit_badly_signed)
    eventually(lambda: service.outcomes()["desynchronized:bad-signature"] == 1)
    assert before  # what is true in the repo itself is then crawled
    eventually(lambda: same_records(service, sim, hold.did))


def test_a_repo_that_moves_is_followed_at_its_new_host_and_listed_once(service: Service, sim) -> None:
    old = sim.call(sim.net.add_pds(accounts=2, sailors=2, noise=1))
    new = sim.call(sim.net.add_pds(accounts=1, sailors=0, noise=1))
    for host in (old, new):
        service.request_crawl(host.hostname)
        sim.call(host.subscribed())
    eventually(lambda: len(service.listing(TAGS)) == 2)
    did = next(iter(old.accounts))
    sim.call(sim.net.migrate, did, new)
    sim.call(new.add, did, [new.author(did).manifest()])
    eventually(lambda: same_records(service, sim, did) and service.row(did).host == f"http://{new.hostname}")
    assert sorted(service.listing(TAGS)) == sorted(sim.call(sim.net.truth, TAGS))


def test_a_host_that_speaks_for_other_peoples_dids_is_not_heard(service: Service, sim) -> None:
    hold = listed(service, sim)
    liar = sim.call(sim.net.add_pds(accounts=1, sailors=0, noise=1))
    sim.call(lambda: liar.accounts.update({hold.did: hold.accounts[hold.did]}))
    service.request_crawl(liar.hostname)
    sim.call(liar.subscribed())
    sim.call(lambda: liar.set_status(hold.did, "takendown"))
    sim.call(lambda: setattr(hold.accounts[hold.did], "status", None))
    eventually(lambda: service.outcomes()["no-authority"] >= 1)
    eventually(lambda: service.row(hold.did).asked == service.row(hold.did).answered)
    assert service.listing(HOLDS) == [hold.did]
    assert service.row(hold.did).host == f"http://{hold.hostname}"


def test_a_server_that_sends_the_cursor_s_own_event_again_is_understood(service: Service, sim) -> None:
    hold = listed(service, sim, shape=Shape(inclusive_cursor=True))
    sim.call(hold.put, hold.did, *hold.author(hold.did).captain(public=False))
    eventually(lambda: service.host(hold).cursor == hold.stream.seq)
    epoch = service.host(hold).epoch
    sim.call(hold.stream.disconnect)
    sim.call(hold.subscribed())
    sim.call(hold.put, hold.did, *hold.author(hold.did).captain(public=True))
    eventually(lambda: same_records(service, sim, hold.did))
    assert service.host(hold).epoch == epoch


def test_a_host_that_is_down_when_it_announces_itself_is_listed_once_it_is_up(service: Service, sim) -> None:
    hold = sim.call(sim.net.add_hold())
    sim.call(hold.stop())
    status, answer = service.request_crawl(hold.hostname)
    assert (status, answer["error"]) == (400, "HostNotFound")
    sim.call(hold.start())
    eventually(lambda: service.listing(HOLDS) == [hold.did])


def test_a_host_crawled_again_with_nothing_new_costs_its_list_alone(service: Service, sim) -> None:
    pds = sim.call(sim.net.add_pds(accounts=40, sailors=2, noise=1))
    service.request_crawl(pds.hostname)
    eventually(lambda: len(service.listing(TAGS)) == 2 and service.host(pds).crawled_epoch == 1)
    eventually(lambda: service.is_idle() and service.has_no_jobs())
    before = dict(pds.requests)
    service.crawl_host(pds)
    eventually(lambda: pds.requests["com.atproto.sync.listRepos"] > before["com.atproto.sync.listRepos"])
    eventually(service.has_no_jobs)
    after = dict(pds.requests)
    assert {name for name in after if after[name] != before.get(name)} == {"com.atproto.sync.listRepos"}


def test_a_did_that_a_server_spells_in_two_ways_is_one_repo(service: Service, sim) -> None:
    hold = listed(service, sim, shape=Shape(decoded_did_web=True, lists_active=False))
    assert service.listing(HOLDS) == [hold.did]  # as its signed commit has it
    sim.call(hold.delete_collection, hold.did, HOLDS)
    eventually(lambda: service.listing(HOLDS) == [])


def test_what_was_damaged_by_hand_is_mended_when_the_audit_comes(make_service, sim) -> None:
    service = make_service(AUDIT_HOURS="0")
    service.follow()
    hold = listed(service, sim)
    for row in service.context.tables.records.query(hold.did):
        row.delete()
    service.crawl_host(hold)
    eventually(lambda: same_records(service, sim, hold.did))


def test_a_repo_that_has_just_moved_is_heard_at_its_new_host_at_once(service: Service, sim) -> None:
    """The document that is known is a moment old, and nobody crawls the new host."""
    old = listed(service, sim, method="plc")
    new = sim.call(sim.net.add_pds(accounts=1, sailors=0, noise=1))
    service.request_crawl(new.hostname)
    sim.call(new.subscribed())
    settled(service, new)
    did = old.did
    sim.call(sim.net.migrate, did, new)
    crawls = new.requests["com.atproto.sync.listRepos"]
    sim.call(new.put, did, *new.author(did).captain(public=False))
    eventually(lambda: same_records(service, sim, did) and service.row(did).host == f"http://{new.hostname}")
    assert new.requests["com.atproto.sync.listRepos"] == crawls
    assert service.listing(HOLDS) == [did]


def test_a_did_that_its_owner_gave_up_is_not_listed(service: Service, sim) -> None:
    hold = listed(service, sim, method="plc")
    sim.call(sim.net.identities.tombstone, hold.did)
    sim.call(hold.emit_identity, hold.did)
    eventually(lambda: service.listing(HOLDS) == [])
    assert service.records(hold.did) == {}


def test_news_of_a_document_that_cannot_be_had_are_looked_into_until_it_can(service: Service, sim) -> None:
    hold = listed(service, sim, method="plc")
    sim.call(sim.net.plc.fail, "did", answer=faults.status(500))
    sim.call(hold.rotate_key, hold.did)
    eventually(lambda: service.row(hold.did).failures >= 1)
    assert service.listing(HOLDS) == [hold.did]
    sim.call(sim.net.plc.heal)
    eventually(lambda: service.row(hold.did).resolve_again is None)
    sim.call(hold.put, hold.did, *hold.author(hold.did).captain(public=False))
    eventually(lambda: same_records(service, sim, hold.did))
