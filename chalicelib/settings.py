"""Typed settings, read from the environment once and checked, so that a wrong one stops the start with a clear message.

Each field of ``Settings`` is one variable ``DISCOVERY_<FIELD>``; its help text and default stand beside it.
``python -m chalicelib.settings`` prints them all in the form of ``.env.example``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from chalicelib.atproto.errors import InvalidSyntax
from chalicelib.atproto.scope import Scope
from chalicelib.atproto.syntax import Origin, parse_nsid, parse_origin

PREFIX = "DISCOVERY_"
VERSION = "0.1.0"


class InvalidSetting(Exception):
    """One or more settings cannot be used; the message names each and says what it should be."""


def _boolean(text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in words:
        raise ValueError("say true or false")
    return words[text.lower()]


def _number(kind: Callable[[str], float], low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise ValueError(f"say a number from {low:g} to {high:g}") from None
        if not low <= value <= high:
            raise ValueError(f"{text} is not in {low:g} to {high:g}")
        return value

    return parse


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("say an http or https URL")
    return text.rstrip("/")


def _collections(most: int) -> Callable[[str], frozenset[str]]:
    def parse(text: str) -> frozenset[str]:
        names = frozenset(parse_nsid(name.strip()) for name in text.split(",") if text != "none")
        if len(names) > most:
            raise ValueError(f"say {most} collections at most")
        return names

    return parse


def _origins(text: str) -> tuple[Origin, ...]:
    """What the operator names is not an address that somebody else may choose: the door alone refuses what is private."""
    names = [name.strip() for name in text.split(",")] if text else []
    return tuple(dict.fromkeys(parse_origin(name, allow_private=True) for name in names))


def _matching(pattern: str, what: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"say {what}")
        return text

    return parse


def _source(text: str) -> str:
    kinds = r"(ssm:[\w./-]{1,1011}|secretsmanager:[\w/+=.@:-]{1,2048}|file:.+)?"
    if not re.fullmatch(kinds, text, re.ASCII):
        raise ValueError("say ssm:NAME, secretsmanager:NAME or file:PATH")
    return text


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError("say one of " + ", ".join(words))
        return text

    return parse


def _setting(default: str, parse: Callable[[str], Any], help_text: str) -> Any:
    return field(metadata={"default": default, "parse": parse, "help": help_text})


def _integer(default: int, low: int, high: int, help_text: str) -> Any:
    return _setting(str(default), _number(int, low, high), help_text)


def _seconds(default: float, low: float, high: float, help_text: str) -> Any:
    return _setting(f"{default:g}", _number(float, low, high), help_text)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of the service. Build with ``read``; tests may build a variant with ``dataclasses.replace``."""

    collections: Scope = _setting(
        "io.atcr.*", Scope.parse, "Collections to index: NSIDs, comma-separated; a final .* takes all below"
    )
    authoritative: Scope | None = _setting(
        "",
        lambda text: Scope.parse(text) if text else None,
        "Collections whose listing is complete and may be answered; empty: all that are indexed",
    )
    changes: frozenset[str] = _setting(
        "io.atcr.hold.captain",
        _collections(5),
        "Collections whose changes can be asked for with `since`: at most 5 NSIDs, comma-separated, or none",
    )
    directories: tuple[Origin, ...] = _setting(
        "",
        _origins,
        "Services whose listReposByCollection is read, to find repos on hosts that do not announce themselves: "
        "hostnames, comma-separated",
    )
    relays: tuple[Origin, ...] = _setting(
        "", _origins, "Relays that are followed for the repos of large hosts that did not announce themselves"
    )
    directory_nsids: tuple[str, ...] = _setting(
        "io.atcr.hold.captain,io.atcr.hold.crew,io.atcr.manifest,io.atcr.tag,io.atcr.sailor.profile,"
        "io.atcr.sailor.star,io.atcr.repo.page",
        lambda text: tuple(dict.fromkeys(parse_nsid(name.strip()) for name in text.split(","))),
        "Collections that directories are asked for, as far as they are indexed; those that are indexed by name are as well",
    )
    directory_seconds: float = _seconds(600, 1, 7 * 24 * 3600, "A directory is asked for what is new so often")
    directory_hours: float = _seconds(
        168, 0.01, 24 * 365, "A directory is read from its beginning again after so many hours"
    )
    directory_unverified: int = _integer(
        1000, 1, 5000, "DIDs a day that one directory may list without anything of ours being found of them"
    )
    plc_url: str = _setting("https://plc.directory", _url, "PLC directory for did:plc")
    allow_private_hosts: bool = _setting(
        "false", _boolean, "Development mode: localhost, IP addresses, http and any port are allowed"
    )
    user_agent: str = _setting(
        f"atcr-discovery/{VERSION}",
        _matching(r"[ -~]{1,200}", "up to 200 printable ASCII characters"),
        "User-Agent of all outgoing requests; add a URL or an address to be reached at",
    )
    log_format: str = _setting("json", _one_of("json", "text"), "json for machines, text for people")
    metrics: str = _setting("off", _one_of("off", "emf"), "emf writes measurements to the log, for CloudWatch to read")

    table_prefix: str = _setting(
        "atcr-discovery-dev",
        _matching("[a-z][a-z0-9-]{0,60}", "up to 61 small letters, digits and hyphens, a letter first"),
        "The DynamoDB tables are named PREFIX-hosts, PREFIX-repos, ...",
    )
    queue_url: str = _setting("", str, "URL of the SQS queue of crawl jobs")
    admin_token_from: str = _setting(
        "",
        _source,
        "Where the token of /admin is: ssm:NAME (a SecureString), secretsmanager:NAME or file:PATH; empty: /admin is closed",
    )

    recrawl_hours: float = _seconds(
        12, 0.01, 24 * 30, "A host is crawled again after so many hours, whatever its stream said"
    )
    audit_hours: float = _seconds(
        168, 0, 24 * 365, "A repo in scope is compared with the index, whatever its rev, after so many hours"
    )
    confirm_hours: float = _seconds(
        24, 0.01, 24 * 7, "An announced host that cannot be reached is tried for so many hours"
    )
    gone_hours: float = _seconds(
        168,
        0,
        24 * 365,
        "A repo that its PDS, or a DID that the PLC directory, does not know is deleted after so many hours",
    )
    describe_seconds: float = _seconds(
        15, 0.1, 25, "A host has so long to answer a requestCrawl's describeServer; API Gateway gives up after 29"
    )
    request_rate: float = _seconds(
        20,
        0,
        100_000,
        "requestCrawls a second of one address (or IPv6 /64), by each API process, after the first hundred; 0: no bound",
    )
    max_address_requests: int = _integer(
        100,
        0,
        10**9,
        "requestCrawls an hour of one address (or IPv6 /64) for hosts that are not known yet; 0: no bound",
    )
    max_domain_hosts: int = _integer(100, 0, 10**9, "New hosts a day of one registrable domain; 0: no bound")
    max_new_hosts: int = _integer(1000, 0, 10**9, "New hosts a day in all; 0: no bound")
    max_unreached_hosts: int = _integer(
        1000, 0, 10**9, "Announced hosts a day that cannot be reached and are tried for a while; 0: no bound"
    )
    announce_seconds: float = _seconds(300, 0, 86400, "A known host's requestCrawl has an effect at most so often")
    job_seconds: float = _seconds(240, 1, 840, "A backfill job hands over to a new message after so many seconds")
    job_lease_seconds: float = _seconds(60, 2, 900, "A job that shows no progress for so long is taken to be dead")
    crawl_concurrency: int = _integer(4, 1, 64, "Requests at a time to one host during a crawl")
    crawl_rate: float = _seconds(
        10, 0.1, 100_000, "Requests a second to one host during a crawl, after the first hundred"
    )
    turn_seconds: float = _seconds(5, 0.1, 840, "A backfill job that takes longer needs one of the turns of its domain")
    jobs_per_domain: int = _integer(
        4, 0, 1000, "Turns of one registrable domain, half of which crawls of hosts may have; 0: no bound"
    )
    failure_cap_seconds: float = _seconds(6 * 3600, 1, 7 * 24 * 3600, "Longest back-off after a remote's failure")
    max_repo_bytes: int = _integer(2_000_000_000, 1_000, 10**12, "Largest CAR that is read, in bytes")
    max_repo_records: int = _integer(5_000_000, 1, 10**9, "Most wanted records that one repo may have")
    max_host_repos: int = _integer(10_000_000, 1, 10**10, "Most repos that are read from one host's listRepos")
    max_host_pages: int = _integer(25_000, 1, 10**8, "Most pages of listRepos that one walk through a host takes")
    identity_ttl_hours: float = _seconds(24, 0.001, 24 * 30, "A DID document is asked for again after so many hours")

    cursor_seconds: float = _seconds(5, 0.05, 300, "Cursors and chain states are saved so often, if they changed")
    heartbeat_seconds: float = _seconds(5, 0.2, 60, "The subscriber's heartbeat")
    lease_seconds: float = _seconds(
        20, 1, 600, "A subscriber without a heartbeat for so long has lost its hosts to the others"
    )
    discover_seconds: float = _seconds(1, 0.05, 60, "The subscriber looks for new hosts so often")
    ping_seconds: float = _seconds(30, 0.5, 600, "Websocket ping interval and time for its pong")
    connect_seconds: float = _seconds(15, 0.5, 120, "Time limit to open a stream")
    reconnect_cap_seconds: float = _seconds(
        900, 0.1, 24 * 3600, "Longest back-off between two attempts to open a stream"
    )
    max_frame_bytes: int = _integer(6_000_000, 1_000, 10**9, "Largest stream frame; the protocol's limit is 5 MB")
    stream_frames_per_second: float = _seconds(
        1_000, 1, 10**9, "Frames a second that are read of one host's stream; ten seconds' worth may come at once"
    )
    stream_bytes_per_second: float = _seconds(
        10_000_000, 10_000, 10**12, "Bytes a second that are read of one host's stream; neither bound holds for relays"
    )
    queued_commits: int = _integer(1000, 1, 10**6, "Commits of one repo that wait in memory while it is crawled")
    stream_workers: int = _integer(16, 1, 256, "Threads of the subscriber that write to the tables")
    strict_prev_data: bool = _setting(
        "false", _boolean, "Refuse commits without prevData (hosts from before Sync v1.1)"
    )

    @property
    def answered(self) -> Scope:
        """The collections that listReposByCollection answers for."""
        return self.authoritative or self.collections

    @property
    def directory_collections(self) -> tuple[str, ...]:
        """The collections that directories are asked for."""
        named = (pattern for pattern in self.collections.patterns if not pattern.endswith("*"))
        return tuple(dict.fromkeys((*filter(self.collections.wants, self.directory_nsids), *named)))

    @property
    def queue_name(self) -> str:
        """The name of the queue of crawl jobs, also before it has a URL."""
        return self.queue_url.rpartition("/")[2] or f"{self.table_prefix}-crawl"


