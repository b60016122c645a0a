"""The time of code execution is not stated: a message that used a container is an estimate, and names it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.providers.anthropic.costs import bundled_tariff
from tests.providers.anthropic.streams import JSON, MODEL, SSE, STOP, event, start
from tests.providers.reading import read, read_three_ways
from tornado_proxy.domain.terms import NO_TERMS
from tornado_proxy.domain.usage import Basis, ContainerUse, UsageReport
from tornado_proxy.providers.anthropic.batches.endpoint import parse as parse_batch
from tornado_proxy.providers.anthropic.batches.results import make_results_reader
from tornado_proxy.providers.anthropic.messages.endpoint import make_reader, parse
from tornado_proxy.providers.contract import RequestView

AT = datetime(2026, 11, 28, 12, 0, 0, tzinfo=UTC)
CODE = {"type": "code_execution_20260120", "name": "code_execution"}
SEARCH = {"type": "web_search_20260209", "name": "web_search"}
FETCH = {"type": "web_fetch_20260209", "name": "web_fetch"}
USAGE = {"input_tokens": 10, "output_tokens": 5}


def request(*tools: dict[str, Any]) -> bytes:
    return json.dumps({"model": MODEL, "max_tokens": 100, "messages": [], "tools": list(tools)}).encode()


def message(**members: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "model": MODEL,
        "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn",
        "usage": USAGE,
        **members,
    }


def report_of(tools: list[dict[str, Any]], **members: Any) -> UsageReport:
    facts = parse(RequestView(request(*tools), "")).facts
    return read(make_reader(facts, JSON), [json.dumps(message(**members)).encode()])


def test_container_of_code_execution_is_used_and_the_message_is_an_estimate() -> None:
    report = report_of([CODE], container={"id": "container_1", "expires_at": "2026-11-28T13:00:00Z"})

    note = "container container_1 was used; the response does not state its time"
    assert report.containers == (ContainerUse("container_1", NO_TERMS, note),)
    assert (report.basis, report.estimate_method, report.faults) == (Basis.ESTIMATED, "container_minimum", (note,))


@pytest.mark.parametrize(
    ("tools", "container"),
    [
        pytest.param([CODE, SEARCH], {"id": "container_1"}, id="beside a search"),
        pytest.param([CODE, FETCH], {"id": "container_1"}, id="beside a fetch"),
        pytest.param([SEARCH], {"id": "container_1"}, id="of a search"),
        pytest.param([CODE], None, id="no code ran"),
    ],
)
def test_code_execution_that_is_free_leaves_the_message_reported(tools: list[Any], container: object) -> None:
    report = report_of(tools, container=container)

    assert (report.containers, report.basis, report.faults) == ((), Basis.REPORTED, ())


def test_streamed_message_uses_its_container() -> None:
    facts = parse(RequestView(request(CODE), "")).facts
    end = {"stop_reason": "end_turn", "container": {"id": "container_1"}}
    stopped = event("message_delta", delta=end, usage={"output_tokens": 5})

    report = read_three_ways(lambda: make_reader(facts, SSE), b"".join((start(input_tokens=10), stopped, STOP)))

    assert [use.container_id for use in report.containers] == ["container_1"]
    assert report.basis is Basis.ESTIMATED


def test_batch_with_charged_code_execution_uses_the_containers_of_its_results() -> None:
    params = [json.loads(request(CODE)), json.loads(request(CODE, SEARCH))]
    body = {"requests": [{"custom_id": str(number), "params": one} for number, one in enumerate(params)]}
    facts = parse_batch(RequestView(json.dumps(body).encode(), "")).facts
    results = b"\n".join(
        json.dumps(
            {
                "custom_id": str(number),
                "result": {"type": "succeeded", "message": message(id=f"msg_{number}", container={"id": name})},
            }
        ).encode()
        for number, name in enumerate(("container_1", "container_2"))
    )

    report = read(make_results_reader(facts, JSON), [results])

    # A result does not say if its own request had the search tool: both are taken as charged.
    assert [use.container_id for use in report.containers] == ["container_1", "container_2"]
    assert report.basis is Basis.ESTIMATED


def test_price_of_a_container_has_the_allowance_and_the_minimum_of_the_price_file() -> None:
    report = report_of([CODE], container={"id": "container_1"})

    charge = bundled_tariff().charge(report, MODEL, AT)

    (use,) = charge.containers
    assert use.price is not None
    assert (use.price.unit, use.price.unit_price, use.price.divisor) == ("per_hour", Decimal("0.05"), 3600)
    # 1,550 hours are 5,580,000 seconds.
    assert (use.price.minimum_s, use.price.idle_s, use.price.free_per_month_s) == (300, 270, 5_580_000)
    assert charge.cost.faults == ()
