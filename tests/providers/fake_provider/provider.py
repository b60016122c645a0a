"""The fake provider's endpoints, headers and error format."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tests.providers.fake_provider.generate import GENERATE
from tornado_proxy.domain.errors import RequestError
from tornado_proxy.domain.identity import Secret
from tornado_proxy.providers.contract import HttpEndpoint, Provider
from tornado_proxy.providers.conventions import ExampleRequest, PriceListConvention, SdkVariables


def make_key_headers(key: Secret) -> Mapping[str, Secret]:
    """Return the header that carries the provider key."""
    return {"X-Fake-Key": key}


def error_body(error: RequestError, request_id: str) -> bytes:
    """Return `{"fault": {"code", "text", "request"}}`."""
    return json.dumps({"fault": {"code": error.code, "text": error.message, "request": request_id}}).encode()


FAKE = Provider(
    name="fake",
    title="Fake",
    prefix="fake",
    default_base_url="https://api.fake.example",
    sdk_variables=SdkVariables("FAKE_API_KEY", "FAKE_BASE_URL"),
    example=ExampleRequest("/v1/generate", "parrot-1"),
    price_lists=PriceListConvention(frozenset({"fake"})),
    endpoints=(GENERATE, HttpEndpoint("GET", "/v1/voices")),
    priced_paths=frozenset({"/v1/generate"}),
    credential_headers=("x-fake-key",),
    key_headers=make_key_headers,
    error_body=error_body,
    rate_headers=lambda states, now: [],
    request_id_header="x-fake-request",
    passed_headers=frozenset({"accept", "content-type"}),
)
