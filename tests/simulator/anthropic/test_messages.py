import asyncio
import json
import time
import urllib.request
from typing import Any

import anthropic
import pytest

FIRST_FIVE = "The stand-in answers"


def make_body(text: str, **more: object) -> dict[str, object]:
    return {"model": "claude-opus-4-8", "max_tokens": 1000, "messages": [{"role": "user", "content": text}], **more}


def test_message_usage_can_be_counted_by_hand(anthropic_client: anthropic.Anthropic) -> None:
    response = anthropic_client.messages.create(**make_body("Say this [[sim tokens=5]]", system="Be brief."))

    assert response.content[0].text == FIRST_FIVE
    assert response.stop_reason == "end_turn"
    assert (response.usage.input_tokens, response.usage.output_tokens) == (10 + 3, 5)
    assert (response.usage.cache_read_input_tokens, response.usage.cache_creation_input_tokens) == (0, 0)
    assert response.usage.service_tier == "standard"


def test_message_events_are_in_order(anthropic_client: anthropic.Anthropic, base_url: str) -> None:
    body = json.dumps(make_body("Hi [[sim tokens=2]]", stream=True, thinking={"type": "adaptive"})).encode()
    request = urllib.request.Request(f"{base_url}/v1/messages?beta=true", body, {"x-api-key": "k"})
    with urllib.request.urlopen(request, timeout=10) as response:
        lines = response.read().decode().splitlines()

    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    assert names == [
        "message_start",
        "ping",
        "content_block_start",
        *["content_block_delta"] * 17,
        "content_block_stop",
        "content_block_start",
        *["content_block_delta"] * 2,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


def test_streamed_and_json_responses_are_equal(anthropic_client: anthropic.Anthropic) -> None:
    with anthropic_client.messages.stream(**make_body("Hi [[sim tokens=9]]", thinking={"type": "adaptive"})) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    complete = anthropic_client.messages.create(**make_body("Hi [[sim tokens=9]]", thinking={"type": "adaptive"}))

    assert [block.type for block in final.content] == ["thinking", "text"]
    assert final.content[0].thinking == complete.content[0].thinking
    assert final.content[0].signature == complete.content[0].signature
    assert text == final.content[1].text == complete.content[1].text
    assert final.usage == complete.usage
    assert final.usage.output_tokens == 9 + 16
    assert final.usage.output_tokens_details.thinking_tokens == 16


def test_tool_use_is_equal_in_json_and_stream(anthropic_client: anthropic.Anthropic) -> None:
    text = '[[sim tool=a args={"city": "Paris"}]] [[sim tool=b]]'

    complete = anthropic_client.messages.create(**make_body(text))
    with anthropic_client.messages.stream(**make_body(text)) as stream:
        streamed = stream.get_final_message()

    for response in (complete, streamed):
        assert [(block.name, block.input) for block in response.content] == [("a", {"city": "Paris"}), ("b", {})]
        assert response.stop_reason == "tool_use"
        assert response.usage.output_tokens == 1 + 9 + 1 + 2


def test_tool_result_ends_the_tool_directive(anthropic_client: anthropic.Anthropic) -> None:
    messages = [
        {"role": "user", "content": "[[sim tool=f]]"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "done"}]},
    ]

    response = anthropic_client.messages.create(model="claude-opus-4-8", max_tokens=99, messages=messages)

    assert response.stop_reason == "end_turn"


