"""The lists of request members against the types of the installed SDK, and the members that refer to objects."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic.types.beta.message_create_params import MessageCreateParamsNonStreaming as BetaMessageCreateParams
from anthropic.types.message_count_tokens_params import MessageCountTokensParams
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from anthropic.types.messages.batch_create_params import BatchCreateParams

from tests.providers.request_types import member_names, undecided_members
from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.providers.anthropic import request_members
from tornado_proxy.providers.anthropic.request_members import RULES
from tornado_proxy.providers.shared.body_walk import walk_body, walk_content
from tornado_proxy.providers.shared.json_body import may_need_walk

REQUESTS = (MessageCreateParamsNonStreaming, BetaMessageCreateParams, BatchCreateParams, MessageCountTokensParams)


def test_every_member_of_the_sdk_types_is_decided_on() -> None:
    assert {"container", "file_id", "previous_message_id"} <= member_names(*REQUESTS)
    assert sorted(undecided_members(request_members, *REQUESTS)) == []


@pytest.mark.parametrize(
    ("content", "references"),
    [
        pytest.param({"thread": {"previous_message_id": "msg_1"}}, ["msg_1"], id="thread"),
        pytest.param({"diagnostics": {"previous_message_id": "msg_1"}}, ["msg_1"], id="diagnostics"),
        pytest.param({"container": "container_1"}, ["container_1"], id="container"),
        pytest.param({"container": {"id": "container_1", "skills": []}}, ["container_1"], id="container object"),
        pytest.param(
            {
                "container": {
                    "skills": [{"type": "custom", "skill_id": "skill_1"}, {"type": "anthropic", "skill_id": "xlsx"}]
                }
            },
            ["skill_1"],
            id="custom skill",
        ),
        pytest.param(
            {"messages": [{"content": [{"type": "container_upload", "file_id": "file_1"}]}]}, ["file_1"], id="upload"
        ),
        pytest.param(
            {"messages": [{"content": [{"type": "document", "source": {"type": "file", "file_id": "file_1"}}]}]},
            ["file_1"],
            id="document",
        ),
        pytest.param(
            {"messages": [{"content": [{"type": "tool_result", "content": [{"source": {"file_id": "file_1"}}]}]}]},
            ["file_1"],
            id="document in a tool result",
        ),
        pytest.param({"requests": [{"params": {"container": "container_1"}}]}, ["container_1"], id="batch"),
        pytest.param(
            {"messages": [{"content": [{"type": "tool_use", "input": {"file_id": "x"}}]}]}, [], id="tool input"
        ),
        pytest.param(
            {"messages": [{"content": [{"type": "code_execution_output", "file_id": "file_1"}]}]},
            [],
            id="repeated output",
        ),
    ],
)
def test_members_that_refer_to_objects_are_found(content: Any, references: list[str]) -> None:
    assert set(walk_content(content, RULES).references) == set(references)


def test_skill_outside_a_container_is_found() -> None:
    body = b'{"model":"m","skills":[{"type":"custom","skill_id":"skill_1"}]}'

    assert may_need_walk(body, RULES)
    assert walk_body(body, RULES).references == ["skill_1"]


def test_skill_id_of_another_type_is_rejected() -> None:
    with pytest.raises(InvalidBody, match='"skill_id" must be an id'):
        walk_content({"skills": [{"type": "custom", "skill_id": ["skill_1"]}]}, RULES)


@pytest.mark.parametrize("kind", [[], {}, 1, None])
def test_type_that_is_no_text_names_no_output(kind: Any) -> None:
    content = {"thinking": {"type": kind}, "thread": {"previous_message_id": "msg_1"}}

    assert walk_content(content, RULES).references == ["msg_1"]
