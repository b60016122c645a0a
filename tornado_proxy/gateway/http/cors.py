"""CORS for the pages of listed origins (`cors.allow_origins`): the headers of responses.

Browsers send a page's HTTP requests to another origin only if that origin allows it.  A page's credential is a token in
a header that it sets itself, never a cookie, so `Access-Control-Allow-Credentials` is never sent.  WebSockets have no
preflight and accept every origin: their token decides.

Source: Fetch standard, "HTTP-CORS protocol" (https://fetch.spec.whatwg.org/#http-cors-protocol).
"""

from __future__ import annotations

from collections.abc import Collection

from tornado_proxy.http_server.incoming_request import IncomingRequest


def cors_headers(request: IncomingRequest, allowed: Collection[str]) -> list[tuple[str, str]]:
    """Return the headers that let a page of an allowed origin read a response, if some origins are `allowed`."""
    origin = request.header("origin")
    # Vary also without the origin: a cache must not give a response without these headers to a page.
    vary = [("Vary", "Origin")]
    if origin not in allowed:
        return vary
    return [("Access-Control-Allow-Origin", origin), ("Access-Control-Expose-Headers", "*"), *vary]


def is_preflight(request: IncomingRequest, allowed: Collection[str]) -> bool:
    """Return True if an OPTIONS request asks on behalf of a page of an allowed origin."""
    return request.header("origin") in allowed and "access-control-request-method" in request.lines
