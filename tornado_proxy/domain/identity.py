"""Secrets, project API keys, projects, and the caller that a credential identifies."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import final

from tornado_proxy.domain.attribution import AttributionRules
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.rate_limits import ProjectLimits
from tornado_proxy.domain.cost import NO_DISCOUNT, Discount

#: Characters of a name in a credential: a participant, user, room, role, e-mail address or client.  Records, log lines,
#: pages and messages show it whole.  OpenID Connect Core section 2 limits `sub` to as many.
MAX_NAME_CHARACTERS = 255


@final
class Secret:
    """Secret text.  repr, str and format show `***`, pickling raises TypeError; only `reveal()` returns the text.

    Call `reveal()` only to sign, to send or to store the text where its owner asked for it.
    """

    # No __dict__: vars(), debuggers and many serializers would show the text.
    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the secret text."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        # Constant time: `==` on str returns at the first difference, which a caller could measure.
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(("Secret", self._text))

    # pickle and copy call this; without it both would store the text.
    def __reduce__(self) -> str:
        raise TypeError("cannot pickle or copy a Secret")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A project API key, which signs participant tokens.  Its text form is `ma-<kid>-<project>-<secret>`.

    The tokens of a disabled key are invalid.
    """

    id: str
    project_id: str
    secret: Secret
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """A key with which the proxy authenticates at a provider.

    Attributes:
        name: Its name in records; unique among the keys that the server, or a project, has for a provider.
        provider_ids: The provider's own ids of the key, such as api_key_id, which the provider's bills name.
        discount: The discount on the provider's list prices for requests with the key.
        fingerprint: See fingerprint_key().
    """

    name: str
    secret: Secret
    provider_ids: Mapping[str, str] = field(default_factory=dict)
    discount: Discount = NO_DISCOUNT
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprint", fingerprint_key(self.secret))


def fingerprint_key(key: Secret) -> str:
    """Return the first 12 hexadecimal digits of the key's SHA-256: a name that does not reveal the key."""
    return hashlib.sha256(key.reveal().encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class KeyId:
    """Identifies the provider key that made a request or an object, without its secret.

    Attributes:
        name: Its name; "" in a record of a version without names.
        fingerprint: The fingerprint of its secret.
        own: True for a key of the project itself, False for one of the server.
    """

    name: str
    fingerprint: str
    own: bool = False


@dataclass(frozen=True, slots=True)
class ProjectProvider:
    """A project's own account at a provider.

    Attributes:
        keys: Its keys; the server's keys are not used for the project.  None of them if its settings, which were set
            over REST, cannot be decrypted.
        base_url: The address that its keys are used at, without a final slash; None for the server's.
        region: The region of the host of `base_url`, None for a global one.
        ca_file: A PEM file of certificate authorities to trust at `base_url`; None for those of the system.
        public_only: True if `base_url` was set over REST, and may lead to public addresses only.
    """

    keys: tuple[ProviderKey, ...]
    base_url: str | None = None
    region: str | None = None
    ca_file: str | None = None
    public_only: bool = False


@dataclass(frozen=True, slots=True)
class ModelPatterns:
    """A list of `provider/model` patterns, in which `*` matches any characters.  None allows every model."""

    # None and () differ: a token without llm.models grants all models, one with an empty list grants none.
    patterns: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A user or a group of a project, with its permissions.

    Attributes:
        user: The verified e-mail address or OAuth subject of a user; None for a group.
        group: The name of a group of the issuer; None for a user.
        issuer: The OAuth issuer that the user or group belongs to; None for the only issuer.
    """

    user: str | None = None
    permissions: frozenset[str] = frozenset()
    admin: bool = False
    group: str | None = None
    issuer: str | None = None


@dataclass(frozen=True, slots=True)
class Project:
    """A project: the unit that owns tokens, provider objects and costs.

    Attributes:
        api_keys: The keys that sign its participant tokens, disabled ones too.
        providers: Its own accounts by provider name; the server's keys are used for other providers.
        models: The models that its callers may use.
        surcharge_rate: The fraction of the provider's charge that is added for it; None for that of the server.
        on_client_disconnect: `drain` or `cancel`; None for the server's setting.
        labels: Names and values that each of its records has.
        allowed_objects: Ids of provider objects that were created outside the proxy and that it may refer to.
        budgets: Its budgets; None for the default budgets.
        attribution: Which of the clients' own statements are recorded.
        limits: How much it may use in a minute or at the same time; None for the default limits.
    """

    id: str
    name: str
    api_keys: tuple[ApiKey, ...] = ()
    members: tuple[Member, ...] = ()
    providers: Mapping[str, ProjectProvider] = field(default_factory=dict)
    models: ModelPatterns = field(default_factory=ModelPatterns)
    surcharge_rate: Decimal | None = None
    on_client_disconnect: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    allowed_objects: frozenset[str] = frozenset()
    budgets: tuple[Budget, ...] | None = None
    attribution: AttributionRules = field(default_factory=AttributionRules)
    limits: ProjectLimits | None = None


@dataclass(frozen=True, slots=True)
class SessionGrant:
    """The realtime session that a short-lived session key opens; the provider has fixed its configuration.

    Attributes:
        provider_key: The provider's own short-lived key, which is sent upstream instead of the server's key.
        query: The query string of the session's WebSocket URL, used if the client sends none.
        made_with: The lasting provider key that requested the short-lived one.
    """

    provider_key: Secret
    query: str
    made_with: KeyId | None = None


@dataclass(frozen=True, slots=True)
class OAuthUser:
    """The user of a verified OAuth access token.

    Attributes:
        issuer: The issuer of the token.
        subject: The user's id at the issuer; another issuer can use the same id for another user.
        client_id: The OAuth client that the token was issued to.
        email: The user's e-mail address, if the issuer has verified it.
        groups: The groups that the token states.
    """

    issuer: str
    subject: str
    client_id: str
    email: str | None = None
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller that a valid credential identifies.  Either `participant` or `user` is set.

    Attributes:
        participant: The `name` of a participant token.
        user: The subject of an OAuth access token.
        issuer: The issuer of the user's token; a subject is unique at its issuer only.
        oauth_user: The user of an OAuth access token, with the claims that make it a member.
        credential_id: A public id of the credential: the id of the API key or of the OAuth client.
        granted: The models that the credential allows.
        expires_at: When the credential expires, aware UTC; None if it has no `exp`.
        session: Set if the credential is a short-lived key for one realtime session.
        labels: Names and values of the credential's own, which its records have.
        token_ids: The ids of a participant token and of those that it was narrowed from, the first one that of the
            token which an API key signed.
        token_budgets: The budgets that these tokens state.
    """

    project_id: str
    participant: str | None = None
    user: str | None = None
    room: str | None = None
    role: str = "user"
    admin: bool = False
    credential_id: str = ""
    granted: ModelPatterns = field(default_factory=ModelPatterns)
    expires_at: datetime | None = None
    session: SessionGrant | None = None
    issuer: str | None = None
    oauth_user: OAuthUser | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    token_ids: tuple[str, ...] = ()
    token_budgets: tuple[Budget, ...] = ()
