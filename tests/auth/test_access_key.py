from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import NoReturn

import pytest

from tests.auth.tokens import NOW, OTHER_PROJECT_ID, PROJECT_ID, PROJECTS, claims, sign
from tornado_proxy.auth import access_key
from tornado_proxy.auth.authenticator import Authenticator
from tornado_proxy.auth.token_cache import compute_digest
from tornado_proxy.domain.config.oauth import IntrospectionEndpoint, KeySource, OAuthIssuer
from tornado_proxy.domain.errors import NotAuthenticated
from tornado_proxy.domain.identity import Caller, ModelPatterns, Project, Secret
from tornado_proxy.domain.state import AccessKey, KeySecret

SECRET = access_key.generate().reveal()
OLD_SECRET = access_key.generate().reveal()
IMPORTED = "sk-of-a-former-gateway"


def make_key(*secrets: KeySecret, **changes: object) -> AccessKey:
    members: dict[str, object] = {
        "id": "ak_1",
        "name": "build server",
        "project_id": PROJECT_ID,
        "participant": "ci",
        "models": ModelPatterns(("openai/*",)),
        "expires_at": None,
        "labels": {"team": "builds"},
        "created_at": NOW,
        "secrets": secrets or (KeySecret(compute_digest(SECRET)),),
        **changes,
    }
    return AccessKey(**members)  # type: ignore[arg-type]  # the tests pass the right types


def make_authenticator(*keys: AccessKey) -> Authenticator:
    return Authenticator(PROJECTS).with_access_keys({secret.digest: key for key in keys for secret in key.secrets})


def test_new_secrets_have_256_random_bits_and_our_prefix() -> None:
    secrets = {access_key.generate().reveal() for _ in range(100)}

    assert len(secrets) == 100
    assert all(re.fullmatch(r"tp_[A-Za-z0-9_-]{43}", secret) for secret in secrets)


def test_key_identifies_its_participant_project_and_models() -> None:
    caller = make_authenticator(make_key()).authenticate(SECRET, NOW)

    assert caller == Caller(
        PROJECT_ID,
        participant="ci",
        credential_id="ak_1",
        granted=ModelPatterns(("openai/*",)),
        expires_at=None,
        labels={"team": "builds"},
    )


def test_key_without_a_participant_is_recorded_under_its_name() -> None:
    assert make_authenticator(make_key(participant=None)).authenticate(SECRET, NOW).participant == "build server"


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("tp_", id="prefix alone"),
        pytest.param(access_key.generate().reveal(), id="unknown key"),
        pytest.param(SECRET[:-1], id="one character short"),
        pytest.param(SECRET + "A", id="one character more"),
        pytest.param(SECRET.upper(), id="other case"),
        pytest.param(" " + SECRET, id="space"),
        pytest.param(compute_digest(SECRET).hex(), id="its digest in place of the secret"),
        pytest.param("tp_" + compute_digest(SECRET).hex(), id="its digest with the prefix"),
        pytest.param("ak_1", id="its id"),
        pytest.param("tp_\ud800", id="lone surrogate"),
        pytest.param("tp_" + "A" * 100_000, id="very long"),
    ],
)
def test_forged_key_is_rejected(token: str) -> None:
    with pytest.raises(NotAuthenticated) as raised:
        make_authenticator(make_key()).authenticate(token, NOW)

    assert token not in raised.value.message or token in ("tp_", "ak_1")


def test_key_is_rejected_from_its_expiry_on() -> None:
    authenticator = make_authenticator(make_key(expires_at=NOW + timedelta(minutes=1)))

    assert authenticator.authenticate(SECRET, NOW).expires_at == NOW + timedelta(minutes=1)
    authenticator.authenticate(SECRET, NOW + timedelta(seconds=59.999))
    with pytest.raises(NotAuthenticated, match="access key expired at 2026-11-23T12:01:00Z"):
        authenticator.authenticate(SECRET, NOW + timedelta(minutes=1))


def test_key_gives_the_same_caller_until_the_keys_change() -> None:
    first = make_authenticator(make_key())
    caller = first.authenticate(SECRET, NOW)
    assert first.authenticate(SECRET, NOW + timedelta(days=1)) is caller

    narrowed = make_key(models=ModelPatterns(("openai/gpt-4o-mini",)))
    second = first.with_access_keys({secret.digest: narrowed for secret in narrowed.secrets})

    assert second.authenticate(SECRET, NOW).granted == ModelPatterns(("openai/gpt-4o-mini",))
    assert first.authenticate(SECRET, NOW) is caller


