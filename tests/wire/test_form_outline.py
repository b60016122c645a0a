"""An outline of a form has its parts and fields, and none of the contents of large files."""

from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.wire import form_outline
from tornado_proxy.wire.form_outline import MAX_PARSED_BYTES, MIN_CONTENT_BYTES, make_form_outline
from tornado_proxy.wire.multipart import MAX_PARTS, Part, read_form

FORM = "multipart/form-data; boundary=b"
TEXT = b'Content-Disposition: form-data; name="model"'
FILE = b'Content-Disposition: form-data; name="file"; filename="a"'
CONTENT = b"0123456789abcdef" * 4096
_TOKENS = [
    b"\r\n", b"\r", b"--", b"b", b"--b", b"\r\n--b", b"\r\n--b\r\n", b"\r\n--b--", b"--b--\r\n",
    b"\r\n\r\n", b"\0", b" ", b"x" * 40, TEXT, FILE,
]  # fmt: skip
_contents = st.lists(st.sampled_from(_TOKENS), max_size=6).map(b"".join)


def make_form(*parts: bytes) -> bytes:
    return b"--b\r\n" + b"\r\n--b\r\n".join(parts) + b"\r\n--b--\r\n"


def list_parts(body: bytes) -> tuple[Part, ...] | str:
    """Return the parts of a form, or why there are none."""
    try:
        return read_form(body, FORM).parts
    except InvalidBody as error:
        return str(error)


def test_content_of_a_large_file_is_not_parsed() -> None:
    body = make_form(TEXT + b"\r\n\r\nwhisper-1", FILE + b"\r\n\r\n" + CONTENT, TEXT + b"\r\n\r\nlast")

    outline = make_form_outline(body, b"b", MAX_PARTS, 4096)

    assert outline is not None
    assert outline.text == make_form(TEXT + b"\r\n\r\nwhisper-1", FILE + b"\r\n\r\n\0", TEXT + b"\r\n\r\nlast")
    assert outline.find_in_body(outline.text.index(b"last")) == body.index(b"last")


def test_parts_of_a_large_form_are_where_they_are_in_the_body() -> None:
    body = make_form(FILE + b"\r\n\r\n" + CONTENT * 20, TEXT + b"\r\n\r\nwhisper-1")
    form = read_form(body, FORM)

    assert form.text("model") == "whisper-1"
    content = form.content("file")
    assert content is not None
    assert content == CONTENT * 20
    assert content.obj is body  # a view, no copy


def test_long_text_field_is_refused_though_its_content_is_not_parsed() -> None:
    form = read_form(make_form(TEXT + b"\r\n\r\n" + CONTENT * 2), FORM)

    with pytest.raises(InvalidBody, match=f"must have at most 1024 bytes, not {len(CONTENT) * 2}"):
        form.text("model")


def test_delimiter_at_the_end_of_a_step_is_found() -> None:
    for missing in range(12):
        content = CONTENT * 4
        body = make_form(FILE + b"\r\n\r\n" + content[: len(content) - missing], TEXT + b"\r\n\r\nwhisper-1")

        assert read_form(body, FORM).text("model") == "whisper-1"


def test_large_form_with_too_many_delimiters_is_refused() -> None:
    body = make_form(FILE + b"\r\n\r\n" + CONTENT + b"\r\n--bx" * MAX_PARTS)

    with pytest.raises(InvalidBody, match="has its boundary more than 100 times"):
        read_form(body, FORM)


def test_content_after_a_text_like_a_delimiter_is_not_parsed() -> None:
    body = make_form(FILE + b"\r\n\r\n" + CONTENT + b"\r\n--bx" + CONTENT * 8)

    outline = make_form_outline(body, b"b", MAX_PARTS, 4096)

    assert outline is not None
    assert len(outline.text) < 8192
    assert len(read_form(body, FORM).content("file") or b"") == len(CONTENT) * 9 + len(b"\r\n--bx")


def test_small_form_is_parsed_as_it_is() -> None:
    body = make_form(FILE + b"\r\n\r\n" + CONTENT[:MIN_CONTENT_BYTES])

    assert len(body) < MAX_PARSED_BYTES
    outline = make_form_outline(body, b"b", MAX_PARTS, 4096)
    assert outline is not None
    assert outline.text is body


@given(
    contents=st.lists(st.tuples(st.sampled_from([TEXT, FILE]), _contents), min_size=1, max_size=3),
    tail=st.sampled_from([b"", b"\r\n", b"x", b"--b--"]),
)
def test_form_has_the_same_parts_with_and_without_an_outline(contents: list[tuple[bytes, bytes]], tail: bytes) -> None:
    """Any text that resembles a delimiter, in any place."""
    body = make_form(*[header + b"\r\n\r\n" + content for header, content in contents]) + tail

    with (
        mock.patch.object(form_outline, "MAX_PARSED_BYTES", 0),
        mock.patch.object(form_outline, "MIN_CONTENT_BYTES", 1),
    ):
        parts = list_parts(body)

    assert parts == list_parts(body)
