from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from tests.providers.anthropic.costs import charge
from tests.providers.anthropic.streams import JSON
from tests.providers.reading import read
from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, Meter, UsageReport
from tornado_proxy.providers.anthropic.batches import endpoint as batches
from tornado_proxy.providers.anthropic.batches.results import MAX_LINE_BYTES
from tornado_proxy.providers.contract import RequestView, ResponseHead
from tornado_proxy.providers.shared.response_readers import make_usage_reader

CREATE = batches.BATCH_ENDPOINTS[0]
TEXT = frozenset({Meter.INPUT, Meter.OUTPUT})


def facts(*params: dict[str, Any]) -> RequestFacts:
    """Return the facts of a batch whose requests have `params`."""
    requests = [{"custom_id": f"c{number}", "params": entry} for number, entry in enumerate(params)]
    body = json.dumps({"requests": requests}).encode()
    parsed = batches.parse(RequestView(body, "application/json"))
    assert parsed.body is body
    return parsed.facts


def test_every_model_of_every_request_is_a_spend_at_the_batch_tier() -> None:
    found = facts(
        {"model": "claude-haiku-4-5", "service_tier": "auto"},
        {"model": "claude-opus-5", "tools": [{"type": "advisor_20260301", "model": "claude-fable-5"}]},
        {"model": "claude-haiku-4-5"},
    )

    assert found.spends == (
        Spend("claude-haiku-4-5", TEXT, terms=Terms("batch")),
        Spend("claude-opus-5", TEXT, terms=Terms("batch")),
        Spend("claude-fable-5", TEXT, terms=Terms("batch")),
    )
    assert found.terms.service_tier == "batch"
    assert found.model is None


def test_speed_is_a_term_of_the_spend_beside_the_batch_tier() -> None:
    (spend,) = facts({"model": "claude-opus-5", "speed": "fast"}).spends

    assert spend.terms == Terms("batch", "fast")


def test_model_of_all_requests_is_the_model_of_the_batch() -> None:
    assert facts({"model": "a"}, {"model": "a"}).model == "a"


def test_searches_and_containers_of_all_requests_are_found() -> None:
    found = facts(
        {"model": "a", "tools": [{"type": "web_search_20250305"}]}, {"model": "a", "container": "container_1"}
    )

    assert found.spends[1] == Spend("a", frozenset({Meter.WEB_SEARCHES}), terms=Terms("batch"))
    assert found.references == ("container_1",)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"{}", "at least one", id="no requests"),
        pytest.param(b'{"requests":[]}', "at least one", id="empty"),
        pytest.param(b'{"requests":{}}', "must be a list", id="no list"),
        pytest.param(b'{"requests":[7]}', r"requests\[0\]: the body must be", id="no object"),
        pytest.param(b'{"requests":[{"custom_id":"x"}]}', r"requests\[0\] .*'x'.*missing", id="no params"),
        pytest.param(
            b'{"requests":[{"custom_id":"x","params":{"model":"a"}},{"custom_id":"why","params":{}}]}',
            r"requests\[1\] \(custom_id 'why'\): \"model\" is missing",
            id="no model, named by custom_id",
        ),
        pytest.param(b'{"requests":[{"params":{"model":"a","model":"b"}}]}', "twice", id="two models in one"),
        pytest.param(
            b'{"requests":[{"params":{"model":"a"},"params":{"model":"b"}}]}', "twice", id="two params in one"
        ),
        pytest.param(b'{"requests":[],"requests":[{"params":{"model":"b"}}]}', "twice", id="two lists"),
    ],
)
def test_batch_that_cannot_be_parsed_is_rejected_with_the_position(body: bytes, message: str) -> None:
    with pytest.raises(InvalidBody, match=message):
        batches.parse(RequestView(body, "application/json"))


def test_batch_that_was_not_created_is_free() -> None:
    reader = make_usage_reader(CREATE, RequestFacts(), ResponseHead(400, "application/json"))

    assert read(reader, [b"{}"]).basis is Basis.FREE


def test_batch_of_unknown_id_is_unsettled() -> None:
    report = read(batches.make_reader(RequestFacts(), JSON), [b'{"id":'], complete=False)

    assert report.basis is Basis.UNSETTLED
    assert report.faults


def test_batch_is_polled_until_it_has_ended() -> None:
    (create,) = (endpoint for endpoint in batches.BATCH_ENDPOINTS if endpoint.deferred_usage is not None)
    deferred = create.deferred_usage
    assert deferred is not None
    assert deferred.results is not None

    assert (deferred.state("b1"), deferred.results("b1")) == (
        "/v1/messages/batches/b1",
        "/v1/messages/batches/b1/results",
    )
    assert deferred.finished(b'{"processing_status":"ended"}')
    assert not deferred.finished(b'{"processing_status":"canceling"}')
    assert not deferred.finished(b"<html>")


def test_results_url_leads_to_the_proxy_and_no_other_byte_changes() -> None:
    host = "https://api.anthropic.com"
    batch = '{"id": "b1", "results_url" : "%s/v1/messages/batches/b1/results", "note": "%s/v1/messages/batches"}'

    changed = batches.rewrite_urls((batch % (host, host)).encode(), "http://localhost:8080/anthropic")

    assert changed == (batch % ("http://localhost:8080/anthropic", host)).encode()
    assert batches.rewrite_urls(b'{"results_url":null}', "http://here") == b'{"results_url":null}'


