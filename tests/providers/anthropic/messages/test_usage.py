from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.anthropic.streams import counted
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import UsageItem
from tornado_proxy.providers.anthropic.messages.usage import find_fallback_model, read_items

SERVING = "claude-opus-4-8"


def read(
    usage: dict[str, Any], *, model: str = SERVING, fell_back: bool = False
) -> tuple[tuple[UsageItem, ...], list[str]]:
    faults: list[str] = []
    return read_items(usage, model, faults, fell_back=fell_back), faults


@pytest.mark.parametrize(
    ("total", "split", "short", "long"),
    [
        pytest.param(100, (60, 40), 60, 40, id="the split covers the total"),
        pytest.param(20718, (12016, 0), 20718, 0, id="what the split leaves out was written for five minutes"),
        pytest.param(100, (0, 30), 70, 30, id="only the hour is stated"),
        pytest.param(100, (0, 130), 0, 100, id="the hour cannot exceed the total"),
        pytest.param(0, (50, 50), 0, 0, id="a total of 0 is a statement"),
        pytest.param(None, (60, 40), 60, 40, id="without a total the split counts"),
        pytest.param(100, None, 100, 0, id="without a split all is five minutes"),
        pytest.param(None, None, 0, 0, id="nothing was written"),
    ],
)
def test_the_total_of_cache_writes_is_authoritative(
    total: int | None, split: tuple[int, int] | None, short: int, long: int
) -> None:
    usage: dict[str, Any] = {"input_tokens": 1, "cache_creation_input_tokens": total}
    if split is not None:
        usage["cache_creation"] = {"ephemeral_5m_input_tokens": split[0], "ephemeral_1h_input_tokens": split[1]}

    (reading,), faults = read(usage)

    found = counted(reading)
    assert (found.get("cache_write_5m_tokens", 0), found.get("cache_write_1h_tokens", 0)) == (short, long)
    assert reading.context_tokens == 1 + short + long
    assert faults == []


def test_the_context_is_the_sum_of_the_three_parts_and_nothing_is_subtracted() -> None:
    usage = {
        "input_tokens": 6,
        "cache_read_input_tokens": 6289,
        "cache_creation_input_tokens": 3337,
        "output_tokens": 1,
    }

    (reading,), _ = read(usage)

    assert reading.context_tokens == 9632
    assert counted(reading) == {
        "input_tokens": 6,
        "cached_input_tokens": 6289,
        "cache_write_5m_tokens": 3337,
        "output_tokens": 1,
    }


def test_thinking_and_web_fetches_add_nothing() -> None:
    usage = {
        "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 8},
        "server_tool_use": {"web_fetch_requests": 5, "web_search_requests": 2},
    }

    (reading,), _ = read(usage)

    assert counted(reading) == {"output_tokens": 9, "web_searches": 2}


def test_terms_are_the_providers_own_words() -> None:
    usage = {"input_tokens": 1, "service_tier": "priority", "speed": "fast", "inference_geo": "us"}

    (reading,), _ = read(usage)

    assert reading.terms == Terms("priority", "fast", "us")


def iteration(kind: str, model: str | None = None, read: int = 10, written: int = 1) -> dict[str, Any]:
    one: dict[str, Any] = {"type": kind, "input_tokens": read, "output_tokens": written}
    return one if model is None else {**one, "model": model}


def test_compactions_and_advisors_are_charged_beside_the_top_level() -> None:
    usage = {
        "input_tokens": 682,
        "output_tokens": 1320,
        "service_tier": "standard",
        "speed": "fast",
        "iterations": [
            iteration("compaction", read=60385, written=592),
            iteration("message", read=682, written=1320),
            iteration("advisor_message", "claude-fable-5-2", read=2728, written=40),
        ],
    }

    readings, faults = read(usage)

    assert [(one.model, one.terms.speed, counted(one)) for one in readings] == [
        (SERVING, "fast", {"input_tokens": 682, "output_tokens": 1320}),
        (SERVING, "fast", {"input_tokens": 60385, "output_tokens": 592}),
        ("claude-fable-5-2", None, {"input_tokens": 2728, "output_tokens": 40}),
    ]
    assert {one.terms.service_tier for one in readings} == {"standard"}
    assert faults == []


@pytest.mark.parametrize(
    ("declined", "charged"),
    [
        pytest.param(iteration("message", "claude-fable-5", 408, 0), [], id="before output: free"),
        pytest.param(
            iteration("message", "claude-fable-5", 408, 12),
            [("claude-fable-5", {"input_tokens": 408, "output_tokens": 12})],
            id="after output: at its own model",
        ),
        pytest.param(iteration("message", SERVING, 5, 6), [], id="a call of the serving model is in the top level"),
    ],
)
def test_a_hop_that_declined_is_charged_if_it_made_output(declined: dict[str, Any], charged: list[Any]) -> None:
    usage = {
        "input_tokens": 412,
        "output_tokens": 264,
        "iterations": [declined, iteration("fallback_message", SERVING, 412, 264)],
    }

    readings, _ = read(usage, fell_back=True)

    assert [(one.model, counted(one)) for one in readings[1:]] == charged
    assert counted(readings[0]) == {"input_tokens": 412, "output_tokens": 264}


def test_without_a_fallback_a_call_named_by_an_alias_is_not_charged_twice() -> None:
    usage = {"input_tokens": 10, "output_tokens": 1, "iterations": [iteration("message", "claude-opus-4-8-alias")]}

    readings, faults = read(usage)

    assert len(readings) == 1
    assert faults == []


def test_the_last_fallback_message_names_the_model_that_served() -> None:
    usage = {"iterations": [iteration("message", "a"), iteration("fallback_message", "b"), "odd"]}

    assert find_fallback_model(usage) == "b"
    assert find_fallback_model({"iterations": None}) is None


def test_a_call_of_an_unknown_kind_is_a_fault() -> None:
    _, faults = read({"input_tokens": 1, "iterations": [iteration("dream")]})

    assert faults == ["usage.iterations contains the unknown type 'dream'"]


@pytest.mark.parametrize("odd", [-1, "7", 1.5, True, [], {}])
def test_what_is_no_count_is_a_fault_and_counts_nothing(odd: object) -> None:
    (reading,), faults = read({"input_tokens": odd, "output_tokens": 2})

    assert counted(reading) == {"output_tokens": 2}
    assert len(faults) == 1


@given(
    fresh=st.integers(0, 10**9),
    cached=st.integers(0, 10**9),
    total=st.integers(0, 10**9),
    short=st.integers(0, 10**9),
    long=st.integers(0, 10**9),
)
def test_every_input_token_is_counted_once(fresh: int, cached: int, total: int, short: int, long: int) -> None:
    split = {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long}
    usage = {
        "input_tokens": fresh,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": total,
        "cache_creation": split,
    }

    (reading,), _ = read(usage)

    assert sum(counted(reading).values()) == fresh + cached + total == reading.context_tokens