def test_rotated_key_has_two_secrets_until_the_grace_period_ends() -> None:
    grace_ends = NOW + timedelta(hours=1)
    secrets = (
        KeySecret(compute_digest(SECRET)),
        KeySecret(compute_digest(OLD_SECRET), grace_ends),
    )
    authenticator = make_authenticator(make_key(*secrets))

    assert authenticator.authenticate(SECRET, grace_ends).expires_at is None
    assert authenticator.authenticate(OLD_SECRET, NOW).expires_at == grace_ends
    with pytest.raises(NotAuthenticated, match="access key was replaced, and ended at 2026-11-23T13:00:00Z"):
        authenticator.authenticate(OLD_SECRET, grace_ends)


def test_secret_that_its_key_does_not_list_is_rejected() -> None:
    authenticator = Authenticator(PROJECTS).with_access_keys({compute_digest(OLD_SECRET): make_key()})

    with pytest.raises(NotAuthenticated, match="was replaced"):
        authenticator.authenticate(OLD_SECRET, NOW)


@pytest.mark.parametrize("secret", [IMPORTED, "ek_proj.abc", "plain", sign(claims(), secret="another gateway's")])
def test_imported_key_of_any_form_counts_before_its_form_decides(secret: str) -> None:
    key = make_key(KeySecret(compute_digest(secret)))

    assert make_authenticator(key).authenticate(secret, NOW).credential_id == "ak_1"
    with pytest.raises(NotAuthenticated):
        make_authenticator(make_key()).authenticate(secret, NOW)


def test_key_of_a_project_that_is_not_configured_is_rejected() -> None:
    key = make_key(project_id=OTHER_PROJECT_ID)
    assert make_authenticator(key).authenticate(SECRET, NOW).project_id == OTHER_PROJECT_ID

    only_first = Authenticator([Project(PROJECT_ID, "first")]).with_access_keys(
        {secret.digest: key for secret in key.secrets}
    )
    with pytest.raises(NotAuthenticated, match="access key is unknown or was revoked"):
        only_first.authenticate(SECRET, NOW)


class AskingNobody:
    """An issuer that introspects, and must not be asked."""

    issuer = OAuthIssuer(
        KeySource("https://id.example.com"),
        "llm-proxy",
        frozenset({"cli"}),
        introspection=IntrospectionEndpoint("https://id.example.com/introspect", "llm-proxy", Secret("s")),
    )

    def find_key(self, key_id: str, algorithm: str) -> NoReturn:
        raise AssertionError("the issuer was asked for a key")

    def introspect(self, token: str, now: datetime) -> NoReturn:
        raise AssertionError("the key was shown to the issuer")


def test_imported_key_of_a_project_that_was_removed_is_not_shown_to_an_issuer() -> None:
    key = make_key(KeySecret(compute_digest("opaque-of-a-former-gateway")), project_id=OTHER_PROJECT_ID)
    authenticator = Authenticator([Project(PROJECT_ID, "first")], [AskingNobody()]).with_access_keys(
        {secret.digest: key for secret in key.secrets}
    )

    with pytest.raises(NotAuthenticated, match="access key is unknown or was revoked"):
        authenticator.authenticate("opaque-of-a-former-gateway", NOW)


def test_new_access_keys_replace_the_old_ones_and_keep_verified_tokens() -> None:
    first = make_authenticator(make_key())
    token = sign(claims())
    caller = first.authenticate(token, NOW)

    second = first.with_access_keys({})

    assert second.authenticate(token, NOW) is caller
    with pytest.raises(NotAuthenticated):
        second.authenticate(SECRET, NOW)
    assert first.authenticate(SECRET, NOW).credential_id == "ak_1"


def test_verified_token_that_became_an_access_key_is_not_recognized_any_more() -> None:
    token, plain = sign(claims()), Authenticator(PROJECTS)
    plain.authenticate(token, NOW)
    lines = {"authorization": [f"Bearer {token}"]}
    assert plain.recognize(lines, ("authorization",), NOW) is not None

    changed = plain.with_access_keys({compute_digest(token): make_key()})

    assert changed.recognize(lines, ("authorization",), NOW) is None
