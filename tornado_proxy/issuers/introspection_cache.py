"""Asks one issuer whether opaque tokens are valid (RFC 7662), and remembers the answers for a short time.

Anyone can send tokens that the issuer does not know, so that requests in flight, requests that wait, and answers are
bounded.  Answers are kept by a SHA-256 of the token.  Times are in seconds of the event loop's clock.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote, urlencode

from tornado_proxy import tasks
from tornado_proxy.auth.oauth.claims import VerifiedUser, check_time
from tornado_proxy.auth.oauth.introspection import read_introspection
from tornado_proxy.domain.config.oauth import IntrospectionEndpoint, OAuthIssuer
from tornado_proxy.domain.errors import IdentityProviderUnavailable, NotAuthenticated, RequestError
from tornado_proxy.issuers.http_fetch import Fetch, Fetcher, FetchError, fetch
from tornado_proxy.observability import metrics

_log = logging.getLogger(__name__)

#: Seconds for which an answer counts.  A revoked token is refused after the first one at the latest.
ACTIVE_S, INACTIVE_S = 60, 10

#: Answers that are kept; the oldest is dropped first.
MAX_ANSWERS = 4096

#: Requests to the issuer at the same time, and tokens that may wait for one.
MAX_IN_FLIGHT, MAX_WAITING = 32, 1000

#: Seconds between two log lines of failures: every request can cause one.
_LOG_INTERVAL_S = 30

_REJECTED = "the issuer does not accept this access token, or it was revoked; log in again"


@dataclass(frozen=True, slots=True)
class _Answer:
    """The answer of an issuer about a token: its user, or the error of a token that it does not accept."""

    result: VerifiedUser | RequestError
    until: float


class IntrospectionCache:
    """Introspects the tokens of one issuer."""

    def __init__(self, issuer: OAuthIssuer, endpoint: IntrospectionEndpoint, fetcher: Fetcher = fetch) -> None:
        self._issuer = issuer
        self._endpoint = endpoint
        self._fetcher = fetcher
        self._answers: OrderedDict[bytes, _Answer] = OrderedDict()
        self._running: dict[bytes, asyncio.Task[_Answer | None]] = {}
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._logged_at = -math.inf

    def introspect(self, token: str, now: datetime) -> VerifiedUser | Awaitable[VerifiedUser]:
        """Return the user of an opaque token; an awaitable if the issuer must be asked.

        Raises:
            NotAuthenticated: The issuer does not accept the token.
            InsufficientScope: The token lacks the scope of the issuer.
            IdentityProviderUnavailable: The issuer cannot be reached, or too many tokens wait for it.
        """
        digest = hashlib.sha256(token.encode()).digest()
        answer = self._answers.get(digest)
        if answer is not None and asyncio.get_running_loop().time() < answer.until:
            return _read_answer(answer, now)
        return self._ask_once(token, digest, now)

    async def _ask_once(self, token: str, digest: bytes, now: datetime) -> VerifiedUser:
        running = self._running.get(digest)
        if running is None:
            if len(self._running) >= MAX_IN_FLIGHT + MAX_WAITING:
                raise IdentityProviderUnavailable(self._issuer.name, 1)
            running = self._running[digest] = tasks.spawn(self._ask(token, digest, now), "introspection")
        # Shielded: a request that is cancelled must not end the introspection that others wait for.
        answer = await asyncio.shield(running)
        if answer is None:
            raise IdentityProviderUnavailable(self._issuer.name, 1)
        return _read_answer(answer, now)

    async def _ask(self, token: str, digest: bytes, now: datetime) -> _Answer | None:
        """Return the answer of the issuer, None if there is none."""
        try:
            async with self._slots:
                fetched = await self._fetcher(self._make_request(token))
            result = _read_result(fetched.body, self._issuer, now)
        except (FetchError, ValueError) as error:
            metrics.IDENTITY_PROVIDER_REQUESTS.labels("introspection", "failed").inc()
            self._log_failure(error)
            return None
        finally:
            del self._running[digest]
        metrics.IDENTITY_PROVIDER_REQUESTS.labels("introspection", "ok").inc()
        life_s = ACTIVE_S if isinstance(result, VerifiedUser) else INACTIVE_S
        answer = self._answers[digest] = _Answer(result, asyncio.get_running_loop().time() + life_s)
        self._answers.move_to_end(digest)
        if len(self._answers) > MAX_ANSWERS:
            self._answers.popitem(last=False)
        return answer

    def _make_request(self, token: str) -> Fetch:
        endpoint = self._endpoint
        # RFC 6749 section 2.3.1: both parts are form-encoded before they are joined.
        name, secret = (quote(part, safe="") for part in (endpoint.client_id, endpoint.client_secret.reveal()))
        credentials = base64.b64encode(f"{name}:{secret}".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}", "Content-Type": "application/x-www-form-urlencoded"}
        form = urlencode({"token": token, "token_type_hint": "access_token"})
        return Fetch(endpoint.url, form, headers, endpoint.ca_file)

    def _log_failure(self, error: Exception) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._logged_at + _LOG_INTERVAL_S:
            self._logged_at = now
            _log.warning("token not introspected", extra={"issuer": self._issuer.name, "reason": str(error)})


def _read_result(body: bytes, issuer: OAuthIssuer, now: datetime) -> VerifiedUser | RequestError:
    try:
        return read_introspection(body, issuer, now) or NotAuthenticated(_REJECTED)
    except RequestError as error:
        return error


def _read_answer(answer: _Answer, now: datetime) -> VerifiedUser:
    result = answer.result
    if isinstance(result, RequestError):
        raise result.with_traceback(None)  # one instance for many requests: do not collect their frames
    check_time(result.validity, now)
    return result
