"""Laws of every HTTP endpoint in the registry: how it parses bodies, and that a charged request names a spend."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.docs.pages import DOCS, rows
from tests.providers.generated_bodies import BODIES
from tornado_proxy.domain.errors import CallerError
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.providers.contract import HttpEndpoint, RequestView
from tornado_proxy.providers.registry import PROVIDERS

ENDPOINTS = [
    pytest.param(provider.name, endpoint, id=f"{endpoint.method} {endpoint.path}")
    for provider in PROVIDERS
    for endpoint in provider.endpoints
    if isinstance(endpoint, HttpEndpoint)
]


def make_form(**parts: str) -> RequestView:
    """Return a multipart/form-data request with text parts, and a file."""
    disposition = '--b\r\nContent-Disposition: form-data; name="'
    texts = "".join(f'{disposition}{name}"\r\n\r\n{value}\r\n' for name, value in parts.items())
    file = f'{disposition}file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\nx\r\n'
    return RequestView(f"{texts}{file}--b--\r\n".encode(), "multipart/form-data; boundary=b")


def make_json(**members: object) -> RequestView:
    """Return a JSON request."""
    return RequestView(json.dumps(members).encode(), "application/json")


#: A plain request of the endpoints that JSON_REQUEST does not fit.
PLAIN_REQUESTS = {
    "/v1/audio/transcriptions": make_form(model="m"),
    "/v1/audio/translations": make_form(model="m"),
    "/v1/images/edits": make_form(model="m", prompt="x"),
    "/v1/images/variations": make_form(model="m"),
    "/v1/messages/batches": make_json(requests=[{"custom_id": "a", "params": {"model": "m"}}]),
    "/v1/realtime/calls": make_form(sdp="v=0", session='{"type":"realtime","model":"m"}'),
    "/v1/realtime/calls/{id}/accept": make_json(type="realtime", model="m"),
}
JSON_REQUEST = make_json(model="m", messages=[], input="x", prompt="x", voice="alloy")

#: Requests to a charged endpoint that name no spend, with the reason.
WITHOUT_SPEND = {
    "/v1/realtime/calls": (
        RequestView(b"v=0", "application/sdp"),
        "the caller's key is for one session, whose spends were admitted when the key was made",
    ),
}


@pytest.mark.parametrize(("provider", "endpoint"), ENDPOINTS)
def test_a_charged_request_names_a_spend(provider: str, endpoint: HttpEndpoint) -> None:
    """Without a spend, admission would have nothing to check against the grants and the price book."""
    if not endpoint.charged:
        return
    assert endpoint.parse is not None

    facts = endpoint.parse(PLAIN_REQUESTS.get(endpoint.path, JSON_REQUEST)).facts

    assert [spend.model for spend in facts.spends]
    assert all(spend.meters for spend in facts.spends)


@pytest.mark.parametrize(("path", "request_and_reason"), WITHOUT_SPEND.items())
def test_only_a_realtime_call_can_name_its_spends_in_the_key(
    path: str, request_and_reason: tuple[RequestView, str]
) -> None:
    endpoint = next(param.values[1] for param in ENDPOINTS if getattr(param.values[1], "path", "") == path)
    assert isinstance(endpoint, HttpEndpoint)
    assert endpoint.parse is not None

    assert endpoint.parse(request_and_reason[0]).facts.spends == ()
    assert endpoint.sideband is not None
    assert endpoint.session_keys


@pytest.mark.parametrize(("provider", "endpoint"), ENDPOINTS)
def test_an_endpoint_without_a_reader_is_free_on_its_page(provider: str, endpoint: HttpEndpoint) -> None:
    row = next(
        row
        for row in rows(DOCS / "endpoints.md")
        if row[0].lower() == provider and row[2] == f"`{endpoint.path}`" and endpoint.method in row[1]
    )

    if endpoint.path == "/v1/messages/batches":
        # One row describes both methods: POST creates a batch, GET lists batches.
        assert endpoint.charged is (endpoint.method == "POST")
    elif endpoint.sideband is None:
        assert endpoint.charged is not row[3].startswith("free")


@pytest.mark.parametrize(
    ("provider", "endpoint"), [param for param in ENDPOINTS if getattr(param.values[1], "parse", None)]
)
@settings(max_examples=25, deadline=None)
@given(body=BODIES, content_type=st.sampled_from(["application/json", "multipart/form-data; boundary=x", ""]))
def test_a_body_is_parsed_or_rejected(provider: str, endpoint: HttpEndpoint, body: bytes, content_type: str) -> None:
    assert endpoint.parse is not None
    try:
        parsed = endpoint.parse(RequestView(body, content_type))
    except CallerError:
        return
    assert isinstance(parsed.facts, RequestFacts)
