from __future__ import annotations

from typing import Any

import pytest

from tests.providers.anthropic.streams import FACTS, JSON, MODEL, counts
from tests.providers.reading import read
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.providers.anthropic.messages.endpoint import MESSAGE_ENDPOINTS, make_reader
from tornado_proxy.providers.anthropic.messages.report import combine_reports, report_message
from tornado_proxy.providers.contract import ResponseHead


def message(usage: dict[str, Any], **members: Any) -> UsageReport:
    return report_message(
        {"id": "msg_1", "model": MODEL, "content": [{"type": "text", "text": "hi"}], **members}, usage
    )


def test_a_statement_that_does_not_add_up_is_kept_and_not_settled() -> None:
    report = message({"input_tokens": "many", "output_tokens": 3})

    assert report.basis is Basis.UNSETTLED
    assert counts(report) == [(MODEL, {"output_tokens": 3})]
    assert report.faults == ("usage.input_tokens is 'many', not a count",)


@pytest.mark.parametrize(
    ("credit", "written", "basis", "method"),
    [
        pytest.param("redeemed", 500, Basis.ESTIMATED, "fallback_credit_upper_bound", id="writes repriced as reads"),
        pytest.param("redeemed", 0, Basis.REPORTED, None, id="nothing to reprice"),
        pytest.param("not_applied", 500, Basis.REPORTED, None, id="not applied"),
    ],
)
def test_a_redeemed_fallback_credit_leaves_an_upper_bound(
    credit: str, written: int, basis: Basis, method: str | None
) -> None:
    usage = {
        "input_tokens": 1,
        "cache_creation_input_tokens": written,
        "fallback_credit": {"status": {"type": credit}},
    }

    report = message(usage)

    assert (report.basis, report.estimate_method) == (basis, method)


def test_a_fallback_mark_in_the_content_names_the_model_that_served() -> None:
    mark = {"type": "fallback", "from": {"model": MODEL}, "to": {"model": "claude-opus-4-8"}}

    report = message({"output_tokens": 3}, content=[mark, {"type": "text", "text": "hi"}])

    assert report.model == "claude-opus-4-8"
    assert counts(report) == [("claude-opus-4-8", {"output_tokens": 3})]


def test_a_container_is_an_object_of_the_caller() -> None:
    assert message({}, container={"id": "container_1"}).objects == ("container_1",)
    assert message({}, container=None).objects == ()


def test_the_basis_of_several_messages_is_the_least_certain() -> None:
    sure, unsure = UsageReport(basis=Basis.REPORTED, raw="{}"), UsageReport(basis=Basis.ESTIMATED, estimate_method="m")
    free = UsageReport(basis=Basis.FREE)

    assert combine_reports([sure, unsure, free]).basis is Basis.ESTIMATED
    assert combine_reports([sure, unsure, free]).estimate_method == "m"
    assert combine_reports([free, sure]).basis is Basis.REPORTED
    assert combine_reports([free, free]).basis is Basis.FREE
    assert combine_reports([sure, UsageReport(basis=Basis.UNSETTLED)]).basis is Basis.UNSETTLED
    assert combine_reports([unsure]) is unsure


@pytest.mark.parametrize("media_type", ["application/json", "text/event-stream"])
def test_an_error_status_is_free_whatever_its_body_says(media_type: str) -> None:
    report = read(
        MESSAGE_ENDPOINTS[0].usage_reader(FACTS, ResponseHead(529, media_type)), [b'{"usage":{"input_tokens":5}}']
    )

    assert report == UsageReport(basis=Basis.FREE)


def test_a_json_answer_that_breaks_off_is_estimated_by_its_length() -> None:
    report = read(make_reader(FACTS, JSON), [b'{"id":"msg_1","content":[{"text":"', b"x" * 66], complete=False)

    assert report.basis is Basis.ESTIMATED
    assert report.estimate_method == "utf8_bytes_div_4"
    assert counts(report) == [(None, {"input_tokens": 100, "output_tokens": 25})]


def test_a_json_answer_without_usage_is_estimated_at_the_model_it_names() -> None:
    report = read(make_reader(FACTS, JSON), [b'{"id":"msg_1","model":"claude-sonnet-5"}'])

    assert report.basis is Basis.ESTIMATED
    assert (report.model, report.object_id) == (MODEL, "msg_1")
