"""Authenticates callers, with a cache of verified tokens.

The cache is bounded, belongs to one configuration (a reload starts with an empty one), and holds no failures.  A cached
token's times are checked at each use.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime

from tornado_proxy.auth import access_key, participant, session_key
from tornado_proxy.auth.credentials import require_project
from tornado_proxy.auth.participant import VerifiedToken
from tornado_proxy.domain.errors import NotAuthenticated
from tornado_proxy.domain.identity import ApiKey, Caller, Project, SessionGrant
from tornado_proxy.domain.state import AccessKey

#: Tokens in the cache; the least recently used one is dropped first.  One entry takes about 1 KB.
MAX_CACHED_TOKENS = 4096

#: 9999-12-31T23:59:59Z, the last second that datetime can hold; a provider can state any number.
_LAST_TIMESTAMP = 253_402_300_799


class Authenticator:
    """Verifies credentials against the projects of one configuration."""

    def __init__(self, projects: Sequence[Project]) -> None:
        self._keys: dict[str, ApiKey] = {
            key.id: key for project in projects for key in project.api_keys if not key.disabled
        }
        self._projects = frozenset(project.id for project in projects)
        self._access_keys: Mapping[bytes, AccessKey] = {}
        #: Keyed by a hash of the whole token: the first characters of all JWTs are equal, and a token is a secret.
        self._verified: OrderedDict[bytes, VerifiedToken] = OrderedDict()

    @property
    def cached_tokens(self) -> int:
        """The number of tokens in the cache."""
        return len(self._verified)

    def with_access_keys(self, keys: Mapping[bytes, AccessKey]) -> Authenticator:
        """Return an authenticator with these access keys, by digest, and the same verified tokens."""
        other = copy.copy(self)
        other._access_keys = {digest: key for digest, key in keys.items() if key.project_id in self._projects}
        return other

    def authenticate(
        self, token: str, now: datetime, *, session_keys: bool = False, stated_projects: Sequence[str] = ()
    ) -> Caller | Awaitable[Caller]:
        """Return the caller that `token` identifies; an awaitable if an identity provider must be asked.

        Args:
            token: A participant token, an access key or a session key.
            now: The time to check the token against, aware UTC.
            session_keys: True if the endpoint accepts session keys.
            stated_projects: The project ids that the request states, in lower case.

        Raises:
            NotAuthenticated: The token is invalid.
            NotAllowed: The token is valid but grants no model, or it is for another project than the request states.
        """
        caller = self._identify(token, now, session_keys=session_keys)
        require_project(stated_projects, caller.project_id)
        return caller

    def _identify(self, token: str, now: datetime, *, session_keys: bool) -> Caller:
        digest = access_key.compute_digest(token)
        # Before its form decides: an access key that was imported can have any form.
        if (key := self._access_keys.get(digest)) is not None:
            return access_key.identify(key, digest, now)
        if token.startswith(access_key.PREFIX):
            raise NotAuthenticated("access key is unknown or was revoked; ask the project's admin for a new one")
        if token.startswith(session_key.PREFIX):
            return session_key.open_key(token, self._keys, now, accepted=session_keys)
        verified = self._verified.get(digest)
        if verified is None:
            verified = participant.verify(token, self._keys, now)
            self._cache(digest, verified)
            return verified.caller
        try:
            verified.validity.check(now)
        except NotAuthenticated:
            del self._verified[digest]
            raise
        self._verified.move_to_end(digest)
        return verified.caller

    def require_sealing(self, caller: Caller) -> None:
        """Check that seal_session() will work, before the provider is asked for a short-lived key.

        Raises:
            NotAllowed: The caller's own credential is not a participant token.
        """
        session_key.require_key(self._keys.get(caller.credential_id))

    def seal_session(self, caller: Caller, grant: SessionGrant, expires_at: int) -> str:
        """Return a session key for `caller`.

        It expires at `expires_at` (seconds since 1970, as the provider states it), or with the caller's own token if
        that is earlier: a key must not outlive the credential that requested it.

        Raises:
            NotAllowed: The caller's own credential is not a participant token.
        """
        ends = [max(0, expires_at), _LAST_TIMESTAMP]
        if caller.expires_at is not None:
            ends.append(int(caller.expires_at.timestamp()))
        return session_key.seal_key(self._keys.get(caller.credential_id), caller, grant, min(ends))

    def _cache(self, digest: bytes, verified: VerifiedToken) -> None:
        self._verified[digest] = verified
        if len(self._verified) > MAX_CACHED_TOKENS:
            self._verified.popitem(last=False)
