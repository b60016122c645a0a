import asyncio
import json
import urllib.request

import openai
import pytest
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

FIRST_FIVE = "The stand-in answers"


def ask(text: str, **more: object) -> dict[str, object]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **more}


def test_a_completion_states_usage_that_can_be_counted_by_hand(openai_client: openai.OpenAI) -> None:
    answer = openai_client.chat.completions.create(**ask("Say this is a test [[sim tokens=5]]"))

    assert answer.choices[0].message.content == FIRST_FIVE
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "gpt-4o-mini"
    assert answer.service_tier == "default"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (13, 5, 18)


def test_a_stream_has_usage_only_when_it_is_asked_for(openai_client: openai.OpenAI) -> None:
    silent = list(openai_client.chat.completions.create(**ask("Hi [[sim tokens=5]]"), stream=True))
    asked = list(
        openai_client.chat.completions.create(
            **ask("Hi [[sim tokens=5]]"), stream=True, stream_options={"include_usage": True}
        )
    )

    assert [chunk.usage for chunk in silent] == [None] * 7
    assert text_of(silent) == text_of(asked) == FIRST_FIVE
    assert asked[-1].choices == []
    assert asked[-1].usage is not None
    assert asked[-1].usage.completion_tokens == 5
    assert asked[-2].choices[0].finish_reason == "stop"


def test_the_stream_helper_accumulates_what_the_json_says(openai_client: openai.OpenAI) -> None:
    with openai_client.chat.completions.stream(
        **ask("Hi [[sim tokens=9]]"), stream_options={"include_usage": True}
    ) as stream:
        final = stream.get_final_completion()
    whole = openai_client.chat.completions.create(**ask("Hi [[sim tokens=9]]"))

    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.usage == whole.usage


def test_the_async_client_reads_the_same_stream(base_url: str) -> None:
    async def read() -> str:
        async with openai.AsyncOpenAI(base_url=f"{base_url}/openai/v1", api_key="k") as client:
            stream = await client.chat.completions.create(**ask("Hi [[sim tokens=5]]"), stream=True)
            return text_of([chunk async for chunk in stream])

    assert asyncio.run(read()) == FIRST_FIVE


def test_tool_calls_come_whole_and_in_deltas(openai_client: openai.OpenAI) -> None:
    text = '[[sim tool=weather args={"city": "Paris"}]]'

    whole = openai_client.chat.completions.create(**ask(text))
    with openai_client.chat.completions.stream(**ask(text)) as stream:
        streamed = stream.get_final_completion()

    for answer in (whole, streamed):
        (call,) = answer.choices[0].message.tool_calls or []
        assert call.function.name == "weather"
        assert json.loads(call.function.arguments) == {"city": "Paris"}
        assert answer.choices[0].finish_reason == "tool_calls"
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 1 + 9


def test_a_tool_result_ends_the_tool_directive(openai_client: openai.OpenAI) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "[[sim tool=f]]"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
    ]

    answer = openai_client.chat.completions.create(model="gpt-4o-mini", messages=messages)

    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].finish_reason == "stop"


def test_reasoning_is_part_of_the_completion_tokens(openai_client: openai.OpenAI) -> None:
    answer = openai_client.chat.completions.create(**ask("Hi [[sim tokens=5]]") | {"model": "gpt-5-mini"})

    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5 + 16
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 16


def test_a_limit_cuts_the_answer(openai_client: openai.OpenAI) -> None:
    answer = openai_client.chat.completions.create(**ask("Hi"), max_completion_tokens=5)

    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content == FIRST_FIVE


def test_several_choices_have_one_usage(openai_client: openai.OpenAI) -> None:
    answer = openai_client.chat.completions.create(**ask("Hi [[sim tokens=5]]"), n=3)

    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 15


def test_a_long_prefix_that_was_sent_before_is_cached(openai_client: openai.OpenAI) -> None:
    long = "word " * 1300

    first = openai_client.chat.completions.create(**ask(long + "one"))
    second = openai_client.chat.completions.create(**ask(long + "two"))
    other_model = openai_client.chat.completions.create(**ask(long) | {"model": "gpt-5.6-sol"})

    assert cached(first) == 0
    assert cached(second) == 1280
    assert cached(other_model) == 0
    assert other_model.usage.prompt_tokens_details.cache_write_tokens == 1280


def test_structured_output_fits_its_schema(openai_client: openai.OpenAI) -> None:
    class Place(BaseModel):
        city: str
        inhabitants: int

    answer = openai_client.chat.completions.parse(**ask("Where?"), response_format=Place)

    assert answer.choices[0].message.parsed == Place(city="simulated", inhabitants=1)


def test_a_refusal_is_told_as_one(openai_client: openai.OpenAI) -> None:
    whole = openai_client.chat.completions.create(**ask("[[sim refuse]]"))
    with openai_client.chat.completions.stream(**ask("[[sim refuse]]")) as stream:
        streamed = stream.get_final_completion()

    assert whole.choices[0].message.content is None
    assert whole.choices[0].message.refusal == streamed.choices[0].message.refusal
    assert "can't help" in (whole.choices[0].message.refusal or "")


@pytest.mark.parametrize("tier", ["priority", "flex", "default"])
def test_the_service_tier_is_echoed(openai_client: openai.OpenAI, tier: str) -> None:
    assert openai_client.chat.completions.create(**ask("Hi"), service_tier=tier).service_tier == tier


def test_embeddings_in_both_encodings(base_url: str, openai_client: openai.OpenAI) -> None:
    answer = openai_client.embeddings.create(model="text-embedding-3-small", input=["one two", "three"])
    body = json.dumps({"model": "m", "input": "x", "encoding_format": "float", "dimensions": 3}).encode()
    request = urllib.request.Request(f"{base_url}/v1/embeddings", body, {"Authorization": "Bearer k"})
    with urllib.request.urlopen(request, timeout=10) as response:
        plain = json.load(response)

    assert [len(item.embedding) for item in answer.data] == [1536, 1536]
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (3, 3)
    assert plain["data"][0]["embedding"] == [1.0, 0.0, 0.0]


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def cached(answer: openai.types.chat.ChatCompletion) -> int:
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    return answer.usage.prompt_tokens_details.cached_tokens or 0
