"""The state: settings that change while the server runs, as opposed to the configuration, which is read from files.

It is kept in the ledger's database, so that all processes of all machines share it (state/).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tornado_proxy.domain.budgets.budget import BudgetChange
from tornado_proxy.domain.identity import ModelPatterns
from tornado_proxy.domain.key_ring import Subject
from tornado_proxy.domain.stop import Stop


@dataclass(frozen=True, slots=True)
class KeySecret:
    """A secret of an access key, of which only the SHA-256 is kept.

    Attributes:
        digest: The SHA-256 of the secret's text.
        valid_until: The end of its grace period, aware UTC; None for the current secret.
    """

    digest: bytes = field(repr=False)
    valid_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key that identifies a caller of a project, made while the server runs.

    Attributes:
        id: A public id, which records carry as `credential_id`.
        name: A name for people.
        participant: The participant that records name; None to name the key.
        models: The models that the key allows.
        expires_at: When it expires, aware UTC; None if it does not.
        labels: Names and values for reports.
        revoked_at: When it was revoked, aware UTC; None if it was not.
        secrets: The current secret, and after a rotation the one before it.
    """

    id: str
    name: str
    project_id: str
    participant: str | None
    models: ModelPatterns
    expires_at: datetime | None
    labels: Mapping[str, str]
    created_at: datetime
    revoked_at: datetime | None = None
    secrets: tuple[KeySecret, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredSettings:
    """The settings of a project for a provider, as they are stored.

    Attributes:
        api_key: The project's provider key, encrypted (domain/key_ring.py).
        base_url: The address that the key is used at, encrypted; None for the server's.
        version: The generation of the change that wrote them.
        changed_at: When that was, aware UTC.
        changed_by: Who made the change.
    """

    api_key: str = field(repr=False)
    base_url: str | None
    version: int
    changed_at: datetime
    changed_by: str


@dataclass(frozen=True, slots=True)
class StateChange:
    """A change of the state.

    Attributes:
        generation: The number of the change, counted from 1.
        at: When it was made, aware UTC.
        actor: Who made it.
        action: The change, such as `access key created`.
        subject: The public id of the changed thing.
    """

    generation: int
    at: datetime
    actor: str
    action: str
    subject: str


@dataclass(frozen=True, slots=True)
class State:
    """One generation of the state.

    Attributes:
        generation: The number of the last change, 0 before the first one.
        access_keys: The access keys that were not revoked, by the SHA-256 of each of their secrets.
        budget_changes: The limits of budgets that replace those of the configuration, by project id.
        stops: The stops that are in force.
        provider_settings: The settings that were set over REST, by project id and provider.
    """

    generation: int = 0
    access_keys: Mapping[bytes, AccessKey] = field(default_factory=dict)
    budget_changes: Mapping[str, Sequence[BudgetChange]] = field(default_factory=dict)
    stops: tuple[Stop, ...] = ()
    provider_settings: Mapping[Subject, StoredSettings] = field(default_factory=dict)
