from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.auth.tokens import HEADER, KEYS, NOW, NOW_S, OTHER_KEY, OTHER_PROJECT_ID, claims, hash_token, segment, sign
from tornado_proxy.auth import participant
from tornado_proxy.auth.narrowing import narrow
from tornado_proxy.auth.permissions import allows, covers
from tornado_proxy.auth.unverified_token import MAX_TOKEN_CHARACTERS, read_unverified
from tornado_proxy.domain.errors import NotAllowed, NotAuthenticated
from tornado_proxy.domain.identity import ModelPatterns

NARROWED = {"alg": "HS256", "typ": "narrowed+jwt"}

SOME_MODELS = [
    {"name": "room", "scope": "lab"},
    {"name": "api", "scope": {"llm": {"models": ["openai/*", "anthropic/claude-*"]}, "storage": {"read": True}}},
]


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def sign_child(parent: str, changes: dict[str, Any], header: Any = None) -> str:
    """Return a child of `parent`, signed as the holder of `parent` can, with any claims."""
    signing_input, _, signature = parent.rpartition(".")
    content = {**read_unverified(parent).claims, "parent": signing_input, **changes}
    content = {name: value for name, value in content.items() if value is not None}
    signed = f"{segment(json.dumps(header or NARROWED).encode())}.{segment(json.dumps(content).encode())}"
    return f"{signed}.{segment(hmac.digest(decode(signature), signed.encode(), hashlib.sha256))}"


def verify(token: str) -> participant.VerifiedToken:
    return participant.verify(token, KEYS, NOW)


def test_child_has_the_callers_names_and_the_narrower_grant_and_expiry() -> None:
    parent = sign(claims(grants=SOME_MODELS))

    child = narrow(parent, ["openai/gpt-5*"], NOW + timedelta(minutes=5))

    of_parent, of_child = verify(parent).caller, verify(child).caller
    assert of_child.granted == ModelPatterns(("openai/gpt-5*",))
    assert of_child.expires_at == NOW + timedelta(minutes=5)
    assert (of_child.participant, of_child.room, of_child.project_id, of_child.credential_id) == (
        of_parent.participant,
        of_parent.room,
        of_parent.project_id,
        of_parent.credential_id,
    )
    with pytest.raises(NotAuthenticated, match="token expired"):
        participant.verify(child, KEYS, NOW + timedelta(minutes=5))


def test_models_or_expiry_alone_can_be_narrowed() -> None:
    parent = sign(claims(grants=SOME_MODELS))

    assert verify(narrow(parent, ["openai/*"], None)).caller.expires_at == verify(parent).caller.expires_at
    shorter = verify(narrow(parent, None, NOW + timedelta(minutes=1))).caller
    assert shorter.granted == ModelPatterns(("openai/*", "anthropic/claude-*"))
    assert verify(narrow(parent, [], None)).caller.granted == ModelPatterns(())


def test_child_of_a_child_is_narrower_again() -> None:
    token = sign(claims(grants=SOME_MODELS))
    for models in (["openai/*"], ["openai/gpt-*"], ["openai/gpt-5*"], ["openai/gpt-5-mini"]):
        token = narrow(token, models, None)

    assert verify(token).caller.granted == ModelPatterns(("openai/gpt-5-mini",))
    with pytest.raises(NotAuthenticated, match="the parent token does not grant 'openai/gpt-5'"):
        narrow(token, ["openai/gpt-5"], None)


def test_parent_that_never_expires_has_children_that_do() -> None:
    parent = sign(claims(exp=None))

    assert verify(narrow(parent, None, NOW + timedelta(days=1))).caller.expires_at == NOW + timedelta(days=1)


def test_children_end_with_the_api_key_of_their_parent() -> None:
    child = narrow(narrow(sign(claims()), ["openai/*"], None), ["openai/gpt-5"], None)

    with pytest.raises(NotAuthenticated, match=r"signing key \(kid\) is unknown or was removed"):
        participant.verify(child, {OTHER_KEY.id: OTHER_KEY}, NOW)


def test_child_does_not_contain_the_signature_of_its_parent() -> None:
    parent = sign(claims())
    signature = parent.rpartition(".")[2]

    child = narrow(narrow(parent, ["openai/*"], None), ["openai/gpt-5"], None)

    texts = [child]
    while "parent" in (content := read_unverified(texts[-1]).claims):
        texts.append(f"{content['parent']}.")
    assert len(texts) == 3
    assert not [text for text in texts if signature in text or signature in str(read_unverified(text).claims)]
    # The parent without its signature is no token.
    with pytest.raises(NotAuthenticated, match="invalid token signature"):
        verify(texts[-1])


WIDER_MODELS = [
    {"name": "room", "scope": "lab"},
    {"name": "api", "scope": {"llm": {"models": ["openai/*", "google/*"]}, "storage": {"read": True}}},
]


