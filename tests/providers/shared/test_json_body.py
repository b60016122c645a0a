from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.providers.shared.json_body import (
    has_member,
    read_count,
    read_described,
    read_flag,
    read_list,
    read_members,
    read_model,
    read_option,
    read_raw,
    read_text,
)

NAMES = ("model", "stream")
DESCRIBED = ("user", "metadata")


def test_only_present_members_that_are_not_null_are_returned():
    assert read_members(b'{"model":"m","stream":null,"other":1}', NAMES) == {"model": "m"}


def test_nested_members_are_not_members_of_the_body():
    assert read_members(b'{"model":"m","input":{"model":"n","stream":true}}', NAMES) == {"model": "m"}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"model":"a","model":"b"}', id="twice"),
        pytest.param(b'{"model":"a","model":"a"}', id="twice the same"),
        pytest.param(b'{"model":"a","mod\\u0065l":"b"}', id="once with an escape"),
        pytest.param(b'{"model":"a","model":null}', id="the second null"),
        pytest.param(b'{"model":null,"model":"a"}', id="the first null"),
    ],
)
def test_repeated_member_is_rejected_by_name(body):
    with pytest.raises(InvalidBody, match='contains "model" twice') as caught:
        read_members(body, NAMES)

    assert caught.value.status == 400
    assert caught.value.param == "model"


def test_member_that_is_not_read_can_be_repeated():
    assert read_members(b'{"x":1,"x":2,"model":"m"}', NAMES) == {"model": "m"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"", "the body is empty", id="empty"),
        pytest.param(b"[1]", "must be a JSON object", id="list"),
        pytest.param(b'"text"', "must be a JSON object", id="text"),
        pytest.param(b"null", "must be a JSON object", id="null"),
        pytest.param(b'{"model":}', r"\(byte 9\)", id="the position of the fault is named"),
        pytest.param(b'{"model":"m"', "not JSON", id="cut off"),
        pytest.param(b'{"model":"m"} {}', "not JSON", id="something after it"),
        pytest.param(b'{"model":"\xff"}', "not JSON", id="not UTF-8"),
        pytest.param(b'\xef\xbb\xbf{"model":"m"}', "not JSON", id="byte order mark"),
        pytest.param('{"model":"m"}'.encode("utf-16"), "not JSON", id="UTF-16"),
        pytest.param(b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply", id="deep"),
    ],
)
def test_body_that_is_not_a_json_object_is_rejected_with_the_reason(body, message):
    with pytest.raises(InvalidBody, match=message):
        read_members(body, NAMES)


@given(st.binary(max_size=200))
def test_random_bodies_are_read_or_rejected(body):
    with contextlib.suppress(InvalidBody):
        read_members(body, NAMES)


def test_rejected_body_leaves_no_state_for_the_next():
    with pytest.raises(InvalidBody):
        read_members(b'{"model":"mine","stream":tru', NAMES)

    assert read_members(b'{"stream":true}', NAMES) == {"stream": True}


def test_wrong_types_are_rejected_by_name():
    members = {"model": 5, "stream": "true", "tools": {}}

    for read, name in ((read_text, "model"), (read_flag, "stream"), (read_list, "tools")):
        with pytest.raises(InvalidBody, match=f'"{name}" must be'):
            read(members, name)
        assert not read({}, name)


@pytest.mark.parametrize("members", [{}, {"model": ""}])
def test_missing_model_is_rejected_with_advice(members):
    with pytest.raises(InvalidBody, match="name the model to use"):
        read_model(members)


def test_null_member_is_present():
    assert has_member(b'{"a":null}', "a")
    assert not has_member(b'{"b":{"a":1}}', "a")
    assert read_raw(b'{"a": { "b" : [1, 2] } }', "a") == b'{ "b" : [1, 2] }'
    assert read_raw(b"{}", "a") is None


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"options":{"ttl":"12h","x":1}}', "12h"),
        (b'{"options":{"x":{"ttl":"12h"}}}', None),
        (b'{"options":null}', None),
        (b'{"ttl":"12h"}', None),
    ],
)
def test_option_is_read_from_its_object(body, value):
    assert read_option(body, read_members(body, ("options",)), "options", "ttl") == value


@pytest.mark.parametrize(
    "body", [b'{"options":["ttl"]}', b'{"options":{"ttl":"12h","ttl":"30m"}}', b'{"options":{"ttl":12}}']
)
def test_option_that_is_ambiguous_is_rejected(body):
    with pytest.raises(InvalidBody):
        read_option(body, read_members(body, ("options",)), "options", "ttl")


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        pytest.param({}, (), id="nothing"),
        pytest.param({"user": "u-1", "other": "x"}, (("user", "u-1"),), id="text"),
        pytest.param({"metadata": {"user_id": "m-1", "n": 7}}, (("metadata.user_id", "m-1"),), id="text in an object"),
        pytest.param({"user": 7, "metadata": ["x"]}, (), id="another type says nothing"),
        pytest.param({"user": "", "metadata": {"user_id": "x" * 16_385}}, (), id="empty or too long says nothing"),
    ],
)
def test_described_texts_are_returned_by_their_path(
    members: dict[str, Any], expected: tuple[tuple[str, str], ...]
) -> None:
    assert read_described(members, DESCRIBED) == expected


def test_first_32_members_of_a_described_object_are_read() -> None:
    found = read_described({"metadata": {f"k{number}": "v" for number in range(40)}}, DESCRIBED)

    assert [name for name, _ in found] == [f"metadata.k{number}" for number in range(32)]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        *(("3", 3), ("3.0", 3), ("1e2", 100), ('"3"', 3), ('"03.0"', 3), ("10000", 9999), ("1e300", 9999)),
        *(("0", 1), ("-3", 1), ("2.5", 1), ("true", 1), ('"x"', 1), ("[3]", 1)),
    ],
)
def test_a_multiplier_counts_in_each_form_that_a_provider_may_take_as_a_number(text: str, count: int) -> None:
    members = read_members(b'{"n": %b}' % text.encode(), ["n"])

    assert read_count(members["n"]) == count
