"""Laws of every usage reader in the route table: nothing makes it raise, and no cut changes what it reads."""

from __future__ import annotations

import itertools
import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.docs.pages import DOCS, rows
from tests.replay_provider import RECORDED, load_exchange
from tornado_proxy.domain.errors import CallerError
from tornado_proxy.domain.request import ImageFacts, RequestFacts
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Meter, Quantity, UsageReport
from tornado_proxy.providers.contract import HttpEndpoint, RequestView, ResponseHead, UsageReader
from tornado_proxy.providers.registry import PROVIDERS

ENDPOINTS = [
    (provider.name, endpoint)
    for provider in PROVIDERS
    for endpoint in provider.endpoints
    if isinstance(endpoint, HttpEndpoint)
]
#: What parse tells of every request to speak, and other readers do not ask for.
SPOKEN = (Quantity(Meter.INPUT_CHARACTERS, Decimal(5)), Quantity(Meter.INPUT, Decimal(2)))
FACTS = (
    RequestFacts(model="gpt-4o-mini", inferred=SPOKEN),
    RequestFacts(model="gpt-5.6", background=True, stream=True, terms=Terms("flex", cache_ttl="12h"), inferred=SPOKEN),
    RequestFacts(model="dall-e-3", image=ImageFacts(2, "auto", "hd"), usage_injected=True, inferred=SPOKEN),
    RequestFacts(body_bytes=9, inferred=SPOKEN),
)
MEDIA_TYPES = ("application/json", "text/event-stream", "text/plain", "audio/mpeg", "application/x-jsonl", "")
HEADS = tuple(ResponseHead(status, media_type) for status in (200, 500) for media_type in MEDIA_TYPES)

#: Members that readers look at, so that made-up answers come close to real ones.
NAMES = """
    usage type model id status output tools tool_usage image_gen web_search num_requests service_tier choices
    delta content message data input_tokens output_tokens prompt_tokens completion_tokens total_tokens
    cached_tokens cache_write_tokens audio_tokens image_tokens text_tokens input_tokens_details
    output_tokens_details prompt_tokens_details completion_tokens_details input_token_details seconds duration
    segments text response iterations server_tool_use web_search_requests cache_creation
    cache_creation_input_tokens stop_reason cache_read_input_tokens ephemeral_5m_input_tokens
    ephemeral_1h_input_tokens speed inference_geo fallback_credit result custom_id container_id environment
    action size quality index error completion from to content_block
"""
WORDS = """
    tokens duration response.completed response.failed message_start message_delta content_block_start
    transcript.text.done speech.audio.done image_generation.completed image_generation_call web_search_call
    search completed queued failed refusal compaction advisor_message fallback_message fallback succeeded
    1024x1024
"""
NUMBERS = st.one_of(st.integers(), st.integers(0, 300), st.floats(), st.just(10**400))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.sampled_from(WORDS.split()), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES.split()), inner, max_size=6)
    ),
    max_leaves=25,
)
OBJECTS = st.dictionaries(st.sampled_from(NAMES.split()), VALUES, max_size=8)


def _encoded(values: list[dict[str, object]], form: str) -> bytes:
    if form == "events":
        return b"".join(b"event: x\ndata: " + json.dumps(one).encode() + b"\n\n" for one in values)
    return "\n".join(json.dumps(one) for one in values).encode()


ANSWERS = st.one_of(
    st.binary(max_size=200),
    st.builds(_encoded, st.lists(OBJECTS, max_size=3), st.sampled_from(["events", "lines"])),
)
CHARGED = [endpoint for _, endpoint in ENDPOINTS if endpoint.reader is not None]
each_reader = pytest.mark.parametrize("endpoint", CHARGED, ids=lambda endpoint: f"{endpoint.method} {endpoint.path}")


def opened(endpoint: HttpEndpoint, facts: RequestFacts, head: ResponseHead) -> UsageReader:
    return endpoint.usage_reader(facts, head)


def read(reader: UsageReader, pieces: list[bytes], *, complete: bool = True) -> UsageReport:
    for piece in pieces:
        reader.feed(piece)
    reader.close(complete=complete)
    return reader.result()


@each_reader
@settings(max_examples=25, deadline=None)
@given(
    answer=ANSWERS,
    facts=st.sampled_from(FACTS),
    head=st.sampled_from(HEADS),
    complete=st.booleans(),
    cut=st.integers(0, 200),
)
def test_no_bytes_make_a_reader_raise_and_no_cut_changes_what_it_reads(
    endpoint: HttpEndpoint, answer: bytes, facts: RequestFacts, head: ResponseHead, complete: bool, cut: int
) -> None:
    whole = read(opened(endpoint, facts, head), [answer], complete=complete)
    cut_once = read(opened(endpoint, facts, head), [answer[:cut], answer[cut:]], complete=complete)

    assert cut_once == whole
    assert all(quantity.amount >= 0 for reading in whole.items for quantity in reading.quantities)


@each_reader
@settings(max_examples=6, deadline=None)
@given(
    name=st.sampled_from(sorted(path.stem for path in RECORDED.glob("*.json") if not path.stem.startswith("realtime"))),
    cuts=st.lists(st.integers(0, 5000), max_size=6),
)
def test_a_recorded_answer_reads_the_same_however_it_is_cut(endpoint: HttpEndpoint, name: str, cuts: list[int]) -> None:
    body = load_exchange(name)["response"].get("body_text", "").encode()
    edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    pieces = [body[start:end] for start, end in itertools.pairwise(edges)]

    for media_type in MEDIA_TYPES[:2]:
        head = ResponseHead(200, media_type)
        whole = read(opened(endpoint, FACTS[0], head), [body])
        assert read(opened(endpoint, FACTS[0], head), pieces) == whole


@each_reader
def test_an_error_status_is_free_whatever_its_body_says(endpoint: HttpEndpoint) -> None:
    body = b'{"usage": {"input_tokens": 5, "output_tokens": 5, "prompt_tokens": 5}}'

    report = read(opened(endpoint, FACTS[0], ResponseHead(429, "application/json")), [body])

    assert (report.items, report.basis.value) == ((), "free")


@pytest.mark.parametrize(
    ("provider", "endpoint"),
    ENDPOINTS,
    ids=lambda value: value if isinstance(value, str) else f"{value.method} {value.path}",
)
def test_a_route_without_a_reader_says_free_on_its_page(provider: str, endpoint: HttpEndpoint) -> None:
    row = next(
        row
        for row in rows(DOCS / "endpoints.md")
        if row[0].lower() == provider and row[2] == f"`{endpoint.path}`" and endpoint.method in row[1]
    )

    if endpoint.path == "/v1/messages/batches":
        assert endpoint.charged is (endpoint.method == "POST")
    elif endpoint.sideband is None:
        assert endpoint.charged is not row[3].startswith("free")


@pytest.mark.parametrize(
    "endpoint", [endpoint for _, endpoint in ENDPOINTS if endpoint.parse], ids=lambda one: f"{one.method} {one.path}"
)
@settings(max_examples=25, deadline=None)
@given(body=ANSWERS, content_type=st.sampled_from(["application/json", "multipart/form-data; boundary=x", ""]))
def test_a_body_is_parsed_or_refused_and_nothing_else(endpoint: HttpEndpoint, body: bytes, content_type: str) -> None:
    assert endpoint.parse is not None
    try:
        parsed = endpoint.parse(RequestView(body, content_type))
    except CallerError:
        return
    assert isinstance(parsed.facts, RequestFacts)
