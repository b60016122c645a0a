"""Who calls: secrets, project API keys and the caller a credential stands for."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import final


@final
class Secret:
    """Text that must not be seen.  repr, str, format and pickling never show it; `reveal()` does.

    Only `wire/headers.py`, `upstream/` and `auth/` open one.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
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
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(("Secret", self._text))

    def __reduce__(self) -> str:
        raise TypeError("a Secret cannot be pickled or copied")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A project API key, which signs participant tokens.  Written `ma-<kid>-<project>-<secret>`."""

    id: str
    project_id: str
    secret: Secret


@dataclass(frozen=True, slots=True)
class ModelPatterns:
    """A list of `provider/model` patterns, `*` matching any run of characters.  None allows every model."""

    patterns: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A user of a project, by e-mail or subject, with the permissions an OAuth credential needs."""

    user: str
    permissions: frozenset[str] = frozenset()
    admin: bool = False


@dataclass(frozen=True, slots=True)
class Project:
    """A project: the keys that sign its tokens, its members, its own provider keys and the models it may use.

    `allowed_objects` are ids of providers' objects from elsewhere that it may refer to.
    """

    id: str
    name: str
    api_keys: tuple[ApiKey, ...] = ()
    members: tuple[Member, ...] = ()
    provider_keys: Mapping[str, Secret] = field(default_factory=dict)
    models: ModelPatterns = field(default_factory=ModelPatterns)
    allowed_objects: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class SessionGrant:
    """What a short-lived key of ours opens: a realtime session whose config the provider has fixed.

    `provider_key` is the provider's own short-lived key, which goes up in place of the server's; `query` is how the
    session's WebSocket is opened where the client says nothing.
    """

    provider_key: Secret
    query: str


@dataclass(frozen=True, slots=True)
class Caller:
    """The one a valid credential stands for.

    `participant` is a participant token's `name`, `user` an OAuth user; one of them is set.
    `credential_id` names the credential without giving it away (the API key's id, the OAuth client's id).
    `granted` limits the models; `expires_at` is aware UTC, None for a credential without `exp`.  `session` is set where
    the credential is a short-lived key for one realtime session.
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
