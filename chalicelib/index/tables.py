"""PynamoDB models of the five tables. Their keys and indexes are those of ``infra/data.yaml``; a test compares the two.

Attributes that end in ``_at`` or ``_until`` are UTC milliseconds since 1970, but for ``expires_at``, which DynamoDB's TTL
wants in seconds. An absent attribute means that the thing is not so: an index that is keyed by it stays sparse.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, TypeVar, cast

from pynamodb.attributes import (
    BooleanAttribute,
    JSONAttribute,
    NumberAttribute,
    UnicodeAttribute,
    VersionAttribute,
)
from pynamodb.connection import Connection, TableConnection
from pynamodb.indexes import GlobalSecondaryIndex, KeysOnlyProjection
from pynamodb.models import Model

DUE_SHARD = "0"
"""Hash key of the ``due`` indexes while there is one sweep. More shards: more values."""

SCOPE_SHARD = "0"
"""Hash key of the index of repos in scope."""

NOBODY = "-"
"""``owner`` of a host that should be followed and is not."""


class HostsDue(GlobalSecondaryIndex["HostRow"]):
    class Meta:
        index_name = "due"
        projection = KeysOnlyProjection()

    due_shard = UnicodeAttribute(hash_key=True)
    due_at = NumberAttribute(range_key=True)


class HostsByOwner(GlobalSecondaryIndex["HostRow"]):
    class Meta:
        index_name = "by_owner"
        projection = KeysOnlyProjection()

    owner = UnicodeAttribute(hash_key=True)
    attention_at = NumberAttribute(range_key=True)


class HostsByKind(GlobalSecondaryIndex["HostRow"]):
    class Meta:
        index_name = "by_kind"
        projection = KeysOnlyProjection()

    kind = UnicodeAttribute(hash_key=True)
    first_seen_at = NumberAttribute(range_key=True)


class HostRow(Model):
    """A host that announced itself, or that the document of a repo in scope names; or a relay."""

    origin = UnicodeAttribute(hash_key=True)
    kind = UnicodeAttribute(default="pds")
    """``pds``: it announced itself, and all of its repos are looked into; ``named``: it did not, and only those are that were
    heard of, unless they are few; ``relay``."""
    status = UnicodeAttribute()
    """``unconfirmed`` (announced, never reached), ``active``, ``offline``; ``paused`` or ``banned`` by the operator."""
    banned_by = UnicodeAttribute(null=True)
    """The ban that this host is under: its own key, or a domain suffix."""
    ordered_at = NumberAttribute(null=True)
    """Time of the operator's last order for this host: an older one that is carried out late changes nothing."""
    withheld_at = NumberAttribute(null=True)
    """When it was last banned or let in again; absent once all of its repos have been asked to follow."""
    first_seen_at = NumberAttribute()
    announced_at = NumberAttribute(null=True)

    owner = UnicodeAttribute(null=True)
    """The subscriber that follows the stream, or ``NOBODY``. Absent: the host is not to be followed."""
    attention_at = NumberAttribute(null=True)
    """When the owner was last asked to look at this row."""
    epoch = NumberAttribute(default=0)
    """Rises at each open of the stream that does not continue its cursor."""
    cursor = NumberAttribute(null=True)
    cursor_at = NumberAttribute(null=True)
    connected_at = NumberAttribute(null=True)
    stream_error = UnicodeAttribute(null=True)

    crawl_job = UnicodeAttribute(null=True)
    crawl_until = NumberAttribute(null=True)
    crawl_epoch = NumberAttribute(null=True)
    """The epoch under which the crawl in progress began."""
    crawl_page = UnicodeAttribute(null=True)
    """The listRepos cursor of the next page of the crawl in progress."""
    crawl_seen = NumberAttribute(null=True)
    """Repos that it has come by, and"""
    crawl_pages = NumberAttribute(null=True)
    """pages."""
    crawl_unlisted = JSONAttribute(null=True)
    """The repos in scope that it has not come by so far; absent where they are too many."""
    crawled_epoch = NumberAttribute(null=True)
    crawled_at = NumberAttribute(null=True)
    repo_count = NumberAttribute(null=True)
    failures = NumberAttribute(default=0)
    last_error = UnicodeAttribute(null=True)
    last_error_at = NumberAttribute(null=True)

    due_shard = UnicodeAttribute(null=True)
    due_at = NumberAttribute(null=True)
    due = HostsDue()
    by_owner = HostsByOwner()
    by_kind = HostsByKind()


