from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.providers.shared.json_values import as_object, as_objects, as_text, decode_object, read_count


def test_an_object_is_decoded() -> None:
    assert decode_object(b'{"a": [1, null]}') == {"a": [1, None]}


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"null", b'"x"', b"\xff", b"[" * 100_000])
def test_anything_but_an_object_decodes_to_none(data: bytes) -> None:
    assert decode_object(data) is None


@pytest.mark.parametrize(
    "beside",
    [
        pytest.param(rb'"\ud83d"', id="a lone surrogate"),
        pytest.param(rb'"\ude00\ud83d\\ud83d"', id="surrogates in the wrong order, and an escaped backslash"),
        pytest.param(b"-Infinity", id="-Infinity"),
        pytest.param(b"[NaN, Infinity]", id="NaN"),
        pytest.param(b'"\xed\xa0\xbd"', id="a surrogate in UTF-8"),
        pytest.param(b'"\xff"', id="no UTF-8"),
        pytest.param(b'"\n\x00"', id="control characters"),
        pytest.param(b"9" * 10_000, id="a number of 10,000 digits"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, id="deep nesting"),
        pytest.param(b"01", id="a leading zero"),
    ],
)
@pytest.mark.parametrize(
    ("body", "path"),
    [
        pytest.param(b'{"x":%b,"id":"i","usage":{"n":5}}', (), id="before"),
        pytest.param(b'{"id":"i","usage":{"n":5},"x":{"y":[%b]}}', (), id="after, nested"),
        pytest.param(b'{"type":"t","response":{"id":"i","x":%b,"usage":{"n":5}}}', ("response",), id="in an event"),
    ],
)
def test_nothing_beside_usage_makes_it_unreadable(beside: bytes, body: bytes, path: tuple[str, ...]) -> None:
    value: object = decode_object(body.replace(b"%b", beside))
    for name in path:
        value = as_object(value).get(name)

    assert (as_object(value).get("id"), as_object(value).get("usage")) == ("i", {"n": 5})


@given(st.binary(max_size=100))
def test_no_bytes_make_decoding_raise(data: bytes) -> None:
    decode_object(data)


@pytest.mark.parametrize("value", [None, 5, True, "x", ["x"]])
def test_a_value_that_is_no_object_is_an_empty_one(value: object) -> None:
    assert as_object(value) == {}


def test_an_object_stays_the_same_object() -> None:
    value = {"a": 1}

    assert as_object(value) is value


@pytest.mark.parametrize(
    ("value", "objects"),
    [([{"a": 1}, 5, None, [{}], {}], [{"a": 1}, {}]), ([], []), (None, []), ({"a": {}}, []), ("text", [])],
)
def test_objects_of_a_list_are_found_beside_other_entries(value: object, objects: list[object]) -> None:
    assert as_objects(value) == objects


@pytest.mark.parametrize(("value", "text"), [("x", "x"), ("", ""), (None, None), (5, None), (["x"], None)])
def test_text_is_returned_and_anything_else_is_none(value: object, text: str | None) -> None:
    assert as_text(value) == text


@pytest.mark.parametrize("repeated", [b'[{"b":', b"[ ", b'"\\', b"x", b'"a":1,'])
def test_broken_json_of_some_megabytes_takes_little_time(repeated: bytes) -> None:
    data = b'{"a":' + repeated * (8_000_000 // len(repeated))

    started = time.process_time()
    value = decode_object(data)

    assert value is None
    assert time.process_time() - started < 2  # 0.03 to 0.3 s; reading each byte takes 5


@pytest.mark.parametrize(("value", "count"), [(7, 7), (0, 0), (None, 0), (10**9, 10**9)])
def test_a_count_is_read_and_a_missing_one_is_zero(value: object, count: int) -> None:
    faults: list[str] = []

    assert read_count({"input_tokens": value}, "input_tokens", faults) == count
    assert read_count({}, "input_tokens", faults) == 0
    assert faults == []


@pytest.mark.parametrize("count", [10**9 + 1, 2**63, 10**19, 10**300])
def test_count_that_no_response_has_is_a_fault(count: int) -> None:
    faults: list[str] = []

    assert read_count({"input_tokens": count}, "input_tokens", faults) == 0
    assert faults == ["usage.input_tokens is above 1000000000, not a count"]


@pytest.mark.parametrize("value", [-1, 1.5, True, "7", [7], {}])
def test_a_value_that_is_no_count_is_zero_and_a_fault_that_shows_it(value: object) -> None:
    faults: list[str] = []

    assert read_count({"input_tokens": value}, "input_tokens", faults) == 0
    assert faults == [f"usage.input_tokens is {str(value)!r}, not a count"]
