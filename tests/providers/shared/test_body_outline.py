"""An outline has all of a body but its long texts, and the same facts follow from it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.providers.anthropic.request_members import CONTENT as ANTHROPIC_CONTENT
from tornado_proxy.providers.anthropic.request_members import REFERENCES as ANTHROPIC_REFERENCES
from tornado_proxy.providers.openai.request_members import CONTENT, REFERENCE_OBJECTS, REFERENCES
from tornado_proxy.providers.shared.body_outline import (
    MAX_BODY_BYTES,
    MAX_QUOTES,
    MIN_BODY_BYTES,
    MIN_TEXT_BYTES,
    make_outline,
)
from tornado_proxy.wire.splice import Splice

NAMES = frozenset({b"content"})
TEXT = b"x" * MIN_BODY_BYTES
CUT = b"x" * 40


@pytest.mark.parametrize(
    ("body", "outline"),
    [
        pytest.param(b'{"content":"%b"}' % TEXT, b'{"content":"%b"}' % CUT, id="text"),
        pytest.param(b' {"content" : "%b" }' % TEXT, b' {"content" : "%b" }' % CUT, id="blanks"),
        pytest.param(
            b'{"a":[{"content":"%b"},{"content":"%b","b":1}]}' % (TEXT, TEXT),
            b'{"a":[{"content":"%b"},{"content":"%b","b":1}]}' % (CUT, CUT),
            id="several",
        ),
        pytest.param(b'{"content":"%b\\"%b"}' % (TEXT, TEXT), b'{"content":"%b"}' % CUT, id="escaped quotation mark"),
        pytest.param(b'{"content":"ab\\n%b"}' % TEXT, b'{"content":"ab"}', id="nothing of an escape is left"),
        pytest.param(b'{"content":"\\n%b"}' % TEXT, b'{"content":"x"}', id="never empty"),
        pytest.param(b'{"content":"\xc3\xa9%b"}' % TEXT, b'{"content":"x"}', id="nothing of a character is left"),
        pytest.param(
            b'{"content":"%b\\\\","model":"m"}' % TEXT, b'{"content":"%b","model":"m"}' % CUT, id="escaped backslash"
        ),
    ],
)
def test_long_text_is_cut(body: bytes, outline: bytes) -> None:
    made = make_outline(body, NAMES)

    assert made is not None
    assert made.text == outline
    assert made.cut_bytes == len(body) - len(outline)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"model":"%b"}' % TEXT, id="another member"),
        pytest.param(b'{"%b":"content"}' % TEXT, id="a name"),
        pytest.param(b'{"a":["content","%b"]}' % TEXT, id="an entry of a list"),
        pytest.param(b'{"content":["%b"]}' % TEXT, id="an entry of the member"),
        pytest.param(b'{"content":"%b","a":"%b"}' % (b"x" * MIN_TEXT_BYTES, TEXT), id="a short text"),
    ],
)
def test_other_text_is_kept(body: bytes) -> None:
    made = make_outline(body, NAMES)

    assert made is not None
    assert (made.text, made.cuts) == (body, ())


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"content":"short"}', id="small"),
        pytest.param(b'{"content":"%b"}' % (b"x" * MAX_BODY_BYTES), id="too large"),
        pytest.param(b'["%b"]' % TEXT, id="a list"),
        pytest.param(b'--b\r\n"content":"%b"' % TEXT, id="a form"),
        pytest.param(b'{"content":"%b' % TEXT, id="a text that does not end"),
        pytest.param(b'{"content":"%b\\"}' % TEXT, id="a text that ends with an escaped mark"),
        pytest.param(b'{"content":"%b%b"}' % (b"\\" * 100, TEXT + b"\\" * 64), id="many backslashes"),
        pytest.param(b'{"a":[%b],"content":"%b"}' % (b'"",' * MAX_QUOTES, TEXT * 64), id="many strings"),
    ],
)
def test_body_without_an_outline_is_read_whole(body: bytes) -> None:
    assert make_outline(body, NAMES) is None


_json = st.recursive(
    st.none() | st.integers() | st.text(alphabet='ab\\"{}[]:,\u00e9\n', max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["content", "x", 'q"']), inner, max_size=3)
    ),
    max_leaves=12,
)


def cut(value: object) -> object:
    """Return decoded JSON with each long text of a member `content` cut as in an outline."""
    if isinstance(value, list):
        return [cut(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    return {
        name: "x" if name == "content" and isinstance(child, str) and len(child) > MIN_TEXT_BYTES else cut(child)
        for name, child in value.items()
    }


@given(value=_json, ascii=st.booleans(), indent=st.sampled_from([None, 1]))
def test_outline_is_the_body_with_each_long_text_cut(value: object, ascii: bool, indent: int | None) -> None:
    content = {"content": "\n" + "long " * MIN_BODY_BYTES, "value": value}
    body = json.dumps(content, ensure_ascii=ascii, indent=indent).encode()

    made = make_outline(body, NAMES)

    assert made is not None
    assert json.loads(made.text) == cut(content)


@pytest.mark.parametrize(
    ("start", "expected"),
    [(1, 1), (8, 8), (70, 70 + MIN_BODY_BYTES - 40)],
    ids=["first", "before the text", "after it"],
)
def test_splice_of_the_outline_is_one_of_the_body(start: int, expected: int) -> None:
    made = make_outline(b'{"a":1,"content":"%b","model":"gpt-5.4","b":2}' % TEXT, NAMES)

    assert made is not None
    assert made.find_in_body(Splice(start, start + 1, b"new")) == Splice(expected, expected + 1, b"new")


def test_splice_of_a_text_that_was_cut_is_unknown() -> None:
    made = make_outline(b'{"content":"%b"}' % TEXT, NAMES)

    assert made is not None
    assert made.find_in_body(Splice(1, len(made.text) - 1, b"")) is None


def test_no_text_that_names_an_object_is_cut() -> None:
    references = {name.encode() for name in REFERENCES | REFERENCE_OBJECTS | ANTHROPIC_REFERENCES}

    assert not references & (CONTENT | ANTHROPIC_CONTENT)
