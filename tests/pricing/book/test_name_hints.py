from __future__ import annotations

import pytest

from tornado_proxy.pricing.book.name_hints import edit_distance, find_nearest_name

NAMES = ("gpt-5.4", "gpt-5.4-mini", "claude-opus-4-5")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        pytest.param("gpt-5.4-mimi", "gpt-5.4-mini", id="one wrong letter"),
        pytest.param("claude-opus-45", "claude-opus-4-5", id="a missing hyphen"),
        pytest.param("claude-haiku-4", None, id="another model"),
        pytest.param("gpt-5.4-mini" * 10, None, id="too long for a name"),
        pytest.param("", None, id="no name"),
    ],
)
def test_only_a_name_with_few_typing_errors_is_suggested(name: str, nearest: str | None) -> None:
    assert find_nearest_name(name, NAMES) == nearest


@pytest.mark.parametrize(
    ("text", "other", "distance"),
    [("gpt-4o-mni", "gpt-4o-mini", 1), ("kitten", "sitting", 3), ("", "abc", 3), ("same", "same", 0)],
)
def test_edit_distance_counts_typing_errors(text: str, other: str, distance: int) -> None:
    assert edit_distance(text, other) == edit_distance(other, text) == distance
