"""Tokens to callers, with a memory of those verified lately.

The memory is keyed by a hash of the whole token: the first characters of all JWTs are the same.  It is bounded, lives
no longer than this object (a reload makes a new one), holds no failures, and checks the token's times at every use.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime

from tornado_proxy.auth import participant, session_key
from tornado_proxy.auth.participant import VerifiedToken
from tornado_proxy.domain.errors import NotAuthenticated
from tornado_proxy.domain.identity import ApiKey, Caller, Project, SessionGrant

#: Verified tokens that are remembered, the least lately used forgotten first; one costs about 1 KB.
REMEMBERED_TOKENS = 4096


class Authenticator:
    """Verifies credentials against the projects of one configuration."""

    def __init__(self, projects: Sequence[Project]) -> None:
        self._keys: dict[str, ApiKey] = {key.id: key for project in projects for key in project.api_keys}
        self._verified: OrderedDict[bytes, VerifiedToken] = OrderedDict()

    @property
    def remembered(self) -> int:
        """How many verified tokens are remembered now."""
        return len(self._verified)

    def authenticate(self, token: str, now: datetime, *, session_keys: bool = False) -> Caller:
        """The caller that `token` stands for at `now` (aware UTC).

        `session_keys`: a short-lived key of ours is taken here.

        Raises:
            NotAuthenticated: it is not valid.
            NotAllowed: it is valid and grants no model.
        """
        if session_key.looks_like_one(token):
            return session_key.open_key(token, self._keys, now, accepted=session_keys)
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        verified = self._verified.get(digest)
        if verified is None:
            verified = participant.verify(token, self._keys, now)
            self._remember(digest, verified)
            return verified.caller
        try:
            verified.validity.check(now)
        except NotAuthenticated:
            del self._verified[digest]
            raise
        self._verified.move_to_end(digest)
        return verified.caller

    def seal_session(self, caller: Caller, grant: SessionGrant, expires_at: int) -> str:
        """A short-lived key of ours for `caller`, good until `expires_at` (seconds since 1970).

        Raises:
            NotAllowed: the caller's own credential is not one that can stand behind it.
        """
        return session_key.seal_key(self._keys.get(caller.credential_id), caller, grant, expires_at)

    def _remember(self, digest: bytes, verified: VerifiedToken) -> None:
        self._verified[digest] = verified
        if len(self._verified) > REMEMBERED_TOKENS:
            self._verified.popitem(last=False)
