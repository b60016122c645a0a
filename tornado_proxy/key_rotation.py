"""Chooses among several provider keys: in turn, without those that the provider rejects for the time being.

    401                                    set aside for REJECTED_S, or until a reload
    429 with Retry-After over LIMITED_S    set aside for that time

It belongs to a snapshot, as the cache of verified tokens does; a reload hands the turns and the limited keys on.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from tornado_proxy.domain.identity import KeyId, ProviderKey
from tornado_proxy.observability import metrics

_log = logging.getLogger(__name__)

#: Seconds for which a key that the provider rejects is set aside; an operator may have restored it by then.
REJECTED_S = 60.0

#: A Retry-After of at most these seconds does not set a key aside: clients retry by themselves.
LIMITED_S = 20.0

#: The longest time that a Retry-After sets a key aside for; a provider can state any number.
MAX_LIMITED_S = 24 * 3600.0

_UNAUTHORIZED, _TOO_MANY_REQUESTS = 401, 429

#: The statuses of responses that can set a key aside.
TELLING_STATUSES = frozenset({_UNAUTHORIZED, _TOO_MANY_REQUESTS})


@dataclass(frozen=True, slots=True)
class _SetAside:
    """A key that is not used until `until`, on the rotation's clock."""

    until: float
    status: int


@dataclass(frozen=True, slots=True)
class KeyPause:
    """A key is set aside for another `wait_s`, because the provider has responded with `status`."""

    status: int
    wait_s: float


@dataclass(frozen=True, slots=True)
class KeySetAside:
    """A key is not used for some seconds, because of the provider's `status`."""

    provider: str
    key: KeyId
    status: int
    seconds: float


class KeyRotation:
    """The turns of the keys of each account, and the keys that are set aside.

    `on_set_aside` is called when a key is set aside.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.on_set_aside: Callable[[KeySetAside], None] = lambda aside: None
        self._clock = clock
        #: Requests so far by account: (provider, project id or "" for the server).
        self._turns: dict[tuple[str, str], int] = {}
        self._set_aside: dict[str, _SetAside] = {}

    def inherit(self, old: KeyRotation) -> None:
        """Continue the turns of an earlier configuration; keys that were rejected are tried again."""
        self.on_set_aside = old.on_set_aside
        self._turns = dict(old._turns)
        self._set_aside = {key: aside for key, aside in old._set_aside.items() if aside.status != _UNAUTHORIZED}

    def choose(
        self, account: tuple[str, str], keys: Sequence[ProviderKey], *, sticky: str | None = None
    ) -> ProviderKey:
        """Return the key for the next request.

        Args:
            account: The provider, and the project that the keys belong to, "" for the server's.
            keys: The keys of the account, at least one.
            sticky: Requests with the same text get the same key while it is not set aside.
        """
        if len(keys) == 1:
            return keys[0]
        usable = [key for key in keys if self._wait_s(key) <= 0] if self._set_aside else keys
        if not usable:
            return min(keys, key=self._wait_s)
        if sticky is not None:
            # Rendezvous hashing: a key that is set aside moves its own requests only.
            return max(usable, key=lambda key: zlib.crc32(f"{sticky} {key.fingerprint}".encode()))
        turn = self._turns.get(account, 0)
        self._turns[account] = turn + 1
        return usable[turn % len(usable)]

    def note_response(self, provider: str, key: KeyId, status: int, retry_after: str | None) -> None:
        """Set a key aside if the provider's response says that it cannot be used for a time.

        Args:
            provider: The provider's name.
            key: The key of the request.
            status: The status of the response.
            retry_after: The value of the response's header Retry-After.
        """
        seconds = REJECTED_S if status == _UNAUTHORIZED else 0.0
        if status == _TOO_MANY_REQUESTS and (wait_s := _read_retry_after(retry_after)) > LIMITED_S:
            seconds = min(wait_s, MAX_LIMITED_S)
        if not seconds:
            return
        now, known = self._clock(), self._set_aside.get(key.fingerprint)
        # Requests in flight get the same response; the first one is told, and a later one may extend the time.
        if known is None or known.until <= now:
            metrics.child(metrics.KEYS_SET_ASIDE, provider, key.name, str(status)).inc()
            extra = {"provider": provider, "provider_key": key.name, "own_key": key.own, "status": status}
            _log.warning("provider key set aside", extra={**extra, "seconds": seconds})
            self.on_set_aside(KeySetAside(provider, key, status, seconds))
        if known is None or known.until < now + seconds:
            self._set_aside[key.fingerprint] = _SetAside(now + seconds, status)

    def find_pause(self, key: ProviderKey) -> KeyPause | None:
        """Return why and how long a key is set aside, None if it is in use."""
        aside, wait_s = self._set_aside.get(key.fingerprint), self._wait_s(key)
        return None if aside is None or wait_s <= 0 else KeyPause(aside.status, wait_s)

    def _wait_s(self, key: ProviderKey) -> float:
        """Return the seconds until a key is free, 0 or less if it is."""
        aside = self._set_aside.get(key.fingerprint)
        return 0.0 if aside is None else aside.until - self._clock()


def _read_retry_after(value: str | None) -> float:
    """Return the seconds of a header Retry-After, 0 if it has none (RFC 9110 section 10.2.3: seconds or a date)."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:18])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    return (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
