from __future__ import annotations

import json
from typing import Any

import pytest

from tests.providers.anthropic.streams import JSON
from tests.providers.reading import read
from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, Meter, UsageReport
from tornado_proxy.providers.anthropic.batches import endpoint as batches
from tornado_proxy.providers.anthropic.batches.results import MAX_LINE_BYTES
from tornado_proxy.providers.contract import RequestView, ResponseHead

CREATE = batches.BATCH_ENDPOINTS[0]
TEXT = frozenset({Meter.INPUT, Meter.OUTPUT})


def facts(*params: dict[str, Any]) -> RequestFacts:
    requests = [{"custom_id": f"c{number}", "params": one} for number, one in enumerate(params)]
    body = json.dumps({"requests": requests}).encode()
    parsed = batches.parse(RequestView(body, "application/json"))
    assert parsed.body is body
    return parsed.facts


def test_every_model_of_every_request_is_spent_on_at_the_batch_tier() -> None:
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


def test_a_speed_is_looked_up_at_the_batch_tier_too() -> None:
    (spend,) = facts({"model": "claude-opus-5", "speed": "fast"}).spends

    assert spend.terms == Terms("batch", "fast")


def test_the_model_of_all_requests_is_the_model_of_the_batch() -> None:
    assert facts({"model": "a"}, {"model": "a"}).model == "a"


def test_searches_and_containers_of_all_requests_are_found() -> None:
    found = facts(
        {"model": "a", "tools": [{"type": "web_search_20250305"}]}, {"model": "a", "container": "container_1"}
    )

    assert found.spends[1] == Spend("a", frozenset({Meter.WEB_SEARCHES}), terms=Terms("batch"))
    assert found.references == ("container_1",)


@pytest.mark.parametrize(
    ("body", "words"),
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
def test_a_batch_that_cannot_be_read_is_refused_with_the_place(body: bytes, words: str) -> None:
    with pytest.raises(InvalidBody, match=words):
        batches.parse(RequestView(body, "application/json"))


def test_a_batch_that_was_not_created_is_free() -> None:
    reader = CREATE.usage_reader(RequestFacts(), ResponseHead(400, "application/json"))

    assert read(reader, [b"{}"]).basis is Basis.FREE


def test_a_batch_of_unknown_id_is_not_settled() -> None:
    report = read(batches.make_reader(RequestFacts(), JSON), [b'{"id":'], complete=False)

    assert report.basis is Basis.UNSETTLED
    assert report.faults


def test_a_batch_is_looked_at_until_it_has_ended() -> None:
    (create,) = (row for row in batches.BATCH_ENDPOINTS if row.deferred_usage is not None)
    later = create.deferred_usage
    assert later is not None
    assert later.results is not None

    assert (later.state("b1"), later.results("b1")) == (
        "/v1/messages/batches/b1",
        "/v1/messages/batches/b1/results",
    )
    assert later.finished(b'{"processing_status":"ended"}')
    assert not later.finished(b'{"processing_status":"canceling"}')
    assert not later.finished(b"<html>")


def test_results_are_fetched_from_us_and_nothing_else_changes() -> None:
    host = "https://api.anthropic.com"
    batch = '{"id": "b1", "results_url" : "%s/v1/messages/batches/b1/results", "note": "%s/v1/messages/batches"}'

    changed = batches.rewrite_urls((batch % (host, host)).encode(), "http://localhost:8080/anthropic")

    assert changed == (batch % ("http://localhost:8080/anthropic", host)).encode()
    assert batches.rewrite_urls(b'{"results_url":null}', "http://here") == b'{"results_url":null}'


def line(custom_id: object, kind: str, **message: Any) -> bytes:
    result = {"type": kind, **({"message": message} if message else {})}
    return json.dumps({"custom_id": custom_id, "result": result}).encode() + b"\n"


def results(*lines: bytes, complete: bool = True) -> UsageReport:
    make = CREATE.deferred_usage
    assert make is not None
    return read(make.usage_reader(RequestFacts(), JSON), lines, complete=complete)


USAGE = {"input_tokens": 20, "output_tokens": 5, "service_tier": "batch"}


def test_each_result_that_succeeded_is_a_reading_at_its_own_model() -> None:
    report = results(
        line("b", "succeeded", model="claude-haiku-4-5-20251001", usage=USAGE),
        line("a", "errored"),
        line("c", "canceled"),
        line("d", "expired"),
        line("e", "succeeded", model="claude-opus-5", usage={"output_tokens": 7, "service_tier": None}),
    )

    assert [(one.model, one.terms.service_tier) for one in report.items] == [
        ("claude-haiku-4-5-20251001", "batch"),
        ("claude-opus-5", "batch"),
    ]
    assert report.basis is Basis.REPORTED
    assert json.loads(report.raw or "") == {"results": 5, "succeeded": 2}


def test_a_result_that_comes_twice_counts_once() -> None:
    twice = line("a", "succeeded", model="m", usage=USAGE)

    assert len(results(twice, twice).items) == 1


def test_a_refusal_without_content_is_free_in_a_batch_too() -> None:
    report = results(line("a", "succeeded", model="m", content=[], stop_reason="refusal", usage=USAGE))

    assert report.items == ()
    assert report.basis is Basis.REPORTED


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        pytest.param(b"<html>\n", "cannot be read", id="no JSON"),
        pytest.param(line(["a"], "succeeded", usage=USAGE), "cannot be read", id="no custom_id"),
        pytest.param(line("a", "succeeded", model="m"), "states no usage", id="no usage"),
        pytest.param(line("a", "succeeded"), "states no usage", id="no message"),
        pytest.param(line("a", "postponed"), "unknown type", id="unknown kind"),
        pytest.param(b"x" * MAX_LINE_BYTES + b"xx\n", "too long", id="a line without end"),
    ],
)
def test_a_result_that_cannot_be_charged_leaves_the_batch_unsettled(odd: bytes, words: str) -> None:
    report = results(odd, line("z", "succeeded", model="m", usage=USAGE))

    assert report.basis is Basis.UNSETTLED
    assert words in report.faults[0]
    assert len(report.items) == 1


def test_usage_that_does_not_add_up_leaves_the_batch_unsettled() -> None:
    report = results(line("a", "succeeded", model="m", usage={"input_tokens": -1, "output_tokens": 5}))

    assert report.basis is Basis.UNSETTLED
    assert len(report.items) == 1


def test_results_that_were_refused_are_free() -> None:
    later = CREATE.deferred_usage
    assert later is not None

    report = read(later.usage_reader(RequestFacts(), ResponseHead(404, "application/json")), [b"{}"])

    assert report.basis is Basis.FREE


def test_results_that_break_off_leave_the_batch_unsettled() -> None:
    assert results(line("a", "succeeded", model="m", usage=USAGE), complete=False).basis is Basis.UNSETTLED


def test_lines_may_end_with_crlf_and_the_last_one_with_nothing() -> None:
    lines = line("a", "succeeded", model="m", usage=USAGE) + line("b", "succeeded", model="m", usage=USAGE)

    assert len(results(lines.replace(b"\n", b"\r\n").rstrip()).items) == 2
