"""The settings of a new access key, and the rules that they keep.  Pure functions."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tornado_proxy.auth.token_spec import find_pattern_fault
from tornado_proxy.auth.validity import format_time
from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.domain.identity import ModelPatterns

_MAX_NAME_CHARACTERS = 200
_MAX_MODELS = 100

# As for the labels of a project (schemas/projects.schema.json).
_MAX_LABELS = 32
_LABEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MAX_LABEL_CHARACTERS = 256

#: The longest grace period of a rotated secret.  A longer one is a typing error.
_MAX_GRACE = timedelta(days=365)

_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")


@dataclass(frozen=True, slots=True)
class KeySettings:
    """The operator's choices for a new access key; see AccessKey."""

    name: str
    project_id: str
    participant: str | None = None
    models: ModelPatterns = field(default_factory=ModelPatterns)
    expires_at: datetime | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


def check_settings(settings: KeySettings, projects: Container[str], now: datetime) -> None:
    """Check the settings of a new key.

    Args:
        settings: The settings.
        projects: The ids of the configured projects.
        now: The time to check the expiry against, aware UTC.

    Raises:
        BadRequest: A setting breaks a rule; `param` is its name.
    """
    if settings.project_id not in projects:
        raise BadRequest(
            f"project {settings.project_id[:100]!r} is not in the configuration; use the id of a project",
            param="project_id",
        )
    _check_name("name", settings.name)
    if settings.participant is not None:
        _check_name("participant", settings.participant)
    _check_models(settings.models)
    _check_labels(settings.labels)
    if settings.expires_at is not None and settings.expires_at <= now:
        raise BadRequest(
            f"expires_at {format_time(settings.expires_at)} is in the past; use a later time", param="expires_at"
        )


def check_grace(grace: timedelta) -> None:
    """Raise BadRequest unless `grace` is between nothing and a year."""
    if not timedelta() <= grace <= _MAX_GRACE:
        raise BadRequest(f"the grace period must be between 0 and {_MAX_GRACE.days} days", param="grace_s")


def parse_digest(text: str) -> bytes:
    """Return the SHA-256 that 64 hexadecimal digits state.

    Raises:
        BadRequest: `text` has another form.  The message does not repeat it, because it may be the secret itself.
    """
    if not _DIGEST.fullmatch(text):
        raise BadRequest("the SHA-256 of the key must have 64 hexadecimal digits", param="sha256")
    return bytes.fromhex(text)


def _check_name(param: str, name: str) -> None:
    # Records and reports show names; a terminal would obey control characters.
    if not name.strip() or len(name) > _MAX_NAME_CHARACTERS or not name.isprintable():
        raise BadRequest(f"{param} must have 1 to {_MAX_NAME_CHARACTERS} printable characters", param=param)


def _check_models(models: ModelPatterns) -> None:
    patterns = models.patterns or ()
    if len(patterns) > _MAX_MODELS:
        raise BadRequest(f"models can have {_MAX_MODELS} patterns, not {len(patterns)}", param="models")
    for pattern in patterns:
        if (fault := find_pattern_fault(pattern)) is not None:
            raise BadRequest(f"models: {fault}", param="models")


def _check_labels(labels: Mapping[str, str]) -> None:
    if len(labels) > _MAX_LABELS:
        raise BadRequest(f"labels can have {_MAX_LABELS} members, not {len(labels)}", param="labels")
    for name, value in labels.items():
        if not _LABEL_NAME.fullmatch(name):
            raise BadRequest(
                f"label name {name[:100]!r} must have at most 64 letters, digits and _ . -, the first no sign",
                param="labels",
            )
        if not 1 <= len(value) <= _MAX_LABEL_CHARACTERS or not value.isprintable():
            raise BadRequest(
                f"label {name} must have a value of 1 to {_MAX_LABEL_CHARACTERS} printable characters", param="labels"
            )
