"""The names that generated requests use: models inside and outside the caller's grant, objects of both projects."""

from __future__ import annotations

from collections.abc import Mapping

#: Models that the caller may use.
GRANTED = frozenset(
    {
        "gpt-4o-mini",
        "gpt-5-mini",
        "text-embedding-3-small",
        "gpt-image-1-mini",
        "gpt-image-2",
        "dall-e-2",
        "gpt-4o-mini-tts",
        "tts-1",
        "whisper-1",
        "gpt-4o-mini-transcribe",
        "gpt-realtime-mini",
        "claude-haiku-4-5",
        "claude-sonnet-4-5",
        "claude-2",
    }
)

#: Models that the caller may not use: with a price, without one, and one of the account's own.
FOREIGN_MODELS = ("gpt-5.4", "claude-opus-4-8", "sim-unpriced-1", "ft:gpt-4o-mini:org::abc")

#: An object that the operator gave to the caller's project (`allowed_objects`).
OWN_OBJECT = "object-of-this-project"
#: Stands for a response that the caller's project created; a test replaces it by the real id.
OWN_RESPONSE = "response-of-this-project"
#: Stand for a response of another project and for its output item.
FOREIGN_RESPONSE, FOREIGN_ITEM = "response-of-another-project", "item-of-another-project"
#: Objects that the caller may not use; no request of the proxy created the last one.
FOREIGN_OBJECTS = (FOREIGN_RESPONSE, FOREIGN_ITEM, "object-of-unknown-origin")

#: Members whose names end in "id" and that name no object that a provider would look up, with the reason.
HARMLESS_IDS: Mapping[str, str] = {
    "approval_request_id": "an item of this request or of a response that it continues, which is checked",
    "call_id": "pairs a tool call with its output in the same conversation",
    "caller_id": "a call of the same conversation",
    "connector_id": "one of a list of services, such as connector_gmail",
    "continuation_id": "the caller's own text (openai-python, BackgroundOptions)",
    "custom_id": "the caller's own name of an item of a batch",
    "download_id": "an entry of a list in the same request",
    "group_id": "the caller's own name of a trace",
    "stream_id": "a lane of the connection",
    "tab_id": "an entry of a list in the same request",
    "tool_call_id": "pairs a tool call with its output in the same request",
    "tool_id": "a tool call of the same request",
    "tool_use_id": "pairs a tool call with its output in the same request",
    "user_id": "the caller's own name of a user",
    "user_profile_id": "a header in the SDK, which the proxy does not forward",
    "workspace_id": "a header in the SDK, which the proxy does not forward",
}

#: Members that hold an id and are not named for it.
OTHER_REFERENCES = ("conversation", "container", "prompt", "voice", "audio")
#: Of those, the ones whose text is no id: a prompt, a built-in voice, a format.
TEXT_IS_NO_ID = frozenset({"prompt", "voice", "audio"})


def _split_names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Members whose content is the caller's own or repeats output, and is not looked up.
#: Source: docs/endpoints.md, "Objects and models in a request body".
OPAQUE: Mapping[str, frozenset[str]] = {
    "openai": _split_names(
        """
        annotations arguments headers input_schema logit_bias logprobs metadata output_schema parameters results
        schema tracing
        """
    ),
    "anthropic": _split_names("citations input input_examples input_schema metadata properties schema"),
}


def may_hold_reference(name: str) -> bool:
    """Return True if a member of that name can refer to an object."""
    return name in OTHER_REFERENCES or (name.endswith(("id", "ids")) and name not in HARMLESS_IDS)
