import asyncio
import json
import time
from typing import Any

import openai
import pytest

FIRST_FIVE = "The stand-in answers"


def test_response_usage_can_be_counted_by_hand(openai_client: openai.OpenAI) -> None:
    response = openai_client.responses.create(model="gpt-4o-mini", input="Say this [[sim tokens=5]]")

    assert response.output_text == FIRST_FIVE
    assert response.status == "completed"
    assert response.service_tier == "default"
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (10, 5, 15)


def test_types_that_are_no_text_are_tolerated(openai_client: openai.OpenAI) -> None:
    items: Any = [{"type": []}, {"role": "user", "content": [{"type": {}, "text": "hi"}]}]

    assert openai_client.responses.create(model="gpt-4o-mini", input=items).status == "completed"


def test_response_events_are_in_order(openai_client: openai.OpenAI) -> None:
    events = list(openai_client.responses.create(model="gpt-5.4", input="Hi [[sim tokens=2]]", stream=True))

    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(12))
    final = events[-1].response
    assert [item.type for item in final.output] == ["reasoning", "message"]
    assert final.output[1].id == events[4].item.id == events[6].item_id
    assert (final.usage.output_tokens, final.usage.output_tokens_details.reasoning_tokens) == (18, 16)


def test_stream_helper_accumulates_text_and_tools(openai_client: openai.OpenAI) -> None:
    with openai_client.responses.stream(model="gpt-4o-mini", input="Hi [[sim tokens=5]]") as stream:
        text = stream.get_final_response()
    with openai_client.responses.stream(model="gpt-4o-mini", input='[[sim tool=f args={"a":[1]}]]') as stream:
        tool = stream.get_final_response()

    assert text.output_text == FIRST_FIVE
    (call,) = tool.output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "f", {"a": [1]})


def test_custom_tool_gets_plain_input(openai_client: openai.OpenAI) -> None:
    tools = [{"type": "custom", "name": "patch", "description": "free text"}]

    events = list(
        openai_client.responses.create(
            model="gpt-4o-mini", input='[[sim tool=patch args="a b"]]', tools=tools, stream=True
        )
    )

    assert "".join(e.delta for e in events if e.type == "response.custom_tool_call_input.delta") == "a b"
    assert events[-1].response.output[0].input == "a b"


def test_reasoning_has_the_requested_summary_and_encrypted_content(openai_client: openai.OpenAI) -> None:
    with openai_client.responses.stream(
        model="gpt-5.4",
        input="Hi",
        reasoning={"effort": "low", "summary": "auto"},
        include=["reasoning.encrypted_content"],
        store=False,
    ) as stream:
        response = stream.get_final_response()

    assert response.output[0].type == "reasoning"
    assert response.output[0].summary[0].text.startswith("Let me think")
    assert response.output[0].encrypted_content
    assert response.usage is not None
    assert response.usage.output_tokens_details.reasoning_tokens == 8


def test_response_is_incomplete_at_the_token_limit(openai_client: openai.OpenAI) -> None:
    events = list(openai_client.responses.create(model="gpt-4o-mini", input="Hi", max_output_tokens=5, stream=True))

    assert events[-1].type == "response.incomplete"
    assert events[-1].response.incomplete_details.reason == "max_output_tokens"
    assert events[-1].response.usage.output_tokens == 5


def test_refusal_is_a_refusal_part(openai_client: openai.OpenAI) -> None:
    with openai_client.responses.stream(model="gpt-4o-mini", input="[[sim refuse]]") as stream:
        response = stream.get_final_response()

    assert response.output[0].content[0].type == "refusal"
    assert "can't help" in response.output[0].content[0].refusal


def test_background_response_is_queued_then_completed(openai_client: openai.OpenAI) -> None:
    queued = openai_client.responses.create(model="gpt-4o-mini", input="Hi [[sim tokens=5]]", background=True)
    done = wait_until_done(openai_client, queued.id)

    assert (queued.status, queued.usage) == ("queued", None)
    assert (done.status, done.output_text) == ("completed", FIRST_FIVE)
    assert done.usage is not None
    assert done.usage.output_tokens == 5


def test_background_response_can_be_cancelled(openai_client: openai.OpenAI, simulator) -> None:
    simulator.settle_s = 60
    queued = openai_client.responses.create(model="gpt-4o-mini", input="Hi", background=True)

    cancelled = openai_client.responses.cancel(queued.id)

    assert (cancelled.status, cancelled.usage) == ("cancelled", None)


def test_stored_response_can_be_read_streamed_again_and_deleted(openai_client: openai.OpenAI) -> None:
    created = openai_client.responses.create(model="gpt-4o-mini", input="Hi [[sim tokens=2]]")

    read = openai_client.responses.retrieve(created.id)
    resumed = list(openai_client.responses.retrieve(created.id, stream=True, starting_after=4))
    items = list(openai_client.responses.input_items.list(created.id))
    openai_client.responses.delete(created.id)

    assert read == created
    assert [event.sequence_number for event in resumed] == [5, 6, 7, 8, 9]
    assert resumed[-1].response.usage == created.usage
    assert items[0].content[0].text == "Hi [[sim tokens=2]]"
    with pytest.raises(openai.NotFoundError):
        openai_client.responses.retrieve(created.id)


def test_previous_response_counts_as_input_again(openai_client: openai.OpenAI) -> None:
    first = openai_client.responses.create(model="gpt-4o-mini", input="one two [[sim tokens=5]]")
    second = openai_client.responses.create(
        model="gpt-4o-mini", input="three", instructions="Be brief.", previous_response_id=first.id
    )
    third = openai_client.responses.create(
        model="gpt-4o-mini", input="four", instructions="Be brief.", previous_response_id=second.id
    )

    assert second.usage is not None
    assert second.usage.input_tokens == 3 + 10 + 5 + 1
    assert third.usage is not None
    assert third.usage.input_tokens == 3 + 10 + 5 + 1 + 24 + 1
    with pytest.raises(openai.BadRequestError, match="not found"):
        openai_client.responses.create(model="gpt-4o-mini", input="three", previous_response_id="resp_none")


def test_compaction_and_token_count_state_the_input(openai_client: openai.OpenAI) -> None:
    compacted = openai_client.responses.compact(model="gpt-4o-mini", input="one two three")
    counted = openai_client.responses.input_tokens.count(model="gpt-4o-mini", input="one two three")

    assert compacted.object == "response.compaction"
    assert [item.type for item in compacted.output] == ["message", "compaction"]
    assert compacted.usage.input_tokens == 3
    assert compacted.usage.total_tokens == 3 + compacted.usage.output_tokens
    assert counted.input_tokens == 3


def test_async_client_reads_the_same_stream(base_url: str) -> None:
    async def read() -> str:
        async with (
            openai.AsyncOpenAI(base_url=f"{base_url}/v1", api_key="k") as client,
            client.responses.stream(model="gpt-4o-mini", input="Hi [[sim tokens=5]]") as stream,
        ):
            return (await stream.get_final_response()).output_text

    assert asyncio.run(read()) == FIRST_FIVE


def wait_until_done(client: openai.OpenAI, response_id: str) -> openai.types.responses.Response:
    deadline = time.monotonic() + 10
    while (response := client.responses.retrieve(response_id)).status in ("queued", "in_progress"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return response
