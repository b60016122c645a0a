from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.anthropic.costs import charge
from tests.providers.anthropic.streams import (
    FACTS,
    MODEL,
    OVERLOADED,
    PING,
    SSE,
    STOP,
    block,
    count_by_meter,
    counts,
    delta,
    event,
    start,
    text,
)
from tests.providers.reading import pieces, read, read_three_ways
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.providers.anthropic.messages.endpoint import make_reader
from tornado_proxy.providers.anthropic.messages.stream import MessageStreamReader, measure_text, merge_usage
from tornado_proxy.wire.sse import MAX_EVENT_BYTES

COUNTS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")


def report(*events: bytes, complete: bool = True, facts: RequestFacts = FACTS) -> UsageReport:
    """Return the report of a stream of events."""
    return read(make_reader(facts, SSE), events, complete=complete)


def test_message_delta_replaces_values_of_message_start() -> None:
    streamed = report(start(input_tokens=25, output_tokens=3), block(), text("Hello"), delta(output_tokens=15), STOP)

    assert counts(streamed) == [(MODEL, {"input_tokens": 25, "output_tokens": 15})]
    assert streamed.basis is Basis.REPORTED
    assert streamed.object_id == "msg_1"
    assert json.loads(streamed.raw or "") == {"input_tokens": 25, "output_tokens": 15}


def test_input_can_grow_and_shrink_and_zero_is_a_value() -> None:
    grown = report(start(input_tokens=2050, output_tokens=1), delta(input_tokens=31772, output_tokens=9), STOP)
    shrunk = report(
        start(input_tokens=60385, cache_read_input_tokens=55096, output_tokens=1),
        delta(input_tokens=612, cache_read_input_tokens=0, output_tokens=9),
        STOP,
    )

    assert count_by_meter(grown.items[0])["input_tokens"] == 31772
    assert count_by_meter(shrunk.items[0]) == {"input_tokens": 612, "output_tokens": 9}


def test_last_message_delta_wins_and_null_keeps_the_earlier_value() -> None:
    streamed = report(
        start(input_tokens=7, output_tokens=1, service_tier="standard", speed="fast", inference_geo="us"),
        delta(None, output_tokens=10, input_tokens=8),
        delta(output_tokens=20, input_tokens=None, server_tool_use={"web_search_requests": 2}),
        STOP,
    )

    (item,) = streamed.items
    assert count_by_meter(item) == {"input_tokens": 8, "output_tokens": 20, "web_searches": 2}
    assert item.terms == Terms("standard", "fast", "us")


