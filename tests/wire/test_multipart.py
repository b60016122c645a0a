from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.wire.multipart import MAX_PARTS, read_form

TYPE = "multipart/form-data; boundary=XX"


def part(headers: str, content: bytes, boundary: str = "XX") -> bytes:
    return f"--{boundary}\r\n{headers}\r\n\r\n".encode() + content + b"\r\n"


def text_part(name: str, value: str) -> bytes:
    return part(f'Content-Disposition: form-data; name="{name}"', value.encode())


AUDIO = b"RIFF\r\n--X\r\n--XY\r\n\r\n\x00\xff--"
FILE = part('Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav', AUDIO)
END = b"--XX--\r\n"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(text_part("model", "whisper-1") + FILE + END, id="text first"),
        pytest.param(FILE + text_part("model", "whisper-1") + END, id="file first"),
        pytest.param(b"\r\n\r\n" + FILE + text_part("model", "whisper-1") + END, id="line ends first"),
        pytest.param(FILE + text_part("model", "whisper-1") + END[:-2] + b" \t\r\n\r\n", id="line ends last"),
        pytest.param(FILE + text_part("model", "whisper-1") + END[:-2], id="no line end after the closing boundary"),
        pytest.param(
            FILE + part("content-disposition:form-data;name=model", b"whisper-1") + END, id="lower case and no quotes"
        ),
        pytest.param(
            FILE + part('Content-Disposition: form-data; name="model";', b"whisper-1") + END, id="an empty parameter"
        ),
        pytest.param(
            FILE + part("Content-Length: 9\r\nContent-Disposition: form-data ; name = model", b"whisper-1") + END,
            id="other headers and spaces",
        ),
    ],
)
def test_text_fields_and_file_spans_are_found_in_any_order(body):
    form = read_form(body, TYPE)

    assert form.text("model") == "whisper-1"
    assert form.text("language") is None
    assert bytes(form.content("file") or b"") == AUDIO
    assert form.length("file") == len(AUDIO)


def test_file_content_is_not_copied():
    body = text_part("model", "m") + FILE + END

    view = read_form(body, TYPE).content("file")

    assert view is not None
    assert view.obj is body


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ('multipart/form-data; boundary="a b:c"', "a b:c"),
        ("Multipart/Form-Data;Boundary=abc; charset=utf-8", "abc"),
        ("multipart/form-data; charset=utf-8; boundary=-----RubyMultipartPost-1", "-----RubyMultipartPost-1"),
        ("multipart/form-data; boundary='x'", "'x'"),
        ("multipart/form-data; boundary=b;", "b"),
        ("multipart/form-data;; ;boundary=b ; ", "b"),
        ("multipart/form-data; boundary=" + "b" * 70, "b" * 70),
    ],
)
def test_boundary_is_parsed_as_in_rfc_2046(content_type, boundary):
    body = part('Content-Disposition: form-data; name="model"', b"m", boundary) + f"--{boundary}--\r\n".encode()

    assert read_form(body, content_type).text("model") == "m"


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "multipart/mixed; boundary=XX",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary="XX "',
        "multipart/form-data; boundary=XX; boundary=YY",
        "multipart/form-data; boundary=" + "b" * 71,
        'multipart/form-data; boundary="XX',
        'multipart/form-data; boundary="X\u00e9"',
    ],
)
def test_content_type_without_valid_boundary_is_rejected(content_type):
    with pytest.raises(InvalidBody):
        read_form(text_part("model", "m") + END, content_type)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(text_part("model", "m"), id="no closing boundary"),
        pytest.param((text_part("model", "m") + END)[:20], id="truncated in a header"),
        pytest.param(text_part("model", "m") + FILE[:-40], id="truncated in a file"),
        pytest.param(part("Content-Type: text/plain", b"m") + END, id="no Content-Disposition"),
        pytest.param(part("Content-Disposition: form-data", b"m") + END, id="no name"),
        pytest.param(part('Content-Disposition: attachment; name="model"', b"m") + END, id="not form-data"),
        pytest.param(part('Content-Disposition: form-data; name="a"; name="model"', b"m") + END, id="two names"),
        pytest.param(part("Content-Disposition: form-data; name=\"a\"; name*=utf-8''model", b"m") + END, id="name*"),
        pytest.param(part('Content-Disposition: form-data; name="a"x; y', b"m") + END, id="garbage after a name"),
        pytest.param(
            part('Content-Disposition: form-data; name="a"\r\nContent-Disposition: form-data; name="model"', b"m")
            + END,
            id="two Content-Disposition headers",
        ),
        pytest.param(
            part('Content-Disposition: form-data; name="model"\r\nContent-Transfer-Encoding: base64', b"bQ==") + END,
            id="a transfer encoding",
        ),
        pytest.param(
            part(
                'Content-Disposition: form-data; name="model"\r\nContent-Transfer-Encoding: base64\r\n'
                "Content-Transfer-Encoding: binary",
                b"bQ==",
            )
            + END,
            id="two transfer encodings",
        ),
        pytest.param(part(f'Content-Disposition: form-data; name="{"n" * 5000}"', b"m") + END, id="a long header"),
        pytest.param(part("\r\n".join(f"X-{n}: 1" for n in range(9)), b"m") + END, id="many headers"),
        pytest.param(text_part("a", "1") * (MAX_PARTS + 1) + END, id="many parts"),
        pytest.param((text_part("model", "m") + END).replace(b"\r\n", b"\n"), id="bare line feeds"),
    ],
)
def test_ambiguous_or_truncated_body_is_rejected(body):
    with pytest.raises(InvalidBody):
        read_form(body, TYPE).text("model")


