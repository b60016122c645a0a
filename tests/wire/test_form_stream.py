"""A form that arrives in pieces is read as it is read whole, and all of its bytes pass once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.reading import pieces
from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.wire.form_outline import MIN_CONTENT_BYTES
from tornado_proxy.wire.form_stream import MAX_FORM_BYTES, FormStream
from tornado_proxy.wire.multipart import MAX_PARTS, MAX_TEXT_BYTES, open_form_stream, read_form

FORM = "multipart/form-data; boundary=b"
TEXT = b'Content-Disposition: form-data; name="model"'
FILE = b'Content-Disposition: form-data; name="file"; filename="a"'
CONTENT = b"0123456789abcdef" * 4096
_TOKENS = [
    b"\r\n", b"\r", b"--", b"b", b"--b", b"\r\n--b", b"\r\n--b\r\n", b"\r\n--b--", b"--b--\r\n",
    b"\r\n\r\n", b"\0", b" ", b"x" * 40, b"y" * (MIN_CONTENT_BYTES // 2), b"z" * 9000, TEXT, FILE,
]  # fmt: skip
_contents = st.lists(st.sampled_from(_TOKENS), max_size=6).map(b"".join)
_forms = st.lists(_contents, min_size=1, max_size=5)


def make_form(*parts: bytes) -> bytes:
    return b"--b\r\n" + b"\r\n--b\r\n".join(parts) + b"\r\n--b--\r\n"


def feed(stream: FormStream, *chunks: bytes) -> bytes:
    """Return the bytes that may be sent on."""
    return b"".join(bytes(piece) for chunk in chunks for piece in stream.feed(chunk))


def describe(body: bytes) -> object:
    """Return the parts of a form, of contents the beginning and if they are too long for a text; None if it is none."""
    try:
        form = read_form(body, FORM)
    except InvalidBody:
        return None
    contents = [form.body[part.start : part.end][: MAX_TEXT_BYTES + 1] for part in form.parts]
    return [(part.name, part.is_file, content) for part, content in zip(form.parts, contents, strict=True)]


def test_fields_before_a_file_are_known_when_its_content_begins() -> None:
    body = make_form(TEXT + b"\r\n\r\ngpt-image-2", FILE + b"\r\n\r\n" + CONTENT)
    stream = open_form_stream(FORM, len(body))

    passed = feed(stream, body[:-1000])

    assert passed == body[:-1000]
    assert stream.content_bytes == body.index(b"\r\n--b--") - body.index(CONTENT) - (1000 - len(b"\r\n--b--\r\n"))
    assert read_form(stream.form_so_far(), FORM).text("model") == "gpt-image-2"


def test_bytes_after_a_file_are_withheld_until_the_next_one_or_the_end() -> None:
    first = make_form(FILE + b"\r\n\r\n" + CONTENT)[: -len(b"--b--\r\n") - 2]
    field = b"\r\n--b\r\n" + TEXT + b"\r\n\r\ngpt-image-2"
    second = b"\r\n--b\r\n" + FILE + b"\r\n\r\n" + CONTENT
    stream = open_form_stream(FORM, len(first + field + second + b"\r\n--b--\r\n"))

    assert feed(stream, first, field) == first
    assert stream.withheld_bytes == len(field)
    assert feed(stream, second) == field + second
    assert feed(stream, b"\r\n--b--\r\n") == b""
    assert stream.end() == (
        make_form(
            FILE + b"\r\n\r\n" + CONTENT[:1025], TEXT + b"\r\n\r\ngpt-image-2", FILE + b"\r\n\r\n" + CONTENT[:1025]
        ),
        b"\r\n--b--\r\n",
    )


@given(parts=_forms, cuts=st.lists(st.integers(0, 30_000), max_size=8))
def test_every_byte_passes_once_and_the_form_is_that_of_the_body(parts: list[bytes], cuts: list[int]) -> None:
    body = make_form(*parts)
    stream = open_form_stream(FORM, len(body))

    passed = feed(stream, *pieces(body, cuts))
    form, rest = stream.end()

    assert passed + rest == body
    assert describe(form) == describe(body)


@given(parts=_forms, rest=_forms, cuts=st.lists(st.integers(0, 30_000), max_size=8))
def test_last_delimiter_is_withheld_whatever_follows_it(parts: list[bytes], rest: list[bytes], cuts: list[int]) -> None:
    body = make_form(*parts) + b"\r\n\r\n".join(rest)

    passed = feed(open_form_stream(FORM, len(body)), *pieces(body, cuts))

    assert len(passed) <= body.index(b"\r\n--b--")


def test_text_after_the_last_delimiter_is_withheld_until_it_is_too_long() -> None:
    form = make_form(FILE + b"\r\n\r\n" + CONTENT)
    epilogue, part = b"\r\n\r\n" + CONTENT, b"\r\n--b\r\n" + FILE + b"\r\n\r\n" + CONTENT
    stream = open_form_stream(FORM, len(form + part) + 4 * len(epilogue))

    assert feed(stream, form, part, epilogue, epilogue) == form[: form.index(b"\r\n--b--")]
    with pytest.raises(InvalidBody, match="more than 256 KiB beside its files"):
        feed(stream, epilogue, epilogue)


@given(parts=_forms, length=st.integers(1, 60_000), cuts=st.lists(st.integers(0, 30_000), max_size=8))
def test_no_body_passes_whole_wherever_it_ends(parts: list[bytes], length: int, cuts: list[int]) -> None:
    body = make_form(*parts)[:length]
    stream = open_form_stream(FORM, len(body))

    passed = feed(stream, *pieces(body, cuts))
    _, rest = stream.end()

    assert len(passed) < len(body)
    assert passed + rest == body


def test_body_with_too_many_delimiters_or_headers_is_refused() -> None:
    with pytest.raises(InvalidBody, match="has its boundary more than 100 times"):
        feed(open_form_stream(FORM, 2**20), make_form(FILE + b"\r\n\r\n" + CONTENT), b"\r\n--bx" * MAX_PARTS)
    part = FILE + b"\r\n\r\n" + b"x" * MIN_CONTENT_BYTES
    with pytest.raises(InvalidBody, match="more than 256 KiB beside its files"):
        feed(open_form_stream(FORM, 2**20), make_form(*[part] * (MAX_FORM_BYTES // MIN_CONTENT_BYTES + 1)))
