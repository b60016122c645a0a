"""The proxy's own short-lived keys."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tornado_proxy.auth.authenticator import Authenticator
from tornado_proxy.auth.session_key import looks_like_one, open_key, seal_key
from tornado_proxy.domain.errors import NotAllowed, NotAuthenticated
from tornado_proxy.domain.identity import ApiKey, Caller, ModelPatterns, Project, Secret, SessionGrant

NOW = datetime(2026, 3, 2, 10, 0, 0, tzinfo=UTC)
EXPIRES = int(NOW.timestamp()) + 60
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


def opened(token: str, *, key: ApiKey = KEY, now: datetime = NOW) -> Caller:
    return open_key(token, {key.id: key}, now, accepted=True)


def test_what_was_sealed_is_opened_whole() -> None:
    token = seal_key(KEY, CALLER, GRANT, EXPIRES)

    caller = opened(token)

    assert caller == replace(CALLER, expires_at=NOW + timedelta(seconds=60), session=GRANT)


def test_a_key_shows_nothing_of_what_it_holds_and_can_be_a_subprotocol() -> None:
    token = seal_key(KEY, CALLER, GRANT, EXPIRES)

    assert looks_like_one(token)
    assert "ek_of_the_provider" not in token
    # RFC 9110 section 5.6.2: what a token is made of.
    assert all(character.isalnum() or character in "!#$%&'*+-.^_`|~" for character in token)


def test_a_caller_without_limits_stays_without() -> None:
    token = seal_key(KEY, replace(CALLER, granted=ModelPatterns()), GRANT, EXPIRES)

    assert opened(token).granted.patterns is None


def test_a_key_has_an_end() -> None:
    token = seal_key(KEY, CALLER, GRANT, EXPIRES)

    with pytest.raises(NotAuthenticated, match="expired"):
        opened(token, now=NOW + timedelta(seconds=60))


@pytest.mark.parametrize(
    ("key", "why"),
    [
        pytest.param(replace(KEY, secret=Secret("another secret")), "not valid", id="another secret"),
        pytest.param(replace(KEY, project_id="project-b"), "not valid", id="another project's"),
        pytest.param(replace(KEY, id="key-2"), "not made here", id="the key is gone"),
    ],
)
def test_a_key_is_revoked_with_what_sealed_it(key: ApiKey, why: str) -> None:
    token = seal_key(KEY, CALLER, GRANT, EXPIRES)

    with pytest.raises(NotAuthenticated, match=why):
        opened(token, key=key)


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
def test_what_was_not_made_here_is_refused(token: str) -> None:
    with pytest.raises(NotAuthenticated):
        opened(token)


def test_every_change_of_a_key_breaks_it() -> None:
    token = seal_key(KEY, CALLER, GRANT, EXPIRES)
    start = token.index(".") + 1

    # Not the last character: some of its bits stand for nothing (RFC 4648 section 3.5).
    for at in range(start, len(token) - 1, 17):
        other = "A" if token[at] != "A" else "B"
        with pytest.raises(NotAuthenticated):
            opened(token[:at] + other + token[at + 1 :])


def test_only_who_has_an_api_key_behind_it_gets_one() -> None:
    with pytest.raises(NotAllowed):
        seal_key(None, CALLER, GRANT, EXPIRES)


def test_a_key_is_taken_only_where_sessions_are_opened() -> None:
    authenticator = Authenticator([Project("project-a", "A", (KEY,))])
    token = authenticator.seal_session(CALLER, GRANT, EXPIRES)

    assert authenticator.authenticate(token, NOW, session_keys=True).participant == "ada"
    with pytest.raises(NotAuthenticated, match="realtime sessions only"):
        authenticator.authenticate(token, NOW)
