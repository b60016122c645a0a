from __future__ import annotations

import pytest

from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.wire.annotations import check_annotations, require_annotations
from tornado_proxy.wire.client_facts import find_stated_headers


def read_annotations(headers: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return check_annotations(find_stated_headers(headers).annotations)


def test_annotations_are_read_from_prefixed_headers_in_any_case() -> None:
    headers = [
        ("X-Meshagent-Annotation-Team", "search"),
        ("x-meshagent-annotation-env", "Prod"),
        ("X-Meshagent-Annotation-", "nameless"),
        ("Authorization", "Bearer x"),
    ]

    assert read_annotations(headers) == (("env", "Prod"), ("team", "search"))


def test_last_value_of_a_name_counts() -> None:
    headers = [("X-Meshagent-Annotation-env", "a"), ("X-Meshagent-Annotation-ENV", "b")]

    assert read_annotations(headers) == (("env", "b"),)


def test_too_many_annotations_are_rejected() -> None:
    headers = [(f"X-Meshagent-Annotation-n{number}", "v") for number in range(17)]

    with pytest.raises(BadRequest, match="too many annotations: a request can have 16, not 17"):
        read_annotations(headers)


@pytest.mark.parametrize(("name", "value"), [("n" * 65, "v"), ("n", "v" * 257)])
def test_annotation_that_is_too_long_is_rejected(name: str, value: str) -> None:
    with pytest.raises(BadRequest, match="too long"):
        read_annotations([(f"X-Meshagent-Annotation-{name}", value)])


REQUIRED = {"team": frozenset({"research", "sales"}), "ticket": frozenset[str]()}


def test_required_annotations_with_allowed_values_are_accepted() -> None:
    require_annotations({"team": "sales", "ticket": "T-1", "more": "x"}, REQUIRED)


def test_error_names_each_missing_annotation_and_the_allowed_values() -> None:
    with pytest.raises(BadRequest) as caught:
        require_annotations({"team": "legal", "ticket": ""}, REQUIRED)

    assert caught.value.code == "annotations_required"
    assert caught.value.message == (
        "the project requires annotations: team 'legal' is not allowed; send the header X-Meshagent-Annotation-team "
        "with one of research, sales; ticket is missing; send the header X-Meshagent-Annotation-ticket"
    )
