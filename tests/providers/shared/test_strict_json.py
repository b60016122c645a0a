from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.providers.shared.strict_json import decode_strict_object


@pytest.mark.parametrize("data", ['{"a": [{"b": 1}, {"b": 2}]}', b'{"a": [{"b": 1}, {"b": 2}]}'])
def test_an_object_is_decoded_from_text_and_bytes(data: str | bytes) -> None:
    assert decode_strict_object(data) == {"a": [{"b": 1}, {"b": 2}]}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param('{"a":1,"a":1}', id="at the top level"),
        pytest.param('{"x":[{"a":1,"b":2,"a":null}]}', id="deeper"),
        pytest.param('{"a":1,"\\u0061":2}', id="escaped"),
    ],
)
def test_a_repeated_member_is_rejected_by_its_name(data: str) -> None:
    with pytest.raises(InvalidBody, match='an object contains "a" twice; send it once'):
        decode_strict_object(data)


@pytest.mark.parametrize("data", ["", "[]", "null", '"text"', "{", b"\xff\xfe{\x00", '{"a":' + "[" * 100_000])
def test_anything_but_one_object_is_rejected(data: str | bytes) -> None:
    with pytest.raises(InvalidBody, match="must be one JSON object"):
        decode_strict_object(data)


@given(data=st.one_of(st.binary(max_size=100), st.text(max_size=100)))
def test_random_data_raises_nothing_but_invalid_body(data: str | bytes) -> None:
    with contextlib.suppress(InvalidBody):
        decode_strict_object(data)
