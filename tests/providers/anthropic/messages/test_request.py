from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.domain.errors import BadRequest, InvalidBody
from tornado_proxy.domain.request import RequestFacts, Spend, WorkLimits
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Meter
from tornado_proxy.providers.anthropic import complete, count_tokens
from tornado_proxy.providers.anthropic.batches import endpoint as batches
from tornado_proxy.providers.anthropic.messages import endpoint as messages
from tornado_proxy.providers.contract import RequestView

MODEL = "claude-opus-5"
TEXT = frozenset({Meter.INPUT, Meter.OUTPUT})
SEARCHES = frozenset({Meter.WEB_SEARCHES})


def facts(**members: Any) -> RequestFacts:
    """Return the facts of a request with `members`."""
    body = json.dumps({"model": MODEL, "max_tokens": 5, "messages": [], **members}).encode()
    parsed = messages.parse(RequestView(body, "application/json"))
    assert parsed.body is body
    return parsed.facts


def test_plain_request_has_one_spend_at_its_model() -> None:
    assert facts(stream=True, service_tier="standard_only") == RequestFacts(
        model=MODEL,
        spends=(Spend(MODEL, TEXT, terms=Terms("standard_only")),),
        stream=True,
        terms=Terms("standard_only"),
        body_bytes=len(
            json.dumps(
                {"model": MODEL, "max_tokens": 5, "messages": [], "stream": True, "service_tier": "standard_only"}
            )
        ),
        work=WorkLimits(output_tokens=5, text_only=True),
    )


def test_speed_and_region_are_terms_of_the_spend() -> None:
    (spend,) = facts(speed="fast", inference_geo="us").spends

    assert spend == Spend(MODEL, TEXT, terms=Terms(speed="fast", inference_geo="us"))


def test_advisor_is_a_spend_at_standard_speed() -> None:
    tools = [
        {"name": "f", "input_schema": {}},
        {"type": "advisor_20260301", "name": "advisor", "model": "claude-fable-5"},
    ]

    assert facts(tools=tools, speed="fast", service_tier="auto").spends == (
        Spend(MODEL, TEXT, terms=Terms("auto", "fast")),
        Spend("claude-fable-5", TEXT, terms=Terms("auto")),
    )


def test_fallbacks_are_spends_at_the_speed_they_name() -> None:
    fallbacks = [{"model": "claude-opus-4-8"}, {"model": "claude-opus-5-5", "speed": "fast"}]

    assert facts(fallbacks=fallbacks).spends[1:] == (
        Spend("claude-opus-4-8", TEXT),
        Spend("claude-opus-5-5", TEXT, terms=Terms(speed="fast")),
    )


def test_default_fallbacks_add_no_spend() -> None:
    assert facts(fallbacks="default").spends == (Spend(MODEL, TEXT),)


@pytest.mark.parametrize("kind", ["web_search_20250305", "web_search_20260209"])
def test_search_tool_can_charge_for_searches(kind: str) -> None:
    assert facts(tools=[{"type": kind, "name": "web_search"}]).spends[1:] == (Spend(MODEL, SEARCHES),)


@pytest.mark.parametrize("kind", ["web_fetch_20260209", "bash_20250124", None, 7])
def test_other_tools_charge_tokens_only(kind: object) -> None:
    assert len(facts(tools=[{"type": kind, "name": "tool"}]).spends) == 1


@pytest.mark.parametrize(
    ("kinds", "charged"),
    [
        pytest.param(["code_execution_20250522"], True, id="alone"),
        pytest.param(["code_execution_20260120", "bash_20250124"], True, id="beside another tool"),
        pytest.param(["code_execution_20260120", "web_search_20250305"], True, id="beside an old search"),
        pytest.param(["code_execution_20260120", "web_fetch_20250910"], True, id="beside an old fetch"),
        pytest.param(["code_execution_20260120", "web_search_20260209"], False, id="beside a search of 2026-02-09"),
        pytest.param(["web_fetch_20260209", "code_execution_20250825"], False, id="beside a fetch of 2026-02-09"),
        pytest.param(["code_execution_20260120", "web_search_20261001"], False, id="beside a later search"),
        pytest.param(["web_search_20260209"], False, id="not declared"),
    ],
)
def test_code_execution_can_charge_for_its_time_unless_web_tools_make_it_free(kinds: list[str], charged: bool) -> None:
    found = facts(tools=[{"type": kind, "name": "tool"} for kind in kinds])

    assert (Spend(MODEL, frozenset({Meter.CONTAINER_SECONDS})) in found.spends) is charged
    assert found.charges_code_execution is charged


