"""Describes a token for `tornado-proxy token inspect`: its claims as phrases, never its signature.  Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from tornado_proxy.auth import narrowing, participant
from tornado_proxy.auth.unverified_token import UnverifiedToken, read_unverified
from tornado_proxy.auth.validity import Validity, read_validity
from tornado_proxy.domain.errors import CallerError
from tornado_proxy.domain.identity import ApiKey


class Verification(Enum):
    """The result of verifying a token, as printed."""

    NOT_TRIED = "not verified (use --config, --key-file or --key-env)"
    VALID = "yes"
    FAILED = "no"


@dataclass(frozen=True, slots=True)
class TokenReport:
    """Lines for standard output, and warnings for standard error."""

    lines: tuple[str, ...]
    warnings: tuple[str, ...]
    verification: Verification


def describe_token(token: str, keys: Sequence[ApiKey] | None, now: datetime) -> TokenReport:
    """Return a description of `token`, verified against `keys` unless they are None.

    Raises:
        NotAuthenticated: it is not a JWT, or its times or grants cannot be read.
    """
    unverified = read_unverified(token)
    validity = read_validity(unverified.claims)
    verification, reason = _verify(token, keys, now)
    key_ids = sorted(_printable(key_id) for key_id in participant.list_key_ids(unverified))
    facts = {
        "verified": f"{verification.value}: {reason}" if reason else verification.value,
        "participant": _printable(unverified.claims.get("name")),
        "project": _printable(unverified.claims.get("sub")),
        "signing key": ", ".join(key_ids) or "none named",
        "algorithm": _printable(unverified.header.get("alg")),
        **_describe_grants(unverified),
        **_describe_budget(unverified, token),
        "not before": _format_time(validity.not_before, "now"),
        "expires": _format_time(validity.expires_at, "never"),
    }
    lines = tuple(f"{name + ':':<14}{value}" for name, value in facts.items())
    return TokenReport(lines, _find_warnings(validity, now), verification)


def _verify(token: str, keys: Sequence[ApiKey] | None, now: datetime) -> tuple[Verification, str]:
    if keys is None:
        return Verification.NOT_TRIED, ""
    try:
        participant.verify(token, {key.id: key for key in keys}, now)
    except CallerError as error:
        return Verification.FAILED, error.message
    return Verification.VALID, ""


def _describe_grants(token: UnverifiedToken) -> dict[str, str]:
    facts: dict[str, str] = {}
    for name, scope in participant.read_grants(token.claims):
        if name != "api":
            facts.setdefault(_printable(name), _printable(scope))
        elif "models" not in facts:
            facts["models"] = _describe_models(scope)
            if isinstance(scope, dict) and scope.keys() - {"llm"}:
                facts["other api"] = ", ".join(sorted(_printable(section) for section in scope.keys() - {"llm"}))
    return {**facts, "models": facts.get("models", "none: the token has no api grant")}


def _describe_budget(token: UnverifiedToken, text: str) -> dict[str, str]:
    token_ids = narrowing.list_token_ids(text, token)
    limits = {budget.subject: f"{budget.limit:f} USD" for budget in narrowing.list_budgets(token, token_ids)}
    facts = {"token id": token_ids[-1]}
    if len(token_ids) > 1:
        facts["parents"] = ", ".join(reversed(token_ids[:-1]))
    if limits:
        facts["budgets"] = ", ".join(f"{limit} of {token_id}" for token_id, limit in limits.items())
    return facts


def _describe_models(scope: object) -> str:
    llm = scope.get("llm") if isinstance(scope, dict) else None
    if not isinstance(llm, dict):
        return "none: the api grant has no llm section"
    models = llm.get("models")
    if models is None:
        return "all models of the project"
    if not isinstance(models, list) or not models:
        return "none: llm.models is empty"
    return ", ".join(_printable(model) for model in models)


def _find_warnings(validity: Validity, now: datetime) -> tuple[str, ...]:
    try:
        validity.check(now)
    except CallerError as error:
        return (error.message,)
    return () if validity.expires_at is not None else ("the token never expires; only removing its key revokes it",)


def _format_time(at: datetime | None, missing: str) -> str:
    return missing if at is None else at.isoformat(timespec="seconds")


def _printable(value: object) -> str:
    """Return a claim on one line; JSON escapes characters that a terminal would obey."""
    if isinstance(value, str) and value.isprintable():
        return value
    return json.dumps(value)
