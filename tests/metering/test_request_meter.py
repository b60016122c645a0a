"""Whatever a usage reader or a price does, bytes pass and the request has one record."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec import structs
from prometheus_client import REGISTRY

from tornado_proxy.config.bundled import conf_path
from tornado_proxy.config.files import read_documents
from tornado_proxy.domain.cost import BillRates
from tornado_proxy.domain.identity import Caller, KeyId
from tornado_proxy.domain.record import Outcome, RequestIntent, RequestRecord
from tornado_proxy.domain.request import DeferredRatingFacts, RequestFacts
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.metering.passing_usage import PassingUsage
from tornado_proxy.metering.request_meter import RequestEnd, RequestMeter
from tornado_proxy.pricing.book.price_book import Charge, PriceBook, Tariff
from tornado_proxy.providers.contract import DeferredUsage, Endpoint, ResponseHead, UsageReader
from tornado_proxy.providers.openai.endpoints import OPENAI_ENDPOINTS
from tornado_proxy.providers.registry import PROVIDERS
from tornado_proxy.providers.route_table import RouteTable

START = datetime(2026, 11, 23, 10, tzinfo=UTC)
FACTS = RequestFacts(model="gpt-4o-mini", body_bytes=60)
INTENT = RequestIntent("req_1", Caller("project"), "openai", "/v1/chat/completions", "POST", "gpt-4o-mini", START)
DONE = RequestEnd(Outcome.COMPLETED, 200, START + timedelta(seconds=1), START + timedelta(milliseconds=20), "up_1")
JSON = ResponseHead(200, "application/json")
RESPONSE = (
    b'{"id":"chatcmpl-1","model":"gpt-4o-mini-2024-07-18","choices":[],'
    b'"usage":{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100}}'
)


def find_endpoint(path: str, method: str = "POST") -> Endpoint:
    return next(entry for entry in OPENAI_ENDPOINTS if (entry.path, entry.method) == (path, method))


CHAT = find_endpoint("/v1/chat/completions")


@pytest.fixture(scope="module")
def tariff() -> Tariff:
    return Tariff(PriceBook.from_documents(read_documents(conf_path("prices"))), "openai", Decimal("0.05"))


class FailingReader:
    """A usage reader that raises in `step`, or in each of several steps."""

    @property
    def object_id(self) -> str | None:
        return None

    def __init__(self, step: str) -> None:
        self.step = step
        self.fed = 0

    def feed(self, data: bytes) -> None:
        self.fed += 1
        self._raise_in("feed")

    def close(self, *, complete: bool) -> None:
        self._raise_in("close")

    def result(self) -> UsageReport:
        self._raise_in("result")
        return UsageReport(raw='{"kept":1}')

    def _raise_in(self, step: str) -> None:
        if step in self.step:
            raise ZeroDivisionError(step)


class CompletenessReader:
    """A usage reader that keeps whether the body was complete."""

    object_id = None
    complete: bool | None = None

    def feed(self, data: bytes) -> None:
        pass

    def close(self, *, complete: bool) -> None:
        self.complete = complete

    def result(self) -> UsageReport:
        return UsageReport()


@pytest.mark.parametrize("complete", [True, False])
def test_reader_is_told_whether_the_body_was_complete(complete: bool, tariff: Tariff) -> None:
    reader = CompletenessReader()
    meter = RequestMeter(INTENT, replace(CHAT, reader=lambda facts, head: reader), FACTS, tariff)

    meter.response_started(JSON)
    meter.feed(RESPONSE)
    if complete:
        meter.body_complete()
    meter.close(DONE)

    assert reader.complete is complete


class FailingTariff(Tariff):
    """A tariff whose arithmetic fails."""

    def charge(self, report: UsageReport, model: str | None, at: datetime) -> Charge:
        raise ArithmeticError("in the tariff")


def count_failures() -> float:
    return REGISTRY.get_sample_value("llm_proxy_reader_failures_total") or 0


def count_unpriced() -> float:
    return REGISTRY.get_sample_value("llm_proxy_unpriced_total", {"provider": "openai"}) or 0


def meter_response(
    meter: RequestMeter, *chunks: bytes, head: ResponseHead = JSON, ending: RequestEnd = DONE
) -> RequestRecord:
    meter.response_started(head)
    for chunk in chunks:
        meter.feed(chunk)
    meter.body_complete()
    return meter.close(ending)


def test_response_is_rated_by_the_usage_and_the_model_that_it_states(tariff: Tariff) -> None:
    record = meter_response(RequestMeter(INTENT, CHAT, FACTS, tariff), RESPONSE[:40], RESPONSE[40:])

    # 1000 x 0.15 and 100 x 0.60 per million, and 5 % of that.
    assert record.cost.subtotal == Decimal("0.00021")
    assert record.cost.total == Decimal("0.0002205")
    assert (record.basis, record.model, record.faults) == (Basis.REPORTED, "gpt-4o-mini-2024-07-18", ())
    assert record.usage is not None
    assert '"prompt_tokens":1000' in record.usage
    assert (record.status, record.outcome, record.upstream_request_id) == (200, Outcome.COMPLETED, "up_1")
    assert (record.first_byte_at, record.ended_at) == (DONE.first_byte_at, DONE.at)


def test_free_endpoint_costs_nothing_with_or_without_a_response(tariff: Tariff) -> None:
    free = find_endpoint("/v1/models", "GET")

    for record in (
        RequestMeter(INTENT, free, RequestFacts(), tariff).close(DONE),
        meter_response(RequestMeter(INTENT, free, RequestFacts(), tariff), b'{"data":[]}'),
    ):
        assert (record.basis, record.cost.total, record.cost.line_items) == (Basis.FREE, 0, ())


def test_request_that_did_not_reach_the_provider_costs_nothing(tariff: Tariff) -> None:
    unsent = structs.replace(DONE, outcome=Outcome.UPSTREAM_ERROR, status=502, reached_provider=False)

    record = RequestMeter(INTENT, CHAT, FACTS, tariff).close(unsent)

    assert (record.basis, record.model, record.faults) == (Basis.FREE, "gpt-4o-mini", ())


def test_request_without_a_response_is_unsettled_and_states_the_reason(tariff: Tariff) -> None:
    before = count_unpriced()

    record = RequestMeter(INTENT, CHAT, FACTS, tariff).close(
        structs.replace(DONE, outcome=Outcome.UPSTREAM_ERROR, status=504)
    )

    assert record.basis is Basis.UNSETTLED
    assert record.faults == ("the provider sent no readable response",)
    assert count_unpriced() == before + 1


@pytest.mark.parametrize("step", ["feed", "close", "result", "feed and close"])
def test_failure_of_a_reader_neither_ends_the_stream_nor_loses_the_record(
    step: str, tariff: Tariff, caplog: pytest.LogCaptureFixture
) -> None:
    reader = FailingReader(step)
    broken = replace(CHAT, reader=lambda facts, head: reader)
    before = count_failures(), count_unpriced()

    record = meter_response(RequestMeter(INTENT, broken, FACTS, tariff), b"one", b"two", b"three")

    assert record.basis is Basis.UNSETTLED
    assert "the usage reader failed" in record.faults
    assert reader.fed == (1 if "feed" in step else 3)
    assert (count_failures(), count_unpriced()) == (before[0] + 1, before[1] + 1)
    (line,) = [line for line in caplog.records if line.levelno == logging.ERROR]
    assert (line.getMessage(), vars(line)["request_id"]) == ("usage reader failed", "req_1")


def test_failure_of_a_price_keeps_the_usage(tariff: Tariff, caplog: pytest.LogCaptureFixture) -> None:
    failing = FailingTariff(tariff.prices, "openai", Decimal("0.05"))

    record = meter_response(RequestMeter(INTENT, CHAT, FACTS, failing), RESPONSE)

    assert record.basis is Basis.UNSETTLED
    assert record.faults == ("rating failed; the usage is kept and can be rated again",)
    assert record.usage is not None
    assert '"completion_tokens":100' in record.usage
    assert [line.getMessage() for line in caplog.records] == ["rating failed"]


def test_response_of_a_model_without_a_price_is_unsettled_and_keeps_its_usage(tariff: Tariff) -> None:
    facts = structs.replace(FACTS, model="gpt-next")

    record = meter_response(
        RequestMeter(INTENT, CHAT, facts, tariff), RESPONSE.replace(b"gpt-4o-mini-2024-07-18", b"gpt-next")
    )

    assert record.basis is Basis.UNSETTLED
    assert record.faults
    assert record.usage is not None


def test_error_status_costs_nothing(tariff: Tariff) -> None:
    body = b'{"error":{"message":"no","type":"invalid_request_error"}}'

    record = meter_response(
        RequestMeter(INTENT, CHAT, FACTS, tariff),
        body,
        head=ResponseHead(400, "application/json"),
        ending=structs.replace(DONE, status=400),
    )

    assert (record.basis, record.cost.total, record.status) == (Basis.FREE, 0, 400)


def test_response_that_broke_off_is_an_estimate_with_a_method(tariff: Tariff) -> None:
    meter = RequestMeter(INTENT, CHAT, structs.replace(FACTS, stream=True), tariff)
    meter.response_started(ResponseHead(200, "text/event-stream"))
    meter.feed(b'data: {"model":"gpt-4o-mini","choices":[{"delta":{"content":"some text"}}]}\n\n')

    record = meter.close(structs.replace(DONE, outcome=Outcome.UPSTREAM_BROKEN))

    assert record.basis is Basis.ESTIMATED
    assert record.estimate_method
    assert record.cost.total > 0


def test_fault_of_a_broken_response_is_the_first_of_the_record(tariff: Tariff) -> None:
    record = RequestMeter(INTENT, CHAT, FACTS, tariff).close(structs.replace(DONE, broken_by="reset"))

    assert record.faults == ("reset", "the provider sent no readable response")


@pytest.mark.parametrize(("status", "pending"), [("in_progress", True), ("completed", False)])
def test_pending_record_alone_keeps_the_facts_that_rate_its_usage_later(
    status: str, pending: bool, tariff: Tariff
) -> None:
    meter = RequestMeter(INTENT, find_endpoint("/v1/responses"), FACTS, tariff)

    record = meter_response(meter, b'{"id":"resp_1","model":"gpt-4o-mini","status":"%s"}' % status.encode())

    assert (record.basis is Basis.PENDING) is pending
    kept = replace(DeferredRatingFacts.of(FACTS), rates=BillRates(Decimal("0.05")))
    assert record.deferred_facts == (kept if pending else None)


def test_created_object_is_known_as_soon_as_the_response_names_it(tariff: Tariff) -> None:
    meter = RequestMeter(INTENT, find_endpoint("/v1/responses"), structs.replace(FACTS, stream=True), tariff)
    assert meter.object_id is None
    meter.response_started(ResponseHead(200, "text/event-stream"))
    assert meter.object_id is None

    meter.feed(
        b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1","usage":null}}\n\n'
    )

    assert meter.object_id == "resp_1"


def test_unreadable_body_is_unsettled_with_the_reason(tariff: Tariff) -> None:
    meter = RequestMeter(INTENT, CHAT, FACTS, tariff)
    meter.response_started(JSON)
    meter.unreadable("the response is compressed")
    meter.feed(RESPONSE)

    record = meter.close(DONE)

    assert (record.basis, record.faults, record.usage) == (Basis.UNSETTLED, ("the response is compressed",), None)


def test_bytes_before_the_response_head_are_not_metered(tariff: Tariff) -> None:
    meter = RequestMeter(INTENT, CHAT, FACTS, tariff)

    meter.feed(RESPONSE)

    assert meter.close(DONE).basis is Basis.UNSETTLED


def test_second_end_changes_no_usage_and_no_price(tariff: Tariff) -> None:
    meter = RequestMeter(INTENT, CHAT, FACTS, tariff)
    meter.response_started(JSON)
    meter.feed(RESPONSE)
    meter.body_complete()
    first = meter.close(DONE)

    left = RequestEnd(Outcome.CLIENT_CLOSED, 499, START + timedelta(seconds=3), broken_by="the server is shutting down")
    second = meter.close(left)

    assert second == structs.replace(
        first, outcome=Outcome.CLIENT_CLOSED, status=499, ended_at=left.at, faults=("the server is shutting down",)
    )
    assert meter.close(left) == second
    assert second.cost is first.cost


KEY = KeyId("main", "0123456789ab")


def test_clock_that_is_set_back_makes_no_negative_duration(tariff: Tariff) -> None:
    before = START - timedelta(hours=1)
    ahead = RequestEnd(Outcome.COMPLETED, 200, before, before, "up_1")
    meter = RequestMeter(INTENT, CHAT, FACTS, tariff)

    record = meter_response(meter, RESPONSE, ending=ahead)
    later = meter.close(structs.replace(ahead, outcome=Outcome.CLIENT_CLOSED))

    assert (record.first_byte_at, record.ended_at, later.ended_at) == (START, START, START)


def test_pending_record_names_the_key_and_the_output_that_has_passed(tariff: Tariff) -> None:
    responses = RouteTable(PROVIDERS).find_http_endpoint("openai", "POST", "/v1/responses")
    assert responses is not None
    facts = RequestFacts(model="gpt-4o-mini", background=True, body_bytes=40)
    meter = RequestMeter(structs.replace(INTENT, key=KEY), responses, facts, tariff)
    meter.response_started(ResponseHead(200, "text/event-stream"))
    for event in (
        {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}},
        {"type": "response.output_text.delta", "delta": "a" * 100},
    ):
        meter.feed(b"data: %b\n\n" % json.dumps(event).encode())

    record = meter.close(DONE)

    assert (record.basis, record.object_id) == (Basis.PENDING, "resp_1")
    assert record.deferred_facts == DeferredRatingFacts(
        body_bytes=40, output_bytes=100, made_with=KEY, rates=BillRates(Decimal("0.05"))
    )


def fail_to_make(_facts: RequestFacts, _head: ResponseHead) -> UsageReader:
    raise ZeroDivisionError


def test_failure_to_make_a_reader_neither_ends_the_stream_nor_loses_the_record(tariff: Tariff) -> None:
    before = count_failures(), count_unpriced()
    meter = RequestMeter(INTENT, replace(CHAT, reader=fail_to_make), FACTS, tariff)

    record = meter_response(meter, b"one", b"two")

    assert (record.basis, record.faults) == (Basis.UNSETTLED, ("the usage reader failed",))
    assert (count_failures(), count_unpriced()) == (before[0] + 1, before[1] + 1)


def test_failure_to_state_the_created_object_does_not_end_the_stream(tariff: Tariff) -> None:
    class Reader(FailingReader):
        @property
        def object_id(self) -> str | None:
            raise ZeroDivisionError

    meter = RequestMeter(INTENT, replace(CHAT, reader=lambda facts, head: Reader("")), FACTS, tariff)
    meter.response_started(JSON)
    meter.feed(b"{}")

    assert meter.object_id is None
    assert "the usage reader failed" in meter.close(DONE).faults


@pytest.mark.parametrize("make", [fail_to_make, lambda _facts, _head: FailingReader("feed")], ids=["make", "feed"])
def test_failure_of_a_reader_of_passing_usage_does_not_touch_the_request(
    make: Any, tariff: Tariff, caplog: pytest.LogCaptureFixture
) -> None:
    deferred = DeferredUsage(str, bool, make, 1.0, str)
    reports: list[UsageReport] = []
    meter = RequestMeter(
        INTENT, CHAT, FACTS, tariff, watched=PassingUsage(deferred, FACTS, reports.append, "req_before")
    )

    record = meter_response(meter, RESPONSE)

    assert (record.basis, reports) == (Basis.REPORTED, [])
    (line,) = caplog.records
    assert (line.getMessage(), vars(line)["request_id"]) == ("usage reader failed", "req_before")


def test_response_object_that_failed_is_an_error_of_the_provider(tariff: Tariff) -> None:
    meter = RequestMeter(INTENT, find_endpoint("/v1/responses"), FACTS, tariff)
    failed = {
        "id": "resp_1",
        "model": "gpt-4o-mini",
        "status": "failed",
        "usage": None,
        "output": [{"type": "message"}],
    }

    meter.response_started(JSON)
    meter.feed(json.dumps(failed).encode())
    meter.body_complete()
    record = meter.close(DONE)

    assert (record.outcome, record.basis, record.object_id) == (Outcome.UPSTREAM_ERROR, Basis.ESTIMATED, "resp_1")
    assert record.faults[0] == "the response ended with a provider error"


def test_record_has_the_containers_of_its_response_with_times_prices_and_account(tariff: Tariff) -> None:
    intent = structs.replace(INTENT, endpoint="/v1/responses", key=KeyId("main", "0123456789ab"))
    meter = RequestMeter(intent, find_endpoint("/v1/responses"), FACTS, tariff)
    run = {"type": "code_interpreter_call", "id": "ci_1", "container_id": "cntr_1"}
    usage = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}
    response = {"id": "resp_1", "model": "gpt-4o-mini", "status": "completed", "usage": usage, "output": [run]}

    meter.response_started(JSON)
    meter.feed(json.dumps(response).encode())
    meter.body_complete()
    time = meter.close(DONE).container_time

    assert time is not None
    assert (time.began_at, time.ended_at, time.account) == (START, DONE.at, "0123456789ab")
    assert (time.project_id, time.surcharge_rate) == ("project", Decimal("0.05"))
    assert [(use.container_id, use.price is not None) for use in time.uses] == [("cntr_1", True)]


STREAM_FACTS = structs.replace(FACTS, stream=True)
SSE = ResponseHead(200, "text/event-stream")


def test_estimate_rises_with_a_stream_and_does_not_change_its_record(tariff: Tariff) -> None:
    watched = RequestMeter(INTENT, CHAT, STREAM_FACTS, tariff)
    chunk = b'data: {"id":"c","choices":[{"delta":{"content":"%s"}}]}\n\n' % (b"x" * 40)
    usage = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":100}}\n\n'

    assert watched.estimate() == ()
    watched.response_started(SSE)
    estimates = []
    for _ in range(3):
        watched.feed(chunk[:30])
        watched.feed(chunk[30:])
        estimates.append(sum(cost.subtotal for cost in watched.estimate()))
    watched.feed(usage)
    (final,) = watched.estimate()
    watched.body_complete()

    # 60 bytes of request are 15 tokens at 0.15 per million; each delta of 40 characters is 10 tokens at 0.60.
    assert estimates == [Decimal("0.00000825"), Decimal("0.00001425"), Decimal("0.00002025")]
    # 1000 x 0.15 and 100 x 0.60 per million, and 5 % of that.
    assert final.total == watched.close(DONE).cost.total == Decimal("0.0002205")
    assert watched.estimate() == (final,)


@pytest.mark.parametrize("step", ["close", "result"])
def test_estimate_of_a_stream_that_cannot_be_read_is_nothing(step: str, tariff: Tariff) -> None:
    failures = count_failures()
    endpoint = replace(CHAT, reader=lambda facts, head: FailingReader(step))
    meter = RequestMeter(INTENT, endpoint, STREAM_FACTS, tariff)
    meter.response_started(SSE)

    assert meter.estimate() == ()
    assert count_failures() == failures


def test_response_that_is_no_stream_is_not_estimated(tariff: Tariff) -> None:
    meter = RequestMeter(INTENT, CHAT, FACTS, tariff)
    meter.response_started(JSON)

    assert meter.estimate() == ()
