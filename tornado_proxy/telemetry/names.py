"""The names of OpenTelemetry's conventions for generative AI: the older set, and the newer one.

Both are in development.  OTEL_SEMCONV_STABILITY_OPT_IN chooses, as the conventions ask: without
`gen_ai_latest_experimental` in its list, instruments keep the names that dashboards know.
Sources: open-telemetry/semantic-conventions 1.36 (older); open-telemetry/semantic-conventions-genai, which the
conventions have moved to (newer).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

OPT_IN_VARIABLE = "OTEL_SEMCONV_STABILITY_OPT_IN"
_NEWER = "gen_ai_latest_experimental"

#: Bucket boundaries that the conventions state, in seconds and in tokens.
DURATION_BUCKETS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKEN_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)


@dataclass(frozen=True, slots=True)
class Names:
    """The names of attributes and metrics that differ between the two sets.

    Attributes:
        version: The name of the set.
        provider: The attribute with the provider's name.
        cache_write: The span attribute with the input tokens that were written to a cache.
        duration: The histogram of the seconds of a request.
        first_chunk: The histogram of the seconds to the first byte of its response.
        token_usage: The one histogram of all tokens, whose attribute gen_ai.token.type tells input from output; "" if
            each kind has a counter.
        token_counters: The counter of each kind of tokens, by the span attribute of that kind.
    """

    version: str
    provider: str
    cache_write: str
    duration: str
    first_chunk: str
    token_usage: str
    token_counters: Mapping[str, str]


#: Names that both sets have.
OPERATION = "gen_ai.operation.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_ID = "gen_ai.response.id"
CONVERSATION_ID = "gen_ai.conversation.id"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ = "gen_ai.usage.cache_read.input_tokens"
REASONING = "gen_ai.usage.reasoning.output_tokens"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105  # the name of an attribute
TOKEN_MODALITY = "gen_ai.token.modality"  # noqa: S105  # the name of an attribute
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
ERROR_TYPE = "error.type"

_NEWER_CACHE_WRITE = "gen_ai.usage.cache_write.input_tokens"

OLDER = Names(
    version="older",
    provider="gen_ai.system",
    cache_write="gen_ai.usage.cache_creation.input_tokens",
    duration="gen_ai.client.operation.duration",
    first_chunk="gen_ai.client.operation.time_to_first_chunk",
    token_usage="gen_ai.client.token.usage",  # noqa: S106  # the name of a metric
    token_counters={},
)
NEWER = Names(
    version="newer",
    provider="gen_ai.provider.name",
    cache_write=_NEWER_CACHE_WRITE,
    duration="gen_ai.client.inference.duration",
    first_chunk="gen_ai.client.inference.time_to_first_chunk",
    token_usage="",
    token_counters={
        INPUT_TOKENS: "gen_ai.client.inference.usage.input_tokens",
        OUTPUT_TOKENS: "gen_ai.client.inference.usage.output_tokens",
        CACHE_READ: "gen_ai.client.inference.usage.cache_read.input_tokens",
        _NEWER_CACHE_WRITE: "gen_ai.client.inference.usage.cache_write.input_tokens",
        REASONING: "gen_ai.client.inference.usage.reasoning.output_tokens",
    },
)

#: The operation of each endpoint, by the beginning of its path; the first match counts.  Endpoints without a model call
#: (files, lists, batches) have none.
_OPERATIONS = (
    ("/v1/chat/completions", "chat"),
    ("/v1/messages/", ""),
    ("/v1/messages", "chat"),
    ("/v1/responses/", ""),
    ("/v1/responses", "chat"),
    ("/v1/realtime", "chat"),
    ("/v1/completions", "text_completion"),
    ("/v1/complete", "text_completion"),
    ("/v1/embeddings", "embeddings"),
    ("/v1/images", "generate_content"),
    ("/v1/audio", "generate_content"),
    ("/v1/videos", "generate_content"),
)


def choose_names(opt_in: str) -> Names:
    """Return the set that the value of OTEL_SEMCONV_STABILITY_OPT_IN, a list with commas, asks for."""
    return NEWER if _NEWER in (entry.strip() for entry in opt_in.split(",")) else OLDER


def find_operation(method: str, path: str) -> str:
    """Return the operation of a request, "" if it calls no model."""
    if method == "GET" and not path.startswith("/v1/re"):
        return ""
    return next((operation for prefix, operation in _OPERATIONS if path.startswith(prefix)), "")
