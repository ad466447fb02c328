"""The public pages, by the routes of app.py: rendered here, from what the reader of the API reads, without scripts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from chalice.app import Request, Response

from chalicelib.api.xrpc import XrpcFailure
from chalicelib.pages import docs, home, hosts, repos, search
from chalicelib.pages.frame import Page, Site, response
from chalicelib.pages.markup import element
from chalicelib.telemetry import log

_PAGES: Final[Mapping[str, Callable[..., Page | Response]]] = {
    "/": home.home,
    "/collections/{nsid}": repos.collection,
    "/docs": docs.docs,
    "/hosts": hosts.hosts,
    "/hosts/{name}": hosts.host,
    "/repos/{did}": repos.repo,
    "/search": search.search,
}
_TITLES: Final = {404: "Not known here", 503: "Not now"}


def answer(request: Request, *variables: str) -> Response:
    """The page at a route, whose variables are these; errors are pages too."""
    from botocore.exceptions import BotoCoreError, ClientError

    site = Site(request)
    try:
        made = _PAGES[request.context["resourcePath"]](request, site, *variables)
    except XrpcFailure as failure:
        unknown = failure.error.endswith(("NotFound", "NotIndexed"))
        made = _failed(404 if unknown else failure.status, failure.message)
    except (BotoCoreError, ClientError) as error:
        log("page-tables", exception=error)
        made = _failed(503, "The tables cannot be read now. Try again later.")
    return response(site, made) if isinstance(made, Page) else made


def _failed(status: int, message: str) -> Page:
    text = message[:1].upper() + message[1:]
    return Page(
        _TITLES.get(status, "That was not understood"), element("p", text, class_="lead"), here="-", status=status
    )