def test_marked_prefixes_are_written_once_then_read(anthropic_client: anthropic.Anthropic) -> None:
    system = [
        {"type": "text", "text": "word " * 2000, "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "text", "text": "more " * 500, "cache_control": {"type": "ephemeral"}},
    ]

    first = anthropic_client.messages.create(**make_body("one", system=system)).usage
    second = anthropic_client.messages.create(**make_body("one two", system=system)).usage

    assert (first.input_tokens, first.cache_creation_input_tokens, first.cache_read_input_tokens) == (1, 2500, 0)
    assert first.cache_creation is not None
    assert first.cache_creation.ephemeral_1h_input_tokens == 2000
    assert first.cache_creation.ephemeral_5m_input_tokens == 500
    assert (second.input_tokens, second.cache_creation_input_tokens, second.cache_read_input_tokens) == (2, 0, 2500)


def test_refusal_has_no_content(anthropic_client: anthropic.Anthropic) -> None:
    with anthropic_client.messages.stream(**make_body("[[sim refuse]]")) as stream:
        response = stream.get_final_message()

    assert (response.stop_reason, response.content, response.usage.output_tokens) == ("refusal", [], 5)


def test_output_ends_at_the_token_limit(anthropic_client: anthropic.Anthropic) -> None:
    response = anthropic_client.messages.create(**make_body("Hi") | {"max_tokens": 5})

    assert (response.stop_reason, response.content[0].text) == ("max_tokens", FIRST_FIVE)


def test_count_tokens_equals_the_charged_input(anthropic_client: anthropic.Anthropic) -> None:
    body = make_body("one two three", system="four five")
    counted = anthropic_client.messages.count_tokens(**{k: v for k, v in body.items() if k != "max_tokens"})

    assert counted.input_tokens == anthropic_client.messages.create(**body).usage.input_tokens == 5


def test_message_without_max_tokens_is_rejected(base_url: str, anthropic_client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        anthropic_client.post(
            "/v1/messages", body={"model": "m", "messages": [{"role": "user", "content": "x"}]}, cast_to=object
        )


def test_async_client_reads_the_same_stream(base_url: str) -> None:
    async def read() -> str:
        async with (
            anthropic.AsyncAnthropic(base_url=f"{base_url}/anthropic", api_key="k") as client,
            client.messages.stream(**make_body("Hi [[sim tokens=5]]")) as stream,
        ):
            return await stream.get_final_text()

    assert asyncio.run(read()) == FIRST_FIVE


def test_batch_runs_ends_and_has_results(anthropic_client: anthropic.Anthropic) -> None:
    texts = {"good": "Hi [[sim tokens=5]]", "bad": "[[sim status=529]]"}
    requests = [{"custom_id": name, "params": make_body(text)} for name, text in texts.items()]
    requests.reverse()

    with pytest.raises(anthropic.InternalServerError):
        anthropic_client.messages.batches.create(requests=requests)
    requests.reverse()
    created = anthropic_client.messages.batches.create(requests=requests)
    ended = wait_until_ended(anthropic_client, created.id)
    results = {line.custom_id: line.result for line in anthropic_client.messages.batches.results(created.id)}
    listed = [batch.id for batch in anthropic_client.messages.batches.list(limit=1)]
    anthropic_client.messages.batches.delete(created.id)

    assert (created.processing_status, created.request_counts.processing) == ("in_progress", 2)
    assert (ended.request_counts.succeeded, ended.request_counts.errored) == (1, 1)
    assert results["good"].message.usage.output_tokens == 5
    assert results["good"].message.usage.service_tier == "batch"
    assert results["bad"].error.error.type == "overloaded_error"
    assert listed == [created.id]
    with pytest.raises(anthropic.NotFoundError):
        anthropic_client.messages.batches.retrieve(created.id)


def test_cancelled_batch_has_cancelled_results(anthropic_client: anthropic.Anthropic, simulator) -> None:
    simulator.settle_s = 0.3
    created = anthropic_client.messages.batches.create(requests=[{"custom_id": "a", "params": make_body("Hi")}])

    cancelled = anthropic_client.messages.batches.cancel(created.id)
    ended = wait_until_ended(anthropic_client, created.id)

    assert cancelled.processing_status == "canceling"
    assert ended.request_counts.canceled == 1
    (line,) = anthropic_client.messages.batches.results(created.id)
    assert line.result.type == "canceled"


def test_legacy_completions_never_state_usage(base_url: str) -> None:
    def post(**more: object) -> str:
        body = json.dumps({"model": "claude-2.1", "prompt": "Hi", "max_tokens_to_sample": 5, **more}).encode()
        request = urllib.request.Request(f"{base_url}/v1/complete", body, {"x-api-key": "k"})
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.read().decode()

    complete, streamed = post(), post(stream=True)

    assert json.loads(complete)["completion"] == FIRST_FIVE
    events = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: ")]
    assert "".join(event.get("completion", "") for event in events) == FIRST_FIVE
    assert events[-1]["stop_reason"] == "max_tokens"
    assert "usage" not in complete + streamed


def wait_until_ended(client: anthropic.Anthropic, batch_id: str) -> anthropic.types.messages.MessageBatch:
    deadline = time.monotonic() + 10
    while (batch := client.messages.batches.retrieve(batch_id)).processing_status != "ended":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return batch


def test_batch_with_a_repeated_custom_id_is_rejected(anthropic_client: anthropic.Anthropic) -> None:
    message: Any = {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}

    with pytest.raises(anthropic.BadRequestError, match="unique"):
        anthropic_client.messages.batches.create(requests=[{"custom_id": "a", "params": message}] * 2)
