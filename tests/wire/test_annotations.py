from __future__ import annotations

import pytest

from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.wire.annotations import check_annotations
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
