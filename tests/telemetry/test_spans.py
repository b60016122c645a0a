"""Spans and measurements of single records, with figures worked out by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tornado_proxy.ledger.changes import COLUMNS, ChangeKind
from tornado_proxy.telemetry.measurements import Measurement, make_measurements
from tornado_proxy.telemetry.names import NEWER, OLDER
from tornado_proxy.telemetry.spans import count_tokens, make_path_template, make_spans


def item(kind: str, quantity: str) -> dict[str, object]:
    return {"type": kind, "quantity": quantity, "unit": "tokens"}


def make_row(**changes: Any) -> dict[str, object]:
    """Return the row of a message of Anthropic with a cache, and of a model that thinks."""
    items = [
        item("input_tokens", "100"),
        item("cached_input_tokens", "2000"),
        item("cache_write_5m_tokens", "300"),
        item("cache_write_1h_tokens", "40"),
        item("output_tokens", "50"),
        item("llm_proxy_surcharge", "1"),
    ]
    return {
        **dict.fromkeys(COLUMNS),
        "request_id": "req_1",
        "project_id": "p",
        "provider": "anthropic",
        "method": "POST",
        "endpoint": "/v1/messages",
        "model_requested": "claude-sonnet-5",
        "model": "claude-sonnet-5",
        "status": 200,
        "outcome": "completed",
        "basis": "reported",
        "started_at": "2026-11-28T10:00:00.000Z",
        "first_byte_at": "2026-11-28T10:00:00.250Z",
        "ended_at": "2026-11-28T10:00:02.000Z",
        "line_items": json.dumps(items),
        "total": "0.01",
        "usage": '{"output_tokens_details": {"reasoning_tokens": 20}}',
        **changes,
    }


def test_input_tokens_are_all_input_cached_parts_included() -> None:
    assert count_tokens(make_row(), OLDER) == {
        "gen_ai.usage.input_tokens": 2440,
        "gen_ai.usage.output_tokens": 50,
        "gen_ai.usage.cache_read.input_tokens": 2000,
        "gen_ai.usage.cache_creation.input_tokens": 340,
        "gen_ai.usage.reasoning.output_tokens": 20,
    }


def test_spans_of_a_record_are_the_same_each_time() -> None:
    assert make_spans(make_row(), OLDER) == make_spans(make_row(), OLDER)
    first, second = make_spans(make_row(), OLDER)[0], make_spans(make_row(request_id="req_2"), OLDER)[0]
    assert len({first.trace_id, second.trace_id}) == len({first.span_id, second.span_id}) == 2


def test_trace_that_the_client_does_not_sample_stays_unsampled() -> None:
    row = make_row(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")

    assert [span.sampled for span in make_spans(row, OLDER)] == [False, False]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({}, ""),
        ({"status": 429}, "429"),
        ({"outcome": "client_closed", "status": 499}, "client_closed"),
        ({"outcome": "crashed", "status": None}, "crashed"),
    ],
)
def test_failed_request_has_the_kind_of_its_error(changes: dict[str, Any], error: str) -> None:
    server, client = make_spans(make_row(**changes), OLDER)

    assert (server.error, client.error) == (error, error)
    assert server.attributes.get("error.type", "") == client.attributes.get("error.type", "") == error


@pytest.mark.parametrize("basis", ["pending", "unsettled"])
def test_cost_that_is_not_known_is_not_shown_as_zero(basis: str) -> None:
    server = make_spans(make_row(basis=basis, total="0"), OLDER)[0]

    assert "llm_proxy.cost.total" not in server.attributes
    assert server.attributes["llm_proxy.cost.basis"] == basis


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/responses/resp_68af/input_items", "/v1/responses/{id}/input_items"),
        ("/v1/models/gpt-5.4", "/v1/models/{id}"),
    ],
)
def test_path_template_has_no_id(path: str, template: str) -> None:
    assert make_path_template(path) == template


def test_pending_request_is_timed_at_its_end_and_counts_tokens_when_they_are_known() -> None:
    pending = make_measurements(ChangeKind.RECORD, make_row(basis="pending", line_items="[]"), OLDER)
    settled = make_measurements(ChangeKind.SETTLEMENT, make_row(), OLDER)

    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.system": "anthropic",
        "gen_ai.request.model": "claude-sonnet-5",
        "gen_ai.response.model": "claude-sonnet-5",
    }
    assert pending == [
        Measurement("gen_ai.client.operation.duration", 2.0, attributes),
        Measurement("gen_ai.client.operation.time_to_first_chunk", 0.25, attributes),
    ]
    assert settled == [
        Measurement("gen_ai.client.token.usage", 2440, {**attributes, "gen_ai.token.type": "input"}),
        Measurement("gen_ai.client.token.usage", 50, {**attributes, "gen_ai.token.type": "output"}),
    ]


def test_newer_counters_tell_modalities_apart() -> None:
    items = [item("input_tokens", "10"), item("cached_input_audio_tokens", "7"), item("output_audio_tokens", "5")]
    row = make_row(line_items=json.dumps(items), usage=None, first_byte_at=None)

    measured = make_measurements(ChangeKind.SETTLEMENT, row, NEWER)

    assert [(m.metric.rpartition("usage.")[2], m.value, m.attributes["gen_ai.token.modality"]) for m in measured] == [
        ("input_tokens", 10, "text"),
        ("input_tokens", 7, "audio"),
        ("cache_read.input_tokens", 7, "audio"),
        ("output_tokens", 5, "audio"),
    ]


def test_model_that_no_provider_knows_is_no_label_of_a_metric() -> None:
    """A caller can write anything into it, and each value would be a time series of its own."""
    row = make_row(model=None, model_requested="x" * 100, status=404, line_items="[]")

    (duration, _) = make_measurements(ChangeKind.RECORD, row, OLDER)

    assert "gen_ai.request.model" not in duration.attributes
