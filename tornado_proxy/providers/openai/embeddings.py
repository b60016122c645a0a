"""/v1/embeddings: input tokens, one usage for all inputs, whatever their encoding."""

from __future__ import annotations

from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.usage import Meter, UsageReport
from tornado_proxy.providers.endpoint import AnswerHead, Endpoint, ParsedRequest, UsageReader
from tornado_proxy.providers.json_body import read_members, required_model
from tornado_proxy.providers.openai.chat import estimate_text, report_chat
from tornado_proxy.providers.openai.media_readers import JsonReader, NothingCharged


def parse(body: bytes, content_type: str) -> ParsedRequest:
    """The facts of a request; the body is sent as it came."""
    model = required_model(read_members(body, ("model",)))
    facts = RequestFacts(model=model, spends=(Spend(model, frozenset({Meter.INPUT})),), body_bytes=len(body))
    return ParsedRequest(facts, body)


def reader(facts: RequestFacts, head: AnswerHead) -> UsageReader:
    """What reads the usage of one answer."""
    if not head.ok:
        return NothingCharged()
    return JsonReader(lambda body: report_chat([body]), lambda _: _estimate(facts))


def _estimate(facts: RequestFacts) -> UsageReport:
    return estimate_text(facts, 0)


EMBEDDING_ENDPOINTS = (Endpoint("openai", "POST", "/v1/embeddings", parse=parse, reader=reader),)
