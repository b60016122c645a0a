from __future__ import annotations

import pytest

from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.wire.annotations import read_annotations


def test_annotations_are_headers_of_their_prefix_whatever_their_case() -> None:
    headers = [
        ("X-Meshagent-Annotation-Team", "search"),
        ("x-meshagent-annotation-env", "Prod"),
        ("X-Meshagent-Annotation-", "nameless"),
        ("Authorization", "Bearer x"),
    ]

    assert read_annotations(headers) == (("env", "Prod"), ("team", "search"))


def test_the_last_of_a_name_counts() -> None:
    headers = [("X-Meshagent-Annotation-env", "a"), ("X-Meshagent-Annotation-ENV", "b")]

    assert read_annotations(headers) == (("env", "b"),)


def test_too_many_annotations_are_refused() -> None:
    headers = [(f"X-Meshagent-Annotation-n{number}", "v") for number in range(17)]

    with pytest.raises(BadRequest, match="16 annotations at most, not 17"):
        read_annotations(headers)


@pytest.mark.parametrize(("name", "value"), [("n" * 65, "v"), ("n", "v" * 257)])
def test_an_annotation_that_is_too_long_is_refused(name: str, value: str) -> None:
    with pytest.raises(BadRequest, match="too long"):
        read_annotations([(f"X-Meshagent-Annotation-{name}", value)])
