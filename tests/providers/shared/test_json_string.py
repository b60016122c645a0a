"""The end of a JSON string is found as a parser of one byte after another finds it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.providers.shared.json_string import find_string_end

FRAGMENTS = [b"a", b"text " * 60, b"\\", b"\\" * 63, b"\\" * 64, b"\\" * 65, b'"', b'\\"', b"\\\\", b"\\u0041", b"\n"]


def find_byte_by_byte(buffer: bytes, start: int) -> int:
    at = start
    while at < len(buffer) and buffer[at : at + 1] != b'"':
        if buffer[at : at + 1] == b"\\":
            if at + 1 == len(buffer):
                return at
            at += 1
        at += 1
    return at


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=40), st.integers(0, 400))
def test_end_is_that_of_a_parser_of_single_bytes(fragments: list[bytes], start: int) -> None:
    buffer = b"".join(fragments)
    start = min(start, len(buffer))

    assert find_string_end(buffer, start) == find_byte_by_byte(buffer, start)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (b'abc", "d"', 3),
        (b'a\\"c" ', 4),
        (b'a\\\\", ', 3),
        (b"abc", 3),
        (b"ab\\", 2),
        (b"ab\\\\", 4),
        (b"", 0),
        (b'\\"' * 5000 + b'" ', 10_000),
        (b"\\" * 1001 + b'"', 1002),
    ],
)
def test_end_of_a_string_or_of_the_part_that_has_arrived(text: bytes, end: int) -> None:
    assert find_string_end(text, 0) == end


def measure_cpu_s(find: Callable[[], object]) -> float:
    """Return the least CPU time of five calls."""
    times = []
    for _ in range(5):
        started = time.process_time()
        find()
        times.append(time.process_time() - started)
    return min(times)


def test_long_text_is_searched_for_its_end() -> None:
    """To match each byte of an image in base64 held up the event loop for 4 ms for each MB."""
    text = b"QUJD" * 1_000_000 + b'"'
    pattern = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)

    assert find_string_end(text, 0) == 4_000_000
    # A three hundredth on a quiet machine.
    assert measure_cpu_s(lambda: find_string_end(text, 0)) < measure_cpu_s(lambda: pattern.match(text)) / 10