@pytest.mark.parametrize(
    ("url", "changed"),
    [
        pytest.param(
            "https://gateway.example/anthropic/v1/messages/batches/b1/results",
            '"https://me/anthropic/v1/messages/batches/b1/results"',
            id="a provider with a path prefix",
        ),
        pytest.param(
            r"https:\/\/api.anthropic.com\/v1\/messages\/batches\/b1\/results",
            '"https://me/anthropic/v1/messages/batches/b1/results"',
            id="escaped slashes",
        ),
        pytest.param("https://evil.example/steal", "null", id="elsewhere"),
        pytest.param("https://evil.example/?/v1/messages/batches/b1/results", "null", id="elsewhere, by its path"),
    ],
)
def test_results_url_never_leads_elsewhere(url: str, changed: str) -> None:
    body = f'{{"results_url": "{url}"}}'.encode()

    assert batches.rewrite_urls(body, "https://me/anthropic") == f'{{"results_url": {changed}}}'.encode()


def line(custom_id: object, kind: str, **message: Any) -> bytes:
    """Return one line of results."""
    result = {"type": kind, **({"message": message} if message else {})}
    return json.dumps({"custom_id": custom_id, "result": result}).encode() + b"\n"


def results(*lines: bytes, complete: bool = True) -> UsageReport:
    """Return the report of a batch's results."""
    deferred = CREATE.deferred_usage
    assert deferred is not None
    return read(make_usage_reader(deferred, RequestFacts(), JSON), lines, complete=complete)


USAGE = {"input_tokens": 20, "output_tokens": 5, "service_tier": "batch"}


def test_each_result_that_succeeded_is_an_item_at_its_own_model() -> None:
    report = results(
        line("b", "succeeded", model="claude-haiku-4-5-20251001", usage=USAGE),
        line("a", "errored"),
        line("c", "canceled"),
        line("d", "expired"),
        line("e", "succeeded", model="claude-opus-5", usage={"output_tokens": 7, "service_tier": None}),
    )

    assert [(item.model, item.terms.service_tier) for item in report.items] == [
        ("claude-haiku-4-5-20251001", "batch"),
        ("claude-opus-5", "batch"),
    ]
    assert report.basis is Basis.REPORTED
    assert json.loads(report.raw or "") == {"results": 5, "succeeded": 2}


def test_repeated_result_counts_once() -> None:
    result = line("a", "succeeded", model="m", usage=USAGE)

    assert len(results(result, result).items) == 1


def test_refusal_without_content_is_free_in_a_batch_too() -> None:
    refused = line("a", "succeeded", model="m", content=[], stop_reason="refusal", usage=USAGE)
    served = line("b", "succeeded", model="claude-opus-5", usage={"output_tokens": 1_000})

    assert charge(results(refused)) == (Decimal(0), Basis.FREE)
    assert charge(results(refused, served)) == (Decimal("0.0125"), Basis.REPORTED)


@pytest.mark.parametrize(
    ("bad_line", "fault"),
    [
        pytest.param(b"<html>\n", "cannot be read", id="no JSON"),
        pytest.param(line(["a"], "succeeded", usage=USAGE), "cannot be read", id="no custom_id"),
        pytest.param(line("a", "succeeded", model="m"), "states no usage", id="no usage"),
        pytest.param(line("a", "succeeded"), "states no usage", id="no message"),
        pytest.param(line("a", "postponed"), "unknown type", id="unknown kind"),
        pytest.param(b"x" * MAX_LINE_BYTES + b"xx\n", "too long", id="a line without end"),
    ],
)
def test_result_that_cannot_be_priced_leaves_the_batch_unsettled(bad_line: bytes, fault: str) -> None:
    report = results(bad_line, line("z", "succeeded", model="m", usage=USAGE))

    assert report.basis is Basis.UNSETTLED
    assert fault in report.faults[0]
    assert len(report.items) == 1


def test_usage_that_is_not_a_count_leaves_the_batch_unsettled() -> None:
    report = results(line("a", "succeeded", model="m", usage={"input_tokens": -1, "output_tokens": 5}))

    assert report.basis is Basis.UNSETTLED
    assert len(report.items) == 1


def test_error_status_in_place_of_results_is_free() -> None:
    deferred = CREATE.deferred_usage
    assert deferred is not None

    report = read(make_usage_reader(deferred, RequestFacts(), ResponseHead(404, "application/json")), [b"{}"])

    assert report.basis is Basis.FREE


def test_results_that_break_off_leave_the_batch_unsettled() -> None:
    assert results(line("a", "succeeded", model="m", usage=USAGE), complete=False).basis is Basis.UNSETTLED


def test_lines_can_end_with_crlf_and_the_last_one_without_line_end() -> None:
    lines = line("a", "succeeded", model="m", usage=USAGE) + line("b", "succeeded", model="m", usage=USAGE)

    assert len(results(lines.replace(b"\n", b"\r\n").rstrip()).items) == 2


@pytest.mark.parametrize(
    ("counts", "fault"),
    [
        pytest.param({"succeeded": 2, "errored": 1, "canceled": 0, "expired": 2}, None, id="all are there"),
        pytest.param(
            {"succeeded": 3, "errored": 0, "canceled": 0, "expired": 2},
            "the batch states 3 succeeded, 0 errored, 0 canceled, 2 expired; its results have 5 lines, "
            "2 of them succeeded",
            id="one more succeeded",
        ),
        pytest.param({"succeeded": 2, "errored": 4}, "4 errored; its results have 5 lines", id="errored are missing"),
        pytest.param(None, None, id="no counts"),
    ],
)
def test_results_must_have_the_lines_that_the_batch_counts(counts: dict[str, int] | None, fault: str | None) -> None:
    report = UsageReport(raw='{"results":5,"succeeded":2}')

    found = batches.check_results(json.dumps({"request_counts": counts}).encode(), report)

    assert found == fault if fault is None else fault in (found or "")
