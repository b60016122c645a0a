from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.providers.shared.json_edit import edit_member, insert_first

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["options", "model", "messages"]) | st.text(max_size=5)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=5)


def encode(value: object, indent: int | None) -> bytes:
    return json.dumps(value, indent=indent).encode()


@pytest.mark.parametrize("indent", [None, 2])
@given(body=OBJECTS)
def test_splice_adds_one_member_and_changes_no_other_byte(indent, body):
    body.pop("new", None)
    text = encode(body, indent)

    spliced = insert_first(text, b'"new":{"a":1}')

    assert json.loads(spliced) == {"new": {"a": 1}, **body}
    assert spliced.replace(b'"new":{"a":1},' if body else b'"new":{"a":1}', b"", 1) == text


@pytest.mark.parametrize("indent", [None, 2])
@given(body=OBJECTS, value=VALUES, decoy=VALUES)
def test_edit_changes_the_member_and_no_other_byte(indent, body, value, decoy):
    # The same member is nested in others, once with the same value, and its text is in a string.
    body = {"x": {"options": value}, "text": '"options": 1', **body, "options": value, "y": [{"options": decoy}]}
    text = encode(body, indent)

    edited = edit_member(text, "options", lambda raw: b'{"was":' + raw + b"}")

    assert json.loads(edited) == {**body, "options": {"was": value}}
    assert len(edited) == len(text) + len(b'{"was":}')


def test_edit_without_a_change_returns_the_body():
    assert edit_member(b'{"a" : 1}', "a", lambda raw: raw) == b'{"a" : 1}'


def test_member_with_an_escaped_name_cannot_be_edited_and_is_rejected_with_advice():
    with pytest.raises(InvalidBody, match="without escapes"):
        edit_member(b'{"opt\\u0069ons":null}', "options", lambda _: b"1")


def test_body_full_of_nested_copies_is_rejected_quickly():
    body = b'{"x":[' + b'{"options":null},' * 60_000 + b'1],"options":null}'

    started = time.process_time()
    with pytest.raises(InvalidBody):
        edit_member(body, "options", lambda _: b"1")

    assert time.process_time() - started < 2  # without MAX_EDIT_ATTEMPTS it takes a minute


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("stream_options", b'{"x":"' + b"a" * 8_000_000 + b'"}', id="one long text"),
        pytest.param("data", b"[" + b'{"x":"(.*)+$"},' * 250_000 + b"1]", id="many objects full of operators"),
    ],
)
def test_long_value_is_edited_in_linear_time(name, value):
    body = b'{"model":"m","%s":%s}' % (name.encode(), value)

    started = time.process_time()
    edited = edit_member(body, name, lambda raw: insert_first(raw, b'"y":1') if raw.startswith(b"{") else b"[]")

    assert time.process_time() - started < 1  # 12 s as part of a pattern
    assert edited.startswith(b'{"model":"m","%s":' % name.encode())
    assert edited != body


def test_body_full_of_the_members_name_is_rejected_quickly():
    body = b'{"x":[' + b'{"options":1},' * 500_000 + b'1],"options":null}'

    started = time.process_time()
    with pytest.raises(InvalidBody):
        edit_member(body, "options", lambda _: b"1")

    assert time.process_time() - started < 0.5
