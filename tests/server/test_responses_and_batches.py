"""Compaction, token counts, and the management of responses and batches, at exact cost."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import anthropic
import openai
import pytest

from tests.harness import ProxyProcess, mint, running_proxy
from tornado_proxy.simulator import Simulator, running_simulator

MILLION = Decimal(1_000_000)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    with (
        running_simulator(Simulator(settle_s=30)) as url,
        running_proxy(tmp_path_factory.mktemp("objects"), url) as running,
    ):
        yield running


@pytest.fixture
def gpt(proxy: ProxyProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=proxy.base_url + "/v1", api_key=mint(), max_retries=0) as client:
        yield client


def record_of(proxy: ProxyProcess, response: Any) -> dict[str, Any]:
    return proxy.read_record(response.headers["llm-proxy-request-id"])


def test_compaction_is_billed_by_its_usage(gpt: openai.OpenAI, proxy: ProxyProcess) -> None:
    raw = gpt.responses.with_raw_response.compact(model="gpt-5-mini", input="Hello " * 50)
    usage = raw.parse().usage

    # gpt-5-mini, USD per million tokens: 0.25 in, 0.025 cached, 2 out.
    cached = usage.input_tokens_details.cached_tokens
    fresh = usage.input_tokens - cached
    cost = fresh * Decimal("0.25") + cached * Decimal("0.025") + usage.output_tokens * 2
    assert Decimal(record_of(proxy, raw)["subtotal"]) == cost / MILLION


def test_counting_tokens_is_free(gpt: openai.OpenAI, proxy: ProxyProcess) -> None:
    raw = gpt.responses.input_tokens.with_raw_response.count(model="gpt-5-mini", input="Hello")

    assert raw.parse().input_tokens > 0
    assert record_of(proxy, raw)["basis"] == "free"


def test_project_lists_cancels_and_deletes_its_own_responses(gpt: openai.OpenAI, proxy: ProxyProcess) -> None:
    done = gpt.responses.create(model="gpt-5-mini", input="Hello")
    running = gpt.responses.create(model="gpt-5-mini", input="Hello", background=True)

    read = gpt.responses.input_items.with_raw_response.list(done.id)
    cancelled = gpt.responses.with_raw_response.cancel(running.id)
    deleted = gpt.responses.with_raw_response.delete(done.id)

    assert read.parse().data
    assert cancelled.parse().status == "cancelled"
    assert [record_of(proxy, raw)["basis"] for raw in (read, cancelled, deleted)] == ["free"] * 3


def test_project_cancels_and_deletes_its_own_batches(proxy: ProxyProcess) -> None:
    with anthropic.Anthropic(base_url=proxy.base_url + "/anthropic", api_key=mint(), max_retries=0) as claude:
        message = {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
        batch = claude.messages.batches.create(requests=[{"custom_id": "a", "params": message}])  # type: ignore[typeddict-item]

        cancelled = claude.messages.batches.cancel(batch.id)

        assert cancelled.processing_status in ("canceling", "ended")


def test_background_response_is_billed_although_its_client_deletes_it(gpt: openai.OpenAI, proxy: ProxyProcess) -> None:
    raw = gpt.responses.with_raw_response.create(model="gpt-5-mini", input="Hello " * 50, background=True)

    gpt.responses.delete(raw.parse().id)

    record = record_of(proxy, raw)
    assert record["basis"] == "estimated"
    assert Decimal(record["subtotal"]) > 0


def test_background_response_is_not_deleted_while_it_streams(gpt: openai.OpenAI, proxy: ProxyProcess) -> None:
    slow = "[[sim tokens=50 delay-ms=100]]"
    with gpt.responses.create(model="gpt-5-mini", input=slow, background=True, stream=True) as events:
        created = next(iter(events))
        assert created.type == "response.created"

        with pytest.raises(openai.ConflictError, match="still streams"):
            gpt.responses.delete(created.response.id)


def test_usage_of_a_cancelled_response_is_billed(gpt: openai.OpenAI, proxy: ProxyProcess) -> None:
    raw = gpt.responses.with_raw_response.create(model="gpt-5-mini", input="Hello " * 50, background=True)

    gpt.responses.cancel(raw.parse().id)
    gpt.responses.delete(raw.parse().id)

    assert Decimal(record_of(proxy, raw)["subtotal"]) > 0


def test_batch_that_runs_is_not_deleted(proxy: ProxyProcess) -> None:
    with anthropic.Anthropic(base_url=proxy.base_url + "/anthropic", api_key=mint(), max_retries=0) as claude:
        message = {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
        batch = claude.messages.batches.create(requests=[{"custom_id": "a", "params": message}])  # type: ignore[typeddict-item]

        with pytest.raises(anthropic.ConflictError, match="has not ended"):
            claude.messages.batches.delete(batch.id)
