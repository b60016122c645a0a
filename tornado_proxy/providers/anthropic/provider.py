"""Anthropic's headers, names and conventions.  Source: Anthropic API reference, "API overview"."""

from __future__ import annotations

from collections.abc import Mapping

from tornado_proxy.domain.identity import Secret
from tornado_proxy.domain.usage import Meter
from tornado_proxy.providers.anthropic.endpoints import ANTHROPIC_ENDPOINTS
from tornado_proxy.providers.anthropic.errors import error_body
from tornado_proxy.providers.anthropic.rate_headers import make_rate_headers
from tornado_proxy.providers.anthropic.request_members import RULES
from tornado_proxy.providers.contract import Provider
from tornado_proxy.providers.conventions import ExampleRequest, PriceListConvention, SdkVariables, UsageConvention


def _make_key_headers(key: Secret) -> Mapping[str, Secret]:
    """Return the header that carries the provider key."""
    return {"x-api-key": key}


ANTHROPIC = Provider(
    name="anthropic",
    title="Anthropic",
    prefix="anthropic",
    default_base_url="https://api.anthropic.com",
    sdk_variables=SdkVariables("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", other_credentials=("ANTHROPIC_AUTH_TOKEN",)),
    example=ExampleRequest("/v1/messages", "claude-haiku-4-5"),
    # The lists give one price of cache writes, that of the default lifetime.
    price_lists=PriceListConvention(
        frozenset({"anthropic"}), Meter.CACHE_WRITE_5M, endpoints=("/v1/messages", "/v1/messages/batches")
    ),
    endpoints=ANTHROPIC_ENDPOINTS,
    # /v1/complete is missing on purpose: its responses state no usage, so a price for it could not be applied.
    priced_paths=frozenset({"/v1/messages", "/v1/messages/batches"}),
    # Some clients send the key as a bearer token (the Python SDK 2.x does), most as x-api-key.
    credential_headers=("authorization", "x-api-key"),
    key_headers=_make_key_headers,
    error_body=error_body,
    rate_headers=make_rate_headers,
    # The Vercel AI SDK and opencode append /messages to ANTHROPIC_BASE_URL, the official SDK /v1/messages.
    optional_version=True,
    request_id_header="request-id",
    member_rules=RULES,
    # The usage objects of SDK 2.14.
    usage=UsageConvention(
        counts=frozenset(
            {
                *("input_tokens", "output_tokens", "thinking_tokens"),
                *("cache_read_input_tokens", "cache_creation_input_tokens"),
                *("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"),
                *("web_search_requests", "web_fetch_requests"),
                *("results", "succeeded"),  # the proxy's own statement about a batch
            }
        ),
        objects=("output_tokens_details", "cache_creation", "server_tool_use"),
        texts=("service_tier", "inference_geo", "speed"),
    ),
    passed_headers=frozenset({"accept", "content-type", "user-agent", "idempotency-key", "x-client-request-id"}),
    passed_prefixes=("anthropic-", "x-stainless-"),
    # These headers choose which account at Anthropic is billed; only the server's key may choose it.
    withheld_headers=frozenset({"anthropic-workspace-id", "anthropic-user-profile-id"}),
    account_headers=frozenset({"anthropic-organization-id"}),
    # The SDKs send their beta requests with ?beta=true.
    post_parameters=frozenset({"beta"}),
    # Claude docs "Rate limits", response headers; the two others are those of the priority tier and fast mode.
    quota_prefixes=("anthropic-ratelimit-", "anthropic-priority-", "anthropic-fast-"),
    own_headers=(("anthropic-version", "2023-06-01"),),
)
