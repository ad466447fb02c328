"""The methods that are served: what is behind ``/xrpc/NSID``.

A method's module is imported when it is first called: a Lambda that only answers listings loads nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import cast

from chalice.app import Chalice, Request, Response

from chalicelib.api.xrpc import View, XrpcFailure, shown


@dataclass(frozen=True)
class Method:
    """One method. ``verb``: GET for a query, POST for a procedure. ``view``: ``module:function`` in ``chalicelib.api``."""

    verb: str
    view: str

    def load(self) -> View:
        """The function that answers."""
        module, _, function = self.view.partition(":")
        return cast(View, getattr(import_module(f"chalicelib.api.{module}"), function))


METHODS: Mapping[str, Method] = {
    "_health": Method("GET", "health:health"),
    "com.atproto.repo.describeRepo": Method("GET", "records:describe_repo"),
    "com.atproto.repo.getRecord": Method("GET", "records:get_record"),
    "com.atproto.repo.listRecords": Method("GET", "records:list_records"),
    "com.atproto.sync.getHostStatus": Method("GET", "hosts:get_host_status"),
    "com.atproto.sync.getLatestCommit": Method("GET", "repos:get_latest_commit"),
    "com.atproto.sync.getRecord": Method("GET", "repos:get_record"),
    "com.atproto.sync.getRepo": Method("GET", "repos:get_repo"),
    "com.atproto.sync.getRepoStatus": Method("GET", "repos:get_repo_status"),
    "com.atproto.sync.listHosts": Method("GET", "hosts:list_hosts"),
    "com.atproto.sync.listRepos": Method("GET", "repos:list_repos"),
    "com.atproto.sync.listReposByCollection": Method("GET", "listing:list_repos_by_collection"),
    "com.atproto.sync.requestCrawl": Method("POST", "crawling:request_crawl"),
    "io.atcr.discovery.getRepoStatus": Method("GET", "repos:get_repo_status_here"),
    "io.atcr.discovery.listRecords": Method("GET", "records:list_all"),
}


def call(app: Chalice, name: str, methods: Mapping[str, Method] = METHODS) -> Response:
    """Answer the request to ``app`` for a method. Raises ``XrpcFailure``: ``MethodNotImplemented``, ``MethodNotAllowed``, and
    what the method raises."""
    request, method = cast(Request, app.current_request), methods.get(name)  # there is a request while a view runs
    allow = f"{method.verb if method else 'GET'}, OPTIONS"
    if request.method == "OPTIONS":  # also of what there is not: a page in a browser then sees what it is answered
        return Response("", {"Allow": allow}, 204)
    if method is None:
        raise XrpcFailure(501, "MethodNotImplemented", f"this service has no method {shown(name)}")
    if request.method != method.verb:
        message = f"{name} is called with {method.verb}, not {request.method}"
        raise XrpcFailure(405, "MethodNotAllowed", message, {"Allow": allow})
    return method.load()(request)
