"""Tokens to callers, with a memory of those verified lately.

The memory is keyed by a hash of the whole token: the first characters of all JWTs are the same.  It is bounded, lives
no longer than this object (a reload makes a new one), never outlives a token's `exp`, and holds no failures.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime

from tornado_proxy.auth import participant
from tornado_proxy.domain.errors import NotAuthenticated
from tornado_proxy.domain.identity import ApiKey, Caller, Project

#: Verified tokens that are remembered, the least lately used forgotten first; one costs about 1 KB.
_REMEMBERED = 4096


class Authenticator:
    """Verifies credentials against the projects of one configuration."""

    def __init__(self, projects: Sequence[Project]) -> None:
        self._keys: dict[str, ApiKey] = {key.id: key for project in projects for key in project.api_keys}
        self._verified: OrderedDict[bytes, Caller] = OrderedDict()

    def authenticate(self, token: str, now: datetime) -> Caller:
        """The caller that `token` stands for at `now`.

        Raises:
            NotAuthenticated: it is not valid.
            NotAllowed: it is valid and grants no model.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        caller = self._verified.get(digest)
        if caller is None:
            caller = participant.verify(token, self._keys, now)
            self._remember(digest, caller)
            return caller
        if caller.expires_at is not None and now >= caller.expires_at:
            del self._verified[digest]
            raise NotAuthenticated("the token has expired; ask your project's administrator for a fresh one")
        self._verified.move_to_end(digest)
        return caller

    def _remember(self, digest: bytes, caller: Caller) -> None:
        self._verified[digest] = caller
        if len(self._verified) > _REMEMBERED:
            self._verified.popitem(last=False)
