"""Access tokens that are accepted in the form in which each kind of issuer writes them, and rules of claims.

Tokens that are forged or misplaced are in tests/server/test_forged_tokens.py.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.oauth.tokens import AUDIENCE, CLIENT, claims_of, ec_key, ed_key, key_set, rsa_key, sign
from tornado_proxy.auth.oauth import access_token
from tornado_proxy.auth.oauth.claims import VerifiedUser
from tornado_proxy.auth.oauth.key_set import parse_key_set
from tornado_proxy.auth.unverified_token import read_unverified
from tornado_proxy.domain.config.oauth import KeySource, OAuthIssuer
from tornado_proxy.domain.errors import InsufficientScope, NotAuthenticated
from tornado_proxy.domain.identity import OAuthUser

ISSUER_URL = "https://id.example.com"
ISSUER = OAuthIssuer(KeySource(ISSUER_URL), AUDIENCE, frozenset({CLIENT, "studio"}))
WORKLOADS = OAuthIssuer(KeySource(ISSUER_URL), AUDIENCE, frozenset({"*"}), scope="*")
KEYS = parse_key_set(json.dumps(key_set(rsa_key(), ec_key(), ed_key())).encode())


def verify(token: str, issuer: OAuthIssuer = ISSUER, now: datetime | None = None) -> VerifiedUser:
    unverified = read_unverified(token)
    assert access_token.is_access_token(unverified)
    header = access_token.read_header(unverified)
    key = KEYS.find(header.key_id, header.algorithm)
    assert key is not None
    return access_token.verify(token, unverified, key, issuer, now or datetime.now(UTC))


def claims(**changes: Any) -> dict[str, Any]:
    return claims_of(ISSUER_URL, **changes)


@pytest.mark.parametrize("key", [rsa_key(), ec_key(), ed_key()], ids=lambda key: key.algorithm)
@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "JWT", None])
def test_token_of_each_algorithm_and_type_is_accepted(key: Any, typ: str | None) -> None:
    user = verify(sign(key, claims(), typ=typ)).user

    assert user == OAuthUser(ISSUER_URL, "user-7", "cli")


@pytest.mark.parametrize(
    ("changes", "client"),
    [
        pytest.param({"client_id": None, "azp": "studio"}, "studio", id="Auth0 and Keycloak: azp"),
        pytest.param({"client_id": None, "cid": "studio", "scope": None, "scp": ["llm_proxy"]}, "studio", id="Okta"),
        pytest.param({"client_id": None, "appid": "cli", "scope": None, "scp": "a llm_proxy"}, "cli", id="Entra v1"),
        pytest.param({"aud": ["account", AUDIENCE]}, "cli", id="Keycloak: several audiences"),
        pytest.param({"typ": "Bearer"}, "cli", id="Keycloak: claim typ"),
        pytest.param({"scope": ["openid", "llm_proxy"]}, "cli", id="scope as a list"),
        pytest.param({"azp": "other"}, "cli", id="the first claim that names a client counts"),
        pytest.param({"exp": time.time() + 3600.5}, "cli", id="fraction of a second"),
    ],
)
def test_claims_of_common_issuers_are_accepted(changes: dict[str, Any], client: str) -> None:
    assert verify(sign(rsa_key(), claims(**changes))).user.client_id == client


def test_token_without_client_and_scope_is_accepted_where_the_issuer_may_omit_them() -> None:
    token = sign(rsa_key(), claims(client_id=None, scope=None, sub="repo:acme/research:ref:refs/heads/main"))

    assert verify(token, WORKLOADS).user.subject == "repo:acme/research:ref:refs/heads/main"
    with pytest.raises(NotAuthenticated, match="not registered"):
        verify(token)


def test_times_have_thirty_seconds_of_leeway() -> None:
    now = datetime.now(UTC)
    token = sign(rsa_key(), claims(exp=now.timestamp(), nbf=now.timestamp()))

    verify(token, now=now + timedelta(seconds=29))
    verify(token, now=now - timedelta(seconds=29))
    with pytest.raises(NotAuthenticated, match="expired"):
        verify(token, now=now + timedelta(seconds=31))
    with pytest.raises(NotAuthenticated, match="not valid yet"):
        verify(token, now=now - timedelta(seconds=31))


@pytest.mark.parametrize(
    ("changes", "trusted", "email"),
    [
        ({"email": "a@example.com", "email_verified": True}, False, "a@example.com"),
        ({"email": "a@example.com"}, False, None),
        ({"email": "a@example.com", "email_verified": "true"}, False, None),
        ({"email": "a@example.com", "email_verified": 1}, True, None),
        ({"email": "a@example.com", "email_verified": False}, True, None),
        ({"email": "a@example.com"}, True, "a@example.com"),
        ({}, True, None),
    ],
)
def test_email_counts_only_if_it_is_verified(changes: dict[str, Any], trusted: bool, email: str | None) -> None:
    issuer = OAuthIssuer(KeySource(ISSUER_URL), AUDIENCE, frozenset({CLIENT}), trust_email=trusted)

    assert verify(sign(rsa_key(), claims(**changes)), issuer).user.email == email


@pytest.mark.parametrize(
    ("groups", "read"),
    [
        (["a", "b"], {"a", "b"}),
        ("a", {"a"}),
        (["a", 7, None], {"a"}),
        ({"a": True}, set()),
        (None, set()),
        ([f"g{number}" for number in range(1001)], set()),
    ],
)
def test_groups_are_a_text_or_a_list_of_texts(groups: Any, read: set[str]) -> None:
    issuer = OAuthIssuer(KeySource(ISSUER_URL), AUDIENCE, frozenset({CLIENT}), groups_claim="https://x/groups")

    assert verify(sign(rsa_key(), claims(**{"https://x/groups": groups})), issuer).user.groups == read


def test_missing_scope_names_the_scope_to_request() -> None:
    with pytest.raises(InsufficientScope, match="lacks the scope llm_proxy") as raised:
        verify(sign(rsa_key(), claims(scope="openid llm_proxy_admin")))

    assert raised.value.scope == "llm_proxy"
