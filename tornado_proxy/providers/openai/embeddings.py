"""/v1/embeddings: charged by input tokens, one usage for all inputs.

Source: OpenAI API reference, "Create embeddings".
"""

from __future__ import annotations

import re

from tornado_proxy.domain.request import RequestFacts, Spend, WorkLimits
from tornado_proxy.domain.usage import Meter, UsageReport
from tornado_proxy.providers.contract import HttpEndpoint, ParsedRequest, RequestView, ResponseHead, UsageReader
from tornado_proxy.providers.openai.request_members import CONTENT
from tornado_proxy.providers.openai.shared.text_usage import estimate_text, report_text
from tornado_proxy.providers.shared.json_body import read_described, read_members, read_model
from tornado_proxy.providers.shared.lenient_json import decode_leniently

#: Inputs of one request (OpenAI API reference, "Create embeddings", `input`).
_MAX_INPUTS = 2048

#: Bytes kept of the start and of the end of a response.  Between them are vectors: 125 MB of numbers for the largest
#: request, 2048 inputs of 3072 dimensions.
_MAX_END_BYTES = 16 * 1024

#: Members at the start or the end of a response.  A search in the bytes finds no other match: a response contains no
#: text that a client chose, and base64 has no quotation marks.
_USAGE = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')
_MODEL = re.compile(rb'"model"\s*:\s*("[^"\\]{0,200}")')


#: The member that says who the request is made for (OpenAI API reference, "Create embeddings").
_DESCRIBED = ("user",)


def parse(request: RequestView) -> ParsedRequest:
    """Return the facts of a request, and its unchanged body.

    Raises:
        InvalidBody: the model is missing, repeated or not text.
    """
    body = request.body
    members = read_members(body, ("model", *_DESCRIBED))
    model = read_model(members)
    facts = RequestFacts(
        model=model,
        spends=(Spend(model, frozenset({Meter.INPUT})),),
        body_bytes=len(body),
        # Inputs can be lists of tokens: each token takes at least one byte, too.
        work=WorkLimits(prompts=_MAX_INPUTS, text_only=True),
        described=read_described(members, _DESCRIBED),
    )
    return ParsedRequest(facts, body)


def make_reader(facts: RequestFacts, head: ResponseHead) -> UsageReader:
    """Return the usage reader of a response."""
    return EmbeddingsReader(facts)


class EmbeddingsReader:
    """A UsageReader that keeps only the start and the end of the response, where usage and model are."""

    object_id: str | None = None

    def __init__(self, facts: RequestFacts) -> None:
        self._facts = facts
        self._start = b""
        self._end = b""

    def feed(self, data: bytes) -> None:
        """Keep the next bytes as far as they belong to the start or the end."""
        missing = _MAX_END_BYTES - len(self._start)
        if missing > 0:
            self._start += data[:missing]
            data = data[missing:]
        if data:
            self._end = (self._end + data[-_MAX_END_BYTES:])[-_MAX_END_BYTES:]

    def close(self, *, complete: bool) -> None:
        """End the body."""

    def result(self) -> UsageReport:
        """Return the stated usage, else an estimate of the input; embeddings have no output tokens."""
        ends = self._start + self._end
        response = {"usage": _find_value(_USAGE, ends), "model": _find_value(_MODEL, ends)}
        return report_text(self._facts, response) or estimate_text(self._facts, 0, response)


def _find_value(pattern: re.Pattern[bytes], data: bytes) -> object:
    match = pattern.search(data)
    return None if match is None else decode_leniently(match[1])


EMBEDDING_ENDPOINTS = (
    HttpEndpoint("POST", "/v1/embeddings", parse=parse, reader=make_reader, content_members=CONTENT),
)
