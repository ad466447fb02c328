"""The pages: what they say, where they lead, and what is sent with them."""

from __future__ import annotations

import re
from itertools import pairwise
from unittest import mock
from urllib.parse import unquote, urljoin

import pytest
from botocore.exceptions import EndpointConnectionError
from chalice.app import Request

from chalicelib import process
from chalicelib.pages.frame import Site
from tests.pages.conftest import CAPTAIN, Read, Web, settle

MAX_BYTES = 40_000
ALL = [
    "/",
    "/hosts",
    "/hosts/hold.oldtown.example.com",
    "/repos/did:web:hold01.atcr.io",
    f"/collections/{CAPTAIN}",
    "/collections/io.atcr.tag",
    "/docs",
    "/hosts/nobody.example.org",
]


def text_of(page: str) -> str:
    """What is read, in one line."""
    return " ".join(Read(page).text.split())


def test_the_first_page_says_what_is_known_now(web: Web) -> None:
    settle(web)
    page = web.get("/")
    text = text_of(page.text)
    assert page.status == 200
    assert "Live: 6 of 7 streams open, heard just now" in text
    assert "did:web:layers.example.net eu-central-1" not in text  # each in a cell of its own
    for row in (
        "did:web:layers.example.neteu-central-1awspublicconnected",
        "io.atcr.tag88",
        "pds.example.comactive231,877",
    ):
        assert row in text, row
    assert "curl -i https://discovery.example.com/xrpc/com.atproto.sync.requestCrawl" in text


def test_every_page_has_landmarks_one_title_and_headings_in_order(web: Web) -> None:
    settle(web)
    for path in ALL:
        read = Read(web.get(path).text)
        tags = [tag for tag, _ in read.tags]
        assert [tags.count(name) for name in ("header", "nav", "main", "footer", "h1", "title")] == [1] * 6, path
        levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
        assert all(after <= before + 1 for before, after in pairwise(levels)), path
        ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
        assert len(ids) == len(set(ids)), path
        inside = {attributes["href"] for tag, attributes in read.tags if tag == "a" and attributes["href"][:1] == "#"}
        assert inside <= {f"#{id}" for id in ids}, path


def test_nothing_is_loaded_and_nothing_runs(web: Web) -> None:
    settle(web)
    for path in ALL:
        page = web.get(path)
        tags = Read(page.text).tags
        assert not {tag for tag, _ in tags} & {"script", "img", "iframe", "object", "embed", "base"}
        assert [attributes["href"][:5] for tag, attributes in tags if tag == "link"] == ["data:"]
        policy = page.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert page.headers["Referrer-Policy"] == "no-referrer"
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert page.headers["Cache-Control"] == "public, max-age=30"


def test_no_page_is_large_whatever_the_holds_write(web: Web) -> None:
    worst = "&\u202e" * 500
    for number in range(60):
        host = f"{'a' * 60}.{'b' * 60}.{'c' * 60}.{number:02}.example.com"
        captain = dict.fromkeys(("region", "provider", "owner", "deployedAt"), worst) | {"public": False}
        web.add_host(host, last_error=worst, stream_error=worst)
        records = {f"io.atcr.{'x' * 60}.n{each}.y/self": {} for each in range(3)}
        web.add_repo(f"did:web:{host}", host, {f"{CAPTAIN}/self": captain, **records}, position=number + 1)
    sizes = {path: len(web.get(path).text.encode()) for path in ("/", "/hosts", f"/collections/{CAPTAIN}", "/docs")}
    assert max(sizes.values()) < MAX_BYTES, sizes


def test_links_lead_to_pages_wherever_the_site_is(web: Web) -> None:
    settle(web)
    todo, seen = ["/"], set[str]()
    while todo:
        path = todo.pop()
        page = web.get(*path.split("?"))
        assert page.status == 200, path
        for tag, attributes in Read(page.text).tags:
            href = str(attributes.get("href"))
            if tag == "a" and href.startswith("."):
                target = _resolved(path, href)
                known = target.startswith(("/xrpc", "/openapi", "/.well-known", "/repos/did:plc"))
                if target not in seen and not known:
                    todo.append(target)
                seen.add(target)
    assert {"/", "/hosts", "/docs", "/openapi.json", "/hosts/pds.example.com", "/collections/io.atcr.tag"} <= seen
    assert all(path.count("//") == 0 for path in seen)


def _resolved(path: str, href: str) -> str:
    return unquote(urljoin(f"https://x{path}", href).removeprefix("https://x"))


