"""Random bodies for hypothesis that resemble those of the providers."""

from __future__ import annotations

import json

from hypothesis import strategies as st

#: Members that parsers and readers read.  Random names would almost never reach their code.
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
TEXTS = """
    tokens duration response.completed response.failed message_start message_delta content_block_start
    transcript.text.done speech.audio.done image_generation.completed image_generation_call web_search_call
    search completed queued failed refusal compaction advisor_message fallback_message fallback succeeded
    1024x1024
"""
#: 10**400 is larger than a float can be.
NUMBERS = st.one_of(st.integers(), st.integers(0, 300), st.floats(), st.just(10**400))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.sampled_from(TEXTS.split()), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES.split()), inner, max_size=6)
    ),
    max_leaves=25,
)
OBJECTS = st.dictionaries(st.sampled_from(NAMES.split()), VALUES, max_size=8)


def encode(values: list[dict[str, object]], form: str) -> bytes:
    """Return the objects as an event stream if `form` is "events", else as JSON lines."""
    if form == "events":
        return b"".join(b"event: x\ndata: " + json.dumps(value).encode() + b"\n\n" for value in values)
    return "\n".join(json.dumps(value) for value in values).encode()


#: Random bytes, event streams, and one or several lines of JSON.
BODIES = st.one_of(
    st.binary(max_size=200),
    st.builds(encode, st.lists(OBJECTS, max_size=3), st.sampled_from(["events", "lines"])),
)
