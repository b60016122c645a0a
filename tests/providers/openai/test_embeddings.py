from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.openai.reports import amounts
from tests.providers.reading import pieces, read, read_three_ways
from tests.providers.recorded import expected_lines, lines, request_body, response_body
from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.usage import Basis, Meter
from tornado_proxy.providers.contract import RequestView, ResponseHead
from tornado_proxy.providers.openai.embeddings import EMBEDDING_ENDPOINTS, make_reader, parse
from tornado_proxy.providers.shared.response_readers import make_usage_reader

OK = ResponseHead(200, "application/json")
FACTS = RequestFacts(model="text-embedding-3-small", body_bytes=400)
USAGE = {"prompt_tokens": 12, "total_tokens": 12}


def test_a_recorded_response_gives_the_expected_lines():
    parsed = parse(RequestView(*request_body("embeddings")))

    report = read_three_ways(lambda: make_reader(parsed.facts, OK), response_body("embeddings"))

    assert lines([report]) == expected_lines("embeddings")
    assert report.basis is Basis.REPORTED


def test_a_request_spends_only_on_its_input():
    body = b'{"model":"text-embedding-3-small","input":["a","b"],"encoding_format":"base64"}'

    parsed = parse(RequestView(body, "application/json"))

    assert parsed.body is body
    assert parsed.facts.spends == (Spend("text-embedding-3-small", frozenset({Meter.INPUT})),)


def test_a_request_without_a_model_is_rejected():
    with pytest.raises(InvalidBody, match="name the model"):
        parse(RequestView(b'{"input":"a"}', ""))


VECTORS: dict[str, Any] = {
    "numbers": [{"embedding": [0.0123456789] * 1536, "index": at} for at in range(700)],
    "base64": [{"embedding": base64.b64encode(b"\x00\x01" * 6000).decode(), "index": at} for at in range(700)],
}


@pytest.mark.parametrize("kind", ["numbers", "base64"])
@pytest.mark.parametrize("usage_first", [False, True])
def test_usage_is_read_around_megabytes_of_vectors(kind, usage_first):
    ends = {"model": "text-embedding-ada-002-v2", "usage": USAGE}
    body = ends | {"data": VECTORS[kind]} if usage_first else {"data": VECTORS[kind]} | ends
    data = json.dumps(body).encode()
    assert len(data) > 10_000_000

    report = read(make_reader(FACTS, OK), [data[at : at + 16_384] for at in range(0, len(data), 16_384)])

    assert (report.basis, amounts(report)) == (Basis.REPORTED, {"input_tokens": 12})
    assert report.model == "text-embedding-ada-002-v2"


@given(st.lists(st.integers(0, 100_000)), st.integers(0, 3000))
def test_cuts_do_not_change_the_report(cuts, length):
    data = json.dumps({"data": [0.5] * length * 3, "model": "m", "usage": USAGE}, indent=1).encode()

    assert read(make_reader(FACTS, OK), pieces(data, cuts)) == read(make_reader(FACTS, OK), [data])
    assert amounts(read(make_reader(FACTS, OK), [data])) == {"input_tokens": 12}


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"data":[', b'{"usage":null}', b'{"usage":{}}', b'{"usage":{"a":{"b":}}}']
)
def test_a_response_without_usage_is_estimated_by_the_request(body):
    report = read_three_ways(lambda: make_reader(FACTS, OK), body)

    assert (report.basis, amounts(report)) == (Basis.ESTIMATED, {"input_tokens": 100})


def test_an_error_status_is_free():
    (endpoint,) = EMBEDDING_ENDPOINTS
    head = ResponseHead(429, "application/json")

    assert read(make_usage_reader(endpoint, FACTS, head), [b"{}"]).basis is Basis.FREE


@given(st.binary(max_size=300))
def test_random_bytes_never_raise(data):
    read(make_reader(FACTS, OK), [data, b'"usage":{', data, b"}}"])


def test_the_endpoint_is_the_documented_one():
    (endpoint,) = EMBEDDING_ENDPOINTS
    assert (endpoint.method, endpoint.path) == ("POST", "/v1/embeddings")
