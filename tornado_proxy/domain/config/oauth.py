"""OAuth issuers, whose access tokens the proxy accepts: the values of the section `oauth` in proxy.yaml."""

from __future__ import annotations

from dataclasses import dataclass

from tornado_proxy.domain.identity import Secret

#: An entry of `clients`, and a value of `scope`, that accepts tokens which name no client, or no scope: those that
#: GitHub Actions and Kubernetes issue to programs.
ANY = "*"

#: The scope that access tokens need.
DEFAULT_SCOPE = "llm_proxy"

#: The longest time in seconds that keys are used while their issuer cannot be reached: one day.
DEFAULT_MAX_STALE_S = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where the keys of an issuer are fetched.

    Attributes:
        issuer: The issuer, whose discovery document names the keys if `jwks_uri` is None.
        jwks_uri: The URL of its JSON Web Key Set.
        max_stale_s: Seconds for which known keys are used while the issuer cannot be reached.
        ca_file: A PEM file of certificate authorities to trust; None for those of the system.
    """

    issuer: str
    jwks_uri: str | None = None
    max_stale_s: float = DEFAULT_MAX_STALE_S
    ca_file: str | None = None


@dataclass(frozen=True, slots=True)
class IntrospectionEndpoint:
    """The endpoint at which an issuer says if an opaque token is valid (RFC 7662), and our credentials there."""

    url: str
    client_id: str
    client_secret: Secret
    ca_file: str | None = None


@dataclass(frozen=True, slots=True)
class LoginClient:
    """The OAuth client with which people log in, and the scopes that it requests."""

    client_id: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OAuthIssuer:
    """An issuer of OAuth access tokens, and the rules for its tokens.

    Attributes:
        keys: Where its keys are fetched; the issuer's name is part of it.
        audience: The `aud` that a token must have.
        clients: Ids of the OAuth clients whose tokens are accepted.
        scope: The scope that a token must have.
        introspection: Where opaque tokens are checked; None if they are not accepted.
        trust_email: True if an `email` counts without `email_verified`.
        groups_claim: The claim that holds the groups of the user.
        login: The client of `tornado-proxy login`; None if the issuer is not used for it.
    """

    keys: KeySource
    audience: str
    clients: frozenset[str]
    scope: str = DEFAULT_SCOPE
    introspection: IntrospectionEndpoint | None = None
    trust_email: bool = False
    groups_claim: str = "groups"
    login: LoginClient | None = None

    @property
    def name(self) -> str:
        """The issuer identifier, which is the claim `iss` of its tokens."""
        return self.keys.issuer