class ReposDue(GlobalSecondaryIndex["RepoRow"]):
    class Meta:
        index_name = "due"
        projection = KeysOnlyProjection()

    due_shard = UnicodeAttribute(hash_key=True)
    due_at = NumberAttribute(range_key=True)


class ReposByHost(GlobalSecondaryIndex["RepoRow"]):
    class Meta:
        index_name = "by_host"
        projection = KeysOnlyProjection()

    scope_host = UnicodeAttribute(hash_key=True)
    did = UnicodeAttribute(range_key=True)


class ReposInScope(GlobalSecondaryIndex["RepoRow"]):
    class Meta:
        index_name = "in_scope"
        projection = KeysOnlyProjection()

    scope_shard = UnicodeAttribute(hash_key=True)
    did = UnicodeAttribute(range_key=True)


class RepoRow(Model):
    """A repo: what is verified of it, what is asked of us, and where it is listed. Every write of it is a compare-and-set
    on ``version``, so that a decision is always carried out on the very row that it was made for."""

    did = UnicodeAttribute(hash_key=True)
    version = VersionAttribute()
    verbatim = UnicodeAttribute(null=True)
    """The DID as its host spells it, where that is not the key."""
    host = UnicodeAttribute(null=True)
    """The PDS that the DID's document names: the one source of this repo."""
    scope_host = UnicodeAttribute(null=True)
    """``host`` while the repo has wanted records; absent otherwise. ``scope_shard``: SCOPE_SHARD, in the same way."""
    scope_shard = UnicodeAttribute(null=True)

    rev = UnicodeAttribute(null=True)
    data = UnicodeAttribute(null=True)
    head = UnicodeAttribute(null=True)
    """The CID of the commit ``rev``, whose tree has the root ``data``."""
    sync = UnicodeAttribute()
    """``new`` (never landed), ``synced``, ``desynchronized``, or ``refused`` (no authority: nothing of it is indexed)."""
    reason = UnicodeAttribute(null=True)
    """Why ``sync`` is what it is; ``reason_at`` since when."""
    reason_at = NumberAttribute(null=True)

    active = BooleanAttribute(default=True)
    status = UnicodeAttribute(null=True)
    """The account's status as its PDS gives it, where it is not plainly active."""
    taken_down = UnicodeAttribute(null=True)
    """Why the operator keeps it out of all listings, whatever its PDS says."""
    ordered_at = NumberAttribute(null=True)
    """Time of the operator's last takedown or of its end; an older one changes nothing."""
    host_banned = BooleanAttribute(null=True)
    """Its host was banned when a job last looked."""
    claim = UnicodeAttribute(null=True)
    """What a stream's #account event said, or a host's list showed, and the PDS was not asked about yet."""

    job = UnicodeAttribute(null=True)
    """Token of the job that writes this repo now. While it is there, nobody else changes records or listings."""
    job_until = NumberAttribute(null=True)
    asked = NumberAttribute(default=0)
    """How often work on this repo was asked for; ``answered``: up to which of these it has been done."""
    answered = NumberAttribute(default=0)
    claimed_by = UnicodeAttribute(null=True)
    """Who said that there is something of ours, be it a directory, while nobody else has and nothing was verified."""
    resolve_again = BooleanAttribute(null=True)
    """The DID document is to be fetched again by the next job."""
    audit = BooleanAttribute(null=True)
    """The next job compares everything that is stored with the repo, whatever the rev says."""
    audited_at = NumberAttribute(null=True)
    failures = NumberAttribute(default=0)
    missing_since = NumberAttribute(null=True)
    """When its PDS first said that it has no such repo; absent once it said anything else."""
    retry_at = NumberAttribute(null=True)
    last_error = UnicodeAttribute(null=True)
    last_error_at = NumberAttribute(null=True)

    collections = JSONAttribute(default=dict)
    """How many live records there are of each wanted collection."""
    listed = JSONAttribute(default=dict)
    """In which listings the DID stands, and the ``key`` of its row there."""
    changed = JSONAttribute(default=dict)
    """In which feeds of changes the DID stands, and the ``key`` of its row there."""
    half_landed = BooleanAttribute(null=True)
    """A landing of several transactions has begun and not ended: which collections it changed by now is not known."""
    skipped = NumberAttribute(null=True)
    crawled_at = NumberAttribute(null=True)
    probed_epoch = NumberAttribute(null=True)
    """For a repo without wanted records: the epoch of its host's stream under which it was found so."""

    due_shard = UnicodeAttribute(null=True)
    due_at = NumberAttribute(null=True)
    due = ReposDue()
    by_host = ReposByHost()
    in_scope = ReposInScope()


