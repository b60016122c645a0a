"""Laws of every usage reader in the registry: no bytes make it raise, and chunk boundaries do not change its report."""

from __future__ import annotations

import copy
import itertools
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.providers.generated_bodies import BODIES
from tests.replay_provider import RECORDED, load_exchange
from tornado_proxy.domain.request import ImageFacts, RequestFacts
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, Meter, Quantity, UsageReport
from tornado_proxy.providers.contract import HttpEndpoint, ResponseHead, UsageReader
from tornado_proxy.providers.registry import PROVIDERS
from tornado_proxy.providers.shared.response_readers import make_usage_reader

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
    report = read(make_usage_reader(endpoint, facts, head), [body], complete=complete)

    assert read(make_usage_reader(endpoint, facts, head), [body[:cut], body[cut:]], complete=complete) == report
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
        report = read(make_usage_reader(endpoint, FACTS[0], head), [body])
        assert read(make_usage_reader(endpoint, FACTS[0], head), chunks) == report


@each_endpoint_with_a_reader
def test_an_error_status_is_free_whatever_usage_its_body_states(endpoint: HttpEndpoint) -> None:
    body = b'{"usage": {"input_tokens": 5, "output_tokens": 5, "prompt_tokens": 5}}'

    report = read(make_usage_reader(endpoint, FACTS[0], ResponseHead(429, "application/json")), [body])

    assert (report.items, report.basis.value) == ((), "free")


def _odd(beside: bytes) -> dict[str, tuple[str, str, list[bytes], dict[str, int]]]:
    """Return responses that contain `beside`: (endpoint, media type, chunks, expected quantities) by name."""
    completed = b'"type":"response.completed","response":{"id":"resp_1","status":"completed"'
    text = b'"' + b"so on " * 20 + b'"'
    chat_usage = b'"usage":{"prompt_tokens":12,"completion_tokens":200}'
    usage = b'"usage":{"input_tokens":12,"output_tokens":200}'
    sse, plain = "text/event-stream", "application/json"
    both = {"input_tokens": 12, "output_tokens": 200}
    return {
        "chat": (
            "/v1/chat/completions",
            plain,
            [b'{"id":"c1","model":"gpt-4o-mini","choices":[{"message":{"content":%b}}],%b}' % (beside, chat_usage)],
            both,
        ),
        "chat, streamed": (
            "/v1/chat/completions",
            sse,
            [
                b'data: {"id":"c1","choices":[{"delta":{"content":%b}}]}\n\n' % beside,
                b'data: {"id":"c1","choices":[],"x":%b,%b}\n\n' % (beside, chat_usage),
            ],
            both,
        ),
        "responses": (
            "/v1/responses",
            plain,
            [b'{"id":"resp_1","status":"completed","output":[{"content":[{"text":%b}]}],%b}' % (beside, usage)],
            both,
        ),
        "responses, streamed": (
            "/v1/responses",
            sse,
            [
                b'data: {"type":"response.created","response":{"id":"resp_1","x":%b}}\n\n' % beside,
                b'data: {%b,"output":%b,%b}}\n\n' % (completed, beside, usage),
            ],
            both,
        ),
        "images, streamed": (
            "/v1/images/generations",
            sse,
            [b'data: {"type":"image_generation.completed","x":%b,%b}\n\n' % (beside, usage)],
            {"input_tokens": 12, "output_image_tokens": 200},
        ),
        "transcription": (
            "/v1/audio/transcriptions",
            plain,
            [b'{"text":%b,"usage":{"type":"tokens","input_tokens":12,"output_tokens":200}}' % beside],
            both,
        ),
        "messages": (
            "/v1/messages",
            plain,
            [
                b'{"id":"msg_1","type":"message","content":[{"type":"text","text":%b}],%b}' % (text, usage[:-1]),
                b'},"x":%b}' % beside,
            ],
            both,
        ),
        "messages, streamed": (
            "/v1/messages",
            sse,
            [
                b'data: {"type":"message_start","message":{"id":"msg_1","content":[],"x":%b,%b}}\n\n' % (beside, usage),
                b'data: {"type":"content_block_start","content_block":{"type":"text","text":%b}}\n\n' % beside,
                b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn","x":%b},'
                b'"usage":{"output_tokens":200}}\n\n' % beside,
                b'data: {"type":"message_stop"}\n\n',
            ],
            both,
        ),
    }


