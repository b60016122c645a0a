"""Sends requests to identity providers, within bounds: no redirect, at most 5 s and 1 MiB, TLS except on loopback.

Tornado's simple client, because it closes a connection whose body is larger than its limit while the body arrives.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from urllib.parse import urlsplit

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.httputil import HTTPHeaders
from tornado.simple_httpclient import HTTPTimeoutError, SimpleAsyncHTTPClient

from tornado_proxy.domain.config.loopback import is_secure_url
from tornado_proxy.domain.units import MIB

#: Seconds until a whole response must have arrived.
TIMEOUT_S = 5.0

MAX_BODY_BYTES = 1 * MIB

#: Characters of a reason that are logged.
_MAX_REASON_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Fetch:
    """A request to an identity provider: a GET, or a POST of `form`.  `headers` can hold a secret."""

    url: str
    form: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: str | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A response with status 200.  `max_age_s` is that of its Cache-Control, None without one."""

    body: bytes
    max_age_s: int | None = None


class FetchError(Exception):
    """An identity provider did not respond with status 200 within the bounds.

    Attributes:
        retry_after_s: Its Retry-After, None without one.
        status: The status of its response, None without a response.
        body: The body of its response.
    """

    def __init__(
        self, message: str, retry_after_s: int | None = None, *, status: int | None = None, body: bytes = b""
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.status = status
        self.body = body


#: Sends a request; raises FetchError.
Fetcher = Callable[[Fetch], Awaitable[Fetched]]


async def fetch(wanted: Fetch) -> Fetched:
    """Send a request to an identity provider and return its response.

    Raises:
        FetchError: The URL is not secure, or there is no response with status 200 within the bounds.
    """
    if not is_secure_url(wanted.url):
        raise FetchError("the URL must be https, or http on this machine")
    # A client for each request: they are rare, and its resolver and queue end with it.
    client = SimpleAsyncHTTPClient(force_instance=True, max_body_size=MAX_BODY_BYTES)
    try:
        response = await client.fetch(_make_request(wanted))
    except HTTPTimeoutError:
        raise FetchError(f"no response within {TIMEOUT_S:g} s") from None
    except HTTPClientError as error:
        raise _describe(error) from None
    except (OSError, ValueError) as error:  # network, DNS and TLS; a host name that DNS cannot hold
        raise FetchError(f"no response: {error}"[:_MAX_REASON_CHARACTERS]) from None
    finally:
        client.close()
    if response.code != 200:
        raise FetchError(f"status {response.code}", status=response.code)
    return Fetched(response.body, _read_max_age(response.headers))


def _make_request(wanted: Fetch) -> HTTPRequest:
    tls = urlsplit(wanted.url).scheme == "https"
    return HTTPRequest(
        wanted.url,
        method="GET" if wanted.form is None else "POST",
        headers=HTTPHeaders({"Accept": "application/json", **wanted.headers}),
        body=wanted.form,
        # Both from the start of the request; a timeout of ours would leave the connection open.
        connect_timeout=TIMEOUT_S,
        request_timeout=TIMEOUT_S,
        follow_redirects=False,
        # A compressed body could grow beyond the limit.
        decompress_response=False,
        ssl_options=_tls_context(wanted.ca_file) if tls else None,
    )


@cache
def _tls_context(ca_file: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file)


def _describe(error: HTTPClientError) -> FetchError:
    if error.response is None:
        return FetchError(f"no response: {error.message}"[:_MAX_REASON_CHARACTERS])
    retry_after_s = _parse_seconds(error.response.headers.get("Retry-After", ""))
    return FetchError(f"status {error.code}", retry_after_s, status=error.code, body=error.response.body or b"")


def _read_max_age(headers: HTTPHeaders) -> int | None:
    """Return max-age of Cache-Control (RFC 9111 section 5.2.2.1), None without a valid one."""
    for directive in headers.get("Cache-Control", "").split(","):
        name, _, value = directive.strip().partition("=")
        if name.lower() == "max-age":
            return _parse_seconds(value.strip('"'))
    return None


def _parse_seconds(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
