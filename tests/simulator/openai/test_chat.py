import asyncio
import json
import urllib.request
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

FIRST_FIVE = "The stand-in answers"


def make_body(text: str, **more: object) -> dict[str, object]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **more}


def test_completion_usage_can_be_counted_by_hand(openai_client: openai.OpenAI) -> None:
    response = openai_client.chat.completions.create(**make_body("Say this is a test [[sim tokens=5]]"))

    assert response.choices[0].message.content == FIRST_FIVE
    assert response.choices[0].finish_reason == "stop"
    assert response.model == "gpt-4o-mini"
    assert response.service_tier == "default"
    assert response.usage is not None
    assert (response.usage.prompt_tokens, response.usage.completion_tokens, response.usage.total_tokens) == (13, 5, 18)


def test_stream_states_usage_only_on_request(openai_client: openai.OpenAI) -> None:
    without_usage = list(openai_client.chat.completions.create(**make_body("Hi [[sim tokens=5]]"), stream=True))
    with_usage = list(
        openai_client.chat.completions.create(
            **make_body("Hi [[sim tokens=5]]"), stream=True, stream_options={"include_usage": True}
        )
    )

    assert [chunk.usage for chunk in without_usage] == [None] * 7
    assert join_text(without_usage) == join_text(with_usage) == FIRST_FIVE
    assert with_usage[-1].choices == []
    assert with_usage[-1].usage is not None
    assert with_usage[-1].usage.completion_tokens == 5
    assert with_usage[-2].choices[0].finish_reason == "stop"


def test_streamed_and_json_responses_are_equal(openai_client: openai.OpenAI) -> None:
    with openai_client.chat.completions.stream(
        **make_body("Hi [[sim tokens=9]]"), stream_options={"include_usage": True}
    ) as stream:
        final = stream.get_final_completion()
    complete = openai_client.chat.completions.create(**make_body("Hi [[sim tokens=9]]"))

    assert final.choices[0].message.content == complete.choices[0].message.content
    assert final.usage == complete.usage


def test_async_client_reads_the_same_stream(base_url: str) -> None:
    async def read() -> str:
        async with openai.AsyncOpenAI(base_url=f"{base_url}/openai/v1", api_key="k") as client:
            stream = await client.chat.completions.create(**make_body("Hi [[sim tokens=5]]"), stream=True)
            return join_text([chunk async for chunk in stream])

    assert asyncio.run(read()) == FIRST_FIVE


def test_tool_calls_are_equal_in_json_and_stream(openai_client: openai.OpenAI) -> None:
    text = '[[sim tool=weather args={"city": "Paris"}]]'

    complete = openai_client.chat.completions.create(**make_body(text))
    with openai_client.chat.completions.stream(**make_body(text)) as stream:
        streamed = stream.get_final_completion()

    for response in (complete, streamed):
        (call,) = response.choices[0].message.tool_calls or []
        assert call.function.name == "weather"
        assert json.loads(call.function.arguments) == {"city": "Paris"}
        assert response.choices[0].finish_reason == "tool_calls"
    assert complete.usage is not None
    assert complete.usage.completion_tokens == 1 + 9


def test_tool_result_ends_the_tool_directive(openai_client: openai.OpenAI) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "[[sim tool=f]]"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
    ]

    response = openai_client.chat.completions.create(model="gpt-4o-mini", messages=messages)

    assert response.choices[0].message.tool_calls is None
    assert response.choices[0].finish_reason == "stop"


def test_reasoning_is_part_of_the_completion_tokens(openai_client: openai.OpenAI) -> None:
    response = openai_client.chat.completions.create(**make_body("Hi [[sim tokens=5]]") | {"model": "gpt-5-mini"})

    assert response.usage is not None
    assert response.usage.completion_tokens == 5 + 16
    assert response.usage.completion_tokens_details is not None
    assert response.usage.completion_tokens_details.reasoning_tokens == 16


def test_output_ends_at_the_token_limit(openai_client: openai.OpenAI) -> None:
    response = openai_client.chat.completions.create(**make_body("Hi"), max_completion_tokens=5)

    assert response.choices[0].finish_reason == "length"
    assert response.choices[0].message.content == FIRST_FIVE


