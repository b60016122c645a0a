"""Laws of every usage reader in the registry: no bytes make it raise, and chunk boundaries do not change its report."""

from __future__ import annotations

import itertools
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.providers.generated_bodies import BODIES
from tests.replay_provider import RECORDED, load_exchange
from tornado_proxy.domain.request import ImageFacts, RequestFacts
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Meter, Quantity, UsageReport
from tornado_proxy.providers.contract import HttpEndpoint, ResponseHead, UsageReader
from tornado_proxy.providers.registry import PROVIDERS

#: Quantities that parse infers for every speech request; other readers ignore them.
SPEECH = (Quantity(Meter.INPUT_CHARACTERS, Decimal(5)), Quantity(Meter.INPUT, Decimal(2)))
FACTS = (
    RequestFacts(model="gpt-4o-mini", inferred=SPEECH),
    RequestFacts(model="gpt-5.6", background=True, stream=True, terms=Terms("flex", cache_ttl="12h"), inferred=SPEECH),
    RequestFacts(model="dall-e-3", image=ImageFacts(2, "auto", "hd"), usage_injected=True, inferred=SPEECH),
    RequestFacts(body_bytes=9, inferred=SPEECH),
)
MEDIA_TYPES = ("application/json", "text/event-stream", "text/plain", "audio/mpeg", "application/x-jsonl", "")
HEADS = tuple(ResponseHead(status, media_type) for status in (200, 500) for media_type in MEDIA_TYPES)

#: Realtime sessions are recorded as lists of frames, not as one response.
RECORDED_RESPONSES = sorted(path.stem for path in RECORDED.glob("*.json") if not path.stem.startswith("realtime"))

each_endpoint_with_a_reader = pytest.mark.parametrize(
    "endpoint",
    [
        pytest.param(endpoint, id=f"{endpoint.method} {endpoint.path}")
        for provider in PROVIDERS
        for endpoint in provider.endpoints
        if isinstance(endpoint, HttpEndpoint) and endpoint.reader is not None
    ],
)


def read(reader: UsageReader, chunks: list[bytes], *, complete: bool = True) -> UsageReport:
    """Return the report of a response that arrives in `chunks`."""
    for chunk in chunks:
        reader.feed(chunk)
    reader.close(complete=complete)
    return reader.result()


@each_endpoint_with_a_reader
@settings(max_examples=25, deadline=None)
@given(
    body=BODIES,
    facts=st.sampled_from(FACTS),
    head=st.sampled_from(HEADS),
    complete=st.booleans(),
    cut=st.integers(0, 200),
)
def test_no_bytes_make_a_reader_raise_and_no_cut_changes_its_report(
    endpoint: HttpEndpoint, body: bytes, facts: RequestFacts, head: ResponseHead, complete: bool, cut: int
) -> None:
    report = read(endpoint.usage_reader(facts, head), [body], complete=complete)

    assert read(endpoint.usage_reader(facts, head), [body[:cut], body[cut:]], complete=complete) == report
    assert all(quantity.amount >= 0 for item in report.items for quantity in item.quantities)


@each_endpoint_with_a_reader
@settings(max_examples=6, deadline=None)
@given(name=st.sampled_from(RECORDED_RESPONSES), cuts=st.lists(st.integers(0, 5000), max_size=6))
def test_cuts_do_not_change_the_report_of_a_recorded_response(
    endpoint: HttpEndpoint, name: str, cuts: list[int]
) -> None:
    body = load_exchange(name)["response"].get("body_text", "").encode()
    edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    chunks = [body[start:end] for start, end in itertools.pairwise(edges)]

    for media_type in MEDIA_TYPES[:2]:
        head = ResponseHead(200, media_type)
        report = read(endpoint.usage_reader(FACTS[0], head), [body])
        assert read(endpoint.usage_reader(FACTS[0], head), chunks) == report


@each_endpoint_with_a_reader
def test_an_error_status_is_free_whatever_usage_its_body_states(endpoint: HttpEndpoint) -> None:
    body = b'{"usage": {"input_tokens": 5, "output_tokens": 5, "prompt_tokens": 5}}'

    report = read(endpoint.usage_reader(FACTS[0], ResponseHead(429, "application/json")), [body])

    assert (report.items, report.basis.value) == ((), "free")