def with_llm(llm: Any, **sections: Any) -> list[dict[str, Any]]:
    return [{"name": "room", "scope": "lab"}, {"name": "api", "scope": {"llm": llm, **sections}}]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"grants": WIDER_MODELS}, id="another model"),
        pytest.param({"grants": with_llm({"models": ["*"]}, storage={"read": True})}, id="every model"),
        pytest.param({"grants": with_llm({"models": None}, storage={"read": True})}, id="null models"),
        pytest.param({"grants": with_llm({}, storage={"read": True})}, id="no list of models"),
        pytest.param({"grants": with_llm({"models": ["openai/*"]})}, id="without a section of another service"),
        pytest.param({"grants": with_llm({"models": ["openai/*"]}, storage={"write": True})}, id="another section"),
        pytest.param({"grants": with_llm({"models": ["openai/*"], "more": 1}, storage={"read": True})}, id="in llm"),
        pytest.param({"grants": [SOME_MODELS[1]]}, id="without the room"),
        pytest.param({"grants": [{"name": "room", "scope": "vault"}, SOME_MODELS[1]]}, id="another room"),
        pytest.param({"grants": [*SOME_MODELS, {"name": "role", "scope": "agent"}]}, id="a role"),
        pytest.param({"grants": [SOME_MODELS[1], SOME_MODELS[1], SOME_MODELS[0]]}, id="another order"),
        pytest.param({"grants": None}, id="no grants"),
        pytest.param({"grants": "all"}, id="grants are text"),
        pytest.param({"exp": NOW_S + 3601}, id="a second longer"),
        pytest.param({"exp": None}, id="no exp"),
        pytest.param({"exp": True}, id="exp true"),
        pytest.param({"exp": str(NOW_S + 60)}, id="exp is text"),
        pytest.param({"exp": 1e300}, id="exp is huge"),
        pytest.param({"nbf": NOW_S - 60}, id="nbf added"),
        pytest.param({"name": "eve"}, id="another participant"),
        pytest.param({"sub": OTHER_PROJECT_ID}, id="another project"),
        pytest.param({"kid": OTHER_KEY.id}, id="another key"),
        pytest.param({"kid": None}, id="no key"),
        pytest.param({"admin": True}, id="a claim more"),
        pytest.param({"llm_budget": {"usd": "5.01"}}, id="a larger budget"),
        pytest.param({"llm_budget": None}, id="no budget"),
        pytest.param({"llm_budget": {}}, id="an empty budget"),
        pytest.param({"llm_budget": {"usd": "1e0"}}, id="a budget with an exponent"),
        pytest.param({"llm_budget": {"usd": "-1"}}, id="a negative budget"),
        pytest.param({"llm_budget": {"usd": 1}}, id="a budget that is a number"),
        pytest.param({"llm_budget": {"usd": "1", "period": "day"}}, id="a budget with another member"),
        pytest.param({"llm_budget": "1"}, id="a budget that is text"),
    ],
)
def test_child_that_grants_more_or_something_else_is_rejected(changes: dict[str, Any]) -> None:
    parent = sign(claims(grants=SOME_MODELS, llm_budget={"usd": "5"}))
    verify(sign_child(parent, {}))

    with pytest.raises(NotAuthenticated):
        verify(sign_child(parent, changes))
    # Nor may the parent of a valid child.
    with pytest.raises(NotAuthenticated):
        verify(narrow(sign_child(parent, changes), None, NOW + timedelta(seconds=1)))


def list_budgets(token: str) -> list[tuple[str | None, str]]:
    """Return the subject and the limit of each budget of a token."""
    return [(budget.subject, str(budget.limit)) for budget in verify(token).caller.token_budgets]


def test_budget_limits_the_token_that_states_it_and_its_children() -> None:
    parent = sign(claims(grants=SOME_MODELS))
    child = narrow(parent, None, None, "5.00")
    grandchild = narrow(narrow(child, ["openai/*"], None), None, None, "0.5")

    ids = verify(grandchild).caller.token_ids

    assert len(set(ids)) == 4
    assert verify(parent).caller.token_ids == ids[:1]
    assert verify(child).caller.token_ids == ids[:2]
    assert list_budgets(parent) == []
    assert list_budgets(child) == [(ids[1], "5.00")]
    assert list_budgets(grandchild) == [(ids[1], "5.00"), (ids[3], "0.5")]


def test_token_whose_budget_the_api_key_has_signed_is_limited() -> None:
    token = sign(claims(llm_budget={"usd": "2"}))

    assert list_budgets(token) == [(verify(token).caller.token_ids[0], "2")]
    with pytest.raises(NotAuthenticated, match="llm_budget must be"):
        verify(sign(claims(llm_budget={"usd": "two"})))


def test_budget_that_is_larger_than_the_parents_is_not_narrowed() -> None:
    with pytest.raises(NotAuthenticated, match="a budget of 6 USD, and its parent one of 5 USD"):
        narrow(narrow(sign(claims()), None, None, "5"), None, None, "6")
    with pytest.raises(NotAuthenticated, match="llm_budget must be"):
        narrow(sign(claims()), None, None, "5 USD")


