import asyncio
from base64 import b64decode
from typing import Any

import openai
import pytest

#: The SDK marks translations and variations as deprecated; the endpoints are still served.
pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")

PNG = b"\x89PNG\r\n\x1a\n"


def test_image_states_usage(openai_client: openai.OpenAI) -> None:
    response = openai_client.images.generate(
        model="gpt-image-2", prompt="a siamese cat", size="1024x1536", quality="low"
    )

    assert b64decode(response.data[0].b64_json).startswith(PNG)
    assert (response.size, response.quality, response.background, response.output_format) == (
        "1024x1536",
        "low",
        "opaque",
        "png",
    )
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (3, 408, 411)
    assert response.usage.output_tokens_details.image_tokens == 408


def test_provider_chooses_omitted_settings(openai_client: openai.OpenAI) -> None:
    response = openai_client.images.generate(model="gpt-image-2", prompt="cat", n=2, quality="auto")

    assert (len(response.data), response.size, response.quality) == (2, "1024x1024", "high")
    assert response.usage.output_tokens == 2 * 4160


@pytest.mark.parametrize("members", [{"n": 11}, {"n": 10**400}, {"model": "dall-e-3", "stream": True}])
def test_images_that_the_provider_does_not_make_are_rejected(openai_client: openai.OpenAI, members: Any) -> None:
    with pytest.raises(openai.BadRequestError):
        openai_client.post(
            "/images/generations", cast_to=object, body={"model": "gpt-image-2", "prompt": "cat", **members}
        )


def test_old_models_state_no_usage(openai_client: openai.OpenAI) -> None:
    drawn = openai_client.images.generate(model="dall-e-3", prompt="cat")
    varied = openai_client.images.create_variation(image=("a.png", PNG), n=2)

    assert drawn.usage is None
    assert (varied.usage, len(varied.data)) == (None, 2)


def test_edit_counts_its_input_images(openai_client: openai.OpenAI) -> None:
    response = openai_client.images.edit(
        model="gpt-image-2", prompt="add a hat", image=[("a.png", PNG), ("b.png", PNG)], quality="low"
    )

    assert (response.usage.input_tokens_details.image_tokens, response.usage.input_tokens_details.text_tokens) == (
        170,
        3,
    )
    assert response.usage.total_tokens == 173 + 272


@pytest.mark.parametrize("kind", ["image_generation", "image_edit"])
def test_stream_has_partial_images_and_charges_them(openai_client: openai.OpenAI, kind: str) -> None:
    arguments = {"model": "gpt-image-2", "prompt": "cat", "quality": "low", "stream": True, "partial_images": 2}
    if kind == "image_generation":
        events = list(openai_client.images.generate(**arguments))
    else:
        events = list(openai_client.images.edit(**arguments, image=("a.png", PNG)))

    assert [event.type for event in events] == [f"{kind}.partial_image"] * 2 + [f"{kind}.completed"]
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    assert events[-1].usage.output_tokens == 272 + 200


def test_usage_of_streamed_images_adds_up_to_the_json(openai_client: openai.OpenAI) -> None:
    arguments = {"model": "gpt-image-2", "prompt": "one cat", "n": 2, "quality": "medium"}

    streamed = [event.usage for event in openai_client.images.generate(**arguments, stream=True)]
    complete = openai_client.images.generate(**arguments).usage

    assert sum(usage.total_tokens for usage in streamed) == complete.total_tokens == 2 + 2 * 1056


def test_async_client_generates_an_image(base_url: str) -> None:
    async def draw() -> int:
        async with openai.AsyncOpenAI(base_url=f"{base_url}/v1", api_key="k") as client:
            return len((await client.images.generate(model="gpt-image-2", prompt="cat")).data)

    assert asyncio.run(draw()) == 1
