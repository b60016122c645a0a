"""OpenAI's headers and errors.  Source: OpenAI API reference, "Authentication" and "Debugging requests"."""

from __future__ import annotations

from collections.abc import Mapping

from tornado_proxy.domain.identity import Secret
from tornado_proxy.providers.contract import Provider
from tornado_proxy.providers.conventions import (
    ExampleRequest,
    PriceListConvention,
    SdkVariables,
    UsageConvention,
    WebSocketConvention,
)
from tornado_proxy.providers.openai.endpoints import OPENAI_ENDPOINTS, openai_endpoints
from tornado_proxy.providers.openai.errors import error_body
from tornado_proxy.providers.openai.request_members import RULES
from tornado_proxy.providers.openai.shared.quota import ACCOUNT_HEADERS, QUOTA_PREFIXES
from tornado_proxy.providers.openai.shared.rate_headers import make_rate_headers


def _key_headers(key: Secret) -> Mapping[str, Secret]:
    return {"Authorization": Secret(f"Bearer {key.reveal()}")}


OPENAI = Provider(
    name="openai",
    title="OpenAI",
    prefix="openai",
    default_base_url="https://api.openai.com",
    sdk_variables=SdkVariables("OPENAI_API_KEY", "OPENAI_BASE_URL", base_path="/v1"),
    example=ExampleRequest("/v1/chat/completions", "gpt-4o-mini"),
    # LiteLLM lists the models of the old completions endpoint under a provider of their own.
    price_lists=PriceListConvention(
        frozenset({"openai", "text-completion-openai"}),
        # Source: OpenAI, "Your data", data residency: a host for each region, of which prices know some by name.
        regional_hosts={
            "us.api.openai.com": "us",
            "eu.api.openai.com": "eu",
            "au.api.openai.com": "au",
            "in.api.openai.com": "in",
            "jp.api.openai.com": "jp",
            **{f"{region}.api.openai.com": "other" for region in ("ae", "ca", "gb", "kr", "sg")},
        },
    ),
    endpoints=OPENAI_ENDPOINTS,
    # /v1/completions and /v1/live/sessions are not served; the price files name them so that `pricing diff` finds their
    # models in the public lists.
    priced_paths=frozenset(
        {
            "/v1/audio/speech",
            "/v1/audio/transcriptions",
            "/v1/audio/translations",
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/embeddings",
            "/v1/images/edits",
            "/v1/images/generations",
            "/v1/images/variations",
            "/v1/live/sessions",
            "/v1/realtime",
            "/v1/realtime/translations",
            "/v1/responses",
            "/v1/responses/compact",
        }
    ),
    make_endpoints=lambda options: openai_endpoints(exact_speech=options.exact_speech),
    credential_headers=("authorization",),
    key_headers=_key_headers,
    error_body=error_body,
    rate_headers=make_rate_headers,
    request_id_header="x-request-id",
    member_rules=RULES,
    # Clients written for other hosts of the API add their version, which OpenAI ignores.
    post_parameters=frozenset({"api-version"}),
    # The usage objects of SDK 3.57, and `tool_usage` of a response.
    usage=UsageConvention(
        counts=frozenset(
            {
                *("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens"),
                *("text_tokens", "audio_tokens", "image_tokens", "reasoning_tokens"),
                *("accepted_prediction_tokens", "rejected_prediction_tokens"),
                *("cached_tokens", "cached_text_tokens", "cached_audio_tokens", "cached_image_tokens"),
                *("cache_write_tokens", "ttl_30m_tokens", "ttl_12h_tokens"),
                *("seconds", "num_requests"),
            }
        ),
        objects=(
            *("prompt_tokens_details", "completion_tokens_details"),
            *("input_tokens_details", "output_tokens_details"),
            *("input_token_details", "output_token_details"),
            *("cached_tokens_details", "cache_write_tokens_details"),
        ),
        texts=("type",),
    ),
    passed_headers=frozenset({"accept", "content-type", "user-agent", "idempotency-key", "x-client-request-id"}),
    passed_prefixes=("openai-", "x-stainless-"),
    # These choose the account that OpenAI bills.  The provider key alone decides that, so a client's are dropped.
    withheld_headers=frozenset({"openai-organization", "openai-project"}),
    account_headers=ACCOUNT_HEADERS,
    quota_prefixes=QUOTA_PREFIXES,
    websocket=WebSocketConvention(
        # The subprotocols of OpenAI's own browser example (guide "Realtime API with WebSocket").
        token_prefix="openai-insecure-api-key.",  # noqa: S106  # a prefix, no secret
        private_prefixes=("openai-insecure-api-key.", "openai-organization.", "openai-project."),
        default="realtime",
    ),
)
