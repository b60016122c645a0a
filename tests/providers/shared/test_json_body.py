from __future__ import annotations

import contextlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.providers.shared.json_body import (
    edit_member,
    flag_member,
    holds_member,
    list_member,
    member_bytes,
    read_members,
    required_model,
    splice_first,
    text_member,
)

NAMES = ("model", "stream")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["options", "model", "messages"]) | st.text(max_size=5)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=5)


def written(value: object, indent: int | None) -> bytes:
    return json.dumps(value, indent=indent).encode()


def test_only_members_that_are_there_and_not_null_are_given():
    assert read_members(b'{"model":"m","stream":null,"other":1}', NAMES) == {"model": "m"}


def test_members_deeper_in_the_body_are_not_taken_for_its_own():
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
def test_a_watched_member_that_stands_twice_is_refused_by_name(body):
    with pytest.raises(InvalidBody, match='"model" stands twice') as caught:
        read_members(body, NAMES)

    assert caught.value.status == 400
    assert caught.value.param == "model"


def test_a_member_that_nobody_watches_may_stand_twice():
    assert read_members(b'{"x":1,"x":2,"model":"m"}', NAMES) == {"model": "m"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"", "the body is empty", id="empty"),
        pytest.param(b"[1]", "must be a JSON object", id="list"),
        pytest.param(b'"text"', "must be a JSON object", id="text"),
        pytest.param(b"null", "must be a JSON object", id="null"),
        pytest.param(b'{"model":}', r"\(byte 9\)", id="the place of the fault is named"),
        pytest.param(b'{"model":"m"', "not JSON", id="cut off"),
        pytest.param(b'{"model":"m"} {}', "not JSON", id="something after it"),
        pytest.param(b'{"model":"\xff"}', "not JSON", id="not UTF-8"),
        pytest.param(b'\xef\xbb\xbf{"model":"m"}', "not JSON", id="byte order mark"),
        pytest.param('{"model":"m"}'.encode("utf-16"), "not JSON", id="UTF-16"),
        pytest.param(b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply", id="deep"),
    ],
)
def test_what_is_no_json_object_is_refused_with_the_reason(body, message):
    with pytest.raises(InvalidBody, match=message):
        read_members(body, NAMES)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(body):
    with contextlib.suppress(InvalidBody):
        read_members(body, NAMES)


def test_one_body_leaves_nothing_behind_for_the_next():
    with pytest.raises(InvalidBody):
        read_members(b'{"model":"mine","stream":tru', NAMES)

    assert read_members(b'{"stream":true}', NAMES) == {"stream": True}


def test_types_are_checked_by_name():
    members = {"model": 5, "stream": "true", "tools": {}}

    for take, name in ((text_member, "model"), (flag_member, "stream"), (list_member, "tools")):
        with pytest.raises(InvalidBody, match=f'"{name}" must be'):
            take(members, name)
        assert not take({}, name)


@pytest.mark.parametrize("members", [{}, {"model": ""}])
def test_a_missing_model_is_refused_with_what_to_do(members):
    with pytest.raises(InvalidBody, match="name the model to use"):
        required_model(members)


@pytest.mark.parametrize("indent", [None, 2])
@given(body=OBJECTS)
def test_a_spliced_member_is_one_more_and_without_it_the_bytes_are_as_before(indent, body):
    body.pop("new", None)
    text = written(body, indent)

    spliced = splice_first(text, b'"new":{"a":1}')

    assert json.loads(spliced) == {"new": {"a": 1}, **body}
    assert spliced.replace(b'"new":{"a":1},' if body else b'"new":{"a":1}', b"", 1) == text


@pytest.mark.parametrize("indent", [None, 2])
@given(body=OBJECTS, value=VALUES, decoy=VALUES)
def test_an_edited_member_is_changed_in_place_and_nothing_else_is(indent, body, value, decoy):
    # The same member stands deeper too, once like the one to edit; and once more inside of text.
    body = {"x": {"options": value}, "text": '"options": 1', **body, "options": value, "y": [{"options": decoy}]}
    text = written(body, indent)

    edited = edit_member(text, "options", lambda raw: b'{"was":' + raw + b"}")

    assert json.loads(edited) == {**body, "options": {"was": value}}
    assert len(edited) == len(text) + len(b'{"was":}')


def test_an_edit_that_changes_nothing_gives_the_body_back():
    assert edit_member(b'{"a" : 1}', "a", lambda raw: raw) == b'{"a" : 1}'


def test_a_member_whose_name_is_escaped_cannot_be_edited_and_the_message_says_what_to_do():
    with pytest.raises(InvalidBody, match="without escapes"):
        edit_member(b'{"opt\\u0069ons":null}', "options", lambda _: b"1")


def test_a_body_full_of_likenesses_is_refused_in_short_time():
    body = b'{"x":[' + b'{"options":null},' * 60_000 + b'1],"options":null}'

    started = time.process_time()
    with pytest.raises(InvalidBody):
        edit_member(body, "options", lambda _: b"1")

    assert time.process_time() - started < 2  # looked at one by one they would take a minute


def test_a_member_is_there_even_where_it_is_null():
    assert holds_member(b'{"a":null}', "a")
    assert not holds_member(b'{"b":{"a":1}}', "a")
    assert member_bytes(b'{"a": { "b" : [1, 2] } }', "a") == b'{ "b" : [1, 2] }'
    assert member_bytes(b"{}", "a") is None
