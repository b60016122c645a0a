from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.auth.tokens import PROJECT_ID
from tornado_proxy.auth.permissions import allows, require_model
from tornado_proxy.domain.errors import NotAllowed
from tornado_proxy.domain.identity import Caller, ModelPatterns, Project

ALL_MODELS = ModelPatterns(None)


@pytest.mark.parametrize(
    ("patterns", "model", "allowed"),
    [
        pytest.param(None, "openai/gpt-5", True, id="None allows all"),
        pytest.param((), "openai/gpt-5", False, id="an empty list allows nothing"),
        pytest.param(("openai/gpt-5",), "openai/gpt-5", True, id="the name itself"),
        pytest.param(("openai/gpt-5",), "openai/gpt-5-mini", False, id="a name is not a prefix"),
        pytest.param(("openai/gpt-5",), "anthropic/gpt-5", False, id="another provider"),
        pytest.param(("openai/GPT-5",), "openai/gpt-5", False, id="case counts"),
        pytest.param(("gpt-5",), "openai/gpt-5", False, id="a pattern names its provider"),
        pytest.param(("anthropic/*", "openai/gpt-5*"), "openai/gpt-5-mini", True, id="one of two"),
        pytest.param(("openai/gpt-5*",), "openai/gpt-5", True, id="a star matches nothing"),
        pytest.param(("*",), "openai/gpt-5", True, id="a star alone"),
        pytest.param(("*/gpt-5",), "openai/gpt-5", True, id="a star for the provider"),
        pytest.param(("openai/*-mini",), "openai/gpt-5-mini", True, id="a star in front"),
        pytest.param(("openai/*-mini",), "openai/gpt-5-mini-2026", False, id="the end is anchored"),
        pytest.param(("openai/*a*a",), "openai/a", False, id="parts do not overlap"),
        pytest.param(("openai/ab*ba",), "openai/aba", False, id="ends do not overlap"),
        pytest.param(("openai/ft:*:acme:*",), "openai/ft:gpt-5:acme:7", True, id="two stars"),
        pytest.param(("openai/**5",), "openai/gpt-5", True, id="doubled star"),
        pytest.param(("openai/*",), "openai/org/model", True, id="a star matches a slash"),
        pytest.param(("openai/*",), "openai/a\nb", True, id="a star matches a line end"),
        pytest.param(("openai/gpt-.",), "openai/gpt-5", False, id="a dot is literal"),
        pytest.param(("openai/gpt-?",), "openai/gpt-5", False, id="a question mark is literal"),
        pytest.param(("openai/[a-z]*",), "openai/gpt-5", False, id="brackets are literal"),
        pytest.param(("openai/gpt-5",), "openai/gpt-5\n", False, id="a line end counts"),
    ],
)
def test_pattern_allows_model(patterns: tuple[str, ...] | None, model: str, *, allowed: bool) -> None:
    provider, _, name = model.partition("/")

    assert allows(ModelPatterns(patterns), provider, name) is allowed


@given(pattern=st.text("ab*", max_size=10), name=st.text("ab", max_size=12))
def test_star_matches_like_a_regular_expression(pattern: str, name: str) -> None:
    expected = re.fullmatch(re.escape("p/" + pattern).replace(r"\*", ".*"), "p/" + name) is not None

    assert allows(ModelPatterns((f"p/{pattern}",)), "p", name) is expected


def test_pattern_of_many_stars_takes_linear_time() -> None:
    """A backtracking matcher takes hours here, and callers can choose both pattern and name."""
    patterns = ModelPatterns(("p/" + "a*" * 2000 + "b",))
    started = time.perf_counter()

    assert not allows(patterns, "p", "a" * 10000)

    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("granted", "models", "message"),
    [
        pytest.param(("anthropic/*",), None, "token does not grant openai/gpt-5", id="the token"),
        pytest.param((), None, "token does not grant", id="an empty grant"),
        pytest.param(None, ("anthropic/*",), "project Acme may not use openai/gpt-5", id="the project"),
        pytest.param(("anthropic/*",), ("anthropic/*",), "token", id="both: the token first"),
    ],
)
def test_token_and_project_must_both_allow_the_model(
    granted: tuple[str, ...] | None, models: tuple[str, ...] | None, message: str
) -> None:
    caller = Caller(PROJECT_ID, participant="ada", granted=ModelPatterns(granted))
    project = Project(PROJECT_ID, "Acme", models=ModelPatterns(models))

    with pytest.raises(NotAllowed, match=message) as rejected:
        require_model(caller, project, "openai", "gpt-5")

    assert (rejected.value.status, rejected.value.code, rejected.value.param) == (403, "not_allowed", "model")


def test_model_that_both_allow_is_accepted() -> None:
    caller = Caller(PROJECT_ID, participant="ada", granted=ModelPatterns(("openai/*",)))

    require_model(caller, Project(PROJECT_ID, "Acme", models=ModelPatterns(("*/gpt-5",))), "openai", "gpt-5")
    require_model(Caller(PROJECT_ID), Project(PROJECT_ID, "Acme", models=ALL_MODELS), "openai", "gpt-5")
