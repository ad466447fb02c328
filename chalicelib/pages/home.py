"""The first page: what this service is and knows, now, and how a hold registers."""

from __future__ import annotations

from chalice.app import Request

from chalicelib import process, settings
from chalicelib.api.collections import statistics
from chalicelib.api.holds import CAPTAIN
from chalicelib.index.reader import Reader
from chalicelib.pages import hosts, repos
from chalicelib.pages.frame import Page, Site
from chalicelib.pages.markup import Html, element, joined, theirs
from chalicelib.pages.parts import alive, code, command, moment, nothing_yet, onward, paragraph, section, table

HOLDS = 25
HOSTS = 10
COLLECTIONS = 20
MAX_NAME = 60

_HOLDS = (
    "ATCR keeps the layers of images in holds: storage services of many owners, each with a repo of its own on the "
    "AT Protocol. These are the holds that there are now, as read from their own signed repos."
)
_REPOS = "Which repos on the AT Protocol have records of a collection, as read from these signed repos."


def home(request: Request, site: Site) -> Page:
    """What stands at ``/``."""
    reader, now = process.reader(), settings.current()
    has_holds = now.answered.wants(CAPTAIN)
    content = joined(
        element("p", _HOLDS if has_holds else _REPOS, class_="lead"),
        _live(reader),
        _holds(reader, site) if has_holds else None,
        _collections(site),
        _hosts(reader, site),
        _register(site),
        _for_programs(site, has_holds),
    )
    return Page("Find the holds of ATCR" if has_holds else "Find repos by collection", content, "")


def _live(reader: Reader) -> Html:
    beats = alive(reader).values()
    if not beats:
        return element("p", element("span", "No stream is followed at the moment.", class_="state fair"))
    hosts, streams = (sum(beat.get(name, 0) for beat in beats) for name in ("hosts", "open"))
    told = f"Live: {streams:,} of {hosts:,} {'stream' if hosts == 1 else 'streams'} open, heard "
    return element("p", element("span", told, moment(max(beat["at"] for beat in beats)), class_="state good"))


def _holds(reader: Reader, site: Site) -> Html:
    entries, more = reader.entries(CAPTAIN, after=0, limit=HOLDS)
    shown = repos.holds_table(reader, site, entries)
    return section("Holds", shown, onward(site.place("collections", CAPTAIN), "All holds") if more else None)


def _collections(site: Site) -> Html:
    found = statistics()
    rows = [
        (site.link("collections", name, theirs(name, MAX_NAME)), f"{repos:,}", f"{found.records[name]:,}")
        for name, repos in found.repos.most_common(COLLECTIONS)
    ]
    patterns = ", ".join(settings.current().collections.patterns)
    shown = table("Collections, by the number of repos", ("Collection", "Repos", "Records"), rows)
    return section(
        "Collections", shown if rows else nothing_yet("Nothing is indexed yet."), note=f"Indexed: {patterns}"
    )


def _hosts(reader: Reader, site: Site) -> Html:
    rows, following = reader.hosts(after=None, limit=HOSTS)
    more = onward(site.place("hosts"), "All hosts") if following else None
    return section("Hosts", hosts.hosts_table(reader, site, rows), more)


def _register(site: Site) -> Html:
    call = (
        f"curl -i {site.url}/xrpc/com.atproto.sync.requestCrawl \\\n"
        "  -H 'content-type: application/json' \\\n"
        '  -d \'{"hostname": "hold.example.com"}\''
    )
    return section(
        "Register a hold",
        paragraph(
            "A hold asks to be crawled, once at each start. 200 says that it was reached; it is listed some seconds later, "
            "and its stream is followed from then on."
        ),
        command(call),
        paragraph(
            "Not listed? Search for its DID: its page says why, and when it is tried again. The DID document has to name the "
            "host as its ",
            code("#atproto_pds"),
            ".",
        ),
        id="register",
    )


def _for_programs(site: Site, has_holds: bool) -> Html:
    call = (
        f'curl "{site.url}/xrpc/com.atproto.sync.listReposByCollection?collection={CAPTAIN if has_holds else "NSID"}"'
    )
    return section(
        "For programs",
        paragraph(
            "JSON over HTTP, no key needed. Keep the last cursor, and ask only for what is new. ",
            element("a", "All methods", href=site.place("docs")),
            ", their ",
            element("a", "OpenAPI description", href=site.place("openapi.json")),
            *(
                (", and ", element("a", "all holds in one file", href=site.place(".well-known/holds.json")))
                if has_holds
                else ()
            ),
            ".",
        ),
        command(call),
    )
