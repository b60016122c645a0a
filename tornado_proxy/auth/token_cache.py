"""A bounded cache of verified tokens."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Generic, TypeVar

#: Tokens in a cache; the least recently used one is dropped first.  One entry takes about 1 KB.
MAX_CACHED_TOKENS = 4096

V = TypeVar("V")


def compute_digest(token: str) -> bytes:
    """Return the SHA-256 of a credential, by which it is found: no table or cache holds the secret."""
    # "surrogatepass": a str can hold lone surrogates, which UTF-8 cannot encode.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


class TokenCache(Generic[V]):
    """Values of verified tokens by the SHA-256 of the whole token, which is a secret.  Failures are not cached."""

    def __init__(self) -> None:
        self._values: OrderedDict[bytes, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, digest: bytes) -> V | None:
        """Return the value of a token, None if it is not in the cache."""
        value = self._values.get(digest)
        if value is not None:
            self._values.move_to_end(digest)
        return value

    def put(self, digest: bytes, value: V) -> None:
        """Keep the value of a token."""
        self._values[digest] = value
        self._values.move_to_end(digest)
        if len(self._values) > MAX_CACHED_TOKENS:
            self._values.popitem(last=False)

    def drop(self, digest: bytes) -> None:
        """Forget a token, if it is in the cache."""
        self._values.pop(digest, None)
