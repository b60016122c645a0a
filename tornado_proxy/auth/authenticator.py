"""Authenticates callers, with a cache of verified tokens.

The kind of a credential is decided by its own form, never by trying one kind after the other:

    tp_..., or a key that was imported  an access key
    ek_...                              a session key
    JWT with RS256, ES256, EdDSA        an OAuth access token of the issuer in `iss`
    another text without dots           an opaque OAuth access token, if an issuer introspects
    else                                a participant token: a JWT with HS256

The cache is bounded, belongs to one configuration (a reload starts with an empty one), and holds no failures.  A cached
token's times are checked at each use.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from tornado_proxy.auth import access_key, participant, session_key
from tornado_proxy.auth.credentials import PROJECT_HEADER, SUBPROTOCOL_HEADER, require_project
from tornado_proxy.auth.oauth.claims import VerifiedUser, check_time
from tornado_proxy.auth.oauth.membership import choose_project, keep_matching_claims, make_caller
from tornado_proxy.auth.oauth.verifier import AccessTokenVerifier, IssuerClient
from tornado_proxy.auth.participant import VerifiedToken
from tornado_proxy.auth.token_cache import TokenCache, compute_digest
from tornado_proxy.auth.validity import Validity
from tornado_proxy.domain.config.oauth import ANY
from tornado_proxy.domain.errors import NotAllowed, NotAuthenticated
from tornado_proxy.domain.identity import ApiKey, Caller, OAuthUser, Project, SessionGrant
from tornado_proxy.domain.state import AccessKey

#: The headers in which a request can state a project, or offer a token as a subprotocol.
_PROJECT_HEADERS = frozenset({PROJECT_HEADER, SUBPROTOCOL_HEADER})

#: 9999-12-31T23:59:59Z, the last second that datetime can hold; a provider can state any number.
_LAST_TIMESTAMP = 253_402_300_799


class Authenticator:
    """Verifies credentials against the projects and OAuth issuers of one configuration."""

    def __init__(self, projects: Sequence[Project], issuers: Sequence[IssuerClient] = ()) -> None:
        self._projects = {project.id: project for project in projects}
        self._keys: dict[str, ApiKey] = {
            key.id: key for project in projects for key in project.api_keys if not key.disabled
        }
        self._access_keys: Mapping[bytes, AccessKey] = {}
        # The callers of access keys by digest, and of OAuth users by digest and project.  Each is one object for all of
        # its requests: what they share is found by its id.
        self._key_callers: dict[bytes, Caller] = {}
        self._members: TokenCache[tuple[VerifiedUser, Caller]] = TokenCache()
        self._users = AccessTokenVerifier(issuers)
        self._verified: TokenCache[VerifiedToken] = TokenCache()
        #: True if an issuer introspects opaque access tokens.
        self.accepts_opaque_tokens = self._users.accepts_opaque_tokens

    @property
    def cached_tokens(self) -> int:
        """The number of tokens in the cache."""
        return len(self._verified) + len(self._users)

    def with_access_keys(self, keys: Mapping[bytes, AccessKey]) -> Authenticator:
        """Return an authenticator with these access keys, by digest, and the same verified tokens."""
        other = copy.copy(self)
        other._access_keys, other._key_callers = keys, {}
        return other

    def authenticate(
        self,
        token: str,
        now: datetime,
        *,
        session_keys: bool = False,
        stated_projects: Sequence[str] = (),
        project_in_path: str | None = None,
    ) -> Caller | Awaitable[Caller]:
        """Return the caller that `token` identifies; an awaitable if an identity provider must be asked.

        Args:
            token: A participant token, an OAuth access token, an access key or a session key.
            now: The time to check the token against, aware UTC.
            session_keys: True if the endpoint accepts session keys.
            stated_projects: The project ids that the request states, in lower case.
            project_in_path: The project of an OAuth user whose request states none otherwise.

        Raises:
            NotAuthenticated: The token is invalid.
            NotAllowed: The token is valid but grants no model, its user is no member of the stated project, or it is
                for another project than the request states.
            BadRequest: An OAuth access token comes without exactly one project.
            IdentityProviderUnavailable: An issuer must be asked and cannot be reached.
        """
        digest = compute_digest(token)
        identified = self._identify(token, digest, now, session_keys=session_keys)
        if not isinstance(identified, Caller):
            projects = stated_projects or ((project_in_path,) if project_in_path is not None else ())
            if isinstance(identified, VerifiedUser):
                return self._find_member(digest, identified, projects)
            return self._find_member_later(digest, identified, projects)
        if stated_projects:
            require_project(stated_projects, identified.project_id)
        return identified

    def recognize(
        self, lines: Mapping[str, Sequence[str]], accepted: Sequence[str], now: datetime
    ) -> tuple[str, Caller] | None:
        """Return the token and the caller of a request with a participant token that was verified before.

        Nearly every request has one such token in one header and states no project, so that nothing else decides.
        Return None for any other request: find_token() and authenticate() tell if its credential is valid.

        Args:
            lines: The values of each header by its name in lower case.
            accepted: The headers that can carry a token, in lower case.
            now: The time to check the token against, aware UTC.
        """
        header = None
        for name in accepted:
            if name in lines:
                if header is not None:
                    return None
                header = name
        if header is None or len(lines[header]) != 1 or not _PROJECT_HEADERS.isdisjoint(lines):
            return None
        scheme, _, token = lines[header][0].rpartition(" ")
        if scheme != ("Bearer" if header == "authorization" else "") or not token.isascii():
            return None
        digest = hashlib.sha256(token.encode()).digest()  # as compute_digest()
        known = self._verified.get(digest)
        if known is None or digest in self._access_keys:
            return None
        starts, ends = known.validity.not_before, known.validity.expires_at
        # Without the leeway of Validity.check(), which decides about all others.
        if (ends is not None and now >= ends) or (starts is not None and now < starts):
            return None
        self._verified.move_to_end(digest)
        return token, known.caller

    def verify_user(self, token: str, now: datetime) -> VerifiedUser | Awaitable[VerifiedUser] | None:
        """Return the user of an OAuth access token, of whatever project; None if `token` is another credential.

        Raises:
            NotAuthenticated, NotAllowed, IdentityProviderUnavailable: As authenticate().
        """
        digest = compute_digest(token)
        if digest in self._access_keys or token.startswith((access_key.PREFIX, session_key.PREFIX)):
            return None
        return self._users.verify(token, digest, now)

    def require_sealing(self, caller: Caller) -> None:
        """Check that seal_session() will work, before the provider is asked for a short-lived key.

        Raises:
            NotAllowed: No API key can seal it.
        """
        self._find_sealing_key(caller)

    def recheck_user(self, caller: Caller, now: datetime) -> Caller:
        """Return an OAuth user as it is now, as far as that is known without its issuer, which cannot be reached.

        Raises:
            NotAuthenticated: Its token has expired, or its issuer or client is no longer configured.
            NotAllowed: It is no member any more.
        """
        user = caller.oauth_user
        assert user is not None, "no other credential needs an issuer"
        check_time(Validity(None, caller.expires_at), now)
        return self._find_known_member(user, caller)

    def seal_session(self, caller: Caller, grant: SessionGrant, expires_at: int) -> str:
        """Return a session key for `caller`.

        It expires at `expires_at` (seconds since 1970, as the provider states it), or with the caller's own token if
        that is earlier: a key must not outlive the credential that requested it.

        Raises:
            NotAllowed: No API key can seal it.
        """
        ends = [max(0, expires_at), _LAST_TIMESTAMP]
        if caller.expires_at is not None:
            ends.append(int(caller.expires_at.timestamp()))
        key, user = self._find_sealing_key(caller), caller.oauth_user
        if user is not None:
            # Browsers send the session key in a header, and a user can have hundreds of groups.
            caller = replace(caller, oauth_user=keep_matching_claims(user, self._projects[caller.project_id]))
        return session_key.seal_key(key, caller, grant, min(ends))

    def _find_sealing_key(self, caller: Caller) -> ApiKey:
        """Return the API key that signed the caller's token, or for an OAuth user the first one of the project.

        Every process of the server has it, and removing it revokes the session keys.
        """
        if caller.oauth_user is None:
            key = self._keys.get(caller.credential_id)
            if key is None:
                raise NotAllowed(
                    "only a participant token can request a session key; send one in place of this credential"
                )
            return key
        project = self._projects[caller.project_id]
        for key in project.api_keys:
            if not key.disabled:
                return key
        raise NotAllowed(f"project {project.name} has no API key to seal a session key with; ask the operator for one")

    def _identify(
        self, token: str, digest: bytes, now: datetime, *, session_keys: bool
    ) -> Caller | VerifiedUser | Awaitable[VerifiedUser]:
        # Before its form decides: an access key that was imported can have any form.
        key = self._access_keys.get(digest)
        if key is not None and key.project_id in self._projects:
            return self._find_key_caller(key, digest, now)
        # A key of a project that was removed must not be shown to an issuer: it is valid again if the project returns.
        if key is not None or token.startswith(access_key.PREFIX):
            raise NotAuthenticated("access key is unknown or was revoked; ask the project's admin for a new one")
        if token.startswith(session_key.PREFIX):
            return self._open_session(token, now, accepted=session_keys)
        known = self._verified.get(digest)
        if known is None:
            return self._users.verify(token, digest, now) or self._verify_participant(token, digest, now)
        try:
            known.validity.check(now)
        except NotAuthenticated:
            self._verified.pop(digest, None)
            raise
        self._verified.move_to_end(digest)
        return known.caller

    def _find_key_caller(self, key: AccessKey, digest: bytes, now: datetime) -> Caller:
        """Return the caller of an access key; identify() raises the error of one that has expired."""
        known = self._key_callers.get(digest)
        if known is None or (known.expires_at is not None and now >= known.expires_at):
            known = self._key_callers[digest] = access_key.identify(key, digest, now)
        return known

    def _verify_participant(self, token: str, digest: bytes, now: datetime) -> Caller:
        verified = participant.verify(token, self._keys, now)
        self._verified.put(digest, verified)
        return verified.caller

    def _find_member(self, digest: bytes, verified: VerifiedUser, stated_projects: Sequence[str]) -> Caller:
        project_id = choose_project(stated_projects)
        key = digest + project_id.encode("utf-8", "surrogatepass")
        known = self._members.get(key)
        if known is None or known[0] is not verified:  # an issuer can have told another user, or other groups
            caller = make_caller(verified.user, project_id, self._projects, verified.validity.expires_at)
            known = verified, caller
        self._members.put(key, known)
        return known[1]

    async def _find_member_later(
        self, digest: bytes, verified: Awaitable[VerifiedUser], stated_projects: Sequence[str]
    ) -> Caller:
        return self._find_member(digest, await verified, stated_projects)

    def _open_session(self, token: str, now: datetime, *, accepted: bool) -> Caller:
        caller = session_key.open_key(token, self._keys, now, accepted=accepted)
        user = caller.oauth_user
        if user is None:
            return caller
        # The member can have been removed since; its admin rights do not pass to the session.
        self._find_known_member(user, caller)
        return caller

    def _find_known_member(self, user: OAuthUser, caller: Caller) -> Caller:
        """Return the caller that a user is now, whose token was verified earlier."""
        issuer = self._users.find_issuer(user.issuer)
        if issuer is None or not {user.client_id, ANY} & issuer.clients:
            raise NotAuthenticated("the issuer or client of your login is no longer accepted; log in again")
        return make_caller(user, caller.project_id, self._projects, caller.expires_at)
