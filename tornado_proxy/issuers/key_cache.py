"""The keys of one issuer: fetched when a token needs them, refreshed in the background, kept while the issuer is down.

    no keys ──> the request waits for a fetch ── fails ──> 503 until the next attempt is due
    keys    ──> used at once; a fetch starts when they are due for a refresh
                unknown key id ──> at most one fetch a minute, which the request waits for, then 401

One fetch runs at a time, and every request that needs it waits for the same one.  Times are in seconds of the event
loop's clock.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NoReturn, TypeVar

from tornado_proxy import tasks
from tornado_proxy.auth.oauth.key_set import KeySet, VerificationKey, parse_key_set
from tornado_proxy.auth.unverified_token import read_json_object
from tornado_proxy.domain.config.loopback import is_loopback_url, is_secure_url
from tornado_proxy.domain.config.oauth import KeySource
from tornado_proxy.domain.errors import IdentityProviderUnavailable, NotAuthenticated
from tornado_proxy.issuers.http_fetch import Fetch, Fetched, Fetcher, FetchError, fetch
from tornado_proxy.observability import metrics

_log = logging.getLogger(__name__)

#: Seconds after which keys are fetched again: Cache-Control max-age, within these bounds.  A removed key is used for
#: at most the longer one, an issuer is asked at most once in the shorter one.
MIN_REFRESH_S, MAX_REFRESH_S = 5 * 60, 60 * 60

#: Seconds between two fetches that unknown key ids cause: anyone can send those.
UNKNOWN_KEY_INTERVAL_S = 60

#: Seconds after a failed fetch until the next one: the issuer's Retry-After, else twice the wait before.
MIN_BACKOFF_S, MAX_BACKOFF_S = 1, 30

#: Bytes of a document that is parsed in the event loop, which takes less than 1 ms: some 20 keys.
MAX_PARSED_INLINE_BYTES = 16 * 1024

T = TypeVar("T")

#: The path of the discovery document below the issuer (OpenID Connect Discovery section 4).
DISCOVERY_PATH = "/.well-known/openid-configuration"


class KeyCache:
    """The keys of one issuer.  It outlives a reload that does not change its source."""

    def __init__(self, source: KeySource, fetcher: Fetcher = fetch) -> None:
        self.source = source
        self._fetcher = fetcher
        self._keys: KeySet | None = None
        self._fetched_at = -math.inf
        #: When the next fetch may start: a refresh after a success, an attempt after a failure.
        self._due_at = -math.inf
        #: Seconds that the last failure delays the next attempt; 0 if the last fetch succeeded.
        self._backoff_s = 0.0
        self._unknown_key_at = -math.inf
        self._running: asyncio.Task[None] | None = None

    def find_key(self, key_id: str, algorithm: str) -> VerificationKey | Awaitable[VerificationKey]:
        """Return a key of the issuer; an awaitable if a fetch must end first.

        Raises:
            NotAuthenticated: The issuer has no such key.
            IdentityProviderUnavailable: The key is not known, and the issuer cannot be reached.
        """
        now = asyncio.get_running_loop().time()
        due = now >= self._due_at
        key = self._look_up(key_id, algorithm, now)
        if key is not None:
            if due and self._running is None:
                self._start()
            # Keys that were not used for so long can have been removed meanwhile.
            unused = due and not self._backoff_s and now >= self._due_at + MAX_REFRESH_S
            return self._find_after(self._running, key_id, algorithm) if unused and self._running else key
        if self._running is None and (due or self._may_fetch_unknown(now)):
            self._start()
        if self._running is None:
            self._refuse(now)
        return self._find_after(self._running, key_id, algorithm)

    def _look_up(self, key_id: str, algorithm: str, now: float) -> VerificationKey | None:
        if self._keys is None or now > self._fetched_at + self.source.max_stale_s:
            return None
        return self._keys.find(key_id, algorithm)

    def _may_fetch_unknown(self, now: float) -> bool:
        """Return True, once a minute, if a fetch may start for an unknown key id.  Until its backoff ends, none may."""
        if self._backoff_s or now < self._unknown_key_at + UNKNOWN_KEY_INTERVAL_S:
            return False
        self._unknown_key_at = now
        return True

    async def _find_after(self, fetching: asyncio.Task[None], key_id: str, algorithm: str) -> VerificationKey:
        # Shielded: a request that is cancelled must not end the fetch that others wait for.
        await asyncio.shield(fetching)
        now = asyncio.get_running_loop().time()
        key = self._look_up(key_id, algorithm, now)
        if key is None:
            # The fetch counts as the one of this minute, whatever started it.
            self._unknown_key_at = max(self._unknown_key_at, self._fetched_at)
            self._refuse(now)
        return key

    def _refuse(self, now: float) -> NoReturn:
        if self._backoff_s:
            raise IdentityProviderUnavailable(
                self.source.issuer, min(max(1, math.ceil(self._due_at - now)), MAX_BACKOFF_S)
            )
        raise NotAuthenticated("the issuer of the access token has no such signing key (kid); log in again")

    def _start(self) -> None:
        self._running = tasks.spawn(self._refresh(), "fetch of an issuer's keys")

    async def _refresh(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            fetched = await self._fetch_keys()
            self._keys = await _parse(fetched.body, parse_key_set)
        except (FetchError, ValueError) as error:
            asked_s = error.retry_after_s if isinstance(error, FetchError) else None
            wait_s = 2 * self._backoff_s if asked_s is None else asked_s
            self._backoff_s = min(max(wait_s, MIN_BACKOFF_S), MAX_BACKOFF_S)
            self._due_at = loop.time() + self._backoff_s
            metrics.IDENTITY_PROVIDER_REQUESTS.labels("keys", "failed").inc()
            _log.warning("issuer keys not fetched", extra={"issuer": self.source.issuer, "reason": str(error)})
        else:
            self._backoff_s, self._fetched_at = 0.0, loop.time()
            max_age_s = fetched.max_age_s or 0
            self._due_at = loop.time() + min(max(max_age_s, MIN_REFRESH_S), MAX_REFRESH_S)
            metrics.IDENTITY_PROVIDER_REQUESTS.labels("keys", "ok").inc()
        finally:
            self._running = None

    async def _fetch_keys(self) -> Fetched:
        source = self.source
        uri = source.jwks_uri
        if uri is None:
            # OpenID Connect Discovery section 4.1: a final slash of the issuer is removed.
            discovery = await self._fetcher(Fetch(source.issuer.rstrip("/") + DISCOVERY_PATH, ca_file=source.ca_file))
            uri = await _parse(discovery.body, partial(read_jwks_uri, issuer=source.issuer))
        return await self._fetcher(Fetch(uri, ca_file=source.ca_file))


async def _parse(body: bytes, parse: Callable[[bytes], T]) -> T:
    """Return the content of a document; a large one is parsed in a thread."""
    return parse(body) if len(body) <= MAX_PARSED_INLINE_BYTES else await asyncio.to_thread(parse, body)


def read_jwks_uri(body: bytes, issuer: str) -> str:
    """Return the URL of the keys in a discovery document.

    Raises:
        ValueError: The document is malformed, is for another issuer, or names no secure URL.
    """
    document = read_json_object(body)
    if document.get("issuer") != issuer:
        raise ValueError("the discovery document names another issuer than the configuration")
    uri = document.get("jwks_uri")
    if not isinstance(uri, str) or not is_secure_url(uri):
        raise ValueError("the discovery document has no jwks_uri that is https, or http on this machine")
    # An issuer elsewhere must not choose a service on this machine, which may trust its callers.
    if is_loopback_url(uri) and not is_loopback_url(issuer):
        raise ValueError("the discovery document names a jwks_uri on this machine, but its issuer is not on it")
    return uri
