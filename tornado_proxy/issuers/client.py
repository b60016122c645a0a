"""One OAuth issuer at run time: its rules, its keys, its answers about opaque tokens, and its login."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from tornado_proxy.auth.oauth.claims import VerifiedUser
from tornado_proxy.auth.oauth.key_set import VerificationKey
from tornado_proxy.domain.config.oauth import OAuthIssuer
from tornado_proxy.issuers.introspection_cache import IntrospectionCache
from tornado_proxy.issuers.key_cache import KeyCache
from tornado_proxy.issuers.login_server import LoginServer


@dataclass(frozen=True, slots=True)
class IssuerClient:
    """An issuer, as auth/oauth/verifier.py needs it."""

    issuer: OAuthIssuer
    keys: KeyCache
    introspections: IntrospectionCache | None
    login_server: LoginServer | None = None

    def find_key(self, key_id: str, algorithm: str) -> VerificationKey | Awaitable[VerificationKey]:
        """Return a key of the issuer, as KeyCache.find_key() does."""
        return self.keys.find_key(key_id, algorithm)

    def introspect(self, token: str, now: datetime) -> VerifiedUser | Awaitable[VerifiedUser]:
        """Return the user of an opaque token, as IntrospectionCache.introspect() does."""
        assert self.introspections is not None, "the issuer introspects"
        return self.introspections.introspect(token, now)


def make_issuer_clients(
    issuers: Iterable[OAuthIssuer], previous: Sequence[IssuerClient] = ()
) -> tuple[IssuerClient, ...]:
    """Return a client for each issuer.

    The keys and answers of the `previous` clients are kept for issuers with the same settings: a reload must not ask an
    issuer that may be unreachable at that moment.
    """
    return tuple(_make_client(issuer, previous) for issuer in issuers)


def _make_client(issuer: OAuthIssuer, previous: Sequence[IssuerClient]) -> IssuerClient:
    for client in previous:
        if client.issuer == issuer:
            return client
    keys = next((client.keys for client in previous if client.keys.source == issuer.keys), None)
    endpoint = issuer.introspection
    introspections = IntrospectionCache(issuer, endpoint) if endpoint is not None else None
    login_server = LoginServer(issuer.keys) if issuer.login is not None else None
    return IssuerClient(issuer, keys or KeyCache(issuer.keys), introspections, login_server)