OTHER_FORM = text_part("model", "tts-1")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(b"preamble\r\n", b"", id="text before"),
        pytest.param(b"\n", b"", id="a bare line feed before"),
        pytest.param(b"x", b"", id="boundary inside a line"),
        pytest.param(OTHER_FORM.replace(b"--XX", b"--YY"), b"", id="a form of another boundary before"),
        pytest.param(b"", b"epilogue", id="text after"),
        pytest.param(b"", OTHER_FORM + END, id="a second form after"),
        pytest.param(b"", b"\r\n\r\n" + OTHER_FORM + END, id="a second form after line ends"),
    ],
)
@pytest.mark.parametrize("last", [b"", part('Content-Disposition: form-data; name="empty"', b"")])
def test_text_around_the_parts_is_rejected(before, after, last):
    with pytest.raises(InvalidBody, match=r"begin with the boundary|after its closing boundary"):
        read_form(before + text_part("model", "m") + FILE + last + END + after, TYPE)


def test_empty_last_part_ends_the_body():
    body = text_part("model", "m") + FILE + part('Content-Disposition: form-data; name="empty"', b"") + END

    assert read_form(body, TYPE).text("empty") == ""


def test_duplicate_text_field_is_rejected_and_array_fields_may_repeat():
    form = read_form(text_part("model", "a") + text_part("model", "b") + text_part("tag[]", "1") * 2 + END, TYPE)

    with pytest.raises(InvalidBody, match="2 times"):
        form.text("model")
    assert form.length("tag") == 2


@pytest.mark.parametrize(
    "disposition",
    [
        'form-data; name="model"; filename="m"',
        "form-data; name=\"model\"; filename*=utf-8''m",
        "form-data; name=model; filename=",
    ],
)
def test_text_field_that_is_a_file_is_rejected(disposition):
    form = read_form(part(f"Content-Disposition: {disposition}", b"m") + END, TYPE)

    with pytest.raises(InvalidBody, match="must be text"):
        form.text("model")


def test_text_field_that_is_too_long_or_not_utf8_is_rejected():
    form = read_form(text_part("a", "x" * 1025) + part("Content-Disposition: form-data; name=b", b"\xff") + END, TYPE)

    with pytest.raises(InvalidBody, match="1024"):
        form.text("a")
    with pytest.raises(InvalidBody, match="UTF-8"):
        form.text("b")


def test_length_counts_all_parts_of_an_array_field():
    image = part('Content-Disposition: form-data; name="image[]"; filename="a\\"b.png"', b"12345")

    assert read_form(image + image + END, TYPE).length("image") == 10


@pytest.mark.parametrize("pattern", [b"\r\n--X", b"\r", b"\r\n--XX\r", b"-", b"\x00"])
def test_twenty_megabytes_of_near_boundaries_are_parsed_within_a_second(pattern):
    content = pattern.replace(b"--XX", b"--Xx") * (20_000_000 // len(pattern))
    body = text_part("model", "m") + part('Content-Disposition: form-data; name="file"; filename="a"', content) + END

    started = time.perf_counter()
    form = read_form(body, TYPE)

    assert time.perf_counter() - started < 1
    assert form.length("file") == len(content)


@given(body=st.binary(max_size=300), content_type=st.text(max_size=60))
def test_random_bytes_raise_nothing_but_invalid_body(body, content_type):
    for kind in (TYPE, "multipart/form-data; boundary=" + content_type):
        for data in (body, b"--XX\r\n" + body, FILE[:60] + body + END):
            try:
                form = read_form(data, kind)
            except InvalidBody:
                continue
            assert all(0 <= found.start <= found.end <= len(data) for found in form.parts)


@given(
    name=st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=20),
    content=st.binary(max_size=200),
)
def test_name_and_content_written_by_a_browser_are_parsed(name, content):
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    if b"\r\n--XX" in b"\r\n" + content + b"\r\n":
        return
    body = part(f'Content-Disposition: form-data; name="{quoted}"; filename="x"', content) + END

    form = read_form(body, TYPE)

    assert bytes(form.content(name) or b"") == content
