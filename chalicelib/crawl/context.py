"""The parts of the service, put together from the settings; each is made when it is first used."""

from __future__ import annotations

from functools import cached_property

import boto3

from chalicelib.atproto.identity import Resolver
from chalicelib.atproto.net import Door
from chalicelib.atproto.repo import SnapshotLimits
from chalicelib.crawl.bans import Bans
from chalicelib.crawl.budgets import Budgets
from chalicelib.crawl.identities import Identities
from chalicelib.crawl.mentions import Mentions
from chalicelib.crawl.queue import Queue
from chalicelib.crawl.turns import Turns
from chalicelib.index.clock import Clock, now_ms
from chalicelib.index.hosts import Hosts
from chalicelib.index.state import State
from chalicelib.index.subscribers import Subscribers
from chalicelib.index.tables import Tables
from chalicelib.index.writer import Writer
from chalicelib.settings import Settings

_HOUR_MS = 3600 * 1000


class Context:
    """One per process. Everything in it may be used from several threads."""

    def __init__(self, settings: Settings, *, clock: Clock = now_ms) -> None:
        self.settings = settings
        self.clock = clock

    @cached_property
    def tables(self) -> Tables:
        return Tables(self.settings.table_prefix, connections=max(32, 2 * self.settings.stream_workers))

    @cached_property
    def writer(self) -> Writer:
        return Writer(
            self.tables,
            clock=self.clock,
            job_lease_ms=int(self.settings.job_lease_seconds * 1000),
            failure_cap_ms=int(self.settings.failure_cap_seconds * 1000),
            feeds=self.settings.changes,
        )

    @cached_property
    def hosts(self) -> Hosts:
        return Hosts(
            self.tables,
            clock=self.clock,
            job_lease_ms=int(self.settings.job_lease_seconds * 1000),
            recrawl_ms=int(self.settings.recrawl_hours * _HOUR_MS),
            announce_ms=int(self.settings.announce_seconds * 1000),
            confirm_ms=int(self.settings.confirm_hours * _HOUR_MS),
            failure_cap_ms=int(self.settings.failure_cap_seconds * 1000),
        )

    @cached_property
    def state(self) -> State:
        return State(self.tables, clock=self.clock)

    @cached_property
    def bans(self) -> Bans:
        return Bans(self.state)

    @cached_property
    def budgets(self) -> Budgets:
        return Budgets(self.state, self.settings)

    @cached_property
    def turns(self) -> Turns:
        return Turns(self.state, self.settings, clock=self.clock)

    @cached_property
    def mentions(self) -> Mentions:
        return Mentions(
            hosts=self.hosts,
            writer=self.writer,
            state=self.state,
            queue=self.queue,
            budgets=self.budgets,
            clock=self.clock,
            allow_private=self.settings.allow_private_hosts,
        )

    @cached_property
    def subscribers(self) -> Subscribers:
        return Subscribers(self.tables, clock=self.clock)

    @cached_property
    def queue(self) -> Queue:
        return Queue(boto3.client("sqs"), self.settings.queue_url)

    @cached_property
    def door(self) -> Door:
        return Door(allow_private=self.settings.allow_private_hosts, user_agent=self.settings.user_agent)

    @cached_property
    def identities(self) -> Identities:
        resolver = Resolver(self.door, self.settings.plc_url, allow_private=self.settings.allow_private_hosts)
        return Identities(resolver, self.state, ttl_seconds=self.settings.identity_ttl_hours * 3600, clock=self.clock)

    @cached_property
    def snapshot_limits(self) -> SnapshotLimits:
        return SnapshotLimits(max_bytes=self.settings.max_repo_bytes, max_records=self.settings.max_repo_records)
