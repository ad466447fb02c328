"""What may be kept of an answer: for how long, and how to ask whether it is still so (RFC 9110, RFC 9111).

With a CDN in front, any number of readers cost one request of each URL in FRESH_SECONDS, and a body only where it changed.
"""

from __future__ import annotations

import hashlib
import re

from chalice.app import Request, Response

FRESH_SECONDS = 5
"""How long an answer may be shown without asking again. A hold is listed some seconds after it asks to be: not more is lost."""

_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def kept(request: Request, response: Response) -> Response:
    """The answer to a GET with its ``ETag`` and how long it may be kept, unless it says that itself; 304 without a body where
    the caller has it already."""
    if request.method != "GET" or response.status_code != 200 or not isinstance(response.body, str):
        return response
    response.headers.setdefault("Cache-Control", f"public, max-age={FRESH_SECONDS}")
    if "no-store" in response.headers["Cache-Control"]:
        return response
    # Weak: the gateway may send the same compressed.
    tag = f'"{hashlib.sha256(response.body.encode()).hexdigest()[:32]}"'
    response.headers["ETag"] = f"W/{tag}"
    asked = request.headers.get("if-none-match", "")
    if asked.strip() == "*" or tag in _TAG.findall(asked[:8192]):
        headers = {name: value for name, value in response.headers.items() if name != "Content-Type"}
        return Response("", headers, 304)
    return response
