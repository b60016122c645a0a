"""The names of the conventions, compared with OpenTelemetry's own package, and the operation of each endpoint."""

from __future__ import annotations

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics

from tornado_proxy.telemetry import names
from tornado_proxy.telemetry.names import NEWER, OLDER, choose_names, find_operation


def published(module: object) -> set[str]:
    return {value for value in vars(module).values() if isinstance(value, str) and value.startswith("gen_ai.")}


def test_older_names_are_those_of_the_published_conventions() -> None:
    shared = {
        names.OPERATION,
        names.REQUEST_MODEL,
        names.RESPONSE_MODEL,
        names.RESPONSE_ID,
        names.CONVERSATION_ID,
        names.INPUT_TOKENS,
        names.OUTPUT_TOKENS,
        names.CACHE_READ,
        names.REASONING,
        names.TOKEN_TYPE,
        names.FIRST_CHUNK,
    }

    assert {*shared, OLDER.provider, OLDER.cache_write} <= published(gen_ai_attributes)
    assert {OLDER.duration, OLDER.first_chunk, OLDER.token_usage} <= published(gen_ai_metrics)


@pytest.mark.parametrize(
    ("opt_in", "expected"),
    [
        ("", OLDER),
        ("http", OLDER),
        ("gen_ai_latest_experimental", NEWER),
        ("http/dup, gen_ai_latest_experimental", NEWER),
        ("gen_ai_latest_experimental_2", OLDER),
    ],
)
def test_variable_chooses_the_names(opt_in: str, expected: names.Names) -> None:
    assert choose_names(opt_in) is expected


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [
        ("POST", "/v1/chat/completions", "chat"),
        ("POST", "/v1/messages", "chat"),
        ("POST", "/v1/messages/count_tokens", ""),
        ("POST", "/v1/messages/batches", ""),
        ("POST", "/v1/responses", "chat"),
        ("GET", "/v1/responses", "chat"),
        ("POST", "/v1/responses/resp_1/cancel", ""),
        ("GET", "/v1/responses/resp_1", ""),
        ("GET", "/v1/realtime", "chat"),
        ("POST", "/v1/completions", "text_completion"),
        ("POST", "/v1/complete", "text_completion"),
        ("POST", "/v1/embeddings", "embeddings"),
        ("POST", "/v1/images/generations", "generate_content"),
        ("POST", "/v1/audio/speech", "generate_content"),
        ("GET", "/v1/models", ""),
        ("GET", "/v1/chat/completions", ""),
    ],
)
def test_endpoint_has_the_operation_of_its_model_call(method: str, path: str, operation: str) -> None:
    assert find_operation(method, path) == operation
