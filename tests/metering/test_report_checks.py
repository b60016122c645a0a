"""Long names of a response are not kept.  Counts that no reader knows are noted; all of the SDKs' types are known."""

from __future__ import annotations

import json
import logging
import typing
from collections.abc import Iterator
from typing import Any

import anthropic.types.beta
import msgspec
import openai.types
import openai.types.audio.transcription
import openai.types.create_embedding_response
import openai.types.images_response
import openai.types.realtime
import openai.types.responses
import openai.types.responses.response
import pydantic
import pytest
from prometheus_client import REGISTRY

from tornado_proxy.domain.usage import Basis, UsageItem, UsageReport
from tornado_proxy.metering import report_checks
from tornado_proxy.metering.report_checks import cut_name, limit_names, note_unknown_counts
from tornado_proxy.providers.registry import PROVIDERS

LONG = "m" * 513
FAULT = "the response has a name of 513 characters, which is not kept"

UNKNOWN = "which this version does not know: they are charged only as a part of others"

USAGE_TYPES = (
    ("openai", openai.types.CompletionUsage),
    ("openai", openai.types.create_embedding_response.Usage),
    ("openai", openai.types.responses.ResponseUsage),
    ("openai", openai.types.responses.response.ToolUsage),
    ("openai", openai.types.realtime.RealtimeResponseUsage),
    ("openai", openai.types.images_response.Usage),
    ("openai", openai.types.audio.transcription.UsageTokens),
    ("openai", openai.types.audio.transcription.UsageDuration),
    ("anthropic", anthropic.types.Usage),
    ("anthropic", anthropic.types.beta.BetaUsage),
    ("anthropic", anthropic.types.beta.BetaMessageDeltaUsage),
)


def list_counts(kind: object) -> Iterator[str]:
    """Yield the names of all numbers in an SDK's type, at any depth."""
    if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
        for name, field in kind.model_fields.items():
            if not {int, float}.isdisjoint((field.annotation, *typing.get_args(field.annotation))):
                yield name
            yield from list_counts(field.annotation)
    for part in typing.get_args(kind):
        yield from list_counts(part)


@pytest.mark.parametrize(("provider", "kind"), USAGE_TYPES)
def test_every_count_of_the_sdk_s_usage_types_is_known(provider: str, kind: type[pydantic.BaseModel]) -> None:
    known = next(one.usage.counts for one in PROVIDERS if one.name == provider)

    counts = set(list_counts(kind))

    assert counts
    assert counts <= known


@pytest.mark.parametrize(
    ("usage", "notes"),
    [
        pytest.param(None, (), id="no usage"),
        pytest.param({"prompt_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}}, (), id="all known"),
        pytest.param({"prompt_tokens": 9, "video_tokens": 0}, (), id="zero"),
        pytest.param({"prompt_tokens": 9, "service": 'a "video_tokens":5 b'}, (), id="inside a text"),
        pytest.param(
            {"prompt_tokens": 9, "completion_tokens_details": {"video_tokens": 20}},
            (f"usage states 20 video_tokens, {UNKNOWN}",),
            id="new detail",
        ),
        pytest.param(
            {"input_tokens": 9, "input_tokens_details": {"cached_tokens_details": {"video_tokens": 7}}},
            (f"usage states 7 video_tokens, {UNKNOWN}",),
            id="new detail of a detail",
        ),
        pytest.param(
            {"prompt_tokens": 9, "prompt_tokens_details": 5, "service_tier": 3},
            (f"usage states 5 prompt_tokens_details, {UNKNOWN}", f"usage states 3 service_tier, {UNKNOWN}"),
            id="a count in place of an object and of a text",
        ),
        pytest.param(
            {"prompt_tokens": {"video_tokens": 6}},
            (f"usage states 6 video_tokens, {UNKNOWN}",),
            id="an object in place of a count",
        ),
        pytest.param(
            {"prompt_tokens": 9, "iterations": [{"output_tokens": 4}, {"video_tokens": 2}]},
            (f"usage states 2 video_tokens, {UNKNOWN}",),
            id="in a list",
        ),
        pytest.param({"prompt_tokens": 9, "service_tier": "half \udc80", "new": None}, (), id="half a surrogate pair"),
    ],
)
def test_unknown_counts_are_noted(usage: dict[str, Any] | None, notes: tuple[str, ...]) -> None:
    text = None if usage is None else json.dumps(usage, separators=(",", ":"))

    assert note_unknown_counts("openai", text) == notes


def test_each_unknown_name_is_logged_once_and_each_count_is_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_checks, "_told", set())
    labels = {"provider": "anthropic"}
    before = REGISTRY.get_sample_value("llm_proxy_unknown_usage_total", labels) or 0

    for name in ("image_requests", "image_requests", "video_seconds"):
        note_unknown_counts("anthropic", json.dumps({name: 1}, separators=(",", ":")))

    assert [vars(line)["name_of_count"] for line in caplog.records] == ["image_requests", "video_seconds"]
    assert {line.levelno for line in caplog.records} == {logging.WARNING}
    assert REGISTRY.get_sample_value("llm_proxy_unknown_usage_total", labels) == before + 3


def test_names_of_a_real_response_are_kept() -> None:
    report = UsageReport((UsageItem((), model="m" * 512),), Basis.PENDING, model="gpt-5.4", object_id="resp_1")

    assert limit_names(report) is report


def test_name_that_is_too_long_is_missing_and_a_fault_says_so() -> None:
    report = UsageReport((UsageItem((), model=LONG),), Basis.REPORTED, model=LONG, objects=("item_1", LONG))

    limited = limit_names(report)

    assert limited == UsageReport((UsageItem(()),), Basis.REPORTED, objects=("item_1",), faults=(FAULT,))


def test_pending_usage_of_an_object_that_cannot_be_named_is_unsettled() -> None:
    limited = limit_names(UsageReport(basis=Basis.PENDING, object_id=LONG))

    assert limited == msgspec.structs.replace(UsageReport(), basis=Basis.UNSETTLED, faults=(FAULT,))


def test_request_id_of_a_provider_is_cut() -> None:
    assert (cut_name(LONG), cut_name("req_1"), cut_name(None)) == ("m" * 512, "req_1", None)
