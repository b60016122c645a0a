"""Descriptions of tokens; tests/cli/projects/test_credentials.py has those of the command."""

from __future__ import annotations

from datetime import timedelta

import jwt
import pytest

from tests.auth.tokens import KEY, NOW, OTHER_SECRET, SECRET, claims, granting
from tornado_proxy.auth.narrowing import narrow
from tornado_proxy.auth.participant import verify
from tornado_proxy.auth.token_report import TokenReport, Verification, describe_token
from tornado_proxy.domain.errors import NotAuthenticated


def describe(members: dict[str, object], secret: str = SECRET, *, verify: bool = True) -> TokenReport:
    return describe_token(jwt.encode(members, secret, algorithm="HS256"), [KEY] if verify else None, NOW)


@pytest.mark.parametrize(
    ("secret", "verify", "verification"),
    [
        pytest.param(SECRET, True, Verification.VALID, id="the key that signed it"),
        pytest.param(OTHER_SECRET, True, Verification.FAILED, id="another key"),
        pytest.param(OTHER_SECRET, False, Verification.NOT_TRIED, id="no key"),
    ],
)
def test_token_is_verified_against_the_given_keys(secret: str, verify: bool, verification: Verification) -> None:
    report = describe(claims(), secret, verify=verify)

    assert report.verification is verification
    assert report.lines[0].startswith(f"verified:     {verification.value}")
    assert "participant:  ada" in report.lines


def test_expired_token_and_token_without_an_end_have_a_warning() -> None:
    expired = int((NOW - timedelta(hours=1)).timestamp())

    assert "expired" in describe(claims(exp=expired), verify=False).warnings[0]
    assert "never expires" in describe(claims(exp=None), verify=False).warnings[0]
    assert describe(claims(), verify=False).warnings == ()


def test_models_that_a_terminal_would_obey_are_escaped() -> None:
    report = describe(granting({"llm": {"models": ["a\x1b[2J"]}, "queues": {}}), verify=False)

    assert 'models:       "a\\u001b[2J"' in report.lines
    assert "other api:    queues" in report.lines


def test_narrowed_token_shows_its_id_its_parents_and_its_budget() -> None:
    parent = jwt.encode(claims(), SECRET, algorithm="HS256")
    parent_id, token_id = verify(narrow(parent, None, None, "2.50"), {KEY.id: KEY}, NOW).caller.token_ids

    lines = describe_token(narrow(parent, None, None, "2.50"), [KEY], NOW).lines

    assert f"token id:     {token_id}" in lines
    assert f"parents:      {parent_id}" in lines
    assert f"budgets:      2.50 USD of {token_id}" in lines


def test_text_that_is_no_token_is_an_error() -> None:
    with pytest.raises(NotAuthenticated):
        describe_token("sk-a-provider-key", None, NOW)
