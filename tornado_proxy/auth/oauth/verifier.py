"""Verifies the access tokens of all issuers of one configuration, with a cache of verified ones."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from tornado_proxy.auth.oauth import access_token
from tornado_proxy.auth.oauth.claims import VerifiedUser, check_time
from tornado_proxy.auth.oauth.introspection import is_opaque
from tornado_proxy.auth.oauth.key_set import VerificationKey
from tornado_proxy.auth.token_cache import TokenCache
from tornado_proxy.auth.unverified_token import UnverifiedToken, read_unverified
from tornado_proxy.domain.config.oauth import OAuthIssuer
from tornado_proxy.domain.errors import NotAuthenticated


class IssuerClient(Protocol):
    """An issuer at run time (issuers/client.py)."""

    @property
    def issuer(self) -> OAuthIssuer:
        """The issuer and its rules."""

    def find_key(self, key_id: str, algorithm: str) -> VerificationKey | Awaitable[VerificationKey]:
        """Return a key of the issuer; an awaitable if it must be asked."""

    def introspect(self, token: str, now: datetime) -> VerifiedUser | Awaitable[VerifiedUser]:
        """Return the user of an opaque token; an awaitable if the issuer must be asked."""


@dataclass(frozen=True, slots=True)
class _KnownUser:
    """A cached user, with the key that has signed its token."""

    verified: VerifiedUser
    client: IssuerClient
    key_id: str
    key: VerificationKey


@dataclass(frozen=True, slots=True)
class _Signed:
    """A token whose signature has not been checked, with the issuer and the id of the key that it names."""

    token: str
    digest: bytes
    unverified: UnverifiedToken
    key_id: str
    client: IssuerClient


class AccessTokenVerifier:
    """Verifies access tokens of the issuers of one configuration.

    A cached token is accepted until it expires, while its issuer still publishes the key that has signed it.
    """

    def __init__(self, clients: Sequence[IssuerClient]) -> None:
        self._clients = {client.issuer.name: client for client in clients}
        # At most one (config/sections/oauth.py): otherwise the tokens of one issuer would be shown to the other.
        self._introspecting = next((client for client in clients if client.issuer.introspection is not None), None)
        self._cache: TokenCache[_KnownUser] = TokenCache()

    @property
    def accepts_opaque_tokens(self) -> bool:
        """True if an issuer introspects."""
        return self._introspecting is not None

    def __len__(self) -> int:
        return len(self._cache)

    def find_issuer(self, name: str | None) -> OAuthIssuer | None:
        """Return the issuer of this name, None if it is not configured."""
        client = self._clients.get(name or "")
        return client.issuer if client is not None else None

    def verify(self, token: str, digest: bytes, now: datetime) -> VerifiedUser | Awaitable[VerifiedUser] | None:
        """Return the user of `token`, an awaitable if its issuer must be asked; None if it is no access token.

        Args:
            token: The token as the request carries it.
            digest: Its SHA-256: all JWTs start alike.
            now: The time to check the token against, aware UTC.

        Raises:
            NotAuthenticated: The token is invalid.
            InsufficientScope: The token lacks the scope of its issuer.
            IdentityProviderUnavailable: The issuer cannot be reached.
        """
        if not self._clients:
            return None
        known = self._cache.get(digest)
        if known is not None:
            return self._verify_known(known, token, digest, now)
        if "." not in token:
            return self._introspecting.introspect(token, now) if self._introspecting and is_opaque(token) else None
        unverified = read_unverified(token)
        if not access_token.is_access_token(unverified):
            return None
        header = access_token.read_header(unverified)
        client = self._clients.get(header.issuer)
        if client is None:
            raise NotAuthenticated("the issuer (iss) of the access token is not configured; use another login")
        key = client.find_key(header.key_id, header.algorithm)
        return self._verify_with(key, _Signed(token, digest, unverified, header.key_id, client), now)

    def _verify_known(
        self, known: _KnownUser, token: str, digest: bytes, now: datetime
    ) -> VerifiedUser | Awaitable[VerifiedUser]:
        key = known.client.find_key(known.key_id, known.key.algorithm)
        if not isinstance(key, VerificationKey) or key != known.key:
            signed = _Signed(token, digest, read_unverified(token), known.key_id, known.client)
            return self._verify_with(key, signed, now)
        try:
            check_time(known.verified.validity, now)
        except NotAuthenticated:
            self._cache.pop(digest, None)
            raise
        self._cache.move_to_end(digest)
        return known.verified

    def _verify_with(
        self, key: VerificationKey | Awaitable[VerificationKey], signed: _Signed, now: datetime
    ) -> VerifiedUser | Awaitable[VerifiedUser]:
        def finish(key: VerificationKey) -> VerifiedUser:
            verified = access_token.verify(signed.token, signed.unverified, key, signed.client.issuer, now)
            self._cache.put(signed.digest, _KnownUser(verified, signed.client, signed.key_id, key))
            return verified

        async def finish_later(key: Awaitable[VerificationKey]) -> VerifiedUser:
            return finish(await key)

        return finish(key) if isinstance(key, VerificationKey) else finish_later(key)
