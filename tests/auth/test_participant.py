from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from tests.auth.tokens import (
    HEADER,
    KEY,
    KEYS,
    NOW,
    NOW_S,
    OTHER_KEY,
    OTHER_PROJECT_ID,
    OTHER_SECRET,
    PROJECT_ID,
    SECOND_KEY,
    SECRET,
    claims,
    granting,
    hash_token,
    sign,
    sign_bytes,
)
from tornado_proxy.auth import participant
from tornado_proxy.auth.unverified_token import MAX_TOKEN_CHARACTERS
from tornado_proxy.domain.errors import CallerError, NotAllowed, NotAuthenticated
from tornado_proxy.domain.identity import Caller, ModelPatterns

VALID = sign(claims())
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def verify(token: str, now: datetime = NOW) -> Caller:
    return participant.verify(token, KEYS, now).caller


def reject(token: str, now: datetime = NOW) -> CallerError:
    with pytest.raises(CallerError) as rejected:
        verify(token, now)
    for secret in (SECRET, OTHER_SECRET, *(part for part in token.split(".") if len(part) > 8)):
        assert secret not in str(rejected.value)
    return rejected.value


def test_valid_token_identifies_its_caller() -> None:
    assert verify(VALID) == Caller(
        project_id=PROJECT_ID,
        participant="ada",
        room="lab",
        role="agent",
        credential_id=KEY.id,
        granted=ModelPatterns(None),
        expires_at=datetime(2026, 11, 23, 13, 0, tzinfo=UTC),
        token_ids=(hash_token(VALID),),
    )


@pytest.mark.parametrize(
    ("payload", "header"),
    [
        pytest.param(claims(), {**HEADER, "kid": KEY.id}, id="in both"),
        pytest.param(claims(kid=None), {**HEADER, "kid": KEY.id}, id="in the header"),
        pytest.param(claims(), {"alg": "HS256"}, id="in the claims, no typ"),
    ],
)
def test_key_id_is_read_from_header_or_claims(payload: dict[str, Any], header: dict[str, Any]) -> None:
    assert verify(sign(payload, header=header)).credential_id == KEY.id


def test_every_key_of_a_project_is_accepted() -> None:
    token = sign(claims(kid=SECOND_KEY.id), secret=SECOND_KEY.secret.reveal())

    assert verify(token).credential_id == SECOND_KEY.id


