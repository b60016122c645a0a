"""The bill of one request: a request and a response in, the record out, at the bundled prices.

Every amount is typed from the providers' price lists, in US dollars.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from msgspec import structs

from tornado_proxy.config.bundled import conf_path
from tornado_proxy.config.files import read_documents
from tornado_proxy.domain.config.document import Document
from tornado_proxy.domain.errors import ModelNotPriced
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import Outcome, RequestIntent, RequestRecord
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import Basis
from tornado_proxy.metering.request_meter import RequestEnd, RequestMeter, rated_record
from tornado_proxy.pricing.book.price_book import PriceBook, Tariff
from tornado_proxy.providers.anthropic.batches.results import make_results_reader
from tornado_proxy.providers.contract import HttpEndpoint, RequestView, ResponseHead
from tornado_proxy.providers.registry import PROVIDERS

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
DONE = RequestEnd(Outcome.COMPLETED, 200, NOW)
JSON = ResponseHead(200, "application/json")


PRICES = conf_path("prices")


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook.from_documents(read_documents(PRICES))


def without_meter(document: Document, meter: str) -> Document:
    """Return the price document without any price of `meter`."""
    content: Any = copy.deepcopy(document.content)
    for model in content["models"].values():
        for card in model["rates"]:
            card["prices"].pop(meter, None)
    return replace(document, content=content)


def find_endpoint(path: str) -> tuple[str, HttpEndpoint]:
    return next(
        (provider.name, endpoint)
        for provider in PROVIDERS
        for endpoint in provider.endpoints
        if isinstance(endpoint, HttpEndpoint) and (endpoint.path, endpoint.method) == (path, "POST")
    )


def bill(
    book: PriceBook, path: str, request: dict[str, Any], response: dict[str, Any], at: datetime = NOW
) -> RequestRecord:
    """Return the record of a request that began at `at`, as the proxy admits and meters it."""
    provider, endpoint = find_endpoint(path)
    assert endpoint.parse is not None
    tariff = Tariff(book, provider, Decimal(0))
    facts = endpoint.parse(RequestView(json.dumps(request).encode(), "application/json")).facts
    for spend in facts.priced_spends:
        tariff.admit(path, spend, at)
    intent = RequestIntent("req_1", Caller("project"), provider, path, "POST", facts.model, at)
    meter = RequestMeter(intent, endpoint, facts, tariff)
    meter.response_started(JSON)
    meter.feed(json.dumps(response).encode())
    meter.body_complete()
    return meter.close(structs.replace(DONE, at=at))


def bill_batch(book: PriceBook, message: dict[str, Any]) -> RequestRecord:
    """Return the record of a batch with one result."""
    reader = make_results_reader(RequestFacts(), JSON)
    reader.feed(json.dumps({"custom_id": "a", "result": {"type": "succeeded", "message": message}}).encode())
    reader.close(complete=True)
    intent = RequestIntent("req_1", Caller("project"), "anthropic", "/v1/messages/batches", "POST", None, NOW)
    tariff = Tariff(book, "anthropic", Decimal(0))
    return rated_record(intent, reader.result(), RequestFacts(), tariff, DONE)


def message_request(model: str, **members: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 1000, "messages": [{"role": "user", "content": "x"}], **members}


def message(model: str, usage: dict[str, Any], **members: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": "x"}]
    return {"id": "msg_1", "model": model, "content": content, "stop_reason": "end_turn", "usage": usage, **members}


def run(kind: str, read: int, written: int, **members: Any) -> dict[str, Any]:
    """Return an entry of `iterations`."""
    return {"type": kind, "input_tokens": read, "output_tokens": written, **members}


def chat(model: str, tier: str, read: int, written: int) -> dict[str, Any]:
    usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return {"id": "chatcmpl-1", "model": model, "service_tier": tier, "choices": [], "usage": usage}


def response(model: str, tier: str, usage: dict[str, Any], *output: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "model": model,
        "status": "completed",
        "service_tier": tier,
        "output": list(output),
        "usage": usage,
    }


def assert_reported(record: RequestRecord, total: str, *notes: str) -> None:
    assert (record.basis, record.cost.total) == (Basis.REPORTED, Decimal(total))
    assert record.faults == notes
    assert all(item.amount is not None for item in record.cost.line_items)


class TestPromptLength:
    HAIKU = "claude-haiku-5-5"
    NOTE = (
        "claude-haiku-5-5 has higher prices for a prompt of more than 100000 input tokens; the response states only "
        "the sum of its prompts, so the cost is an upper bound"
    )

    def test_price_of_each_prompt_of_a_tool_loop_is_chosen_by_its_own_length(self, book: PriceBook) -> None:
        iterations = [run("message", 60000, 10), run("message", 61000, 10)]
        usage = {"input_tokens": 121000, "output_tokens": 20, "iterations": iterations}

        record = bill(book, "/v1/messages", message_request(self.HAIKU), message(self.HAIKU, usage))

        # 121000 x 0.10 + 20 x 0.50 per million
        assert_reported(record, "0.01211")

    def test_batch_charges_the_long_prompt_alone_at_the_long_price(self, book: PriceBook) -> None:
        iterations = [run("message", 60000, 10), run("message", 101000, 10)]
        usage = {
            "input_tokens": 161000,
            "output_tokens": 20,
            "iterations": iterations,
            "server_tool_use": {"web_search_requests": 2},
        }

        record = bill_batch(book, message(self.HAIKU, usage))

        # 60000 x 0.05 + 10 x 0.25 + 101000 x 0.25 + 10 x 1.25 per million, and 2 searches at 0.01
        assert_reported(record, "0.048265")

    @pytest.mark.parametrize(
        "iterations",
        [
            pytest.param({}, id="no prompts"),
            pytest.param({"iterations": [run("message", 60000, 10), run("message", 60000, 10)]}, id="other prompts"),
        ],
    )
    def test_sum_of_prompts_is_an_upper_bound_and_the_record_says_so(
        self, book: PriceBook, iterations: dict[str, Any]
    ) -> None:
        usage = {
            "input_tokens": 121000,
            "output_tokens": 20,
            "server_tool_use": {"web_search_requests": 1},
            **iterations,
        }

        record = bill(book, "/v1/messages", message_request(self.HAIKU), message(self.HAIKU, usage))

        # 121000 x 0.50 + 20 x 2.50 per million, and a search at 0.01
        assert_reported(record, "0.07055", self.NOTE)

    def test_one_long_prompt_without_tools_is_exact(self, book: PriceBook) -> None:
        usage = {"input_tokens": 121000, "output_tokens": 20}

        record = bill(book, "/v1/messages", message_request(self.HAIKU), message(self.HAIKU, usage))

        assert_reported(record, "0.06055")

    def test_long_response_with_hosted_tools_is_an_upper_bound(self, book: PriceBook) -> None:
        usage = {"input_tokens": 273000, "output_tokens": 10, "total_tokens": 273010}
        request = {"model": "gpt-5.4", "input": "x", "tools": [{"type": "web_search"}]}
        search = {"type": "web_search_call", "status": "completed", "action": {"type": "search"}}

        searched = bill(book, "/v1/responses", request, response("gpt-5.4", "default", usage, search))
        plain = bill(book, "/v1/responses", request, response("gpt-5.4", "default", usage))

        # 273000 x 5 + 10 x 22.50 per million, and a search at 0.01
        assert_reported(
            searched,
            "1.375225",
            "gpt-5.4 has higher prices for a prompt of more than 272000 input tokens; the response states only the sum "
            "of its prompts, so the cost is an upper bound",
        )
        assert_reported(plain, "1.365225")

    def test_ended_long_context_price_is_not_charged(self, book: PriceBook) -> None:
        usage = {"input_tokens": 404500, "output_tokens": 943, "server_tool_use": {"web_search_requests": 10}}
        model = "claude-sonnet-4-5"

        record = bill(book, "/v1/messages", message_request(model), message(model, usage))
        earlier = bill(
            book, "/v1/messages", message_request(model), message(model, usage), datetime(2026, 4, 1, tzinfo=UTC)
        )

        # 404500 x 3 + 943 x 15 per million, and 10 searches at 0.01; 6 and 22.50 before
        assert_reported(record, "1.327645")
        assert earlier.cost.total == Decimal("2.5482175")


class TestTiersWithoutAPrice:
    @staticmethod
    def note(tier: str) -> str:
        return f"service tier {tier} has no price; the standard price is charged"

    @pytest.mark.parametrize("tier", ["auto", "scale"])
    def test_response_on_such_a_tier_costs_the_standard_price(self, book: PriceBook, tier: str) -> None:
        usage = {"input_tokens": 159, "output_tokens": 275, "total_tokens": 434}

        record = bill(
            book, "/v1/responses", {"model": "gpt-5", "input": "x"}, response("gpt-5-2025-08-07", tier, usage)
        )

        # 159 x 1.25 + 275 x 10 per million
        assert_reported(record, "0.00294875", self.note(tier))

    @pytest.mark.parametrize("tier", ["auto", "scale"])
    def test_chat_on_such_a_tier_costs_the_standard_price(self, book: PriceBook, tier: str) -> None:
        request = {"model": "gpt-4o-mini", "messages": [], "service_tier": tier}

        record = bill(book, "/v1/chat/completions", request, chat("gpt-4o-mini-2024-07-18", tier, 1000, 100))

        # 1000 x 0.15 + 100 x 0.60 per million
        assert_reported(record, "0.00021", self.note(tier))

    def test_message_on_the_requested_tier_word_costs_the_standard_price(self, book: PriceBook) -> None:
        usage = {"input_tokens": 1000, "output_tokens": 100, "service_tier": "standard_only"}

        record = bill(book, "/v1/messages", message_request("claude-opus-5"), message("claude-opus-5", usage))

        assert_reported(record, "0.0075", self.note("standard_only"))

    def test_unknown_tier_is_never_charged_as_another(self, book: PriceBook) -> None:
        record = bill(
            book, "/v1/chat/completions", {"model": "gpt-4o-mini", "messages": []}, chat("gpt-4o-mini", "turbo", 10, 1)
        )

        assert (record.basis, record.cost.total) == (Basis.UNSETTLED, 0)


class TestCacheLifetimes:
    def test_input_written_for_12_hours_costs_two_and_a_half_times_the_input(self, book: PriceBook) -> None:
        usage = {"input_tokens": 1000, "input_tokens_details": {"cache_write_tokens": 800}, "output_tokens": 10}
        request = {"model": "gpt-5.6-sol", "input": "x", "prompt_cache_options": {"ttl": "12h"}}

        record = bill(book, "/v1/responses", request, response("gpt-5.6-sol", "default", usage))

        # 200 x 4 + 800 x 10 + 10 x 20 per million
        assert_reported(record, "0.009")

    @pytest.mark.parametrize(
        ("model", "tier", "total"),
        [
            # 200 x 2 + 800 x 5 + 10 x 10, 200 x 0.5 + 800 x 1.25 + 10 x 2.5, 200 x 6 + 800 x 15 + 10 x 30 per million
            ("gpt-6.1-terra", "priority", "0.0045"),
            ("gpt-6.1-terra", "flex", "0.001125"),
            ("gpt-6.2-sol", "ultrafast", "0.0135"),
        ],
    )
    def test_tier_and_lifetime_that_are_asked_for_together_have_a_price(
        self, book: PriceBook, model: str, tier: str, total: str
    ) -> None:
        usage = {"input_tokens": 1000, "input_tokens_details": {"cache_write_tokens": 800}, "output_tokens": 10}
        request = {"model": model, "input": "x", "service_tier": tier, "prompt_cache_options": {"ttl": "12h"}}

        record = bill(book, "/v1/responses", request, response(model, tier, usage))

        assert_reported(record, total)

    @pytest.mark.parametrize("model", ["claude-mythos-5", "claude-mythos-5-1"])
    def test_hour_of_cached_input_in_a_batch_costs_half(self, book: PriceBook, model: str) -> None:
        usage = {
            "cache_creation_input_tokens": 3000,
            "cache_creation": {"ephemeral_1h_input_tokens": 2000, "ephemeral_5m_input_tokens": 1000},
            "output_tokens": 0,
        }

        # 2000 x 10 + 1000 x 6.25 per million
        assert_reported(bill_batch(book, message(model, usage)), "0.02625")

    @pytest.mark.parametrize(
        ("provider", "path", "request_body", "meter"),
        [
            pytest.param(
                "openai",
                "/v1/responses",
                {"model": "gpt-5.6-sol", "input": "x", "prompt_cache_options": {"ttl": "12h"}},
                "cache_write_12h_tokens",
                id="responses",
            ),
            pytest.param(
                "openai",
                "/v1/chat/completions",
                {"model": "gpt-5.6-sol", "messages": [], "prompt_cache_options": {"ttl": "12h"}},
                "cache_write_12h_tokens",
                id="chat",
            ),
            pytest.param(
                "anthropic",
                "/v1/messages/batches",
                {
                    "requests": [
                        {
                            "custom_id": "a",
                            "params": message_request(
                                "claude-mythos-5",
                                system=[
                                    {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
                                ],
                            ),
                        }
                    ]
                },
                "cache_write_1h_tokens",
                id="a batch",
            ),
        ],
    )
    def test_lifetime_without_a_price_is_refused_before_it_is_sent(
        self, provider: str, path: str, request_body: dict[str, Any], meter: str
    ) -> None:
        _, endpoint = find_endpoint(path)
        assert endpoint.parse is not None
        facts = endpoint.parse(RequestView(json.dumps(request_body).encode(), "application/json")).facts
        lacking = PriceBook.from_documents([without_meter(document, meter) for document in read_documents(PRICES)])

        # The model's own spend, which the request names first.
        with pytest.raises(ModelNotPriced, match=f"has no price for {meter}"):
            lacking.admit(provider, path, facts.priced_spends[0], NOW)

    def test_lifetime_is_no_reason_to_refuse_a_model_that_charges_no_writes(self, book: PriceBook) -> None:
        usage = {"input_tokens": 1000, "output_tokens": 0}
        request = {"model": "gpt-5.4", "input": "x", "prompt_cache_options": {"ttl": "12h"}}

        assert_reported(bill(book, "/v1/responses", request, response("gpt-5.4", "default", usage)), "0.0025")


class TestSpeedsOfFallbacks:
    def test_standard_hop_before_a_fast_fallback_costs_the_standard_price(self, book: PriceBook) -> None:
        request = message_request("claude-fable-5", fallbacks=[{"model": "claude-opus-5-5", "speed": "fast"}])
        iterations = [
            run("message", 1000, 10, model="claude-fable-5"),
            run("fallback_message", 1000, 10, model="claude-opus-5-5"),
        ]
        usage = {"input_tokens": 1000, "output_tokens": 10, "speed": "fast", "iterations": iterations}

        record = bill(book, "/v1/messages", request, message("claude-opus-5-5", usage))

        # 1000 x 8 + 10 x 40 fast, and the hop: 1000 x 10 + 10 x 50 per million
        assert_reported(record, "0.0189")

    def test_fast_hop_before_a_standard_fallback_costs_the_fast_price(self, book: PriceBook) -> None:
        request = message_request("claude-opus-5", speed="fast", fallbacks=[{"model": "claude-opus-4-8"}])
        iterations = [
            run("message", 1000, 10, model="claude-opus-5"),
            run("fallback_message", 1000, 10, model="claude-opus-4-8"),
        ]
        usage = {"input_tokens": 1000, "output_tokens": 10, "speed": "standard", "iterations": iterations}

        record = bill(book, "/v1/messages", request, message("claude-opus-4-8", usage))

        # 1000 x 5 + 10 x 25, and the hop: 1000 x 10 + 10 x 50 per million
        assert_reported(record, "0.01575")