def read(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in ``environ`` (the process's own by default). Raises ``InvalidSetting`` that names every fault."""
    source = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    faults: list[str] = []
    for item in fields(Settings):
        name = PREFIX + item.name.upper()
        text = source.get(name, "").strip() or item.metadata["default"]
        try:
            values[item.name] = item.metadata["parse"](text)
        except (ValueError, InvalidSyntax) as fault:
            given = "" if item.name == "admin_token_from" else f"={text!r}"  # it may be the token itself
            faults.append(f"{name}{given}: {fault}")
    known = {PREFIX + item.name.upper() for item in fields(Settings)} | {
        PREFIX + "LOCAL_DIR",
        PREFIX + "WORKER_THREADS",
    }
    faults += [
        f"{name}: there is no such setting" for name in sorted(source) if name.startswith(PREFIX) and name not in known
    ]
    if faults:
        raise InvalidSetting("; ".join(faults))
    return Settings(**values)


@cache
def current() -> Settings:
    """The settings of this process, read at the first call."""
    return read()


def example() -> str:
    """The text of ``.env.example``: every setting with its help and default."""
    return "\n".join(
        f"# {item.metadata['help']}\n{PREFIX}{item.name.upper()}={item.metadata['default']}\n"
        for item in fields(Settings)
    )


def reference() -> str:
    """The text of ``docs/settings.md``."""
    rows = [
        f"| `{PREFIX}{item.name.upper()}` | `{item.metadata['default']}` | {item.metadata['help']} |".replace("``", "")
        for item in fields(Settings)
    ]
    return "\n".join([*_REFERENCE_HEAD, *rows, ""])


_REFERENCE_HEAD = (
    "# Settings",
    "",
    "Environment variables, read and checked at start: a wrong or unknown one stops it with a message that names it.",
    "This page is written by `python -m chalicelib.settings --markdown > docs/settings.md`; without the option the command",
    "prints `.env.example`. `make run` reads `.env` as well.",
    "",
    "| variable | default | |",
    "|---|---|---|",
)


if __name__ == "__main__":
    print(reference() if "--markdown" in sys.argv[1:] else example(), end="")