@pytest.mark.parametrize(
    ("token", "message"),
    [
        pytest.param(sign(claims(), secret=OTHER_SECRET), "invalid token signature", id="wrong key"),
        pytest.param(
            sign(claims(kid=OTHER_KEY.id), secret=OTHER_SECRET), "project", id="another project's key, our sub"
        ),
        pytest.param(sign(claims(sub=OTHER_PROJECT_ID)), "project", id="our key, another project's sub"),
        pytest.param(sign(claims(sub=None)), "project", id="no sub"),
        pytest.param(sign(claims(sub=[PROJECT_ID])), "project", id="sub is a list"),
        pytest.param(sign(claims(kid=None)), "does not name", id="no kid"),
        pytest.param(sign(claims(kid=7)), "kid must be a string", id="kid is a number"),
        pytest.param(
            sign(claims(kid="00000000-0000-4000-8000-000000000000")), "unknown or was removed", id="unknown kid"
        ),
        pytest.param(sign(claims(), header={**HEADER, "kid": SECOND_KEY.id}), "two different", id="two different kids"),
        pytest.param(sign(claims(), header={**HEADER, "kid": None}), "kid must be a string", id="kid is null"),
        pytest.param(sign(claims(), header={"alg": "none"}), "HS256", id="alg none, though signed"),
        pytest.param(sign(claims(), header={"alg": "hs256"}), "HS256", id="alg in small letters"),
        pytest.param(sign(claims(), header={"alg": "HS512"}), "HS256", id="another HMAC"),
        pytest.param(sign(claims(), header={"alg": ["HS256"]}), "HS256", id="alg is a list"),
        pytest.param(sign(claims(), header={"typ": "JWT"}), "HS256", id="no alg"),
        pytest.param(sign(claims(), header={**HEADER, "crit": ["exp"]}), "extension", id="crit"),
        pytest.param(sign(claims(), header={**HEADER, "b64": False}), "extension", id="b64"),
        pytest.param(sign(claims(), header={**HEADER, "zip": "DEF"}), "extension", id="zip"),
        pytest.param(jwt.encode(claims(), None, algorithm="none"), "HS256", id="alg none, unsigned"),
        pytest.param(jwt.encode(claims(), RSA, algorithm="RS256"), "HS256", id="RS256"),
        pytest.param(sign(claims(name=None)), "participant", id="no name"),
        pytest.param(sign(claims(name="  ")), "participant", id="an empty name"),
        pytest.param(sign(claims(name=["ada"])), "participant", id="name is a list"),
        pytest.param(sign(claims(name="a\u0000b")), "control", id="a name with NUL"),
        pytest.param(sign(claims(name="\ud800")), "control", id="a name with a lone surrogate"),
        pytest.param(sign(claims(name="a" * 256)), "256 characters, and at most 255", id="a name that is too long"),
        pytest.param(
            sign(claims(grants=[{"name": "room", "scope": "r" * 5000}])),
            "5000 characters",
            id="a room that is too long",
        ),
        pytest.param(
            sign(claims(grants=[{"name": "role", "scope": "r" * 256}])), "256 characters", id="a role that is too long"
        ),
        pytest.param(sign(claims(grants=None)), "grants", id="no grants"),
        pytest.param(sign(claims(grants={"api": {"llm": {}}})), "grants", id="grants are an object"),
        pytest.param(sign(claims(grants=["api"])), "grant", id="a grant that is not an object"),
        pytest.param(sign(claims(grants=[{"name": "api"}])), "scope", id="a grant without scope"),
        pytest.param(sign(granting({"llm": {"models": "openai/*"}})), "llm.models", id="models are a string"),
        pytest.param(sign(granting({"llm": {"models": [7]}})), "llm.models", id="a model that is a number"),
        pytest.param(sign(claims(exp="1795434400")), "exp", id="exp is a string"),
        pytest.param(sign(claims(exp=True)), "exp", id="exp is a boolean"),
        pytest.param(sign(claims(exp=1e300)), "exp", id="exp out of range"),
        pytest.param(sign({**claims(), "exp": None}), "exp", id="exp is null"),
        pytest.param(sign(claims(exp=float("nan"))), "not a token", id="exp is not JSON"),
        pytest.param(sign([claims()]), "not a token", id="claims are a list"),
        pytest.param(sign(claims(), header=[HEADER]), "not a token", id="header is a list"),
        pytest.param(
            sign_bytes(b'{"alg":"none","alg":"HS256"}', json.dumps(claims()).encode()), "not a token", id="alg twice"
        ),
        pytest.param(
            sign_bytes(
                json.dumps(HEADER).encode(), json.dumps(claims()).encode()[:-1] + f',"kid":"{KEY.id}"}}'.encode()
            ),
            "not a token",
            id="kid twice",
        ),
        pytest.param(sign_bytes(json.dumps(HEADER).encode(), b"[" * 9000), "not a token", id="deep"),
        pytest.param(sign_bytes(json.dumps(HEADER).encode(), b"\xff\xfe{"), "not a token", id="not UTF-8"),
        pytest.param(VALID + "=", "not a token", id="padded"),
        pytest.param(VALID + ".", "not a token", id="four segments"),
        pytest.param(VALID + "." + VALID.split(".")[0], "not a token", id="a fourth segment"),
        pytest.param(VALID.rsplit(".", 1)[0], "not a token", id="no signature"),
        pytest.param(VALID.rsplit(".", 1)[0] + ".", "invalid token signature", id="an empty signature"),
        pytest.param(VALID.replace(".", " .", 1), "not a token", id="a space inside"),
        pytest.param("\u00e9" + VALID, "not a token", id="not ASCII"),
        pytest.param("\ud800.\ud800.\ud800", "not a token", id="not encodable as UTF-8"),
        pytest.param("", "not a token", id="empty"),
        pytest.param("sk-proj-something-else", "provider key", id="a provider key"),
    ],
)
def test_invalid_token_is_rejected_with_401_and_not_repeated(token: str, message: str) -> None:
    error = reject(token)

    assert isinstance(error, NotAuthenticated)
    assert error.status == 401
    assert message in error.message


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(claims(grants=[]), id="no grant"),
        pytest.param(claims(grants=[{"name": "room", "scope": "lab"}]), id="no api grant"),
        pytest.param(granting({}), id="no llm section"),
        pytest.param(granting({"llm": None}), id="llm is null"),
        pytest.param(granting({"llm": True}), id="llm is not an object"),
        pytest.param(granting(None), id="the scope is null"),
        pytest.param(granting("llm"), id="the scope is a string"),
        pytest.param(
            claims(grants=[{"name": "api", "scope": {}}, {"name": "api", "scope": {"llm": {}}}]),
            id="a second api grant, which is ignored",
        ),
    ],
)
def test_valid_token_without_llm_grant_is_rejected_with_403_naming_the_grant(payload: dict[str, Any]) -> None:
    error = reject(sign(payload))

    assert isinstance(error, NotAllowed)
    assert error.status == 403
    assert error.message == "token has no api grant with an llm section; ask the project's admin for one"


@pytest.mark.parametrize(
    ("llm", "granted"),
    [
        pytest.param({}, None, id="not limited"),
        pytest.param({"models": None}, None, id="null is not limited"),
        pytest.param({"models": []}, (), id="an empty list grants nothing"),
        pytest.param({"models": ["openai/*", "anthropic/claude-x"]}, ("openai/*", "anthropic/claude-x"), id="listed"),
    ],
)
def test_caller_has_the_models_of_its_grant(llm: dict[str, Any], granted: tuple[str, ...] | None) -> None:
    assert verify(sign(granting({"llm": llm, "queues": {}}))).granted == ModelPatterns(granted)


