from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from tests.providers.anthropic.costs import charge
from tests.providers.anthropic.streams import JSON, SSE, STOP, delta, start
from tests.providers.reading import read
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis
from tornado_proxy.providers.anthropic.batches.endpoint import parse as parse_batch
from tornado_proxy.providers.anthropic.batches.results import BatchResultsReader
from tornado_proxy.providers.anthropic.messages.cache_lifetime import find_cache_ttl
from tornado_proxy.providers.anthropic.messages.endpoint import make_reader, parse
from tornado_proxy.providers.contract import RequestView

MODEL = "claude-opus-4-8"  # USD per million: written for five minutes 6.25, for an hour 10
NOT_STATED = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}


def facts(ttl: str | None) -> RequestFacts:
    return RequestFacts(model=MODEL, terms=Terms(cache_ttl=ttl))


def split(short: int, long: int) -> dict[str, int]:
    return {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long}


@pytest.mark.parametrize(
    ("ttl", "cost"),
    [
        pytest.param("1h", "0.2", id="an hour"),
        pytest.param("5m", "0.125", id="five minutes"),
        pytest.param(None, "0.125", id="the default"),
    ],
)
def test_writes_that_grow_after_their_split_have_the_lifetime_of_the_request(ttl: str | None, cost: str) -> None:
    events = (
        start(model=MODEL, input_tokens=0, cache_creation_input_tokens=0, cache_creation=NOT_STATED),
        delta(output_tokens=0, cache_creation_input_tokens=20_000),
        STOP,
    )

    report = read(make_reader(facts(ttl), SSE), events)

    assert charge(report) == (Decimal(cost), Basis.INFERRED)
    assert report.faults == (
        f"the lifetime of 20000 tokens written to the cache is not stated; the request's is {ttl or '5m'}",
    )


def test_split_of_the_iterations_is_charged_as_stated() -> None:
    runs = [
        {"type": "message", "cache_creation_input_tokens": 8_000, "cache_creation": split(0, 8_000)},
        {"type": "message", "cache_creation_input_tokens": 12_000, "cache_creation": split(0, 12_000)},
    ]
    events = (
        start(model=MODEL, cache_creation_input_tokens=0, cache_creation=NOT_STATED),
        delta(output_tokens=0, cache_creation_input_tokens=20_000, iterations=runs),
        STOP,
    )

    assert charge(read(make_reader(facts("5m"), SSE), events)) == (Decimal("0.2"), Basis.REPORTED)


def test_tokens_outside_a_partial_split_have_the_lifetime_of_the_request() -> None:
    usage = {"cache_creation_input_tokens": 10_000, "cache_creation": split(4_000, 1_000), "output_tokens": 0}
    body = json.dumps({"model": MODEL, "content": [{"type": "text", "text": "a"}], "usage": usage}).encode()

    # 4,000 x 6.25 + 6,000 x 10; for five minutes 9,000 x 6.25 + 1,000 x 10.
    assert charge(read(make_reader(facts("1h"), JSON), [body])) == (Decimal("0.085"), Basis.INFERRED)
    assert charge(read(make_reader(facts("5m"), JSON), [body])) == (Decimal("0.06625"), Basis.INFERRED)


def test_split_of_a_batch_result_is_inferred_from_the_batch() -> None:
    message = {"model": MODEL, "content": [{"type": "text"}], "usage": {"cache_creation_input_tokens": 10_000}}
    line = {"custom_id": "a", "result": {"type": "succeeded", "message": message}}

    report = read(BatchResultsReader(facts("1h")), [json.dumps(line).encode()])

    assert charge(report) == (Decimal("0.05"), Basis.INFERRED)  # 10,000 x 5


def request(**members: Any) -> RequestView:
    return RequestView(json.dumps({"model": MODEL, "messages": [], **members}).encode())


HOUR = {"type": "ephemeral", "ttl": "1h"}
SHORT = {"type": "ephemeral"}


@pytest.mark.parametrize(
    ("members", "ttl"),
    [
        pytest.param({}, None, id="no breakpoint"),
        pytest.param({"cache_control": HOUR}, "1h", id="automatic caching"),
        pytest.param({"system": [{"type": "text", "text": "a", "cache_control": SHORT}]}, "5m", id="the default"),
        pytest.param({"tools": [{"name": "a", "cache_control": HOUR}], "cache_control": SHORT}, "1h", id="the longer"),
        pytest.param({"metadata": {"user_id": '"cache_control":{"ttl":"1h"}'}}, None, id="inside a text"),
        pytest.param({"system": [{"cache_control": None}]}, None, id="null"),
    ],
)
def test_longest_lifetime_of_the_breakpoints_is_found(members: dict[str, Any], ttl: str | None) -> None:
    assert parse(request(**members)).facts.terms.cache_ttl == ttl


def test_batch_has_the_longest_lifetime_of_its_requests() -> None:
    params = [{"model": MODEL, "cache_control": control} for control in (SHORT, HOUR)]
    body = {"requests": [{"custom_id": str(index), "params": entry} for index, entry in enumerate(params)]}

    assert parse_batch(RequestView(json.dumps(body).encode())).facts.terms.cache_ttl == "1h"


def test_search_of_a_body_full_of_breakpoints_is_linear() -> None:
    assert find_cache_ttl(b'{"cache_control":{"a":' * 300_000) is None