class RecordRow(Model):
    """A live record of a wanted collection."""

    did = UnicodeAttribute(hash_key=True)
    path = UnicodeAttribute(range_key=True)
    cid = UnicodeAttribute()
    rev = UnicodeAttribute()
    """The repo's rev at which this version of the record was seen."""
    value = UnicodeAttribute(null=True)
    """The record as JSON text. Absent with a ``problem``: the record is there, its value is not usable."""
    problem = UnicodeAttribute(null=True)
    indexed_at = NumberAttribute()


class ListingRow(Model):
    """The answer to listReposByCollection, ready to be read: a row per collection and DID, in the order of first listing.
    The feeds of changes are beside it in the same form, in the order of the last change; see ``listings``."""

    collection = UnicodeAttribute(hash_key=True)
    key = UnicodeAttribute(range_key=True)
    did = UnicodeAttribute(null=True)
    """The DID verbatim, where that is not the one in ``key``."""
    expires_at = NumberAttribute(null=True)


class StateRow(Model):
    """Small things that are kept by kind and id: heads of listings, the identity cache, heartbeats, budgets, turns."""

    kind = UnicodeAttribute(hash_key=True)
    id = UnicodeAttribute(range_key=True)
    number = NumberAttribute(null=True)
    holder = UnicodeAttribute(null=True)
    """Who has the row, up to ``number``, UTC ms."""
    content = JSONAttribute(null=True)
    expires_at = NumberAttribute(null=True)


_M = TypeVar("_M", bound=Model)


def copy_of(row: _M) -> _M:
    """A copy that can be changed without changing ``row``."""
    return type(row)(**deepcopy(row.attribute_values))


class Tables:
    """The models bound to the tables of one installation.

    ``prefix`` is the common beginning of the tables' names. Region, endpoint and credentials are boto's own business
    (``AWS_REGION``, ``AWS_ENDPOINT_URL``, ...), unless ``region`` or ``endpoint`` are given.
    """

    def __init__(
        self, prefix: str, *, region: str | None = None, endpoint: str | None = None, connections: int = 32
    ) -> None:
        self.prefix = prefix
        options: dict[str, Any] = {
            "region": region,
            "host": endpoint,
            "connect_timeout_seconds": 3,
            "read_timeout_seconds": 10,
            "max_retry_attempts": 5,
            "max_pool_connections": connections,
        }

        def bind(model: type[_M], name: str) -> type[_M]:
            def connect(cls: type[_M]) -> TableConnection:
                # By itself each model makes a client of its own, for a tenth of a second and some megabytes.
                found = model._get_connection.__func__(cls)  # type: ignore[attr-defined]
                found.connection._client = self.connection.client
                return cast(TableConnection, found)

            meta = type("Meta", (), {"table_name": f"{prefix}-{name}", **options})
            own = {"Meta": meta, "__module__": model.__module__, "_get_connection": classmethod(connect)}
            return type(model.__name__, (model,), own)

        self.hosts = bind(HostRow, "hosts")
        self.repos = bind(RepoRow, "repos")
        self.records = bind(RecordRow, "records")
        self.listings = bind(ListingRow, "listings")
        self.state = bind(StateRow, "state")
        self.connection = Connection(
            region=region,
            host=endpoint,
            connect_timeout_seconds=3,
            read_timeout_seconds=10,
            max_retry_attempts=5,
            max_pool_connections=connections,
        )