def test_each_spend_is_listed_once() -> None:
    tools = [{"type": "web_search_20250305"}, {"type": "web_search_20260209"}]

    assert len(facts(tools=tools, fallbacks=[{"model": MODEL}]).spends) == 2


@pytest.mark.parametrize("container", ["container_1", {"id": "container_1", "skills": []}])
def test_named_container_is_a_reference(container: object) -> None:
    assert facts(container=container).references == ("container_1",)


def test_new_container_is_no_reference() -> None:
    assert facts(container={"skills": []}).references == ()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"[]", "object", id="not an object"),
        pytest.param(b'{"max_tokens":5}', '"model" is missing', id="no model"),
        pytest.param(b'{"model":7}', '"model" must be text', id="model of another kind"),
        pytest.param(b'{"model":"a","model":"b"}', "twice", id="two models"),
        pytest.param(b'{"model":"a","mode\\u006c":"b"}', "twice", id="two models, one escaped"),
        pytest.param(b'{"model":"a","tools":[],"tools":[{"model":"b"}]}', "twice", id="two lists of tools"),
        pytest.param(b'{"model":"a","tools":[{"model":"b","model":"c"}]}', "entry of tools", id="two advisors in one"),
        pytest.param(b'{"model":"a","tools":[{"model":["b"]}]}', "entry of tools", id="advisor of another kind"),
        pytest.param(b'{"model":"a","fallbacks":[{"model":"b","model":null}]}', "entry of fallbacks", id="two hops"),
        pytest.param(b'{"model":"a","fallbacks":{"model":"b"}}', "must be a list", id="fallbacks of another kind"),
        pytest.param(b'{"model":"a","tools":{"model":"b"}}', "must be a list", id="tools of another kind"),
        pytest.param(b'{"model":"a","stream":"yes"}', "true or false", id="stream of another kind"),
        pytest.param(b'{"model":"a","speed":1}', '"speed" must be text', id="speed of another kind"),
    ],
)
def test_body_that_parsers_could_read_differently_is_rejected(body: bytes, message: str) -> None:
    with pytest.raises(InvalidBody, match=message):
        messages.parse(RequestView(body, "application/json"))


def test_tools_with_an_escaped_name_are_found() -> None:
    body = b'{"model":"a","tool\\u0073":[{"model":"b"}]}'

    assert [spend.model for spend in messages.parse(RequestView(body, "")).facts.spends] == ["a", "b"]


@pytest.mark.parametrize("parse", [messages.parse, batches.parse, complete.parse, count_tokens.parse])
@given(body=st.binary(max_size=60))
def test_random_bodies_are_rejected_with_400(parse: Any, body: bytes) -> None:
    with pytest.raises(BadRequest):
        parse(RequestView(body, "application/json"))


def test_counting_tokens_is_a_spend_without_meters() -> None:
    body = b'{"model":"claude-opus-5","messages":[],"fallbacks":[{"model":"x"}],"speed":"fast"}'

    assert count_tokens.parse(RequestView(body, "")).facts == RequestFacts(
        model=MODEL, spends=(Spend(MODEL, frozenset()),), body_bytes=len(body)
    )


def test_legacy_completion_has_one_spend_at_its_model() -> None:
    assert complete.parse(RequestView(b'{"model":"claude-2","prompt":"hi"}', "")).facts.spends == (
        Spend("claude-2", TEXT),
    )
