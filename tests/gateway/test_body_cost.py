"""The event loop reads a large body only if it is little more than a few long strings."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.gateway.body_cost import (
    MAX_BYTES_OUTSIDE,
    MAX_BYTES_READ_ON_LOOP,
    MAX_ESCAPES,
    MAX_SPARSE_BYTES,
    MAX_STRINGS,
    MAX_VALUES_READ_ON_LOOP,
    is_quick,
    is_sparse,
)

TEXT = b"x" * MAX_BYTES_READ_ON_LOOP


@pytest.mark.parametrize(
    ("body", "quick"),
    [
        pytest.param(b"", True, id="empty"),
        pytest.param(b"x" * MAX_BYTES_READ_ON_LOOP, True, id="64 KiB of text"),
        pytest.param(b"x" * (MAX_BYTES_READ_ON_LOOP + 1), False, id="more"),
        pytest.param(b"{}," * MAX_VALUES_READ_ON_LOOP, True, id="as many objects as the limit"),
        pytest.param(b"{}," * (MAX_VALUES_READ_ON_LOOP + 1), False, id="one more"),
    ],
)
def test_small_body_is_quick_unless_it_has_many_values(body: bytes, quick: bool) -> None:
    assert is_quick(body) is quick


@pytest.mark.parametrize(
    ("body", "sparse"),
    [
        pytest.param(b'{"a":"%b"}' % TEXT, True, id="one string"),
        pytest.param(b' \r\n{"a":"%b"}' % TEXT, True, id="blanks before it"),
        pytest.param(b'["%b"]' % TEXT, False, id="no object"),
        pytest.param(b'--b\r\n"%b"' % TEXT, False, id="a form"),
        pytest.param(b'{"a":"%b"}' % (b"x" * MAX_SPARSE_BYTES), False, id="too large"),
        pytest.param(b'{"a":"%b' % TEXT, False, id="a string that does not end"),
        pytest.param(b'{"a":[%b]}' % (b"1," * MAX_BYTES_OUTSIDE), False, id="numbers"),
        pytest.param(b'{"a":[%b]}' % (b"{}," * MAX_BYTES_OUTSIDE), False, id="objects"),
        pytest.param(b'{"a":"%b","b":[%b]}' % (TEXT, b"{}," * MAX_BYTES_OUTSIDE), False, id="objects after a text"),
        pytest.param(b'{"a":[%b]}' % (b'"",' * MAX_STRINGS), False, id="strings"),
        pytest.param(b'{"a":"%b%b"}' % (TEXT, b"\\n" * MAX_ESCAPES), True, id="as many escapes as the limit"),
        pytest.param(b'{"a":"%b%b"}' % (TEXT, b"\\n" * (MAX_ESCAPES + 1)), False, id="one more"),
        pytest.param(b'{"a":"%b\\u0041"}' % TEXT, False, id="a letter as an escape"),
        pytest.param(b'{"a":"%b\\\\","b":[%b]}' % (TEXT, b"1," * MAX_BYTES_OUTSIDE), False, id="escaped backslash"),
        pytest.param(b'{"a":"\\"%b\\""}' % TEXT, True, id="escaped quotation marks"),
    ],
)
def test_body_is_sparse_if_nearly_all_of_it_is_in_few_strings(body: bytes, sparse: bool) -> None:
    assert is_sparse(body) is sparse


@given(texts=st.lists(st.text(alphabet='\\"{}[,1\n', max_size=20), max_size=10), outside=st.integers(0, 9000))
def test_bytes_outside_of_the_strings_are_counted_whatever_the_strings_hold(texts: list[str], outside: int) -> None:
    numbers = ",".join(["1"] * (outside + 1))
    body = '{"a":%s,"b":[%s]}' % (json.dumps(texts, separators=(",", ":")), numbers)  # noqa: UP031  # of braces
    structure = body
    for text in texts:
        structure = structure.replace(json.dumps(text), "", 1)
    outside_bytes = len(structure) - len('"a""b"')

    assert is_sparse(body.encode()) is (outside_bytes <= MAX_BYTES_OUTSIDE)
