"""Members of OpenAI requests that refer to objects of the account, name models, or hold the caller's own JSON.

tests/providers/openai/test_request_members.py compares these lists with the request types of the installed SDK: a
member that none of them has decided on fails it by name, so that an SDK release shows what is new.

Source: openai-python 3.57, request types of responses, chat, images, embeddings, audio and realtime; OpenAI API
reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tornado_proxy.providers.shared.member_rules import MemberRules, split_names

#: Members whose value is an id of an object, a list of ids, or an object with an `id`.  An object without an `id`
#: describes a new one, as in `container`.
REFERENCES = frozenset(
    {
        "comparison_response_id",
        "container",
        "container_id",
        "conversation",
        "file_id",
        "file_ids",
        "previous_response_id",
        "skill_id",
        "tunnel_id",
        "vector_store_ids",
    }
)

#: Members that refer to an object if their value is an object with an `id`: a stored prompt, the audio of an earlier
#: chat message, a custom voice.  As text they are a prompt, a format or a built-in voice.
REFERENCE_OBJECTS = frozenset({"audio", "prompt", "voice"})

#: Members that hold the caller's own JSON, or output of the provider that a client sends back.  `file_id` and
#: `container_id` in annotations and results are citations; the provider does not look them up.
OPAQUE = frozenset(
    {
        "annotations",
        "arguments",
        "headers",
        "input_schema",
        "logit_bias",
        "logprobs",
        "metadata",
        "output_schema",
        "parameters",
        "results",
        "schema",
        "tracing",
    }
)

#: Members that name a model: each must be one of those that admission has checked.
MODELS = frozenset({"model"})

#: Members that declare or select tools; hosted tools have spends of their own.
TOOLS = split_names(
    """
    allowed_tools environment function function_call functions skills tool_choice tool_names tools
    """
)

#: Members that select a price or a quantity; the endpoints' parsers decide on each.
PRICES = split_names(
    """
    background background_options completion_window context_compression format include_usage input_image_mask
    memory_limit modalities moderation n output_modalities prompt_cache_breakpoint prompt_cache_options
    prompt_cache_retention quality response_format service_tier size stream stream_format stream_options svg
    transcription ttl web_search_options
    """
)

#: Members that name no object or model and move no price.
NEUTRAL = split_names(
    """
    access_programs acknowledged_safety_checks action actions allowed_callers allowed_domains always anchor
    approval_request_id approve approximate async attributes authorization button bytes call_id caller caller_id
    categories chunking_strategy city code command commands compact_threshold complexity connector_id content
    context context_management continuation_id country create_response custom cyber data defer_loading
    definition delay description detail diff dimensions display_height display_width domain domain_secrets
    eagerness effort embedding_weight encoding_format encrypted_content end_index env error execution exit_code
    expires_after external_web_access file file_data file_url filename filters fingerprint frame_count
    frame_duration_ms frequency_penalty generate generate_summary grammar group_id hybrid_search id
    idle_timeout_ms image image_url include include_obfuscation index input input_audio input_fidelity
    input_tokens instructions interrupt_response json_schema key keys keywords known_speaker_names
    known_speaker_references language languages logprob logs markup mask max_completion_tokens max_num_results
    max_output_length max_output_tokens max_tokens max_tool_calls media_type message messages mode
    moderation_details moderation_stage name namespace network_policy never noise_reduction operation outcome
    output output_compression output_format output_tokens outputs parallel_tool_calls param partial_images path
    pattern pending_safety_checks personality phase policy post_instructions prediction prefix_padding_ms
    presence_penalty prewarm prompt_cache_key queries query ranker ranking_options rate read_only reason
    reasoning reasoning_effort reasoning_tokens refusal region require_approval result retention_ratio
    revised_prompt role safety_identifier score score_threshold scroll_x scroll_y search_content_types
    search_context_size seconds seed server_description server_label server_url session silence_duration_ms
    source sources speed start_index status stderr stdout stop store stream_id strength strict style summary
    svg_usage syntax temperature text text_weight threshold timeout_ms timestamp_granularities timezone title
    token token_limits tool_call_id tool_calls top_logprobs top_p total_tokens truncation turn_detection type
    url user user_location value variables verbosity version workflow_name working_directory x y
    """
)

#: Members that hold the text of a prompt or data, which no parser reads (HttpEndpoint.content_members).
CONTENT = frozenset(
    {
        b"arguments",
        b"content",
        b"data",
        b"description",
        b"encrypted_content",
        b"file_data",
        b"image_url",
        b"input",
        b"instructions",
        b"output",
        b"refusal",
        b"text",
        b"url",
    }
)

#: Items that the provider looks up by their id.  An item may omit `type`; it is then a message or a reference.
_ITEM_REFERENCE = "item_reference"
#: Members with the content of an item: one of them makes it an item of its own, whatever its id is.
_CONTENT_MEMBERS = ("content", "summary", "encrypted_content")
_LOOKED_UP_WITHOUT_CONTENT = (None, "message", "reasoning", "compaction")


def find_item_reference(item: Mapping[str, object]) -> str | None:
    """Return the id of the stored item that an item refers to, None if it has content of its own."""
    kind, item_id = item.get("type"), item.get("id")
    if not isinstance(item_id, str):
        return None
    if kind == _ITEM_REFERENCE:
        return item_id
    without_content = not any(item.get(name) for name in _CONTENT_MEMBERS)
    is_item = set(item) <= {"id", "type", "role", "status", *_CONTENT_MEMBERS}
    return item_id if without_content and is_item and kind in _LOOKED_UP_WITHOUT_CONTENT else None


def repeats_output(item: Mapping[str, object]) -> bool:
    """Return False: ids in the output that a client sends back are in opaque members."""
    return False


RULES = MemberRules(
    references=REFERENCES,
    item_members=frozenset({"id"}),
    reference_objects=REFERENCE_OBJECTS,
    opaque=OPAQUE,
    item_reference=find_item_reference,
    skip=repeats_output,
)

#: Realtime events: `conversation` is a mode ("auto", "none"), and items are those of the session.
REALTIME_RULES = replace(RULES, references=REFERENCES - {"conversation"}, item_reference=lambda item: None)
