"""Narrowed tokens: participant tokens that the holder of a token makes from it, without the project's API key.

    header {"alg": "HS256", "typ": "narrowed+jwt"}
    claims those of the parent, with fewer models, an earlier `exp` or a smaller `llm_budget`, and `parent`: the
           parent's header and claims
    key    the signature of the parent, which `parent` does not contain

The server computes the parent's signature from the API key and `parent`, and with it checks the signature of the child;
a narrowed token can be the parent of another one.  So removing the API key ends the children too.  From a child nobody
can compute the signature of its parent (HMAC-SHA256), so its holder cannot use the parent; the chaining is that of
macaroons (Birgisson et al., NDSS 2014).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import pairwise

import jwt

from tornado_proxy.auth.permissions import covers
from tornado_proxy.auth.unverified_token import UnverifiedToken, read_unverified
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.counter import TOKEN_TOTAL
from tornado_proxy.domain.errors import NotAuthenticated
from tornado_proxy.domain.identity import ModelPatterns

_ALGORITHM = "HS256"
_SIGNATURE_BYTES = 32

#: The value of the header `typ`.  A type of its own, so that a claim `parent` of other programs' tokens means nothing
#: (RFC 8725 section 3.11).
_TYPE = "narrowed+jwt"

_REQUEST_NEW = "narrow its parent again"

#: The claim with the USD that requests of a token may cost: {"usd": "5.00"}.
_BUDGET = "llm_budget"

#: As for `usd` in schemas/projects.schema.json.
_USD = re.compile(r"(0|[1-9][0-9]{0,11})(\.[0-9]{1,12})?")

_ID_DIGITS = 24


@dataclass(frozen=True, slots=True)
class _Link:
    """A token of a chain: its content, and its text up to the signature."""

    token: UnverifiedToken
    signing_input: str


def narrow(token: str, models: Sequence[str] | None, expires_at: datetime | None, budget_usd: str | None = None) -> str:
    """Return a token that grants less than `token`, whose signature is not verified here.

    Args:
        token: The parent.
        models: The patterns of the models that it grants; None for those of the parent.
        expires_at: When it expires, aware UTC; None for the time of the parent.
        budget_usd: What all of its requests together may cost, a decimal; None for the budget of the parent.

    Raises:
        NotAuthenticated: `token` is no participant token, or grants less than `models`, `expires_at` or `budget_usd`.
    """
    parent = read_unverified(token)
    signing_input, _, signature = token.rpartition(".")
    key = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    if parent.header.get("alg") != _ALGORITHM or len(key) != _SIGNATURE_BYTES:
        raise NotAuthenticated(f"only a participant token, signed with {_ALGORITHM}, can be narrowed")
    exp = None if expires_at is None else int(expires_at.timestamp())
    budget = None if budget_usd is None else {"usd": budget_usd}
    claims = _narrow_claims(parent.claims, models, exp, budget, signing_input)
    return jwt.encode(claims, key, algorithm=_ALGORITHM, headers={"typ": _TYPE})


def find_root(token: UnverifiedToken) -> UnverifiedToken:
    """Return the token that an API key signed: `token` itself, unless it is narrowed.

    Raises:
        NotAuthenticated: A parent is malformed.
    """
    return _list_parents(token)[0].token if _is_narrowed(token) else token


def derive_key(token: UnverifiedToken, secret: bytes) -> bytes:
    """Return the key that signed `token`: the secret of the API key, or the signature of its parent.

    Raises:
        NotAuthenticated: A parent is malformed.
    """
    key = secret
    for link in _list_parents(token):
        key = hmac.digest(key, link.signing_input.encode(), "sha256")
    return key


def check_narrowing(token: UnverifiedToken) -> None:
    """Check that `token`, and each of its parents, grants no more than its own parent.

    Raises:
        NotAuthenticated: One of them grants more, or states something else than its parent.
    """
    links = _list_parents(token)
    for parent, child in pairwise([*(link.token.claims for link in links), token.claims]):
        models, exp, budget = _read_models(child), child.get("exp"), child.get(_BUDGET)
        # Narrowing the parent anew must give the same claims: so every claim is compared, those of other programs too.
        expected = _narrow_claims(parent, models, exp, budget, str(child.get("parent")))
        if {**child} != expected:
            raise NotAuthenticated(
                f"narrowed token differs from its parent in more than models, exp and {_BUDGET}; {_REQUEST_NEW}"
            )


def list_token_ids(text: str, token: UnverifiedToken) -> tuple[str, ...]:
    """Return the ids of a token and of its parents, that of the one which an API key signed first.

    An id is a hash of the text that is signed: the text of a signature has several forms of the same bytes.

    Args:
        text: The token.
        token: The same, read.

    Raises:
        NotAuthenticated: A parent is malformed.
    """
    signed = [*(link.signing_input for link in _list_parents(token)), text.rpartition(".")[0]]
    return tuple(f"tok_{hashlib.sha256(part.encode()).hexdigest()[:_ID_DIGITS]}" for part in signed)


def list_budgets(token: UnverifiedToken, token_ids: Sequence[str]) -> tuple[Budget, ...]:
    """Return the budgets that a token and its parents state; `token_ids` are their ids.

    Raises:
        NotAuthenticated: A budget or a parent is malformed.
    """
    limits = [_read_budget(claims) for claims in (*(link.token.claims for link in _list_parents(token)), token.claims)]
    return tuple(
        Budget(TOKEN_TOTAL, limit, subject=token_id)
        for token_id, limit, above in zip(token_ids, limits, [None, *limits], strict=False)
        if limit is not None and limit != above
    )


def _is_narrowed(token: UnverifiedToken) -> bool:
    return token.header.get("typ") == _TYPE


def _list_parents(token: UnverifiedToken) -> list[_Link]:
    """Return the parents of a token, the one that an API key signed first; none unless it is narrowed.

    Each is shorter than its child, so the length of a token bounds their number.
    """
    links: list[_Link] = []
    while _is_narrowed(token):
        signing_input = token.claims.get("parent")
        if not isinstance(signing_input, str):
            raise NotAuthenticated(f"narrowed token has no parent; {_REQUEST_NEW}")
        token = read_unverified(f"{signing_input}.")
        if token.header.get("alg") != _ALGORITHM:
            raise NotAuthenticated(f"the parent of a narrowed token must be signed with {_ALGORITHM} (alg)")
        links.insert(0, _Link(token, signing_input))
    return links


def _narrow_claims(
    parent: Mapping[str, object], models: Sequence[str] | None, exp: object, budget: object, signing_input: str
) -> dict[str, object]:
    claims = {**parent, "parent": signing_input}
    if exp is not None:
        claims["exp"] = _check_expiry(parent.get("exp"), exp)
    if budget is not None:
        claims[_BUDGET] = _check_budget(_read_budget(parent), budget)
    if models is not None:
        granted = _read_models(parent)
        for pattern in models:
            if not covers(ModelPatterns(None if granted is None else tuple(granted)), pattern):
                raise NotAuthenticated(f"the parent token does not grant {pattern[:100]!r}; {_REQUEST_NEW}")
        claims["grants"] = [*_replace_models(parent.get("grants"), list(models))]
    return claims


def _check_expiry(parent: object, child: object) -> object:
    if isinstance(child, bool) or not isinstance(child, int | float):
        raise NotAuthenticated(f"token exp must be a number of seconds since 1970; {_REQUEST_NEW}")
    if isinstance(parent, int | float) and child > parent:
        raise NotAuthenticated(f"narrowed token expires after its parent; {_REQUEST_NEW}")
    return child


def _check_budget(parent: Decimal | None, child: object) -> object:
    limit = _read_budget({_BUDGET: child})
    if parent is not None and limit is not None and limit > parent:
        raise NotAuthenticated(f"narrowed token has a budget of {limit:f} USD, and its parent one of {parent:f} USD")
    return child


def _read_budget(claims: Mapping[str, object]) -> Decimal | None:
    """Return the USD of the claim `llm_budget`; None if the token states none."""
    budget = claims.get(_BUDGET)
    if budget is None:
        return None
    usd = budget.get("usd") if isinstance(budget, dict) and len(budget) == 1 else None
    if not isinstance(usd, str) or not _USD.fullmatch(usd):
        raise NotAuthenticated(
            f'token {_BUDGET} must be {{"usd": AMOUNT}}, a quoted decimal with up to 12 digits before the point and '
            "after it"
        )
    return Decimal(usd)


def _read_models(claims: Mapping[str, object]) -> list[str] | None:
    """Return the patterns of the first `api` grant, as participant.verify() reads it; None if it has none."""
    grants = claims.get("grants")
    scopes = (
        [grant.get("scope") for grant in grants if isinstance(grant, dict) and grant.get("name") == "api"]
        if isinstance(grants, list)
        else []
    )
    llm = scopes[0].get("llm") if scopes and isinstance(scopes[0], dict) else None
    if not isinstance(llm, dict):
        raise NotAuthenticated("token has no api grant with an llm section, so it cannot be narrowed")
    models = llm.get("models")
    if models is None:
        return None
    if not isinstance(models, list) or not all(isinstance(model, str) for model in models):
        raise NotAuthenticated(f"token llm.models must be a list of patterns; {_REQUEST_NEW}")
    return models


def _replace_models(grants: object, models: list[str]) -> list[object]:
    """Return the grants with other models in the first `api` grant, whose form _read_models() has checked."""
    assert isinstance(grants, list)
    index = next(index for index, grant in enumerate(grants) if isinstance(grant, dict) and grant.get("name") == "api")
    scope = grants[index]["scope"]
    narrowed = {**grants[index], "scope": {**scope, "llm": {**scope["llm"], "models": models}}}
    return [*grants[:index], narrowed, *grants[index + 1 :]]
