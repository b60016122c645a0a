from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.reading import pieces
from tests.providers.recorded import response_body
from tornado_proxy.providers.openai.chat.usage_hider import UsageHider
from tornado_proxy.wire import sse

RECORDED = response_body("chat-stream-with-usage")
USAGE_EVENT = re.compile(rb'data: \{[^\n]*"choices":\[\],"usage":\{[^\n]*\n\n')


def edited(*chunks: bytes) -> bytes:
    hider = UsageHider()
    return b"".join(hider.feed(chunk) for chunk in chunks) + hider.close()


def without_usage(data: bytes) -> bytes:
    return USAGE_EVENT.sub(b"", data).replace(b',"usage":null', b"")


def test_a_recorded_stream_only_loses_its_usage():
    stream = edited(RECORDED)

    assert stream == without_usage(RECORDED)
    assert b"usage" not in stream
    assert stream.endswith(b"data: [DONE]\n\n")


@given(st.lists(st.integers(0, 5000)))
def test_cuts_do_not_change_the_edited_stream(cuts):
    assert edited(*pieces(RECORDED, cuts)) == without_usage(RECORDED)


def test_the_edited_stream_is_the_same_byte_by_byte():
    assert edited(*[RECORDED[at : at + 1] for at in range(len(RECORDED))]) == without_usage(RECORDED)


def test_a_recorded_stream_without_usage_passes_unchanged():
    data = response_body("chat-stream-without-usage")

    assert edited(data) == data


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        pytest.param(b'{"a":1,"usage":null,"b":2}', b'{"a":1,"b":2}', id="in the middle"),
        pytest.param(b'{"usage":null,"b":2}', b'{"b":2}', id="first"),
        pytest.param(b'{"a":1,"usage":null}', b'{"a":1}', id="last"),
        pytest.param(b'{"a":1 , "usage" : null , "b":2}', b'{"a":1  , "b":2}', id="with spaces"),
        pytest.param(b'{ "usage": null, "b":2}', b'{ "b":2}', id="first with spaces"),
        pytest.param(b'{"a":1,"usage":null,"b":"}"}', b'{"a":1,"b":"}"}', id="before text with a brace"),
        pytest.param(b'{"a":1,"usage":null,"b":{}}', b'{"a":1,"b":{}}', id="before an object"),
    ],
)
def test_null_usage_is_removed_with_its_comma(event, expected):
    assert edited(b"data: " + event + b"\n\n") == b"data: " + expected + b"\n\n"


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(b'{"choices":[{"delta":{"content":"\\",\\"usage\\":null"}}]}', id="in text"),
        pytest.param(b'{"choices":[{"usage":null,"x":1}]}', id="deeper"),
        pytest.param(b'{"choices":[{"x":1,"usage":null}]}', id="last, and deeper"),
        pytest.param(b'[{"x":1,"usage":null}]', id="in a list"),
        pytest.param(b'{"x":1,"usage":nullable}', id="not null"),
        pytest.param(b'{"choices":[{"x":1,"usage":null}],"usage":null}', id="deeper and at the top"),
        pytest.param(b'{"choices":[{"delta":{}}],"usage":{"prompt_tokens":1}}', id="usage beside choices"),
        pytest.param(b'{"usage":{"prompt_tokens":1}}', id="usage without choices"),
        pytest.param(b'{"choices":[],"usage":5}', id="usage that is no object"),
        pytest.param(b'{"choices":[],"usage":{', id="no JSON"),
        pytest.param(b"[DONE]", id="[DONE]"),
    ],
)
def test_an_event_with_ambiguous_usage_passes_unchanged(event):
    data = b"data: " + event + b"\n\n"

    assert edited(data) == data


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(
            b'{"error":{"message":"overloaded"},"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1}}',
            id="with usage",
        ),
        pytest.param(b'{"choices":[],"usage":{"prompt_tokens":9},"error":"overloaded"}', id="error as text, last"),
    ],
)
def test_an_error_passes_with_the_usage_beside_it(event):
    data = b"data: " + event + b"\n\n"

    assert edited(data) == data
    assert edited(data.replace(b'"error"', b'"note"')) == b""


def test_line_ends_comments_and_event_names_are_preserved():
    data = b': ping\r\n\r\nevent: x\r\ndata: {"a":1,"usage":null}\r\n\r\ndata: {"choices":[],"usage":{}}\r\n\r\n'

    assert edited(data) == b': ping\r\n\r\nevent: x\r\ndata: {"a":1}\r\n\r\n'


def test_a_complete_event_passes_at_once_and_an_unfinished_event_is_held():
    hider = UsageHider()

    assert hider.feed(b'data: {"a":1}\n\ndata: {"b"') == b'data: {"a":1}\n\n'
    assert hider.feed(b':2,"usage":null}\n\n') == b'data: {"b":2}\n\n'
    assert hider.close() == b""


def test_a_last_event_without_a_blank_line_is_edited():
    assert edited(b'data: {"choices":[],"usage":{"prompt_tokens":1}}') == b""
    assert edited(b'data: {"choices":[],"usage":{"pro') == b'data: {"choices":[],"usage":{"pro'


def test_after_an_event_above_the_limit_all_bytes_pass_unchanged(monkeypatch):
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    chunks = [b"data: " + b"x" * 700, b"x" * 700, b"x" * 700, b"\n\n", b'data: {"a":1,"usage":null}\n\n']

    assert edited(*chunks) == b"".join(chunks)


@given(
    st.lists(st.binary(max_size=50) | st.sampled_from([b"\n\n", b'data: {"usage":null,', b'"choices":[]}']), max_size=8)
)
def test_random_bytes_never_raise(chunks):
    edited(*chunks)


EVENTS = [
    b'data: {"id":"c","choices":[{"delta":{"content":"a"}}],"usage":null}\n\n',
    b'data: {"choices":[{"delta":{"content":"a"}}],"usage":null,"obfuscation":"x9"}\n\n',
    b'data: {"choices":[{"delta":{"content":"a"}}],"usage":null,"obfuscation":"}"}\n\n',
    b'data: {"choices":[{"delta":{"content":",\\"usage\\":null}"}}],"usage":null}\n\n',
    b'data: {"choices":[{"usage":null}],"usage":null}\n\n',
    b'data: {"a":1,"usage":null,"usage":null}\n\n',
    b'data: {"choices":[],"usage":{"total_tokens":3}}\n\n',
    b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n',
    b'data: {"a":{"b":1,"usage":null,"obfuscation":"x"}}\n\n',
    b'data: {"a":1,"usage":null,"obfuscation":"x","b":2}\n\n',
    b'data: {"a":{"usage":null},"usage":null,"obfuscation":"x"}\n\n',
    b'data: {"usage":null,"a":1}\n\n',
    b'event: x\ndata: {"a":1,"usage":null}\n\n',
    b': a comment,"usage":null}\n\n',
    b'data: {"a":\ndata: 1,"usage":null}\n\n',
    b'data: {"a":1,"usage":null}\r\n\r\n',
    b"data: [DONE]\n\n",
    b"\n",
]


@given(st.lists(st.sampled_from(EVENTS)))
def test_events_that_arrive_together_are_edited_as_if_each_came_alone(events: list[bytes]) -> None:
    assert edited(b"".join(events)) == edited(*events)
