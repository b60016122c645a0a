"""The endpoints of an issuer at which people log in, found by discovery, and token requests that are passed on to it.

Anyone can send requests that reach the issuer, so that those in flight are bounded.  A discovery document is used for
an hour, and while the issuer cannot be reached.  Times are in seconds of the event loop's clock.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from tornado_proxy import tasks
from tornado_proxy.auth.unverified_token import read_json_object
from tornado_proxy.domain.config.loopback import is_secure_url
from tornado_proxy.domain.config.oauth import KeySource
from tornado_proxy.domain.errors import IdentityProviderUnavailable, Overloaded
from tornado_proxy.issuers.http_fetch import Fetch, Fetcher, FetchError, fetch
from tornado_proxy.issuers.key_cache import DISCOVERY_PATH
from tornado_proxy.observability import metrics

_log = logging.getLogger(__name__)

#: Seconds for which a discovery document is used, and after which a failed request is tried again.
REFRESH_S, BACKOFF_S = 60 * 60, 5

#: The longest Retry-After of a response, in seconds.
_MAX_RETRY_AFTER_S = 30

#: Token requests that are passed on at the same time.
MAX_IN_FLIGHT = 32

#: Seconds between two log lines of failures: every request can cause one.
_LOG_INTERVAL_S = 30

#: Bytes of a document that is parsed in the event loop, which takes less than 1 ms.
_MAX_DOCUMENT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class LoginEndpoints:
    """The URLs at which a login starts and at which tokens are requested."""

    authorization: str
    token: str


@dataclass(frozen=True, slots=True)
class TokenResponse:
    """The issuer's response to a token request: tokens, or an error of RFC 6749 section 5.2.

    `body` is a JSON object; it can hold tokens.
    """

    status: int
    body: bytes


class LoginServer:
    """The login endpoints of one issuer."""

    def __init__(self, source: KeySource, fetcher: Fetcher = fetch) -> None:
        self._source = source
        self._fetcher = fetcher
        self._endpoints: LoginEndpoints | None = None
        self._due_at = -math.inf
        self._running: asyncio.Task[None] | None = None
        self._in_flight = 0
        self._logged_at = -math.inf

    async def find_endpoints(self) -> LoginEndpoints:
        """Return the endpoints; one request for them runs at a time, at most 5 s.

        Raises:
            IdentityProviderUnavailable: they are not known, and the issuer cannot be reached.
        """
        if asyncio.get_running_loop().time() >= self._due_at:
            if self._running is None:
                self._running = tasks.spawn(self._refresh(), "discovery of an issuer's endpoints")
            # Shielded: a request that is cancelled must not end the one that others wait for.
            await asyncio.shield(self._running)
        if self._endpoints is None:
            raise self._unavailable(None)
        return self._endpoints

    async def request_token(self, form: Mapping[str, str]) -> TokenResponse:
        """Pass a token request on, and return the issuer's response.

        Raises:
            Overloaded: too many are in flight.
            IdentityProviderUnavailable: the issuer cannot be reached, or its response is no JSON object.
        """
        if self._in_flight >= MAX_IN_FLIGHT:
            raise Overloaded("too many logins at the same time; try again")
        self._in_flight += 1
        try:
            url = (await self.find_endpoints()).token
            return await self._post(url, form)
        finally:
            self._in_flight -= 1

    async def _post(self, url: str, form: Mapping[str, str]) -> TokenResponse:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        try:
            fetched = await self._fetcher(Fetch(url, urlencode(form), headers, self._source.ca_file))
            response = TokenResponse(200, fetched.body)
        except FetchError as error:
            if error.status is None or not 400 <= error.status < 500:
                raise self._report(error, error.retry_after_s) from None
            response = TokenResponse(error.status, error.body)
        try:
            _read_object(response.body)
        except ValueError as error:
            raise self._report(error, None) from None
        metrics.IDENTITY_PROVIDER_REQUESTS.labels("login", "ok").inc()
        return response

    async def _refresh(self) -> None:
        loop, source = asyncio.get_running_loop(), self._source
        try:
            url = source.issuer.rstrip("/") + DISCOVERY_PATH
            fetched = await self._fetcher(Fetch(url, ca_file=source.ca_file))
            self._endpoints = read_endpoints(fetched.body, source.issuer)
        except (FetchError, ValueError) as error:
            self._due_at = loop.time() + BACKOFF_S
            self._report(error, None)
        else:
            self._due_at = loop.time() + REFRESH_S
            metrics.IDENTITY_PROVIDER_REQUESTS.labels("login", "ok").inc()
        finally:
            self._running = None

    def _report(self, error: Exception, retry_after_s: int | None) -> IdentityProviderUnavailable:
        """Log and count a failure; return the error for the caller."""
        metrics.IDENTITY_PROVIDER_REQUESTS.labels("login", "failed").inc()
        now = asyncio.get_running_loop().time()
        if now >= self._logged_at + _LOG_INTERVAL_S:
            self._logged_at = now
            _log.warning("login not possible", extra={"issuer": self._source.issuer, "reason": str(error)})
        return self._unavailable(retry_after_s)

    def _unavailable(self, retry_after_s: int | None) -> IdentityProviderUnavailable:
        wait_s = min(max(1, retry_after_s or BACKOFF_S), _MAX_RETRY_AFTER_S)
        return IdentityProviderUnavailable(self._source.issuer, wait_s, "no login is possible")


def read_endpoints(body: bytes, issuer: str) -> LoginEndpoints:
    """Return the login endpoints of a discovery document (RFC 8414 section 2).

    Raises:
        ValueError: it is malformed, is for another issuer, or lacks an endpoint that is https, or http on this machine.
    """
    document = _read_object(body)
    if document.get("issuer") != issuer:
        raise ValueError("the discovery document names another issuer than the configuration")
    urls = [document.get(name) for name in ("authorization_endpoint", "token_endpoint")]
    authorization, token = (url if isinstance(url, str) and _is_plain(url) else None for url in urls)
    if authorization is None or token is None:
        raise ValueError("the discovery document has no secure authorization_endpoint and token_endpoint")
    return LoginEndpoints(authorization, token)


def _is_plain(url: str) -> bool:
    """Return True for a secure URL that can be written into a Location header, with a query after it."""
    return is_secure_url(url) and url.isascii() and url.isprintable() and not {" ", "#"} & set(url)


def _read_object(body: bytes) -> dict[str, object]:
    if len(body) > _MAX_DOCUMENT_BYTES:
        raise ValueError(f"the response is larger than {_MAX_DOCUMENT_BYTES} bytes")
    return read_json_object(body)