@pytest.mark.parametrize("name", _odd(b"1"))
@pytest.mark.parametrize(
    "beside",
    [
        pytest.param(rb'"\ud83d"', id="a lone surrogate"),
        pytest.param(b"-Infinity", id="-Infinity"),
        pytest.param(b"[" * 5000 + b"]" * 5000, id="deep nesting"),
    ],
)
def test_nothing_beside_usage_keeps_it_from_being_read(name: str, beside: bytes) -> None:
    path, media_type, chunks, expected = _odd(beside)[name]
    (endpoint,) = [
        endpoint
        for provider in PROVIDERS
        for endpoint in provider.endpoints
        if endpoint.path == path and isinstance(endpoint, HttpEndpoint) and endpoint.reader is not None
    ]
    facts = RequestFacts(model="gpt-4o-mini", stream=media_type == "text/event-stream")

    report = read(make_usage_reader(endpoint, facts, ResponseHead(200, media_type)), chunks)

    assert {
        quantity.meter.value: int(quantity.amount) for item in report.items for quantity in item.quantities
    } == expected
    assert (report.basis, report.faults) == (Basis.REPORTED, ())


def _failing(path: str, *events: bytes) -> tuple[str, list[bytes]]:
    return path, [b"data: %b\n\n" % event for event in events]


@pytest.mark.parametrize(
    ("path", "chunks"),
    [
        _failing(
            "/v1/chat/completions", b'{"id":"c","choices":[{"delta":{"content":"x"}}]}', b'{"error":{"message":"no"}}'
        ),
        _failing(
            "/v1/responses", b'{"type":"response.output_text.delta","delta":"x"}', b'{"type":"error","code":"no"}'
        ),
        _failing("/v1/images/generations", b'{"type":"error","error":{"message":"no"}}'),
        _failing("/v1/audio/transcriptions", b'{"type":"transcript.text.delta","delta":"x"}', b'{"type":"error"}'),
        _failing(
            "/v1/messages", b'{"type":"message_start","message":{"usage":{"input_tokens":1}}}', b'{"type":"error"}'
        ),
    ],
)
def test_a_stream_that_ends_with_an_error_has_failed(path: str, chunks: list[bytes]) -> None:
    (endpoint,) = [
        endpoint
        for provider in PROVIDERS
        for endpoint in provider.endpoints
        if endpoint.path == path and isinstance(endpoint, HttpEndpoint) and endpoint.reader is not None
    ]
    facts = RequestFacts(model="gpt-4o-mini", stream=True)

    def make() -> UsageReader:
        return make_usage_reader(endpoint, facts, ResponseHead(200, "text/event-stream"))

    assert read(make(), chunks).failed
    assert not read(make(), chunks[:-1]).failed


@pytest.mark.parametrize("media_type", ["", "text/plain", "application/octet-stream"])
@pytest.mark.parametrize("name", [name for name in _odd(b"1") if "streamed" in name])
def test_a_stream_without_its_media_type_is_read_as_one(name: str, media_type: str) -> None:
    path, _, chunks, expected = _odd(b"1")[name]
    (endpoint,) = [
        endpoint
        for provider in PROVIDERS
        for endpoint in provider.endpoints
        if endpoint.path == path and isinstance(endpoint, HttpEndpoint) and endpoint.reader is not None
    ]
    facts = RequestFacts(model="gpt-4o-mini", stream=True)

    report = read(make_usage_reader(endpoint, facts, ResponseHead(200, media_type)), chunks)

    quantities = [quantity for item in report.items for quantity in item.quantities]
    assert {quantity.meter.value: int(quantity.amount) for quantity in quantities} == expected
    assert report.basis is Basis.REPORTED


@each_endpoint_with_a_reader
@pytest.mark.parametrize("media_type", MEDIA_TYPES[:2])
def test_a_copy_of_a_reader_can_be_closed_while_the_reader_goes_on(endpoint: HttpEndpoint, media_type: str) -> None:
    """Live views show what a stream costs so far by such a copy (metering/request_meter.py)."""
    for name in RECORDED_RESPONSES:
        body = load_exchange(name)["response"].get("body_text", "").encode()
        facts = replace(FACTS[0], stream=True)
        head = ResponseHead(200, media_type)
        copied, middle = make_usage_reader(endpoint, facts, head), len(body) // 2
        copied.feed(body[:middle])

        copy.deepcopy(copied).close(complete=False)

        copied.feed(body[middle:])
        copied.close(complete=True)
        assert copied.result() == read(make_usage_reader(endpoint, facts, head), [body])