def test_nested_objects_are_merged_by_member() -> None:
    before = {"server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 4}, "output_tokens": 1}
    later = {"server_tool_use": {"web_search_requests": 3, "web_fetch_requests": None}}

    assert merge_usage(before, later) == {
        "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 4},
        "output_tokens": 1,
    }


USAGES = st.dictionaries(st.sampled_from(COUNTS), st.none() | st.integers(0, 10**9))


@given(first=USAGES, later=st.lists(USAGES, max_size=4))
def test_each_count_is_the_last_stated_one(first: dict[str, Any], later: list[dict[str, Any]]) -> None:
    streamed = report(start(**first), *(delta(**usage) for usage in later), delta(output_tokens=5), STOP)

    raw = json.loads(streamed.raw or "")
    for name in COUNTS[:3]:
        values = [usage[name] for usage in (first, *later) if usage.get(name) is not None]
        assert raw.get(name) == (values[-1] if values else None)
    assert raw["output_tokens"] == 5


def test_broken_stream_has_stated_input_and_estimated_output() -> None:
    cut = report(
        start(input_tokens=25, cache_read_input_tokens=100, output_tokens=2),
        block(),
        text("x" * 30),
        text("y" * 10),
        complete=False,
    )

    assert counts(cut) == [(MODEL, {"input_tokens": 25, "cached_input_tokens": 100, "output_tokens": 10})]
    assert cut.basis is Basis.ESTIMATED
    assert cut.estimate_method == "utf8_bytes_div_4"
    assert cut.items[0].context_tokens == 125
    assert cut.object_id == "msg_1"


def test_estimate_is_at_least_the_output_of_message_start() -> None:
    cut = report(start(input_tokens=25, output_tokens=8), block(), text("Hi"), complete=False)

    assert count_by_meter(cut.items[0])["output_tokens"] == 8


def test_estimate_adds_the_text_after_the_last_message_delta() -> None:
    cut = report(
        start(input_tokens=5, output_tokens=1),
        text("a" * 400),
        delta(None, output_tokens=70),
        text("b" * 40),
        complete=False,
    )

    assert count_by_meter(cut.items[0])["output_tokens"] == 80
    assert cut.basis is Basis.ESTIMATED


def test_error_event_after_the_start_leaves_an_estimate_even_if_the_body_is_complete() -> None:
    failed = report(start(input_tokens=25, output_tokens=1), block(), text("a" * 16), OVERLOADED)

    assert failed.basis is Basis.ESTIMATED
    assert count_by_meter(failed.items[0]) == {"input_tokens": 25, "output_tokens": 4}


def test_an_error_event_behind_a_partial_statement_does_not_make_it_final() -> None:
    failed = report(start(input_tokens=2, output_tokens=1), delta(None, output_tokens=7), text("a" * 8), OVERLOADED)

    assert failed.basis is Basis.ESTIMATED
    assert count_by_meter(failed.items[0])["output_tokens"] == 9


def test_error_in_place_of_a_message_is_free() -> None:
    assert report(PING, OVERLOADED).basis is Basis.FREE


def test_stream_that_breaks_before_its_message_is_estimated_from_the_request_length() -> None:
    spend = Spend(MODEL, frozenset(), terms=Terms(speed="fast", inference_geo="us"))
    facts = RequestFacts(model=MODEL, spends=(spend,), body_bytes=401)

    cut = report(PING, complete=False, facts=facts)

    (item,) = cut.items
    assert cut.basis is Basis.ESTIMATED
    assert count_by_meter(item) == {"input_tokens": 101}
    assert (item.context_tokens, item.terms) == (101, Terms(speed="fast", inference_geo="us"))


def test_complete_body_without_stop_reason_has_ended() -> None:
    assert report(start(input_tokens=2), delta(None, output_tokens=7)).basis is Basis.REPORTED
    assert report(start(input_tokens=2), delta(None, output_tokens=7), complete=False).basis is Basis.ESTIMATED


def test_client_that_disconnects_after_the_final_delta_changes_nothing() -> None:
    assert report(start(input_tokens=2), delta(output_tokens=7), complete=False).basis is Basis.REPORTED


def test_last_event_without_a_blank_line_is_read() -> None:
    streamed = report(start(input_tokens=2), delta(output_tokens=7).rstrip(b"\n"))

    assert count_by_meter(streamed.items[0])["output_tokens"] == 7


def test_second_message_with_another_id_counts_as_well() -> None:
    streamed = report(
        start("msg_1", input_tokens=10), delta(output_tokens=1), start("msg_2", input_tokens=20), delta(output_tokens=2)
    )

    assert counts(streamed) == [
        (MODEL, {"input_tokens": 10, "output_tokens": 1}),
        (MODEL, {"input_tokens": 20, "output_tokens": 2}),
    ]
    assert json.loads(streamed.raw or "") == [
        {"input_tokens": 10, "output_tokens": 1},
        {"input_tokens": 20, "output_tokens": 2},
    ]


def test_message_that_starts_again_counts_once() -> None:
    streamed = report(start(input_tokens=10), delta(output_tokens=9), start(input_tokens=20), delta(output_tokens=2))

    assert counts(streamed) == [(MODEL, {"input_tokens": 20, "output_tokens": 2})]


def test_fallback_model_is_charged_and_named() -> None:
    models = {"from": {"model": "claude-fable-5"}, "to": {"model": "claude-opus-4-8"}}
    events = (start(model="claude-fable-5", input_tokens=408), block("fallback", **models), block(), text("a" * 40))

    ended = report(*events, delta(input_tokens=412, output_tokens=264), STOP)
    cut = report(*events, complete=False)

    assert counts(ended) == [("claude-opus-4-8", {"input_tokens": 412, "output_tokens": 264})]
    assert ended.model == "claude-opus-4-8"
    assert counts(cut) == [("claude-opus-4-8", {"input_tokens": 408, "output_tokens": 10})]


@pytest.mark.parametrize(
    ("blocks", "basis"),
    [
        pytest.param((), Basis.FREE, id="no content"),
        pytest.param((block("fallback", to={"model": "claude-opus-4-8"}),), Basis.FREE, id="a fallback declined too"),
        pytest.param((block(), text("I")), Basis.REPORTED, id="declined after output"),
    ],
)
def test_refusal_without_output_is_free(blocks: Iterable[bytes], basis: Basis) -> None:
    refused = report(start(input_tokens=18, output_tokens=1), *blocks, delta("refusal", output_tokens=5), STOP)

    cost, charged_basis = charge(refused)
    assert charged_basis is basis
    assert bool(cost) is (basis is Basis.REPORTED)
    assert json.loads(refused.raw or "")["output_tokens"] == 5


def test_container_of_tools_is_an_object_for_later_requests() -> None:
    stopped = event(
        "message_delta",
        delta={"stop_reason": "end_turn", "container": {"id": "container_1", "expires_at": "2026-11-23T00:00:00Z"}},
        usage={"output_tokens": 3},
    )

    assert report(start(input_tokens=2), stopped, STOP).objects == ("container_1",)


def test_unknown_events_and_large_tool_results_are_ignored() -> None:
    result = block("web_search_tool_result", content=[{"type": "web_search_result", "encrypted_content": "x" * 9000}])
    streamed = report(
        start(input_tokens=2), event("weather", sun=True), PING, result, b": comment\n\n", delta(output_tokens=7), STOP
    )

    assert streamed.basis is Basis.REPORTED


def test_event_name_is_not_needed() -> None:
    data = start(input_tokens=2) + text("hello") + delta(output_tokens=7) + STOP
    bare = b"".join(line + b"\n" for line in data.split(b"\n") if not line.startswith(b"event:"))

    assert counts(read(make_reader(FACTS, SSE), [bare])) == [(MODEL, {"input_tokens": 2, "output_tokens": 7})]


def test_crlf_line_ends_are_read() -> None:
    data = start(input_tokens=2) + block() + text("a\u2028b" * 10) + delta(output_tokens=7) + STOP

    streamed = read_three_ways(lambda: make_reader(FACTS, SSE), data.replace(b"\n", b"\r\n"))

    assert counts(streamed) == [(MODEL, {"input_tokens": 2, "output_tokens": 7})]


def test_event_without_an_end_leaves_an_estimate() -> None:
    endless = b"data: " + b"x" * MAX_EVENT_BYTES

    streamed = report(start(input_tokens=9, output_tokens=1), text("a" * 40), endless, b"more", delta(output_tokens=7))

    assert streamed.basis is Basis.ESTIMATED
    assert count_by_meter(streamed.items[0]) == {"input_tokens": 9, "output_tokens": 10}
    assert streamed.faults == ("an event of the stream is too large to be read",)


def test_complete_body_without_an_event_is_estimated() -> None:
    assert report(b"\n\n").basis is Basis.ESTIMATED


SAMPLE = start(input_tokens=9, output_tokens=1) + block() + text("Grüße \u2028 \U0001f600") + PING + OVERLOADED


@given(cuts=st.lists(st.integers(0, 10**6), max_size=12))
def test_cuts_do_not_change_the_report(cuts: list[int]) -> None:
    assert read(make_reader(FACTS, SSE), pieces(SAMPLE, cuts)) == read(make_reader(FACTS, SSE), [SAMPLE])


@given(chunks=st.lists(st.binary(max_size=60), max_size=8), complete=st.booleans())
def test_random_bytes_never_raise(chunks: list[bytes], complete: bool) -> None:
    read(MessageStreamReader(FACTS), chunks, complete=complete)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KINDS = ("message_start", "message_delta", "content_block_start", "content_block_delta", "message_stop", "error")
MEMBERS = ("message", "delta", "usage", "content_block", "error")
USAGE_MEMBERS = (*COUNTS, "iterations", "cache_creation", "server_tool_use", "service_tier", "fallback_credit")
ODD_USAGES = st.dictionaries(st.sampled_from(USAGE_MEMBERS), JSON_VALUES)
ODD_MEMBERS = JSON_VALUES | ODD_USAGES | st.fixed_dictionaries({"id": JSON_VALUES, "usage": ODD_USAGES})


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(MEMBERS), ODD_MEMBERS)), max_size=6))
def test_events_of_any_shape_never_raise_or_give_negative_counts(
    events: list[tuple[str, dict[str, Any]]],
) -> None:
    odd = report(*(event(kind, **members) for kind, members in events))

    assert all(quantity.amount > 0 for item in odd.items for quantity in item.quantities)


@pytest.mark.parametrize(
    ("raw", "length"),
    [
        pytest.param(text("Hello"), 5, id="compact"),
        pytest.param(text(""), 0, id="empty"),
        pytest.param(text("Grüße"), 7, id="utf-8"),
        pytest.param(text('say ":" twice'), 15, id="quotes are escaped"),
        pytest.param(text("x")[:-3] + b"}      \n\n", 1, id="padding is not text"),
        pytest.param(
            b'event: content_block_delta\ndata: {"delta": {"type": "text_delta", "text": "Hello"}}\n\n', 5, id="spaces"
        ),
        pytest.param(b"event: content_block_delta\ndata: {}\n\n", 0, id="no text"),
    ],
)
def test_text_of_a_delta_is_measured_without_parsing(raw: bytes, length: int) -> None:
    assert measure_text(raw) == length
