from __future__ import annotations

import json
from decimal import Decimal

import pytest

from tests.providers.openai.reports import amounts
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, Meter, Quantity
from tornado_proxy.providers.openai.shared.text_usage import estimate_text, report_text

FACTS = RequestFacts(model="gpt-4o", body_bytes=400)
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
ONE_SEARCH = Quantity(Meter.WEB_SEARCHES, Decimal(1))


def test_stated_usage_is_reported_with_model_tier_and_id() -> None:
    report = report_text(FACTS, {"id": "c1", "model": "gpt-4o-2024-08-06", "service_tier": "flex", "usage": USAGE})

    assert report is not None
    assert amounts(report) == {"input_tokens": 10, "output_tokens": 5}
    assert (report.basis, report.object_id, report.model) == (Basis.REPORTED, "c1", "gpt-4o-2024-08-06")
    assert (report.items[0].model, report.items[0].terms) == ("gpt-4o-2024-08-06", Terms("flex"))
    assert report.items[0].context_tokens == 10
    assert json.loads(report.raw or "") == USAGE


def test_a_chat_completion_is_no_object_that_later_requests_can_name() -> None:
    report = report_text(FACTS, {"id": "chatcmpl-1", "usage": USAGE})

    assert report is not None
    assert (report.object_id, report.names_object) == ("chatcmpl-1", False)


@pytest.mark.parametrize("usage", [None, {}, 5, []])
def test_missing_usage_is_no_report(usage: object) -> None:
    assert report_text(FACTS, {"usage": usage}) is None


def test_quantities_of_the_request_are_added_and_make_the_report_inferred() -> None:
    facts = RequestFacts(model="gpt-4o", inferred=(ONE_SEARCH,))

    report = report_text(facts, {"usage": USAGE})

    assert report is not None
    assert amounts(report) == {"input_tokens": 10, "output_tokens": 5, "web_searches": 1}
    assert report.basis is Basis.INFERRED


def test_usage_that_does_not_add_up_is_unsettled() -> None:
    report = report_text(FACTS, {"usage": {"prompt_tokens": "10"}})

    assert report is not None
    assert report.basis is Basis.UNSETTLED
    assert report.faults == ("usage.prompt_tokens is '10', not a count",)


def test_an_estimate_counts_four_bytes_for_a_token_and_names_its_method() -> None:
    report = estimate_text(FACTS, 21, {"id": "c1", "model": "gpt-4o-2024-08-06", "service_tier": "priority"})

    assert amounts(report) == {"input_tokens": 100, "output_tokens": 6}
    assert (report.basis, report.estimate_method) == (Basis.ESTIMATED, "utf8_bytes_div_4")
    assert (report.object_id, report.model) == ("c1", "gpt-4o-2024-08-06")
    assert (report.items[0].terms, report.items[0].context_tokens) == (Terms("priority"), 100)


@pytest.mark.parametrize(
    ("stated", "requested", "tier"),
    [("priority", "flex", "priority"), ("auto", "flex", "flex"), (None, "flex", "flex"), ("auto", "auto", None)],
)
def test_the_tier_of_an_estimate_is_the_stated_one_else_the_requested_one(
    stated: str | None, requested: str, tier: str | None
) -> None:
    facts = RequestFacts(model="gpt-4o", terms=Terms(requested))

    assert estimate_text(facts, 0, {"service_tier": stated}).items[0].terms == Terms(tier)
