"""The listed models and the properties that follow from a model's name.  Requests may name any other model too."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tornado_proxy.simulator.json_values import Json, as_object, as_text

#: A model without a price: a proxy must reject requests for it.
UNPRICED_MODEL = "sim-unpriced-1"

OPENAI_MODELS = (
    "gpt-5.6-sol",
    "gpt-5.4",
    "gpt-5-mini",
    "gpt-4o-mini",
    "text-embedding-3-small",
    "gpt-image-2",
    "gpt-4o-mini-tts",
    "gpt-4o-transcribe",
    "whisper-1",
    "gpt-realtime",
    UNPRICED_MODEL,
)
ANTHROPIC_MODELS = (
    ("claude-opus-4-8", "Claude Opus 4.8"),
    ("claude-sonnet-5", "Claude Sonnet 5"),
    ("claude-haiku-4-5-20251001", "Claude Haiku 4.5"),
    (UNPRICED_MODEL, "Simulated model without a price"),
)

#: o1 and later, gpt-5 and later, but not their chat variants.
_REASONING = re.compile(r"(gpt-[5-9]|o[1-9])(?!.*-chat)")
#: Reasoning tokens by effort, few enough for short streams; docs/simulator.md promises these figures.
_EFFORT_TOKENS = {"none": 0, "minimal": 2, "low": 8, "medium": 16, "high": 32, "xhigh": 64, "max": 64}


def make_openai_model(model: str) -> Json:
    """Return the model in the format of OpenAI's GET /v1/models/{id}."""
    return {"id": model, "object": "model", "created": 1_760_000_000, "owned_by": "system", "shutdown_date": None}


def make_anthropic_model(model: str, name: str) -> Json:
    """Return the model in the format of Anthropic's GET /v1/models/{id}."""
    return {
        "type": "model",
        "id": model,
        "display_name": name,
        "created_at": "2026-06-01T00:00:00Z",
        "lifecycle": "active",
        "line": None,
        "max_input_tokens": 1_000_000,
        "max_tokens": 128_000,
        "capabilities": None,
        "deprecated_at": None,
        "retires_at": None,
    }


def count_reasoning_tokens(model: str, effort: object) -> int:
    """Return the number of reasoning tokens for `effort`; 0 if the model does not reason."""
    if _REASONING.match(model) is None:
        return 0
    return _EFFORT_TOKENS.get(as_text(effort, "medium"), 16)


def count_thinking_tokens(body: Mapping[str, object]) -> int:
    """Return the number of thinking tokens of a message: 16 if the request enables thinking, else 0."""
    kind = as_object(body.get("thinking")).get("type")
    return 16 if kind in ("enabled", "adaptive", "between_tools") else 0