@pytest.mark.parametrize(
    ("resource", "path", "root", "url"),
    [
        ("/", "/", "./", "https://d.example.com"),
        ("/", "/api", "./api/", "https://d.example.com/api"),
        ("/", "/api/", "./", "https://d.example.com/api"),
        ("/hosts", "/api/hosts", "./", "https://d.example.com/api"),
        ("/hosts", "/hosts/", "../", "https://d.example.com"),
        ("/hosts/{name}", "/hosts/x", "../", "https://d.example.com"),
        ("/hosts/{name}", "/a/b/hosts/x", "../", "https://d.example.com/a/b"),
    ],
)
def test_links_go_by_the_path_that_the_browser_sees(resource: str, path: str, root: str, url: str) -> None:
    event = {
        "requestContext": {"resourcePath": resource, "path": path, "domainName": "d.example.com", "httpMethod": "GET"}
    }
    event |= dict.fromkeys(("multiValueQueryStringParameters", "pathParameters", "stageVariables", "body"))
    site = Site(Request(event | {"headers": {}, "isBase64Encoded": False}))
    assert (site.root, site.url) == (root, url)


def test_a_domain_that_is_none_is_not_shown(web: Web) -> None:
    assert "https://SERVICE/xrpc" in web.get("/", domain='"><b>').text


SEARCHES = {
    "did%3Aweb%3Ahold01.atcr.io": "./repos/did:web:hold01.atcr.io",
    "at://did:web:localhost%253A8000/": "./repos/did:web:localhost%253A8000",
    "io.atcr.tag": "./collections/io.atcr.tag",
    "+https://HOLD01.atcr.io/+": "./hosts/hold01.atcr.io",
}


def test_the_search_goes_to_the_page(web: Web) -> None:
    web.add_host("hold01.atcr.io")
    for query, place in SEARCHES.items():
        answer = web.get("/search", f"q={query}")
        assert (answer.status, answer.headers["Location"]) == (303, place)


FAULTS = [
    ("/search", "q=nobody.example.org", 404, "No host 'nobody.example.org' is followed here"),
    ("/search", "q=%3Cb%3E", 400, "'<b>' is no DID, no hostname and no name of a collection."),
    ("/search", "", 400, "Say a DID"),
    ("/search", f"q={'x' * 3000}", 400, "Q is too long"),
    ("/hosts", "cursor=x", 400, "Cursor is not one"),
    ("/hosts/<b>", "", 404, "No host '<b>' is followed here"),
    ("/hosts/made-up.example.org", "", 404, "No host"),
    ("/repos/did:plc:nobody", "", 404, "This repo is not known here"),
    ("/repos/x", "", 404, "is no DID"),
    ("/collections/app.bsky.feed.post", "", 404, "is not indexed here"),
    ("/collections/x", "", 404, "is no name of a collection"),
    ("/collections/io.atcr.tag", "after=-1", 400, "After must be a whole number"),
]


def test_what_is_not_known_or_wrong_is_said_on_a_page(web: Web) -> None:
    web.add_host("made-up.example.org", status="unconfirmed")
    for path, query, status, says in FAULTS:
        answer = web.get(path, query)
        assert answer.status == status, path
        assert says in text_of(answer.text)
        assert answer.headers["Content-Type"].startswith("text/html")
    assert "made-up" not in web.get("/").text, "anybody may announce any name"


def test_a_hold_that_is_taken_down_shows_no_record(web: Web) -> None:
    web.add_repo("did:web:bad.example.org", "bad.example.org", {f"{CAPTAIN}/self": {"region": "offence"}}, position=1)
    assert "offence" in web.get("/repos/did:web:bad.example.org").text
    web.tables.repos.get("did:web:bad.example.org").update([web.tables.repos.taken_down.set("x")])
    page = web.get("/repos/did:web:bad.example.org")
    assert "takendown" in page.text
    assert "offence" not in page.text


def test_a_did_with_a_port_has_a_page_whether_or_not_the_gateway_decodes(web: Web) -> None:
    web.add_repo("did:web:localhost%3A8000", "http://localhost:8000", {f"{CAPTAIN}/self": {}}, position=1)
    for path in ("did:web:localhost:8000", "did:web:localhost%3A8000", "did:web:localhost%253A8000"):
        assert web.get(f"/repos/{path}").status == 200, path
    assert 'href="./repos/did:web:localhost%253A8000"' in web.get("/").text


def test_pages_of_a_collection_follow_each_other(web: Web) -> None:
    for number in range(30):
        web.add_repo(f"did:plc:{number:02}", "pds.example.com", {"io.atcr.tag/x": {}}, position=number + 1)
    first = web.get("/collections/io.atcr.tag").text
    assert "did:plc:24" in first
    assert "did:plc:25" not in first
    (query,) = re.findall(r'href="\.\./collections/io\.atcr\.tag\?([^"]*)"', first)
    second = web.get("/collections/io.atcr.tag", query).text
    assert "did:plc:25" in second
    assert "More</a>" not in second


def test_tables_that_cannot_be_read_are_a_page_too(web: Web) -> None:
    with mock.patch.object(process, "reader", side_effect=EndpointConnectionError(endpoint_url="x")):
        answer = web.get("/hosts")
    assert answer.status == 503
    assert "Try again later" in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
