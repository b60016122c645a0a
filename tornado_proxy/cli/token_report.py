"""What `tornado-proxy token inspect` says of a token: its claims in words, never its signature."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from tornado_proxy.auth import participant
from tornado_proxy.auth.unverified_token import UnverifiedToken, read_unverified
from tornado_proxy.auth.validity import Validity, read_validity
from tornado_proxy.domain.errors import CallerError
from tornado_proxy.domain.identity import ApiKey


class Verification(Enum):
    """Whether a token was held against keys, and how that ended."""

    NOT_TRIED = "not verified (give --config, --key-file or --key-env)"
    HELD = "yes"
    FAILED = "no"


@dataclass(frozen=True, slots=True)
class TokenReport:
    """Lines to print, and warnings to print apart from them."""

    lines: tuple[str, ...]
    warnings: tuple[str, ...]
    verification: Verification


def describe(token: str, keys: Sequence[ApiKey] | None, now: datetime) -> TokenReport:
    """What `token` says; verified against `keys` unless they are None.

    Raises:
        NotAuthenticated: it is not a JWT, or its times or grants cannot be read.
    """
    unverified = read_unverified(token)
    validity = read_validity(unverified.claims)
    verification, reason = _verify(token, keys, now)
    said = {
        "verified": f"{verification.value}: {reason}" if reason else verification.value,
        "participant": _shown(unverified.claims.get("name")),
        "project": _shown(unverified.claims.get("sub")),
        "signing key": ", ".join(sorted(_shown(one) for one in participant.list_key_ids(unverified))) or "none named",
        "algorithm": _shown(unverified.header.get("alg")),
        **_said_of_grants(unverified),
        "not before": _time(validity.not_before, "now"),
        "expires": _time(validity.expires_at, "never"),
    }
    lines = tuple(f"{name + ':':<14}{value}" for name, value in said.items())
    return TokenReport(lines, _warnings(validity, now), verification)


def _verify(token: str, keys: Sequence[ApiKey] | None, now: datetime) -> tuple[Verification, str]:
    if keys is None:
        return Verification.NOT_TRIED, ""
    try:
        participant.verify(token, {key.id: key for key in keys}, now)
    except CallerError as error:
        return Verification.FAILED, error.message
    return Verification.HELD, ""


def _said_of_grants(token: UnverifiedToken) -> dict[str, str]:
    said: dict[str, str] = {}
    for name, scope in participant.read_grants(token.claims):
        if name != "api":
            said.setdefault(_shown(name), _shown(scope))
        elif "models" not in said:
            said["models"] = _models(scope)
            if isinstance(scope, dict) and scope.keys() - {"llm"}:
                said["other api"] = ", ".join(sorted(_shown(one) for one in scope.keys() - {"llm"}))
    return {**said, "models": said.get("models", "none: the token has no api grant")}


def _models(scope: object) -> str:
    llm = scope.get("llm") if isinstance(scope, dict) else None
    if not isinstance(llm, dict):
        return "none: the api grant has no llm section"
    models = llm.get("models")
    if models is None:
        return "all that the project may use"
    if not isinstance(models, list) or not models:
        return "none: llm.models is empty"
    return ", ".join(_shown(model) for model in models)


def _warnings(validity: Validity, now: datetime) -> tuple[str, ...]:
    try:
        validity.check(now)
    except CallerError as error:
        return (error.message,)
    return () if validity.expires_at is not None else ("the token never expires; only removing its key revokes it",)


def _time(at: datetime | None, missing: str) -> str:
    return missing if at is None else at.isoformat(timespec="seconds")


def _shown(value: object) -> str:
    """A claim on one line: quoted where it holds what a terminal would act on."""
    if isinstance(value, str) and value.isprintable():
        return value
    return json.dumps(value)