def forge_parent(**changes: Any) -> str:
    """Return the text of a parent, up to its signature, with other claims."""
    return sign(claims(grants=SOME_MODELS, **changes)).rpartition(".")[0]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda parent: sign_child(parent, {"parent": forge_parent(exp=None)}), id="another parent"),
        pytest.param(lambda parent: sign_child(parent, {"parent": forge_parent(name="eve")}), id="parent of another"),
        pytest.param(lambda parent: sign_child(parent, {"parent": None}), id="no parent"),
        pytest.param(lambda parent: sign_child(parent, {"parent": 7}), id="parent is a number"),
        pytest.param(lambda parent: sign_child(parent, {"parent": parent}), id="whole parent"),
        pytest.param(lambda parent: sign_child(parent, {"parent": ""}), id="empty parent"),
        pytest.param(lambda parent: sign_child(parent, {"parent": "a.b"}), id="parent is no JWT"),
        pytest.param(lambda parent: sign_child(parent, {}, HEADER), id="type of a plain token"),
        pytest.param(lambda parent: sign_child(parent, {}, {"alg": "none", "typ": "narrowed+jwt"}), id="alg none"),
        pytest.param(lambda parent: sign_child(parent, {}, {"alg": "HS512", "typ": "narrowed+jwt"}), id="alg HS512"),
        pytest.param(
            lambda parent: sign(read_unverified(sign_child(parent, {})).claims, header=NARROWED, secret="x" * 32),
            id="other secret",
        ),
        pytest.param(
            lambda parent: sign(read_unverified(sign_child(parent, {})).claims, header=NARROWED),
            id="signed with the API key",
        ),
        pytest.param(lambda parent: narrow(parent, ["openai/*"], None).rpartition(".")[0] + ".", id="no signature"),
        pytest.param(
            lambda parent: f"{narrow(parent, ['openai/*'], None).rpartition('.')[0]}.{parent.rpartition('.')[2]}",
            id="signature of the parent",
        ),
        pytest.param(lambda parent: narrow(parent[:-6] + "AAAAAA", None, NOW), id="parent with another signature"),
        pytest.param(
            lambda parent: sign_child(sign_child(parent, {}, {"alg": "none", "typ": "narrowed+jwt"}), {}),
            id="alg none in the middle",
        ),
    ],
)
def test_forged_child_is_rejected(make: Callable[[str], str]) -> None:
    with pytest.raises(NotAuthenticated):
        verify(make(sign(claims(grants=SOME_MODELS))))


def test_parent_claim_of_a_plain_token_means_nothing() -> None:
    token = sign(claims(parent="anything"))

    plain = sign(claims())
    assert verify(token).caller == replace(verify(plain).caller, token_ids=(hash_token(token),))


def test_parent_without_llm_section_stays_without_models() -> None:
    parent = sign(claims(grants=[{"name": "api", "scope": {}}]))

    with pytest.raises(NotAuthenticated, match="cannot be narrowed"):
        narrow(parent, ["openai/*"], None)
    with pytest.raises((NotAllowed, NotAuthenticated)):
        verify(sign_child(parent, {}))


@pytest.mark.parametrize(
    "token",
    ["", "tp_key", "a.b.c", sign(claims()).rpartition(".")[0] + ".", sign(claims(), header={"alg": "RS256"})],
    ids=["empty", "access key", "no JWT", "unsigned", "OAuth"],
)
def test_other_credentials_cannot_be_narrowed(token: str) -> None:
    with pytest.raises(NotAuthenticated):
        narrow(token, ["openai/*"], None)


def test_length_of_a_token_bounds_its_parents() -> None:
    token = sign(claims())
    children = 0
    while len(token) <= MAX_TOKEN_CHARACTERS:
        token = narrow(token, None, NOW + timedelta(minutes=30))
        children += 1

    assert 5 < children < 20
    with pytest.raises(NotAuthenticated, match="longer than 16384 characters"):
        verify(token)


@pytest.mark.parametrize(
    ("patterns", "pattern", "covered"),
    [
        (["openai/*"], "openai/gpt-5", True),
        (["openai/*"], "openai/*", True),
        (["openai/gpt-*"], "openai/gpt-*-mini", True),
        (["*mini"], "openai/*-mini", True),
        (["openai/*"], "*", False),
        (["openai/gpt-*"], "openai/*", False),
        (["openai/gpt-5"], "openai/gpt-*", False),
        (["*/gpt-5"], "openai/*", False),
        (["openai/gpt-5", "anthropic/*"], "anthropic/claude*", True),
        ([], "openai/gpt-5", False),
    ],
)
def test_pattern_is_covered_if_everything_that_it_matches_is(patterns: list[str], pattern: str, covered: bool) -> None:
    assert covers(ModelPatterns(tuple(patterns)), pattern) is covered
    if covered:
        example = pattern.replace("*", "x*y")
        assert allows(ModelPatterns(tuple(patterns)), *example.split("/", 1))
