"""The lists of request members against the types of the installed SDK, and the items that refer to objects."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.audio.speech_create_params import SpeechCreateParams
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.embedding_create_params import EmbeddingCreateParams
from openai.types.image_edit_params import ImageEditParamsNonStreaming
from openai.types.image_generate_params import ImageGenerateParamsNonStreaming
from openai.types.realtime.client_secret_create_params import ClientSecretCreateParams
from openai.types.responses.input_token_count_params import InputTokenCountParams
from openai.types.responses.response_compact_params import ResponseCompactParams
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from openai.types.responses.response_steer_event_param import ResponseSteerEventParam
from openai.types.responses.responses_client_event_param import ResponsesClientEventParam

from tests.providers.request_types import member_names, undecided_members
from tornado_proxy.providers.openai import request_members
from tornado_proxy.providers.openai.request_members import REALTIME_RULES, RULES
from tornado_proxy.providers.shared.body_walk import walk_content

REQUESTS = (
    ResponseCreateParamsNonStreaming,
    ResponsesClientEventParam,
    ResponseSteerEventParam,
    ResponseCompactParams,
    InputTokenCountParams,
    CompletionCreateParamsNonStreaming,
    EmbeddingCreateParams,
    ImageGenerateParamsNonStreaming,
    ImageEditParamsNonStreaming,
    SpeechCreateParams,
    ClientSecretCreateParams,
)


def test_every_member_of_the_sdk_types_is_decided_on() -> None:
    assert {"previous_response_id", "vector_store_ids", "skill_id"} <= member_names(*REQUESTS)
    assert sorted(undecided_members(request_members, *REQUESTS)) == []


def test_no_member_is_listed_twice() -> None:
    listed = [
        *request_members.REFERENCES,
        *request_members.REFERENCE_OBJECTS,
        *request_members.OPAQUE,
        *request_members.MODELS,
        *request_members.TOOLS,
        *request_members.PRICES,
        *request_members.NEUTRAL,
    ]

    assert len(listed) == len(set(listed))


@pytest.mark.parametrize(
    ("content", "references"),
    [
        pytest.param({"input": [{"type": "item_reference", "id": "msg_1"}]}, ["msg_1"], id="item reference"),
        pytest.param(
            {"input": [{"type": "item_reference", "id": "msg_1", "role": "user"}]}, ["msg_1"], id="with a role"
        ),
        pytest.param({"input": [{"id": "msg_1"}, []]}, ["msg_1"], id="beside a list"),
        pytest.param({"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]}, ["rs_1"], id="bare reasoning"),
        pytest.param(
            {"input": [{"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}]},
            [],
            id="reasoning with content",
        ),
        pytest.param({"input": [{"id": "msg_1", "role": "assistant", "content": "hi"}]}, [], id="message with content"),
        pytest.param({"input": [{"type": "function_call", "id": "fc_1", "name": "f", "call_id": "c"}]}, [], id="call"),
        pytest.param({"prompt": {"id": "pmpt_1"}}, ["pmpt_1"], id="stored prompt"),
        pytest.param({"container": "cntr_1"}, ["cntr_1"], id="container beside the tools"),
        pytest.param(
            {"tools": [{"type": "new", "container": {"id": "cntr_1"}}]}, ["cntr_1"], id="container of a new tool"
        ),
        pytest.param({"voice": [{"id": "voice_1", "n": 1}]}, ["voice_1"], id="object in a list"),
        pytest.param({"prompt": "a cat"}, [], id="prompt of an image"),
        pytest.param(
            {"prompt": {"id": "p", "variables": {"f": {"file_id": "file_1"}}}}, ["p", "file_1"], id="variable"
        ),
        pytest.param(
            {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1", "vs_2"]}]}, ["vs_1", "vs_2"], id="stores"
        ),
        pytest.param({"tools": [{"type": "code_interpreter", "container": "cntr_1"}]}, ["cntr_1"], id="container"),
        pytest.param(
            {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file_1"]}}]},
            ["file_1"],
            id="files of a container",
        ),
        pytest.param({"tools": [{"type": "mcp", "tunnel_id": "tun_1"}]}, ["tun_1"], id="tunnel"),
        pytest.param(
            {"input": [{"type": "additional_tools", "tools": [{"type": "code_interpreter", "container": "cntr_1"}]}]},
            ["cntr_1"],
            id="tool in an input item",
        ),
        pytest.param({"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, ["audio_1"], id="chat audio"),
        pytest.param({"audio": {"voice": "alloy", "format": "mp3"}}, [], id="chat audio settings"),
        pytest.param({"audio": {"voice": {"id": "voice_1"}}}, ["voice_1"], id="custom voice"),
        pytest.param({"prompt_cache_options": {"comparison_response_id": "resp_1"}}, ["resp_1"], id="comparison"),
        pytest.param({"metadata": {"file_id": "mine"}}, [], id="metadata is the caller's own"),
        pytest.param({"tools": [{"type": "function", "parameters": {"file_id": "x"}}]}, [], id="schema"),
    ],
)
def test_members_that_refer_to_objects_are_found(content: Any, references: list[str]) -> None:
    assert set(walk_content(content, RULES).references) == set(references)


def test_realtime_items_and_conversation_modes_are_no_references() -> None:
    event = {"response": {"conversation": "none", "input": [{"type": "item_reference", "id": "item_1"}]}}

    assert walk_content(event, REALTIME_RULES).references == []
    assert set(walk_content({"session": {"prompt": {"id": "pmpt_1"}}}, REALTIME_RULES).references) == {"pmpt_1"}