@pytest.mark.parametrize(
    ("grants", "room", "role"),
    [
        ([], None, "user"),
        ([{"name": "role", "scope": "tool"}], None, "tool"),
        ([{"name": "role", "scope": "user"}, {"name": "role", "scope": "agent"}], None, "agent"),
        ([{"name": "room", "scope": "a"}, {"name": "room", "scope": "b"}], "a", "user"),
        ([{"name": "room", "scope": {"no": "text"}}, {"name": "site", "scope": "x"}], None, "user"),
    ],
)
def test_room_and_role_are_read_as_in_meshagent(grants: list[dict[str, Any]], room: str | None, role: str) -> None:
    caller = verify(sign(claims(grants=[*grants, {"name": "api", "scope": {"llm": {}}}])))

    assert (caller.room, caller.role) == (room, role)


@pytest.mark.parametrize(
    ("payload", "second", "valid"),
    [
        pytest.param(claims(exp=NOW_S + 10), 9, True, id="a second before exp"),
        pytest.param(claims(exp=NOW_S + 10), 10, False, id="at exp"),
        pytest.param(claims(exp=NOW_S + 0.5), 0, True, id="exp with a fraction, before"),
        pytest.param(claims(exp=NOW_S + 0.5), 1, False, id="exp with a fraction, after"),
        pytest.param(claims(exp=-1), 0, False, id="exp before 1970"),
        pytest.param(claims(nbf=NOW_S + 10), 4, False, id="more than the leeway before nbf"),
        pytest.param(claims(nbf=NOW_S + 10), 5, True, id="the leeway before nbf"),
        pytest.param(claims(iat=NOW_S + 86400), 0, True, id="iat in the future"),
        pytest.param(claims(iat="yesterday"), 0, True, id="iat is ignored"),
        pytest.param(claims(exp=None), 10**9, True, id="no exp"),
    ],
)
def test_times_are_checked_against_the_given_time(payload: dict[str, Any], second: int, *, valid: bool) -> None:
    now = NOW + timedelta(seconds=second)

    if valid:
        assert verify(sign(payload), now).participant == "ada"
    else:
        assert reject(sign(payload), now).status == 401


def test_longest_names_are_accepted_whole() -> None:
    name = "é" * 255
    caller = verify(sign(claims(name=name, grants=[{"name": "room", "scope": "r" * 255}, *claims()["grants"]])))

    assert (caller.participant, caller.room) == (name, "r" * 255)


def test_expired_token_is_401_even_if_it_grants_nothing() -> None:
    assert reject(sign(claims(exp=NOW_S - 1, grants=[]))).status == 401


def test_oversized_token_is_rejected() -> None:
    token = sign(claims(padding="x" * MAX_TOKEN_CHARACTERS))

    assert f"longer than {MAX_TOKEN_CHARACTERS} characters" in reject(token).message


def test_token_with_two_hundred_models_is_accepted() -> None:
    models = [f"openai/gpt-5.{number}-preview-2026-01-01" for number in range(200)]

    assert verify(sign(granting({"llm": {"models": models}}))).granted.patterns == tuple(models)


@given(st.integers(0, len(VALID) - 1), st.integers(1, 127))
def test_token_with_any_byte_changed_is_rejected_with_401(position: int, change: int) -> None:
    changed = VALID[:position] + chr(ord(VALID[position]) ^ change) + VALID[position + 1 :]

    assert reject(changed).status == 401


def test_token_has_one_spelling() -> None:
    """The last character of a 32-byte signature has two unused bits; only zero is accepted for them."""
    spellings = [VALID[:-1] + letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"]

    accepted = []
    for token in spellings:
        try:
            verify(token)
        except NotAuthenticated:
            continue
        accepted.append(token)

    assert accepted == [VALID]


@given(st.text(max_size=200))
def test_any_text_raises_nothing_but_not_authenticated(text: str) -> None:
    with pytest.raises(NotAuthenticated):
        verify(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(name=st.sampled_from(["name", "grants", "sub", "kid", "exp", "nbf"]), value=JSON)
def test_any_claim_gives_a_caller_or_a_rejection(name: str, value: object) -> None:
    token = sign({**claims(), name: value})

    try:
        project = verify(token).project_id
    except (NotAuthenticated, NotAllowed):
        project = None

    assert project in (None, PROJECT_ID)


def test_minted_token_is_verified() -> None:
    expires_at = NOW + timedelta(minutes=5)
    grants = [{"name": "room", "scope": "lab"}, {"name": "api", "scope": {"llm": {"models": ["openai/*"]}}}]

    token = participant.mint(KEY, "ada", grants, expires_at)

    caller = verify(token)

    assert caller == Caller(
        project_id=PROJECT_ID,
        participant="ada",
        room="lab",
        credential_id=KEY.id,
        granted=ModelPatterns(("openai/*",)),
        expires_at=expires_at,
        token_ids=(hash_token(token),),
    )
    assert verify(participant.mint(KEY, "ada", grants, None)).expires_at is None
