from __future__ import annotations

import pytest

from tests import harness
from tests.gateway.fakes import Gateway, make_project, make_request, make_snapshot, own_keys, request_head


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ([], ""),
        ([("Content-Type", "application/json")], ""),
        ([("X-Name", "a")], "a"),
        ([("x-name", "a"), ("Other", "b"), ("X-NAME", "c")], "a,c"),
    ],
)
def test_header_is_found_in_any_spelling_and_its_lines_are_joined(headers: list[tuple[str, str]], value: str) -> None:
    assert make_request("/", *headers).header("x-name") == value


@pytest.mark.parametrize(("target", "query"), [("/openai/v1/models", ""), ("/openai/v1/models?a=1?b", "a=1?b")])
def test_query_is_raw_and_without_its_question_mark(target: str, query: str) -> None:
    gateway = Gateway(make_snapshot())

    context = gateway.admission.authenticate(gateway.snapshot, request_head(target, method="GET"))

    assert context.query == query


OWN = "sk-own"


@pytest.mark.parametrize(
    ("key", "other_key", "own"),
    [
        pytest.param(None, None, False, id="the server's"),
        pytest.param(OWN, None, True, id="the project's"),
        pytest.param(OWN, "sk-other", True, id="each project has one"),
        pytest.param(OWN, OWN, False, id="two projects have the same one"),
        pytest.param(harness.OPENAI_KEY, None, False, id="the project's is the server's"),
    ],
)
def test_key_is_a_project_s_own_if_neither_the_server_nor_another_project_uses_it(
    key: str | None, other_key: str | None, own: bool
) -> None:
    first, other = ({} if each is None else own_keys(openai=each) for each in (key, other_key))
    projects = [make_project(providers=first), make_project(id=harness.OTHER_PROJECT, providers=other)]
    gateway = Gateway(make_snapshot(projects=projects))

    assert gateway.admission.authenticate(gateway.snapshot, request_head()).has_own_key is own


def test_token_is_not_shown_by_the_context() -> None:
    gateway, token = Gateway(make_snapshot()), harness.mint()

    context = gateway.admission.authenticate(gateway.snapshot, request_head(token=token))

    assert token not in repr(context.token)
    assert context.token.reveal() == token
