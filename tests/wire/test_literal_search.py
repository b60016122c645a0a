"""Tests of the search for literals: it must find all that Python's own `in` finds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.wire.literal_search import LiteralSearch

_TEXTS = st.text(alphabet="aQk-\n", max_size=200)
_LITERALS = st.lists(st.text(alphabet="aQk-", min_size=1, max_size=5), max_size=4)


@given(literals=_LITERALS, text=_TEXTS)
def test_few_literals_are_found_exactly(literals: list[str], text: str) -> None:
    expected = any(literal in text for literal in literals)

    assert LiteralSearch(literals).may_be_in(text) == expected
    assert LiteralSearch([literal.encode() for literal in literals]).may_be_in(text.encode()) == expected


@pytest.mark.parametrize("gap", ["Q", "Qk", "", "-" * 10_000])
def test_a_literal_behind_many_of_its_rare_characters_is_found(gap: str) -> None:
    search = LiteralSearch(["sk-Q1"])

    assert search.may_be_in(gap * 100 + "sk-Q1")
    assert not search.may_be_in(gap * 100 + "sk-Q2")


def test_each_of_a_thousand_literals_is_found() -> None:
    literals = [f"sk-provider-account-{number:04}" for number in range(1000)]
    search = LiteralSearch(literals)

    assert all(search.may_be_in(f'{{"text": "{literal}"}}') for literal in literals)
    assert not search.may_be_in('{"text": "sk-ant-other-account"}')
