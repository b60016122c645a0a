"""Short-lived keys for realtime sessions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tornado_proxy.auth.authenticator import Authenticator
from tornado_proxy.auth.session_key import PREFIX, open_key, seal_key
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.counter import TOKEN_TOTAL
from tornado_proxy.domain.errors import NotAllowed, NotAuthenticated
from tornado_proxy.domain.identity import ApiKey, Caller, ModelPatterns, Project, Secret, SessionGrant

NOW = datetime(2026, 3, 2, 10, 0, 0, tzinfo=UTC)
EXPIRES_AT = int(NOW.timestamp()) + 60
KEY = ApiKey("key-1", "project-a", Secret("a secret of the first project"))
CALLER = Caller(
    "project-a",
    participant="ada",
    room="lab",
    role="agent",
    credential_id="key-1",
    granted=ModelPatterns(("openai/gpt-realtime*",)),
)
GRANT = SessionGrant(Secret("ek_of_the_provider"), "model=gpt-realtime")


def open_token(token: str, *, key: ApiKey = KEY, now: datetime = NOW) -> Caller:
    return open_key(token, {key.id: key}, now, accepted=True)


def test_opened_key_gives_the_sealed_caller_and_session() -> None:
    token = seal_key(KEY, CALLER, GRANT, EXPIRES_AT)

    caller = open_token(token)

    assert caller == replace(CALLER, expires_at=NOW + timedelta(seconds=60), session=GRANT)


def test_key_hides_its_content_and_is_a_valid_subprotocol() -> None:
    token = seal_key(KEY, CALLER, GRANT, EXPIRES_AT)

    assert token.startswith(PREFIX)
    assert "ek_of_the_provider" not in token
    # RFC 9110 section 5.6.2 `tchar`.
    assert all(character.isalnum() or character in "!#$%&'*+-.^_`|~" for character in token)


def test_caller_without_model_limits_stays_unlimited() -> None:
    token = seal_key(KEY, replace(CALLER, granted=ModelPatterns()), GRANT, EXPIRES_AT)

    assert open_token(token).granted.patterns is None


def test_key_expires() -> None:
    token = seal_key(KEY, CALLER, GRANT, EXPIRES_AT)

    with pytest.raises(NotAuthenticated, match="session key expired at 2026-03-02T10:01:00Z"):
        open_token(token, now=NOW + timedelta(seconds=60))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        pytest.param(replace(KEY, secret=Secret("another secret")), "invalid session key", id="another secret"),
        pytest.param(replace(KEY, project_id="project-b"), "invalid session key", id="another project"),
        pytest.param(replace(KEY, id="key-2"), "not issued by this server", id="removed API key"),
    ],
)
def test_key_is_revoked_with_its_api_key(key: ApiKey, message: str) -> None:
    token = seal_key(KEY, CALLER, GRANT, EXPIRES_AT)

    with pytest.raises(NotAuthenticated, match=message):
        open_token(token, key=key)


@pytest.mark.parametrize(
    "token",
    [
        "ek_",
        "ek_key-1.",
        "ek_key-1.nonsense",
        "ek_key-1.\udc80",
        "ek_68af296e8e408191a1120ab6383263c2",
        "ek_key-1.gAAA",
    ],
)
def test_key_of_another_issuer_is_rejected(token: str) -> None:
    with pytest.raises(NotAuthenticated):
        open_token(token)


def test_changed_key_is_rejected() -> None:
    token = seal_key(KEY, CALLER, GRANT, EXPIRES_AT)
    start = token.index(".") + 1

    # Not the last character: some of its bits encode nothing (RFC 4648 section 3.5).
    for position in range(start, len(token) - 1, 17):
        other = "A" if token[position] != "A" else "B"
        with pytest.raises(NotAuthenticated):
            open_token(token[:position] + other + token[position + 1 :])


def test_caller_without_an_api_key_gets_no_session_key() -> None:
    authenticator = Authenticator([Project("project-a", "A", (KEY,))])

    with pytest.raises(NotAllowed, match="only a participant token"):
        authenticator.seal_session(replace(CALLER, credential_id="access-key-1"), GRANT, EXPIRES_AT)


def test_key_is_accepted_only_where_sessions_are_opened() -> None:
    authenticator = Authenticator([Project("project-a", "A", (KEY,))])
    token = authenticator.seal_session(CALLER, GRANT, EXPIRES_AT)

    assert authenticator.authenticate(token, NOW, session_keys=True).participant == "ada"
    with pytest.raises(NotAuthenticated, match="realtime sessions only"):
        authenticator.authenticate(token, NOW)


@pytest.mark.parametrize(
    ("stated", "token_ends", "seconds"),
    [
        pytest.param(60, None, 60, id="the provider's, for a token without exp"),
        pytest.param(60, 3600, 60, id="the provider's is earlier"),
        pytest.param(3600, 60, 60, id="the token's is earlier"),
        pytest.param(10**30, 60, 60, id="the provider states no time"),
    ],
)
def test_session_key_ends_with_the_provider_s_key_or_the_token(
    stated: int, token_ends: int | None, seconds: int
) -> None:
    authenticator = Authenticator([Project("project-a", "first", (KEY,))])
    ends = None if token_ends is None else NOW + timedelta(seconds=token_ends)

    token = authenticator.seal_session(
        replace(CALLER, expires_at=ends), GRANT, stated if stated > 10**12 else int(NOW.timestamp()) + stated
    )

    assert open_token(token).expires_at == NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize("stated", [10**30, 10**13, 253_402_300_800])
def test_time_of_a_provider_that_no_calendar_holds_is_the_last_one(stated: int) -> None:
    authenticator = Authenticator([Project("project-a", "first", (KEY,))])

    token = authenticator.seal_session(CALLER, GRANT, stated)

    assert open_token(token).expires_at == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def test_negative_time_of_a_provider_is_a_key_that_has_expired() -> None:
    authenticator = Authenticator([Project("project-a", "first", (KEY,))])

    token = authenticator.seal_session(CALLER, GRANT, -(10**30))

    with pytest.raises(NotAuthenticated, match="session key expired"):
        open_token(token)


def test_session_key_counts_for_the_token_that_requested_it_and_keeps_its_budgets() -> None:
    budget = Budget(TOKEN_TOTAL, Decimal("2.5"), subject="tok_2")
    caller = replace(CALLER, token_ids=("tok_1", "tok_2"), token_budgets=(budget,))

    opened = open_token(seal_key(KEY, caller, GRANT, EXPIRES_AT))

    assert (opened.token_ids, opened.token_budgets) == (("tok_1", "tok_2"), (budget,))
