"""The limits of the work that a message request can cause."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tornado_proxy.domain.request import WorkLimits
from tornado_proxy.providers.anthropic.messages.endpoint import parse
from tornado_proxy.providers.contract import RequestView

SEARCH = {"type": "web_search_20250305", "name": "web_search"}


def work(**members: Any) -> WorkLimits:
    """Return the limits of a request with `members`."""
    body = {"model": "claude-opus-5", "max_tokens": 5, "messages": [], **members}
    return parse(RequestView(json.dumps(body).encode(), "application/json")).facts.work


def test_request_of_text_states_its_limits() -> None:
    assert work() == WorkLimits(output_tokens=5, text_only=True)


@pytest.mark.parametrize(
    ("tools", "calls"),
    [
        ([], 0),
        ([{"name": "f", "input_schema": {}}, {"type": "custom", "name": "g", "input_schema": {}}], 0),
        ([{"type": "bash_20250124", "name": "bash"}, {"type": "memory_20250818", "name": "memory"}], 0),
        ([{**SEARCH, "max_uses": 3}], 3),
        ([{**SEARCH, "max_uses": 3}, {"type": "web_fetch_20250910", "name": "web_fetch", "max_uses": 2}], 5),
        ([SEARCH], None),
        ([{**SEARCH, "max_uses": 3}, {"type": "code_execution_20250825", "name": "code_execution"}], None),
        ([{**SEARCH, "max_uses": "3"}], None),
        ([{**SEARCH, "max_uses": True}], None),
        ([{**SEARCH, "max_uses": -1}], None),
    ],
)
def test_only_tools_that_run_at_the_provider_add_calls(tools: list[object], calls: int | None) -> None:
    assert work(tools=tools).tool_calls == calls


def test_servers_of_tools_have_no_limit_of_calls() -> None:
    assert work(mcp_servers=[{"type": "url", "url": "https://example.com", "name": "x"}]).tool_calls is None


@pytest.mark.parametrize("kind", ["image", "document", "container_upload"])
def test_media_are_no_text(kind: str) -> None:
    assert not work(messages=[{"role": "user", "content": [{"type": kind}]}]).text_only


@pytest.mark.parametrize(
    ("thread", "text_only"),
    [({"type": "create"}, True), ({"type": "continue", "previous_message_id": "msg_1"}, False), ({"type": 1}, False)],
)
def test_continued_thread_has_input_that_the_body_does_not_show(thread: object, text_only: bool) -> None:
    assert work(thread=thread).text_only is text_only


def test_parameter_of_a_tool_of_the_client_is_text() -> None:
    """Claude Code 2.1 declares one with the parameter `file`."""
    schema = {"type": "object", "properties": {"file": {"type": "string"}}, "required": ["file"]}
    client, server = {"name": "report", "input_schema": schema}, {**SEARCH, "input_schema": schema}
    upload = {"role": "user", "content": [{"type": "document", "source": {"type": "file", "file_id": "file_1"}}]}

    assert work(tools=[client]).text_only
    assert not work(tools=[server]).text_only
    assert not work(tools=[client], messages=[upload]).text_only


def test_text_that_mentions_an_image_is_text() -> None:
    assert work(messages=[{"role": "user", "content": 'the word "image" in quotes'}]).text_only


def test_provider_chooses_the_default_fallback() -> None:
    assert not work(fallbacks="default").names_models
    assert work(fallbacks=[{"model": "claude-haiku-5-5"}]).names_models


@pytest.mark.parametrize("limit", ["5", 5.5, True, 0, -5, None])
def test_output_limit_of_another_type_limits_nothing(limit: object) -> None:
    assert work(max_tokens=limit).output_tokens is None
