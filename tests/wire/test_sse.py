from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.wire import sse
from tornado_proxy.wire.sse import SseEvent, SseOverflow, SseSplitter, TolerantSseSplitter, find_block_end, parse_block

LINE_ENDS = (b"\n", b"\r\n", b"\r")

SAMPLE = (
    b'event: start\ndata: {"a":1}\n\n'
    b": a comment\n\n"
    b"data: one\ndata: two\n\n"
    b"data: crlf\r\n\r\n"
    b"data: cr\r\r"
    b"data: mixed\n\r\n"
    b"data: \xe2\x80\xa8 and \xc2\x85 are no line ends\n\n\n\n"
    b"data: [DONE]\n\n"
    b"data: unfinished"
)


def split(chunks: Iterable[bytes]) -> tuple[list[bytes], bytes]:
    splitter = SseSplitter()
    blocks = [block for chunk in chunks for block in splitter.feed(chunk)]
    return blocks, splitter.rest()


def cut(data: bytes, positions: Iterable[int]) -> list[bytes]:
    ends = sorted({0, len(data), *(position % (len(data) + 1) for position in positions)})
    return [data[start:end] for start, end in pairwise(ends)]


def events(data: bytes) -> list[SseEvent]:
    blocks, rest = split([data])
    return [parse_block(block) for block in [*blocks, rest]]


def test_blocks_end_with_their_blank_line_and_rest_is_the_tail():
    blocks, rest = split([b"data: a\n\nevent: b\ndata: c\n\ndata: d"])

    assert blocks == [b"data: a\n\n", b"event: b\ndata: c\n\n"]
    assert rest == b"data: d"


def test_single_bytes_give_the_same_blocks():
    assert split([SAMPLE[at : at + 1] for at in range(len(SAMPLE))]) == split([SAMPLE])


@given(positions=st.lists(st.integers(0, 500)))
def test_cuts_do_not_change_blocks(positions):
    assert split(cut(SAMPLE, positions)) == split([SAMPLE])


@given(
    data=st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"data: x", b":", b"a"]), max_size=40).map(b"".join),
    positions=st.lists(st.integers(0, 100)),
)
def test_cuts_lose_no_byte_and_no_event_with_any_line_end(data, positions):
    blocks, rest = split(cut(data, positions))

    assert b"".join(blocks) + rest == data
    expected, _ = split([data])
    assert [e for e in map(parse_block, blocks) if e.data] == [e for e in map(parse_block, expected) if e.data]


@given(
    data=st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"data: x", b":", b"a"]), max_size=40).map(b"".join),
    positions=st.lists(st.integers(0, 100)),
)
def test_find_block_end_agrees_with_feed(data, positions):
    chunks = cut(data, positions)
    splitter = SseSplitter()
    found = []
    for blocks in map(splitter.feed_joined, chunks):
        start = 0
        while start < len(blocks):
            end = find_block_end(blocks, start)
            found.append(blocks[start:end])
            start = end

    assert (found, splitter.rest()) == split(chunks)


@pytest.mark.parametrize("end", LINE_ENDS)
def test_lf_crlf_and_cr_end_lines_and_blocks(end):
    text = end.join([b"event: e", b"data: 1", b"data: 2", b"", b"data: 3", b"", b"data: 4"])

    assert events(text) == [SseEvent(b"e", b"1\n2"), SseEvent(None, b"3"), SseEvent(None, b"4")]


