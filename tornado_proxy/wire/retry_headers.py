"""Reads a client's statements about a repetition of its request: `Idempotency-Key`, and the count of Stainless SDKs.

Source: draft-ietf-httpapi-idempotency-key-header-07; x-stainless-retry-count in the SDKs of OpenAI and Anthropic.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import NO_RETRY_FACTS, RetryFacts

#: Characters of a key; a longer one is no key of an SDK and is not recorded.
MAX_KEY_CHARACTERS = 255

_KEY, _COUNT = "idempotency-key", "x-stainless-retry-count"

#: The headers that are read, in lower case.
RETRY_HEADERS = frozenset({_KEY, _COUNT})

#: Digits of a hash that are kept: 128 bits.
_HASH_DIGITS = 32


def read_retry_headers(lines: Mapping[str, Sequence[str]], caller: Caller, provider: str) -> RetryFacts:
    """Return the statements of a request's headers, which are `lines` by their names in lower case, about a repetition.

    The hash is of the key and the caller: another caller's same key has another hash, and none can be guessed from a
    record without the key.
    """
    key, count = (lines.get(name, ("",))[-1].strip() for name in (_KEY, _COUNT))
    if not key and count in ("", "0"):
        return NO_RETRY_FACTS
    valid = 0 < len(key) <= MAX_KEY_CHARACTERS
    is_retry = count.isascii() and count.isdigit() and len(count) <= 3 and int(count) > 0
    return RetryFacts(_hash(key, caller, provider) if valid else None, str(int(count)) if is_retry else None)


def _hash(key: str, caller: Caller, provider: str) -> str:
    parts = (caller.project_id, caller.participant, caller.user, caller.issuer, provider, key)
    text = "\0".join("" if part is None else part for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:_HASH_DIGITS]
