"""A session: who has logged in at which server, with the tokens of the login."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tornado_proxy.domain.identity import Secret

#: A token is refreshed this long before it expires, or a fifth of its lifetime if that is less.
MAX_REFRESH_LEAD = timedelta(seconds=60)
REFRESH_LEAD_FRACTION = 5


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The endpoints of an issuer (RFC 8414); "" for one that it does not have."""

    token: str
    authorization: str = ""
    device: str = ""
    revocation: str = ""
    #: True if the issuer states itself in each authorization response (RFC 9207).
    states_issuer: bool = False


@dataclass(frozen=True, slots=True)
class Client:
    """The OAuth client of a login: the issuer, the registered id, and the scopes that are requested."""

    issuer: str
    client_id: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one response of the issuer; `lifetime` is None if it does not state one."""

    access_token: Secret
    obtained_at: datetime
    lifetime: timedelta | None
    refresh_token: Secret = field(default_factory=lambda: Secret(""))
    id_token: Secret = field(default_factory=lambda: Secret(""))


@dataclass(frozen=True, slots=True)
class Session:
    """A login.

    Attributes:
        upstream: The root URL of the server that the login is for, without a final slash.
        user: The person, for people to read; "" if the issuer does not say.
        ended: True if the issuer has refused the refresh token, so that a new login is needed.
    """

    upstream: str
    client: Client
    endpoints: Endpoints
    tokens: Tokens
    user: str = ""
    ended: bool = False

    @property
    def expires_at(self) -> datetime | None:
        """When the access token expires, aware UTC; None if that is not known."""
        tokens = self.tokens
        return None if tokens.lifetime is None else tokens.obtained_at + tokens.lifetime

    def is_expired(self, now: datetime) -> bool:
        """Return True if the access token has expired."""
        return self.expires_at is not None and now >= self.expires_at

    def needs_refresh(self, now: datetime) -> bool:
        """Return True if the access token expires soon."""
        lifetime, expires_at = self.tokens.lifetime, self.expires_at
        if lifetime is None or expires_at is None:
            return False
        return now >= expires_at - min(MAX_REFRESH_LEAD, lifetime / REFRESH_LEAD_FRACTION)