def test_cr_at_the_end_of_a_chunk_waits_for_the_next_byte():
    splitter = SseSplitter()

    assert splitter.feed(b"data: a\r\n\r") == []
    assert splitter.feed(b"\ndata: b") == [b"data: a\r\n\r\n"]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(b"data: x\n\n", SseEvent(None, b"x"), id="data line"),
        pytest.param(b"data:x\n\n", SseEvent(None, b"x"), id="no space"),
        pytest.param(b"data:  x\n\n", SseEvent(None, b" x"), id="one leading space is removed, not two"),
        pytest.param(b"event: e\ndata: x\n\n", SseEvent(b"e", b"x"), id="event and data"),
        pytest.param(b"data: x\nevent: e\n\n", SseEvent(b"e", b"x"), id="data before event"),
        pytest.param(b"data: x\ndata: y\n\n", SseEvent(None, b"x\ny"), id="two data lines"),
        pytest.param(b"data\ndata\n\n", SseEvent(None, b"\n"), id="data without a colon is an empty data line"),
        pytest.param(b": ping\ndata: x\nid: 7\nretry: 1\n\n", SseEvent(None, b"x"), id="comment, id, retry"),
        pytest.param(b": ping\n\n", SseEvent(None, b""), id="only a comment"),
        pytest.param(b"\xef\xbb\xbfdata: x\n\n", SseEvent(None, b"x"), id="byte order mark"),
        pytest.param(b"event: e\n\n", SseEvent(b"e", b""), id="only an event line"),
        pytest.param(b"data: x", SseEvent(None, b"x"), id="no line end"),
        pytest.param(b"data: x\n", SseEvent(None, b"x"), id="no blank line"),
        pytest.param(b"data: x\ny", SseEvent(None, b"x"), id="an unknown field without a line end"),
        pytest.param(b"database: x\n\n", SseEvent(None, b""), id="another field"),
        pytest.param(b"", SseEvent(None, b""), id="nothing"),
        pytest.param(b"data: \xe2\x80\xa8x\n\n", SseEvent(None, b"\xe2\x80\xa8x"), id="U+2028"),
    ],
)
def test_block_is_parsed_as_in_the_html_standard(raw, expected):
    assert parse_block(raw) == expected


@given(st.binary(max_size=200))
def test_no_bytes_raise(data):
    blocks, rest = split([data])

    assert b"".join(blocks) + rest == data
    for block in [*blocks, rest]:
        parse_block(block)


@pytest.mark.parametrize("short", [b"a", b"\n", b"\r", b""])
def test_incomplete_block_is_held(short):
    assert split([short]) == ([], short)


def test_oversized_event_raises_and_rest_returns_its_bytes(monkeypatch):
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    splitter = SseSplitter()
    splitter.feed(b"data: " + b"x" * 1000)

    with pytest.raises(SseOverflow):
        splitter.feed(b"more")

    assert splitter.rest() == b"data: " + b"x" * 1000
    assert splitter.feed(b"data: y\n\n") == [b"data: y\n\n"]


def test_tolerant_splitter_stops_after_an_oversized_event_and_raises_nothing(monkeypatch):
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    blocks = TolerantSseSplitter()

    assert blocks.feed(b"data: 1\n\ndata: 2") == [b"data: 1\n\n"]
    assert (blocks.feed(b"x" * 1000), blocks.overflowed) == ([], False)
    assert (blocks.feed(b"more"), blocks.overflowed) == ([], True)
    assert blocks.feed(b"\n\ndata: 3\n\n") == []
    assert blocks.rest() == b""


def test_large_event_in_many_chunks_takes_linear_time():
    splitter = SseSplitter()
    chunks = [b"data: "] + [b"x" * 1000] * 16_000 + [b"\n\n"]

    started = time.process_time()
    blocks = [block for chunk in chunks for block in splitter.feed(chunk)]

    assert [len(block) for block in blocks] == [16_000_008]
    assert time.process_time() - started < 5  # joining at each chunk takes minutes


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_empty_lines_of_a_large_chunk_make_few_blocks_and_hide_no_event(line_end: bytes) -> None:
    event = b'data: {"a":1}' + line_end
    chunk = event + line_end * 50_000 + event + line_end * 50_000 + event + line_end + b": more"

    blocks = TolerantSseSplitter().feed(chunk)

    assert [block.data for block in map(parse_block, blocks) if block.data] == [b'{"a":1}'] * 3
    assert len(blocks) < 10