def test_several_choices_have_one_usage(openai_client: openai.OpenAI) -> None:
    response = openai_client.chat.completions.create(**make_body("Hi [[sim tokens=5]]"), n=3)

    assert [choice.index for choice in response.choices] == [0, 1, 2]
    assert response.usage is not None
    assert response.usage.completion_tokens == 15


def test_long_prefix_of_an_earlier_prompt_is_cached(openai_client: openai.OpenAI) -> None:
    long = "word " * 1300

    first = openai_client.chat.completions.create(**make_body(long + "one"))
    second = openai_client.chat.completions.create(**make_body(long + "two"))
    other_model = openai_client.chat.completions.create(**make_body(long) | {"model": "gpt-5.6-sol"})

    assert read_cached_tokens(first) == 0
    assert read_cached_tokens(second) == 1280
    assert read_cached_tokens(other_model) == 0
    assert other_model.usage.prompt_tokens_details.cache_write_tokens == 1280


def test_structured_output_matches_its_schema(openai_client: openai.OpenAI) -> None:
    class Place(BaseModel):
        city: str
        inhabitants: int

    response = openai_client.chat.completions.parse(**make_body("Where?"), response_format=Place)

    assert response.choices[0].message.parsed == Place(city="simulated", inhabitants=1)


def test_refusal_is_in_the_refusal_member(openai_client: openai.OpenAI) -> None:
    complete = openai_client.chat.completions.create(**make_body("[[sim refuse]]"))
    with openai_client.chat.completions.stream(**make_body("[[sim refuse]]")) as stream:
        streamed = stream.get_final_completion()

    assert complete.choices[0].message.content is None
    assert complete.choices[0].message.refusal == streamed.choices[0].message.refusal
    assert "can't help" in (complete.choices[0].message.refusal or "")


@pytest.mark.parametrize("tier", ["priority", "flex", "default"])
def test_service_tier_is_echoed(openai_client: openai.OpenAI, tier: str) -> None:
    assert openai_client.chat.completions.create(**make_body("Hi"), service_tier=tier).service_tier == tier


def test_embeddings_have_both_encodings(base_url: str, openai_client: openai.OpenAI) -> None:
    embeddings = openai_client.embeddings.create(model="text-embedding-3-small", input=["one two", "three"])
    body = json.dumps({"model": "m", "input": "x", "encoding_format": "float", "dimensions": 3}).encode()
    request = urllib.request.Request(f"{base_url}/v1/embeddings", body, {"Authorization": "Bearer k"})
    with urllib.request.urlopen(request, timeout=10) as response:
        plain = json.load(response)

    assert [len(item.embedding) for item in embeddings.data] == [1536, 1536]
    assert (embeddings.usage.prompt_tokens, embeddings.usage.total_tokens) == (3, 3)
    assert plain["data"][0]["embedding"] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({"input": []}, id="no input"),
        pytest.param({"input": [[]]}, id="no tokens"),
        pytest.param({"input": None}, id="null"),
        pytest.param({"input": "x", "dimensions": 10**9}, id="too many dimensions"),
    ],
)
def test_embedding_of_nothing_is_rejected(openai_client: openai.OpenAI, members: Any) -> None:
    with pytest.raises(openai.BadRequestError):
        openai_client.post("/embeddings", cast_to=object, body={"model": "text-embedding-3-small", **members})


@pytest.mark.parametrize("n", [129, 10**400])
def test_more_choices_than_the_provider_makes_are_rejected(openai_client: openai.OpenAI, n: int) -> None:
    with pytest.raises(openai.BadRequestError, match="at most 128"):
        openai_client.chat.completions.create(**make_body("Hi"), n=n)


def join_text(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def read_cached_tokens(response: openai.types.chat.ChatCompletion) -> int:
    assert response.usage is not None
    assert response.usage.prompt_tokens_details is not None
    return response.usage.prompt_tokens_details.cached_tokens or 0
