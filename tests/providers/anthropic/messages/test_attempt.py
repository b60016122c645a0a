"""Refusals and fallbacks at exact cost.

Prices in USD per million tokens (input, output): claude-fable-5 10, 50; claude-opus-4-8 5, 25, fast 10, 50;
claude-sonnet-5 2, 10.  Source of the rules: Claude docs, "Refusals and fallback".
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.providers.anthropic.costs import charge
from tests.providers.anthropic.streams import JSON, SSE, STOP, block, delta, event, start, text
from tests.providers.reading import read, read_three_ways
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, Meter
from tornado_proxy.providers.anthropic.batches.results import BatchResultsReader
from tornado_proxy.providers.anthropic.messages.endpoint import make_reader

FABLE, OPUS = "claude-fable-5", "claude-opus-4-8"
FACTS = RequestFacts(model=FABLE, spends=(Spend(FABLE, frozenset({Meter.INPUT})),))


def utc(*day: int) -> datetime:
    return datetime(*day, tzinfo=UTC)  # type: ignore[arg-type]


def iteration(kind: str, model: str | None, read: int, written: int, **members: Any) -> dict[str, Any]:
    return {"type": kind, "model": model, "input_tokens": read, "output_tokens": written, **members}


def fallback(category: str | None, source: str = FABLE, target: str = OPUS) -> dict[str, Any]:
    trigger = {"type": "refusal", "category": category}
    return {"type": "fallback", "from": {"model": source}, "to": {"model": target}, "trigger": trigger}


def message(usage: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"id": "msg_1", "type": "message", "model": FABLE, "usage": usage, **members}


def refusal(category: str | None, usage: dict[str, Any], content: Iterable[Any] = ()) -> dict[str, Any]:
    details = {"type": "refusal", "category": category}
    return message(usage, content=list(content), stop_reason="refusal", stop_details=details)


def charge_json(body: dict[str, Any], at: datetime | None = None, facts: RequestFacts = FACTS) -> tuple[Decimal, Basis]:
    report = read(make_reader(facts, JSON), [json.dumps(body).encode()])
    # One that is too large to be decoded whole has the same report.
    assert read(make_reader(facts, JSON), [json.dumps({"text": "so on " * 12_000, **body}).encode()]) == report
    return charge(report) if at is None else charge(report, at)


def stream_of(body: dict[str, Any]) -> bytes:
    """Return `body` as an event stream: its usage arrives with the message_delta."""
    begin = start(model=body["model"], input_tokens=1, output_tokens=1)
    blocks = b"".join(
        event("content_block_start", index=index, content_block=content)
        for index, content in enumerate(body["content"])
    )
    details = {"stop_reason": body["stop_reason"], "stop_details": body.get("stop_details")}
    return begin + blocks + event("message_delta", delta=details, usage=body["usage"]) + STOP


PROMPT = {"input_tokens": 100_000, "output_tokens": 0}


@pytest.mark.parametrize(
    ("category", "cost", "basis"),
    [
        pytest.param("bio", "1", Basis.REPORTED, id="bio"),
        pytest.param("frontier_llm", "1", Basis.REPORTED, id="frontier_llm"),
        pytest.param("reasoning_extraction", "1", Basis.REPORTED, id="reasoning_extraction"),
        pytest.param("cyber", "0", Basis.FREE, id="cyber"),
        pytest.param("general_harms", "0", Basis.FREE, id="general_harms"),
        pytest.param(None, "0", Basis.FREE, id="no category"),
    ],
)
def test_category_decides_the_charge_of_a_refusal_without_output(category: str | None, cost: str, basis: Basis) -> None:
    body = refusal(category, PROMPT)
    streamed = read_three_ways(lambda: make_reader(FACTS, SSE), stream_of(body))
    result = {"custom_id": "a", "result": {"type": "succeeded", "message": body}}
    batch = read(BatchResultsReader(), [json.dumps(result).encode()])

    assert charge_json(body) == (Decimal(cost), basis)
    assert charge(streamed) == (Decimal(cost), basis)
    assert charge(batch) == (Decimal(cost) / 2, basis)


@pytest.mark.parametrize(
    ("at", "cost"),
    [
        pytest.param(utc(2026, 6, 1, 23), "1", id="before refusals became free"),
        pytest.param(utc(2026, 6, 2), "0", id="first free day"),
        pytest.param(utc(2026, 9, 23, 23), "0", id="last free day"),
        pytest.param(utc(2026, 9, 24), "1", id="first charged day"),
    ],
)
def test_charge_of_a_refusal_depends_on_its_day(at: datetime, cost: str) -> None:
    assert charge_json(refusal("bio", PROMPT), at)[0] == Decimal(cost)


def test_refusal_of_a_new_category_is_charged_and_unsettled() -> None:
    assert charge_json(refusal("chemistry", PROMPT)) == (Decimal(1), Basis.UNSETTLED)


def test_refusal_after_output_is_charged_whatever_its_category() -> None:
    body = refusal("cyber", {"input_tokens": 100_000, "output_tokens": 1_000}, [{"type": "text", "text": "I"}])

    assert charge_json(body) == (Decimal("1.05"), Basis.REPORTED)


SERVED = {"input_tokens": 54_000, "output_tokens": 1_000}  # opus: 0.27 + 0.025


@pytest.mark.parametrize(
    ("category", "cost"),
    [
        pytest.param("bio", "0.83", id="bio: 53,500 tokens of fable are 0.535 more"),
        pytest.param("frontier_llm", "0.83", id="frontier_llm"),
        pytest.param("cyber", "0.295", id="cyber"),
        pytest.param(None, "0.295", id="no category"),
    ],
)
def test_declined_attempt_is_charged_if_its_category_is(category: str | None, cost: str) -> None:
    runs = [iteration("message", FABLE, 53_500, 0), iteration("fallback_message", OPUS, 54_000, 1_000)]
    content = [fallback(category), {"type": "text", "text": "ok"}]
    body = message({**SERVED, "iterations": runs}, content=content, stop_reason="end_turn")

    assert charge_json(body) == (Decimal(cost), Basis.REPORTED)
    assert charge(read(make_reader(FACTS, SSE), [stream_of(body)])) == (Decimal(cost), Basis.REPORTED)


def test_each_of_two_declined_attempts_has_its_own_category_and_price() -> None:
    sonnet = "claude-sonnet-5"
    runs = [
        iteration("message", FABLE, 10_000, 0),
        iteration("message", sonnet, 10_000, 0),
        iteration("fallback_message", OPUS, 54_000, 1_000),
    ]
    content = [fallback("cyber", target=sonnet), fallback("bio", source=sonnet), {"type": "text", "text": "ok"}]
    body = message({**SERVED, "iterations": runs}, content=content, stop_reason="end_turn")

    # Fable is free; 10,000 tokens of sonnet are 0.02.
    assert charge_json(body) == (Decimal("0.315"), Basis.REPORTED)


def test_category_is_found_if_the_block_repeats_an_alias() -> None:
    runs = [iteration("message", FABLE, 53_500, 0), iteration("fallback_message", OPUS, 54_000, 1_000)]
    content = [fallback("bio", source="our-alias-of-fable"), {"type": "text", "text": "ok"}]
    body = message({**SERVED, "iterations": runs}, content=content, stop_reason="end_turn")

    assert charge_json(body)[0] == Decimal("0.83")


@pytest.mark.parametrize(
    ("own", "other", "cost"),
    [
        # Fable 0.535; opus fast 0.54 + 0.05.
        pytest.param(None, "fast", "1.125", id="standard, then a fast fallback"),
        # claude-opus-5-5 fast: 8; opus-4-8 0.27 + 0.025.
        pytest.param("fast", None, "0.723", id="fast, then a standard fallback"),
    ],
)
def test_declined_attempt_is_charged_at_its_own_speed(own: str | None, other: str | None, cost: str) -> None:
    first = FABLE if own is None else "claude-opus-5-5"
    spends = tuple(
        Spend(model, frozenset({Meter.INPUT}), terms=Terms(speed=speed))
        for model, speed in ((first, own), (OPUS, other))
    )
    facts = RequestFacts(model=first, spends=spends)
    runs = [iteration("message", first, 53_500, 0), iteration("fallback_message", OPUS, 54_000, 1_000)]
    usage = {**SERVED, "speed": other or "standard", "iterations": runs}
    content = [fallback("bio", source=first), {"type": "text", "text": "ok"}]
    body = message(usage, content=content, stop_reason="end_turn")

    assert charge_json(body, facts=facts) == (Decimal(cost), Basis.REPORTED)


def test_attempt_with_output_is_charged_although_all_models_decline() -> None:
    runs = [iteration("message", FABLE, 50_000, 2_000), iteration("message", OPUS, 50_000, 0)]
    usage = {"input_tokens": 50_000, "output_tokens": 0, "iterations": runs}

    # 50,000 x 10 + 2,000 x 50.
    assert charge_json(refusal("cyber", usage, [fallback("cyber")])) == (Decimal("0.6"), Basis.REPORTED)
    # Its text stays in the content, before the block.
    shown = [{"type": "text", "text": "Step 1"}, fallback("cyber")]
    assert charge_json(refusal("cyber", usage, shown)) == (Decimal("0.6"), Basis.REPORTED)
    # The last prompt is charged too if its category is: 50,000 x 5.
    assert charge_json(refusal("bio", usage, [fallback("cyber")])) == (Decimal("0.85"), Basis.REPORTED)


def test_compaction_and_advisor_before_a_refusal_are_charged() -> None:
    runs = [
        iteration("compaction", None, 60_000, 1_000),  # fable: 0.6 + 0.05
        iteration("advisor_message", OPUS, 2_000, 100),  # 0.01 + 0.0025
        iteration("message", None, 700, 0),
    ]
    body = refusal(None, {"input_tokens": 700, "output_tokens": 0, "iterations": runs})

    assert charge_json(body) == (Decimal("0.6625"), Basis.REPORTED)
    assert charge(read(make_reader(FACTS, SSE), [stream_of(body)])) == (Decimal("0.6625"), Basis.REPORTED)


def test_stream_that_breaks_after_a_declined_attempt_is_estimated_at_the_serving_model() -> None:
    models = {name: value for name, value in fallback("bio").items() if name != "type"}
    events = (start(model=FABLE, input_tokens=400), block("fallback", **models), block(), text("a" * 40))

    report = read(make_reader(FACTS, SSE), events, complete=False)

    assert (report.basis, report.model) == (Basis.ESTIMATED, OPUS)
    assert charge(report)[0] == Decimal("0.00225")  # 400 x 5 + 10 x 25


def test_stream_states_the_category_in_its_last_delta() -> None:
    events = start(model=FABLE, input_tokens=18), delta("refusal", output_tokens=5), STOP

    assert charge(read(make_reader(FACTS, SSE), events)) == (Decimal(0), Basis.FREE)
