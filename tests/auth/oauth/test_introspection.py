from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tornado_proxy.auth.oauth.introspection import is_opaque, read_introspection
from tornado_proxy.domain.config.oauth import KeySource, OAuthIssuer
from tornado_proxy.domain.errors import InsufficientScope, NotAuthenticated, RequestError
from tornado_proxy.domain.identity import OAuthUser

ISSUER = OAuthIssuer(KeySource("https://id.example.com"), "llm-proxy", frozenset({"cli"}))
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

#: As oidc-provider 9 answers.
ACTIVE = {
    "active": True,
    "sub": "user-7",
    "client_id": "cli",
    "exp": int(NOW.timestamp()) + 600,
    "iat": int(NOW.timestamp()),
    "iss": "https://id.example.com",
    "aud": "llm-proxy",
    "scope": "llm_proxy",
    "token_type": "Bearer",
}


def read(**changes: Any) -> OAuthUser | None:
    members = {name: value for name, value in {**ACTIVE, **changes}.items() if value is not None}
    verified = read_introspection(json.dumps(members).encode(), ISSUER, NOW)
    return verified.user if verified is not None else None


@pytest.mark.parametrize("changes", [{}, {"aud": None}, {"iss": None}, {"exp": None}, {"token_type": "bearer"}])
def test_active_token_has_a_user(changes: dict[str, Any]) -> None:
    assert read(**changes) == OAuthUser("https://id.example.com", "user-7", "cli")


def test_inactive_token_has_none() -> None:
    assert read_introspection(b'{"active": false}', ISSUER, NOW) is None


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        pytest.param({"token_type": None}, NotAuthenticated, id="refresh token"),
        pytest.param({"token_type": "DPoP"}, NotAuthenticated, id="DPoP token"),
        pytest.param({"token_use": "refresh_token"}, NotAuthenticated, id="refresh token of Hydra"),
        pytest.param({"cnf": {"jkt": "x"}}, NotAuthenticated, id="bound to a key"),
        pytest.param({"iss": "https://other.example.com"}, NotAuthenticated, id="another issuer"),
        pytest.param({"aud": "other"}, NotAuthenticated, id="another audience"),
        pytest.param({"aud": []}, NotAuthenticated, id="no audience"),
        pytest.param({"client_id": "other"}, NotAuthenticated, id="another client"),
        pytest.param({"client_id": None}, NotAuthenticated, id="no client"),
        pytest.param({"sub": None}, NotAuthenticated, id="no user"),
        pytest.param({"exp": int(NOW.timestamp()) - 31}, NotAuthenticated, id="expired"),
        pytest.param({"exp": "soon"}, NotAuthenticated, id="exp is text"),
        pytest.param({"scope": "openid"}, InsufficientScope, id="another scope"),
    ],
)
def test_active_token_that_is_not_for_this_server_is_refused(
    changes: dict[str, Any], error: type[RequestError]
) -> None:
    with pytest.raises(error):
        read(**changes)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"active": "true"}', b'{"active": true, "active": false}'])
def test_malformed_answer_is_no_answer(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the messages of the JSON parser are not ours
        read_introspection(body, ISSUER, NOW)


@pytest.mark.parametrize("token", ["abcDEF123-_~+/", "abc==", "skopaque", "ma-short"])
def test_text_without_dots_is_opaque(token: str) -> None:
    assert is_opaque(token)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a.b.c",
        "a b",
        "a\u00e4",
        "a\n",
        "sk-proj-abc",
        "sk-ant-abc",
        "ek_abc",
        "tp_abc",
        "tpl_abc",
        "ma-AAAAAAAAAAAAAAAAAAAAAA-BBBBBBBBBBBBBBBBBBBBBB-secret",
        "a" * (16 * 1024 + 1),
    ],
)
def test_other_credentials_are_never_shown_to_an_issuer(token: str) -> None:
    assert not is_opaque(token)
