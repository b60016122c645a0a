"""The parser of a provider's status line and headers."""

from __future__ import annotations

import pytest

from tornado_proxy.upstream.http.messages import parse_response_head


@pytest.mark.parametrize(
    ("lines", "status", "reason"),
    [
        pytest.param([b"HTTP/2 200\r\n"], 200, "", id="http/2 has no reason phrase"),
        pytest.param([b"HTTP/1.1 404 Not Found\r\n"], 404, "Not Found", id="reason phrase of two words"),
    ],
)
def test_status_line_is_parsed(lines: list[bytes], status: int, reason: str) -> None:
    head = parse_response_head(lines)

    assert head is not None
    assert (head.status, head.reason) == (status, reason)


@pytest.mark.parametrize("lines", [[], [b"HTTP/1.1\r\n"], [b"HTTP/1.1 OK 200\r\n"]])
def test_invalid_status_line_gives_no_head(lines: list[bytes]) -> None:
    assert parse_response_head(lines) is None


@pytest.mark.parametrize(
    ("lines", "headers"),
    [
        pytest.param([b"X-A: 1\r\n", b"x-a:2\r\n"], (("X-A", "1"), ("x-a", "2")), id="repeated header is kept"),
        pytest.param([b"X-A: 1\r\n", b"\t2\r\n"], (("X-A", "1 2"),), id="folded line is joined"),
        pytest.param([b"X-A: a\x85b\r\n"], (("X-A", "a\x85b"),), id="latin-1 line separator is part of the value"),
        pytest.param([b"no colon\r\n", b"X-A: 1\r\n"], (("X-A", "1"),), id="line without a colon is skipped"),
    ],
)
def test_headers_are_parsed(lines: list[bytes], headers: tuple[tuple[str, str], ...]) -> None:
    head = parse_response_head([b"HTTP/1.1 200 OK\r\n", *lines])

    assert head is not None
    assert head.headers == headers


def test_get_ignores_case_and_returns_the_first_value() -> None:
    head = parse_response_head([b"HTTP/1.1 200 OK\r\n", b"Content-Type: a\r\n", b"content-type: b\r\n"])

    assert head is not None
    assert head.fields.get("content-type") == "a"
    assert head.fields.get("retry-after") is None
