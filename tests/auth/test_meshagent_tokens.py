"""Tokens of the public package meshagent-api 0.56.0 are accepted unchanged, and it accepts tokens of the proxy."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from types import ModuleType
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.auth.tokens import KEY, KEYS, NOW, OTHER_KEY, PROJECT_ID, PROJECTS, SECRET, hash_token
from tornado_proxy.auth import participant
from tornado_proxy.auth.api_key import format_api_key
from tornado_proxy.auth.authenticator import Authenticator
from tornado_proxy.auth.permissions import allows
from tornado_proxy.auth.token_spec import TokenSpec
from tornado_proxy.domain.errors import NotAllowed, NotAuthenticated
from tornado_proxy.domain.identity import Caller, ModelPatterns

API_KEY = format_api_key(KEY).reveal()


def their_token(meshagent: ModuleType, api: Any, *, role: str | None = "agent", room: str | None = "lab") -> Any:
    token = meshagent.participant_token.ParticipantToken(name="ada")
    if room is not None:
        token.add_room_grant(room)
    if role is not None:
        token.add_role_grant(role)
    if api is not None:
        token.add_api_grant(api)
    return token


def authenticate(token: str) -> Caller:
    return Authenticator(PROJECTS).authenticate(token, NOW)


def test_installed_package_is_version_0_56_0(meshagent: ModuleType) -> None:
    assert meshagent.participant_token.__version__ == "0.56.0"


@pytest.mark.parametrize("default", ["agent_default", "full"])
def test_token_with_package_defaults_is_accepted(meshagent: ModuleType, default: str) -> None:
    api = getattr(meshagent.participant_token.ApiScope, default)()
    minted = their_token(meshagent, api).to_jwt(api_key=API_KEY, expiration=NOW + timedelta(hours=1))

    assert authenticate(minted) == Caller(
        project_id=PROJECT_ID,
        participant="ada",
        room="lab",
        role="agent",
        credential_id=KEY.id,
        expires_at=NOW + timedelta(hours=1),
        token_ids=(hash_token(minted),),
    )


def test_token_signed_with_bare_secret_and_explicit_ids_is_accepted(meshagent: ModuleType) -> None:
    """The package's second way to sign: the secret alone, with the ids as claims."""
    theirs = meshagent.participant_token
    token = theirs.ParticipantToken(
        name="ada",
        project_id=PROJECT_ID,
        api_key_id=KEY.id,
        grants=[theirs.ParticipantGrant(name="api", scope=theirs.ApiScope(llm=theirs.LLMGrant()))],
        extra_payload={"anything": "else"},
    )

    caller = authenticate(token.to_jwt(token=SECRET))

    assert (caller.participant, caller.room, caller.role, caller.expires_at) == ("ada", None, "user", None)


@pytest.mark.parametrize("models", [None, [], ["openai/*"], ["openai/gpt-5*", "anthropic/claude-sonnet-5"]])
def test_model_list_of_package_token_limits_its_models(meshagent: ModuleType, models: list[str] | None) -> None:
    theirs = meshagent.participant_token
    api = theirs.ApiScope(llm=theirs.LLMGrant(models=models))

    caller = authenticate(their_token(meshagent, api).to_jwt(api_key=API_KEY))

    assert caller.granted == ModelPatterns(None if models is None else tuple(models))


def test_package_user_default_without_llm_is_not_allowed(meshagent: ModuleType) -> None:
    api = meshagent.participant_token.ApiScope.user_default()

    with pytest.raises(NotAllowed):
        authenticate(their_token(meshagent, api).to_jwt(api_key=API_KEY))


def test_package_token_of_another_project_identifies_that_project(meshagent: ModuleType) -> None:
    api = meshagent.participant_token.ApiScope.full()
    key = format_api_key(OTHER_KEY).reveal()

    caller = authenticate(their_token(meshagent, api).to_jwt(api_key=key))

    assert caller.project_id == OTHER_KEY.project_id
    with pytest.raises(NotAuthenticated):
        Authenticator(PROJECTS[:1]).authenticate(their_token(meshagent, api).to_jwt(api_key=key), NOW)


def test_package_reads_a_minted_token(meshagent: ModuleType) -> None:
    spec = TokenSpec("ada", {"llm": {"models": ["openai/*"]}}, room="lab", role="agent")
    # Years ahead, because the package reads the system clock.
    minted = participant.mint(KEY, spec.identity, spec.grants(), NOW + timedelta(days=36500))

    read = meshagent.participant_token.ParticipantToken.from_jwt(minted, token=SECRET)

    assert (read.name, read.project_id, read.api_key_id, read.role) == ("ada", PROJECT_ID, KEY.id, "agent")
    assert read.grant_scope("room") == "lab"
    assert read.get_api_grant().llm.can_use_model(provider="openai", model="gpt-5")
    assert not read.get_api_grant().llm.can_use_model(provider="anthropic", model="claude-sonnet-5")


def test_minted_and_package_tokens_have_equal_claims(meshagent: ModuleType) -> None:
    theirs = meshagent.participant_token
    api = theirs.ApiScope(llm=theirs.LLMGrant(models=["openai/*"]))
    spec = TokenSpec("ada", {"llm": {"models": ["openai/*"]}}, room="lab", role="agent")
    expires_at = NOW + timedelta(hours=1)

    by_them = their_token(meshagent, api).to_jwt(api_key=API_KEY, expiration=expires_at)
    by_us = participant.mint(KEY, spec.identity, spec.grants(), expires_at)

    unverified: Any = {"verify_signature": False}
    assert jwt.decode(by_us, options=unverified) == jwt.decode(by_them, options=unverified)
    caller, their_caller = (participant.verify(token, KEYS, NOW).caller for token in (by_us, by_them))
    assert replace(caller, token_ids=()) == replace(their_caller, token_ids=())


NAMES = st.text("ab/-*", max_size=6)


@given(
    provider=st.sampled_from(["openai", "a", "b"]),
    model=st.text("ab/-", min_size=1, max_size=6),
    patterns=st.none() | st.lists(st.one_of(NAMES, NAMES.map(lambda text: "a/" + text.replace("*", "") + "*"))),
)
def test_models_that_the_package_allows_are_allowed(
    meshagent: ModuleType, provider: str, model: str, patterns: list[str] | None
) -> None:
    llm = meshagent.participant_token.LLMGrant(models=patterns)
    ours = allows(ModelPatterns(None if patterns is None else tuple(patterns)), provider, model)

    theirs = llm.can_use_model(provider=provider, model=model)

    # The package takes a star before the end literally, and no model name holds one; here it is a wildcard.
    early_star = any("*" in pattern[:-1] for pattern in patterns or ())
    assert ours or not theirs
    assert ours == theirs or early_star
