from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.providers.anthropic.costs import charge
from tests.providers.anthropic.streams import FACTS, JSON, MODEL, SSE, STOP, counts, delta, start
from tests.providers.reading import read
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.providers.anthropic.messages.endpoint import MESSAGE_ENDPOINTS, make_reader
from tornado_proxy.providers.anthropic.messages.report import report_message
from tornado_proxy.providers.contract import ResponseHead
from tornado_proxy.providers.shared.response_readers import make_usage_reader
from tornado_proxy.providers.shared.usage_report import merge_reports


def report(usage: dict[str, Any], **members: Any) -> UsageReport:
    """Return the report of a message with text, `members` and `usage`."""
    return report_message(
        {"id": "msg_1", "model": MODEL, "content": [{"type": "text", "text": "hi"}], **members}, usage
    )


def test_usage_with_a_value_that_is_not_a_count_is_unsettled() -> None:
    found = report({"input_tokens": "many", "output_tokens": 3})

    assert found.basis is Basis.UNSETTLED
    assert counts(found) == [(MODEL, {"output_tokens": 3})]
    assert found.faults == ("usage.input_tokens is 'many', not a count",)


@pytest.mark.parametrize(
    ("status", "written"),
    [
        pytest.param({"type": "redeemed"}, 0, id="redeemed: writes became reads"),
        pytest.param({"type": "redeemed"}, 500, id="redeemed: some writes are left"),
        pytest.param({"type": "not_applied", "reason": "expired"}, 500, id="not applied"),
    ],
)
def test_usage_with_a_fallback_credit_states_the_charged_counts(status: dict[str, str], written: int) -> None:
    split = {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0}
    usage = {
        "input_tokens": 1_000,
        "cache_creation_input_tokens": written,
        "cache_creation": split,
        "cache_read_input_tokens": 40_000,
        "output_tokens": 10,
        "fallback_credit": {"status": status},
    }

    found = report(usage, model="claude-opus-4-8")

    # 1,000 x 5 + 40,000 x 0.5 + 10 x 25, and 500 x 6.25 for writes.
    assert charge(found) == (Decimal("0.02525") + (Decimal("0.003125") if written else 0), Basis.REPORTED)
    assert found.estimate_method is None


def test_streamed_usage_with_a_redeemed_credit_is_reported() -> None:
    events = (
        start(model="claude-opus-4-8", input_tokens=1, cache_creation_input_tokens=0),
        delta(output_tokens=10, cache_read_input_tokens=40_000, fallback_credit={"status": {"type": "redeemed"}}),
        STOP,
    )

    assert charge(read(make_reader(FACTS, SSE), events)) == (Decimal("0.020255"), Basis.REPORTED)


def test_fallback_block_in_the_content_names_the_serving_model() -> None:
    fallback = {"type": "fallback", "from": {"model": MODEL}, "to": {"model": "claude-opus-4-8"}}

    found = report({"output_tokens": 3}, content=[fallback, {"type": "text", "text": "hi"}])

    assert found.model == "claude-opus-4-8"
    assert counts(found) == [("claude-opus-4-8", {"output_tokens": 3})]


def test_container_is_an_object_of_the_project() -> None:
    assert report({}, container={"id": "container_1"}).objects == ("container_1",)
    assert report({}, container=None).objects == ()


def test_basis_of_several_messages_is_the_least_certain() -> None:
    reported = UsageReport(basis=Basis.REPORTED, raw="{}")
    estimated = UsageReport(basis=Basis.ESTIMATED, estimate_method="m")
    free = UsageReport(basis=Basis.FREE)

    assert merge_reports([reported, estimated, free]).basis is Basis.ESTIMATED
    assert merge_reports([reported, estimated, free]).estimate_method == "m"
    assert merge_reports([free, reported]).basis is Basis.REPORTED
    assert merge_reports([free, free]).basis is Basis.FREE
    assert merge_reports([reported, UsageReport(basis=Basis.UNSETTLED)]).basis is Basis.UNSETTLED
    assert merge_reports([estimated]) is estimated


@pytest.mark.parametrize("media_type", ["application/json", "text/event-stream"])
def test_error_status_is_free_whatever_usage_its_body_states(media_type: str) -> None:
    found = read(
        make_usage_reader(MESSAGE_ENDPOINTS[0], FACTS, ResponseHead(529, media_type)), [b'{"usage":{"input_tokens":5}}']
    )

    assert found == UsageReport(basis=Basis.FREE)


def test_broken_json_response_is_estimated_from_its_length() -> None:
    found = read(make_reader(FACTS, JSON), [b'{"id":"msg_1","content":[{"text":"', b"x" * 66], complete=False)

    assert found.basis is Basis.ESTIMATED
    assert found.estimate_method == "utf8_bytes_div_4"
    assert counts(found) == [(None, {"input_tokens": 100, "output_tokens": 25})]


def test_json_response_without_usage_is_estimated_at_the_model_it_names() -> None:
    found = read(make_reader(FACTS, JSON), [b'{"id":"msg_1","model":"claude-sonnet-5"}'])

    assert found.basis is Basis.ESTIMATED
    assert (found.model, found.object_id) == (MODEL, "msg_1")
