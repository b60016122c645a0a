"""A call's meter: whatever a reader or a price does, the bytes flow on and there is one record."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from prometheus_client import REGISTRY

from tornado_proxy.config.bundled import conf_path
from tornado_proxy.config.files import read_documents
from tornado_proxy.domain.cost import Cost
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import Outcome, RequestIntent, RequestRecord
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.metering.request_meter import RequestEnd, RequestMeter
from tornado_proxy.pricing.book.price_book import PriceBook, Tariff
from tornado_proxy.providers.contract import Endpoint, ResponseHead
from tornado_proxy.providers.openai.endpoints import OPENAI_ENDPOINTS

START = datetime(2026, 11, 23, 10, tzinfo=UTC)
FACTS = RequestFacts(model="gpt-4o-mini", body_bytes=60)
INTENT = RequestIntent("req_1", Caller("project"), "openai", "/v1/chat/completions", "POST", "gpt-4o-mini", START)
DONE = RequestEnd(Outcome.COMPLETED, 200, START + timedelta(seconds=1), START + timedelta(milliseconds=20), "up_1")
JSON = ResponseHead(200, "application/json")
ANSWER = (
    b'{"id":"chatcmpl-1","model":"gpt-4o-mini-2024-07-18","choices":[],'
    b'"usage":{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100}}'
)


def endpoint(path: str, method: str = "POST") -> Endpoint:
    return next(one for one in OPENAI_ENDPOINTS if (one.path, one.method) == (path, method))


CHAT = endpoint("/v1/chat/completions")


@pytest.fixture(scope="module")
def tariff() -> Tariff:
    return Tariff(PriceBook.from_documents(read_documents(conf_path("prices"))), "openai", Decimal("0.05"))


class Broken:
    """A reader with a fault in the step that it is told."""

    object_id = None

    def __init__(self, step: str) -> None:
        self.step = step
        self.fed = 0

    def feed(self, data: bytes) -> None:
        self.fed += 1
        self._maybe("feed")

    def close(self, *, complete: bool) -> None:
        self._maybe("close")

    def result(self) -> UsageReport:
        self._maybe("result")
        return UsageReport(raw='{"kept":1}')

    def _maybe(self, step: str) -> None:
        if step in self.step:
            raise ZeroDivisionError(step)


class FaultyTariff(Tariff):
    """A tariff whose arithmetic fails."""

    def rate(self, report: UsageReport, facts: RequestFacts, at: datetime) -> Cost:
        raise ArithmeticError("of the tariff")


def failures() -> float:
    return REGISTRY.get_sample_value("llm_proxy_reader_failures_total") or 0


def unpriced() -> float:
    return REGISTRY.get_sample_value("llm_proxy_unpriced_total", {"provider": "openai"}) or 0


def metered(meter: RequestMeter, *chunks: bytes, head: ResponseHead = JSON, ending: RequestEnd = DONE) -> RequestRecord:
    meter.response_started(head)
    for chunk in chunks:
        meter.feed(chunk)
    meter.body_complete()
    return meter.close(ending)


def test_an_answer_is_priced_by_its_own_usage_and_model(tariff: Tariff) -> None:
    record = metered(RequestMeter(INTENT, CHAT, FACTS, tariff), ANSWER[:40], ANSWER[40:])

    # 1000 x 0.15 and 100 x 0.60 per million, and 5 % of that.
    assert record.cost.subtotal == Decimal("0.00021")
    assert record.cost.total == Decimal("0.0002205")
    assert (record.basis, record.model, record.faults) == (Basis.REPORTED, "gpt-4o-mini-2024-07-18", ())
    assert record.usage is not None
    assert '"prompt_tokens":1000' in record.usage
    assert (record.status, record.outcome, record.upstream_request_id) == (200, Outcome.COMPLETED, "up_1")
    assert (record.first_byte_at, record.ended_at) == (DONE.first_byte_at, DONE.at)


def test_a_free_path_costs_nothing_and_needs_no_answer(tariff: Tariff) -> None:
    free = endpoint("/v1/models", "GET")

    for record in (
        RequestMeter(INTENT, free, RequestFacts(), tariff).close(DONE),
        metered(RequestMeter(INTENT, free, RequestFacts(), tariff), b'{"data":[]}'),
    ):
        assert (record.basis, record.cost.total, record.cost.line_items) == (Basis.FREE, 0, ())


def test_what_never_left_costs_nothing(tariff: Tariff) -> None:
    never = replace(DONE, outcome=Outcome.UPSTREAM_ERROR, status=502, reached_provider=False)

    record = RequestMeter(INTENT, CHAT, FACTS, tariff).close(never)

    assert (record.basis, record.model, record.faults) == (Basis.FREE, "gpt-4o-mini", ())


def test_what_may_have_left_and_was_not_answered_is_unsettled_and_says_so(tariff: Tariff) -> None:
    before = unpriced()

    record = RequestMeter(INTENT, CHAT, FACTS, tariff).close(replace(DONE, outcome=Outcome.UPSTREAM_ERROR, status=504))

    assert record.basis is Basis.UNSETTLED
    assert record.faults == ("the provider sent no readable response",)
    assert unpriced() == before + 1


@pytest.mark.parametrize("step", ["feed", "close", "result", "feed and close"])
def test_a_reader_s_fault_breaks_no_stream_and_loses_no_record(
    step: str, tariff: Tariff, caplog: pytest.LogCaptureFixture
) -> None:
    reader = Broken(step)
    broken = replace(CHAT, reader=lambda facts, head: reader)
    before = failures(), unpriced()

    record = metered(RequestMeter(INTENT, broken, FACTS, tariff), b"one", b"two", b"three")

    assert record.basis is Basis.UNSETTLED
    assert "the usage reader failed" in record.faults
    assert reader.fed == (1 if "feed" in step else 3)
    assert (failures(), unpriced()) == (before[0] + 1, before[1] + 1)
    (line,) = [line for line in caplog.records if line.levelno == logging.ERROR]
    assert (line.getMessage(), vars(line)["request_id"]) == ("usage reader failed", "req_1")


def test_a_price_s_fault_keeps_the_usage(tariff: Tariff, caplog: pytest.LogCaptureFixture) -> None:
    faulty = FaultyTariff(tariff.prices, "openai", Decimal("0.05"))

    record = metered(RequestMeter(INTENT, CHAT, FACTS, faulty), ANSWER)

    assert record.basis is Basis.UNSETTLED
    assert record.faults == ("rating failed; the usage is kept and can be rated again",)
    assert record.usage is not None
    assert '"completion_tokens":100' in record.usage
    assert [line.getMessage() for line in caplog.records] == ["rating failed"]


def test_a_model_that_the_answer_names_and_nobody_priced_is_unsettled_with_its_usage(tariff: Tariff) -> None:
    facts = replace(FACTS, model="gpt-of-tomorrow")

    record = metered(
        RequestMeter(INTENT, CHAT, facts, tariff), ANSWER.replace(b"gpt-4o-mini-2024-07-18", b"gpt-of-tomorrow")
    )

    assert record.basis is Basis.UNSETTLED
    assert record.faults
    assert record.usage is not None


def test_an_error_of_the_provider_costs_nothing(tariff: Tariff) -> None:
    refused = b'{"error":{"message":"no","type":"invalid_request_error"}}'

    record = metered(
        RequestMeter(INTENT, CHAT, FACTS, tariff),
        refused,
        head=ResponseHead(400, "application/json"),
        ending=replace(DONE, status=400),
    )

    assert (record.basis, record.cost.total, record.status) == (Basis.FREE, 0, 400)


def test_an_answer_that_broke_off_is_an_estimate_with_a_method(tariff: Tariff) -> None:
    meter = RequestMeter(INTENT, CHAT, replace(FACTS, stream=True), tariff)
    meter.response_started(ResponseHead(200, "text/event-stream"))
    meter.feed(b'data: {"model":"gpt-4o-mini","choices":[{"delta":{"content":"a few words"}}]}\n\n')

    record = meter.close(replace(DONE, outcome=Outcome.UPSTREAM_BROKEN))

    assert record.basis is Basis.ESTIMATED
    assert record.estimate_method
    assert record.cost.total > 0


def test_what_a_call_creates_is_known_as_soon_as_the_answer_names_it(tariff: Tariff) -> None:
    meter = RequestMeter(INTENT, endpoint("/v1/responses"), replace(FACTS, stream=True), tariff)
    assert meter.object_id is None
    meter.response_started(ResponseHead(200, "text/event-stream"))
    assert meter.object_id is None

    meter.feed(
        b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1","usage":null}}\n\n'
    )

    assert meter.object_id == "resp_1"


def test_a_body_that_cannot_be_read_is_unsettled_with_the_reason(tariff: Tariff) -> None:
    meter = RequestMeter(INTENT, CHAT, FACTS, tariff)
    meter.response_started(JSON)
    meter.unreadable("the answer is coded")
    meter.feed(ANSWER)

    record = meter.close(DONE)

    assert (record.basis, record.faults, record.usage) == (Basis.UNSETTLED, ("the answer is coded",), None)


def test_bytes_before_a_head_are_nobody_s(tariff: Tariff) -> None:
    meter = RequestMeter(INTENT, CHAT, FACTS, tariff)

    meter.feed(ANSWER)

    assert meter.close(DONE).basis is Basis.UNSETTLED
