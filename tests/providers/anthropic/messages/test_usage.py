from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.anthropic.streams import count_by_meter
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import UsageItem
from tornado_proxy.providers.anthropic.messages.attempt import Attempt, find_fallback_model
from tornado_proxy.providers.anthropic.messages.usage import Findings, read_items

SERVING = "claude-opus-4-8"


def read(
    usage: dict[str, Any], *, model: str = SERVING, fell_back: bool = False
) -> tuple[tuple[UsageItem, ...], list[str]]:
    """Return the items and the faults of a usage object."""
    findings = Findings()
    return read_items(usage, Attempt(model, fell_back=fell_back), findings), findings.faults


@pytest.mark.parametrize(
    ("total", "split", "short", "long"),
    [
        pytest.param(100, (60, 40), 60, 40, id="the split covers the total"),
        pytest.param(20718, (12016, 0), 20718, 0, id="tokens outside the split are written for five minutes"),
        pytest.param(100, (0, 30), 70, 30, id="only the hour is stated"),
        pytest.param(100, (0, 130), 0, 100, id="the hour cannot exceed the total"),
        pytest.param(0, (50, 50), 0, 0, id="a total of 0 is a value"),
        pytest.param(None, (60, 40), 60, 40, id="without a total the split counts"),
        pytest.param(100, None, 100, 0, id="without a split all is five minutes"),
        pytest.param(None, None, 0, 0, id="no cache writes"),
    ],
)
def test_total_of_cache_writes_is_authoritative(
    total: int | None, split: tuple[int, int] | None, short: int, long: int
) -> None:
    usage: dict[str, Any] = {"input_tokens": 1, "cache_creation_input_tokens": total}
    if split is not None:
        usage["cache_creation"] = {"ephemeral_5m_input_tokens": split[0], "ephemeral_1h_input_tokens": split[1]}

    (item,), faults = read(usage)

    found = count_by_meter(item)
    assert (found.get("cache_write_5m_tokens", 0), found.get("cache_write_1h_tokens", 0)) == (short, long)
    assert item.context_tokens == 1 + short + long
    assert faults == []


def test_context_is_the_sum_of_the_three_input_parts() -> None:
    usage = {
        "input_tokens": 6,
        "cache_read_input_tokens": 6289,
        "cache_creation_input_tokens": 3337,
        "output_tokens": 1,
    }

    (item,), _ = read(usage)

    assert item.context_tokens == 9632
    assert count_by_meter(item) == {
        "input_tokens": 6,
        "cached_input_tokens": 6289,
        "cache_write_5m_tokens": 3337,
        "output_tokens": 1,
    }


def test_thinking_and_web_fetches_add_no_quantity() -> None:
    usage = {
        "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 8},
        "server_tool_use": {"web_fetch_requests": 5, "web_search_requests": 2},
    }

    (item,), _ = read(usage)

    assert count_by_meter(item) == {"output_tokens": 9, "web_searches": 2}


def test_terms_are_in_the_providers_words() -> None:
    usage = {"input_tokens": 1, "service_tier": "priority", "speed": "fast", "inference_geo": "us"}

    (item,), _ = read(usage)

    assert item.terms == Terms("priority", "fast", "us")


def iteration(kind: str, model: str | None = None, read: int = 10, written: int = 1) -> dict[str, Any]:
    """Return an entry of `iterations`."""
    run: dict[str, Any] = {"type": kind, "input_tokens": read, "output_tokens": written}
    return run if model is None else {**run, "model": model}


def test_compactions_and_advisors_are_charged_in_addition_to_the_top_level() -> None:
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

    items, faults = read(usage)

    assert [(item.model, item.terms.speed, count_by_meter(item)) for item in items] == [
        (SERVING, "fast", {"input_tokens": 682, "output_tokens": 1320}),
        (SERVING, "fast", {"input_tokens": 60385, "output_tokens": 592}),
        ("claude-fable-5-2", None, {"input_tokens": 2728, "output_tokens": 40}),
    ]
    assert {item.terms.service_tier for item in items} == {"standard"}
    assert faults == []


@pytest.mark.parametrize(
    ("declined", "items_of_attempts"),
    [
        pytest.param(
            iteration("message", "claude-fable-5", 408, 0),
            [("claude-fable-5", "none", {"input_tokens": 408})],
            id="before output: a refusal",
        ),
        pytest.param(
            iteration("message", "claude-fable-5", 408, 12),
            [("claude-fable-5", None, {"input_tokens": 408, "output_tokens": 12})],
            id="after output: at its own model",
        ),
        pytest.param(iteration("message", SERVING, 5, 6), [], id="a run of the serving model is in the top level"),
    ],
)
def test_attempt_that_declined_is_an_item_of_its_own(declined: dict[str, Any], items_of_attempts: list[Any]) -> None:
    usage = {
        "input_tokens": 412,
        "output_tokens": 264,
        "iterations": [declined, iteration("fallback_message", SERVING, 412, 264)],
    }

    items, _ = read(usage, fell_back=True)

    assert [(item.model, item.refusal, count_by_meter(item)) for item in items[1:]] == items_of_attempts
    assert count_by_meter(items[0]) == {"input_tokens": 412, "output_tokens": 264}


def test_without_a_fallback_a_run_named_by_an_alias_is_not_charged_twice() -> None:
    usage = {"input_tokens": 10, "output_tokens": 1, "iterations": [iteration("message", "claude-opus-4-8-alias")]}

    items, faults = read(usage)

    assert len(items) == 1
    assert faults == []


def test_last_fallback_message_names_the_serving_model() -> None:
    usage = {"iterations": [iteration("message", "a"), iteration("fallback_message", "b"), "odd"]}

    assert find_fallback_model(usage) == "b"
    assert find_fallback_model({"iterations": None}) is None


def test_iteration_of_an_unknown_type_is_a_fault() -> None:
    _, faults = read({"input_tokens": 1, "iterations": [iteration("dream"), {"type": []}]})

    assert faults == [
        "usage.iterations contains the unknown type 'dream'",
        "usage.iterations contains the unknown type '[]'",
    ]


@pytest.mark.parametrize("value", [-1, "7", 1.5, True, [], {}])
def test_value_that_is_not_a_count_is_a_fault_and_adds_no_quantity(value: object) -> None:
    (item,), faults = read({"input_tokens": value, "output_tokens": 2})

    assert count_by_meter(item) == {"output_tokens": 2}
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

    (item,), _ = read(usage)

    assert sum(count_by_meter(item).values()) == fresh + cached + total == item.context_tokens
