"""A bounded cache of verified tokens."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TypeVar

#: Tokens in a cache; the least recently used one is dropped first.  One entry takes about 1 KB.
MAX_CACHED_TOKENS = 4096

V = TypeVar("V")


def compute_digest(token: str) -> bytes:
    """Return the SHA-256 of a credential, by which it is found: no table or cache holds the secret."""
    # "surrogatepass": a str can hold lone surrogates, which UTF-8 cannot encode.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


class TokenCache(OrderedDict[bytes, V]):
    """Values of verified tokens by the SHA-256 of the whole token, which is a secret.  Failures are not cached.

    Whoever uses a value calls `move_to_end` with its digest.
    """

    def put(self, digest: bytes, value: V) -> None:
        """Keep the value of a token."""
        self[digest] = value
        self.move_to_end(digest)
        if len(self) > MAX_CACHED_TOKENS:
            self.popitem(last=False)
