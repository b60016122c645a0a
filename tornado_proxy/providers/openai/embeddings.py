"""/v1/embeddings: input tokens, one usage for all inputs, whatever their encoding."""

from __future__ import annotations

import re

import msgspec

from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.usage import Meter, UsageReport
from tornado_proxy.providers.contract import HttpEndpoint, ParsedRequest, RequestView, ResponseHead, UsageReader
from tornado_proxy.providers.openai.shared.text_report import estimate_text, report_text
from tornado_proxy.providers.shared.json_body import read_members, required_model

#: Bytes that are kept of each end of an answer.  In between are vectors: 125 MB of numbers for the largest request.
_KEPT_BYTES = 16 * 1024

#: Both stand in an answer once: it has no text that a caller chose, and base64 has no quotation marks.
_USAGE = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')
_MODEL = re.compile(rb'"model"\s*:\s*("[^"\\]{0,200}")')


def parse(request: RequestView) -> ParsedRequest:
    """The facts of a request; the body is sent as it came."""
    body = request.body
    model = required_model(read_members(body, ("model",)))
    facts = RequestFacts(model=model, spends=(Spend(model, frozenset({Meter.INPUT})),), body_bytes=len(body))
    return ParsedRequest(facts, body)


def reader(facts: RequestFacts, head: ResponseHead) -> UsageReader:
    """What reads the usage of one answer."""
    return EmbeddingsReader(facts)


class EmbeddingsReader:
    """Keeps the first and the last bytes of the answer: what is read stands there, never among the vectors."""

    object_id: str | None = None

    def __init__(self, facts: RequestFacts) -> None:
        self._facts = facts
        self._first = b""
        self._last = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        room = _KEPT_BYTES - len(self._first)
        if room > 0:
            self._first += data[:room]
            data = data[room:]
        if data:
            self._last = (self._last + data[-_KEPT_BYTES:])[-_KEPT_BYTES:]

    def close(self, *, complete: bool) -> None:
        """Nothing to end."""

    def result(self) -> UsageReport:
        """The stated usage, else an estimate; there is no output to estimate."""
        kept = self._first + self._last
        known = {"usage": _value(_USAGE, kept), "model": _value(_MODEL, kept)}
        return report_text(self._facts, known) or estimate_text(self._facts, 0, known)


def _value(pattern: re.Pattern[bytes], kept: bytes) -> object:
    found = pattern.search(kept)
    try:
        return None if found is None else msgspec.json.decode(found[1])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


EMBEDDING_ENDPOINTS = (HttpEndpoint("POST", "/v1/embeddings", parse=parse, reader=reader),)
