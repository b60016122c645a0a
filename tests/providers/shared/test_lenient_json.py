from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.providers.shared.lenient_json import decode_leniently

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, st.booleans())
def test_valid_json_is_decoded_as_it_is(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "replace")

    assert decode_leniently(text) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param(rb'"a\ud83db"', "a\ufffdb", id="a lone high surrogate"),
        pytest.param(rb'"\ud83d\ude00\ude00"', "\U0001f600\ufffd", id="a pair, then a lone low surrogate"),
        pytest.param(rb'"\\ud83d"', "\\ud83d", id="an escaped backslash before text"),
        pytest.param(b"[NaN, Infinity, -Infinity, 1]", [None, None, None, 1], id="numbers that are none"),
        pytest.param(b'"a\xffb\tc"', "a\ufffdb\tc", id="no UTF-8, and a raw tab"),
        pytest.param(b"\xef\xbb\xbf1", 1, id="a byte order mark"),
    ],
)
def test_what_cannot_be_read_is_replaced(text: bytes, value: object) -> None:
    assert decode_leniently(text) == value


@pytest.mark.parametrize("text", [b"", b"{", b"{} {}", b"[" * 100_000, b"9" * 5000])
def test_anything_else_is_none(text: bytes) -> None:
    assert decode_leniently(text) is None
