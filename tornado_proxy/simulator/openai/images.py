"""POST /v1/images/generations, edits and variations: every image is the same small one."""

from __future__ import annotations

import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass

from tornado_proxy.simulator.handlers.multipart_form import count_files, read_form_field
from tornado_proxy.simulator.handlers.provider_errors import ProviderError, make_openai_error
from tornado_proxy.simulator.handlers.provider_handler import ProviderHandler
from tornado_proxy.simulator.handlers.sse_event import Event
from tornado_proxy.simulator.json_values import Json, as_count, as_list, as_text, encode
from tornado_proxy.simulator.model.tokens import IMAGE_TOKENS
from tornado_proxy.simulator.openai.prompt import make_text_prompt

#: A PNG of one transparent pixel, base64.
_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
#: Output tokens of gpt-image-1 by size and quality (image generation guide); other sizes count as 1024x1024.
_OUTPUT_TOKENS = {
    "1024x1024": {"low": 272, "medium": 1056, "high": 4160},
    "1024x1536": {"low": 408, "medium": 1584, "high": 6240},
    "1536x1024": {"low": 400, "medium": 1568, "high": 6208},
}
#: Extra output tokens of each partial image of a stream (image generation guide).
_PARTIAL_TOKENS = 100


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """The images of a response.

    Attributes:
        kind: the prefix of the event names.
        fields: the fields of the request, from JSON or a form.
        partials: partial images before each image of a stream.
        padding: bytes that are appended to each image.
        usage: True if the response states its usage.
    """

    kind: str
    model: str
    fields: Json
    prompt_tokens: int
    input_images: int
    count: int
    partials: int
    padding: int
    usage: bool

    @property
    def image(self) -> str:
        """The image in base64.  `padding` follows its end, where image readers ignore it."""
        return b64encode(b64decode(_PNG) + bytes(self.padding)).decode() if self.padding else _PNG

    def settings_json(self) -> Json:
        """Return the settings of the image as the response states them; the provider replaces `auto`."""
        size, quality = as_text(self.fields.get("size"), "auto"), as_text(self.fields.get("quality"), "auto")
        # Each `auto` is resolved, since prices depend on size and quality.
        background = as_text(self.fields.get("background"), "auto")
        return {
            "background": "opaque" if background == "auto" else background,
            "output_format": as_text(self.fields.get("output_format"), "png"),
            "quality": "high" if quality == "auto" else quality,
            "size": "1024x1024" if size == "auto" else size,
        }

    def usage_json(self, count: int, *, first: bool = True) -> Json:
        """Return the usage of `count` images; a stream counts the input in the event of its `first` image."""
        settings = self.settings_json()
        table = _OUTPUT_TOKENS.get(as_text(settings["size"]), _OUTPUT_TOKENS["1024x1024"])
        written = count * (table.get(as_text(settings["quality"]), table["high"]) + self.partials * _PARTIAL_TOKENS)
        text, images = (self.prompt_tokens, self.input_images * IMAGE_TOKENS) if first else (0, 0)
        return {
            "input_tokens": text + images,
            "input_tokens_details": {"image_tokens": images, "text_tokens": text},
            "output_tokens": written,
            "output_tokens_details": {"image_tokens": written, "text_tokens": 0},
            "total_tokens": text + images + written,
        }


#: The highest `n` and `partial_images` (OpenAI API reference, "Create image").
_MAX_IMAGES, _MAX_PARTIALS = 10, 3


class Images(ProviderHandler):
    """POST /v1/images/generations."""

    kind = "image_generation"

    async def post(self) -> None:
        """Respond with a JSON body or a stream."""
        fields, images = self.read_fields()
        model = self.check_model(fields.get("model"))
        text = as_text(fields.get("prompt"))
        if not text:
            raise ProviderError(400, "prompt is required", param="prompt")
        count = max(1, _read_number(fields.get("n"), 1))
        if count > _MAX_IMAGES:
            raise ProviderError(400, f"n must be at most {_MAX_IMAGES}", param="n")
        if fields.get("stream") in (True, "true") and model.startswith("dall-e"):
            raise ProviderError(400, "stream is supported for GPT image models only", param="stream")
        directives = await self.apply_directives(text)
        streamed = fields.get("stream") in (True, "true")
        plan = ImagePlan(
            kind=self.kind,
            model=model,
            fields=fields,
            prompt_tokens=make_text_prompt(text).tokens,
            input_images=images,
            count=count,
            partials=min(_MAX_PARTIALS, _read_number(fields.get("partial_images"), 0)) if streamed else 0,
            padding=directives.size,
            usage=not directives.no_usage,
        )
        if streamed:
            await self.send_events(_make_events(plan), _make_failure)
        else:
            await self.send_json(_make_images_json(plan))

    def read_fields(self) -> tuple[Json, int]:
        """Return the request's fields and the number of its input images."""
        body = self.read_json()
        return body, len(as_list(body.get("images")))


class ImageEdits(Images):
    """POST /v1/images/edits: a multipart form with images, or JSON with references to images."""

    kind = "image_edit"

    def read_fields(self) -> tuple[Json, int]:
        """Return the fields of a form or of JSON, and the number of input images."""
        if not self.request.headers.get("Content-Type", "").startswith("multipart/"):
            return super().read_fields()
        fields: Json = {name: read_form_field(self.request, name) for name in self.request.body_arguments}
        return fields, count_files(self.request, "image", "image[]", "mask")


class ImageVariations(ProviderHandler):
    """POST /v1/images/variations, which only dall-e-2 serves and which states no usage."""

    async def post(self) -> None:
        """Respond with `n` images."""
        self.check_model(read_form_field(self.request, "model", "dall-e-2"))
        if not count_files(self.request, "image"):
            raise ProviderError(400, "image is required", param="image")
        count = _read_number(read_form_field(self.request, "n"), 1)
        await self.send_json({"created": int(time.time()), "data": [{"b64_json": _PNG}] * count})


def _make_images_json(plan: ImagePlan) -> Json:
    response: Json = {"created": int(time.time()), "data": [{"b64_json": plan.image}] * plan.count}
    # dall-e models state neither settings nor usage.
    if plan.model.startswith("dall-e"):
        return response
    response |= plan.settings_json()
    return {**response, "usage": plan.usage_json(plan.count)} if plan.usage else response


def _make_events(plan: ImagePlan) -> Iterator[Event]:
    shown: Json = {"b64_json": plan.image, "created_at": int(time.time()), **plan.settings_json()}
    partial, completed = f"{plan.kind}.partial_image", f"{plan.kind}.completed"
    for number in range(plan.count):
        for index in range(plan.partials):
            yield partial, encode({"type": partial, **shown, "partial_image_index": index})
        done: Json = {"type": completed, **shown}
        if plan.usage:
            # Each completed image states its own usage; a meter has to add them up.
            done["usage"] = plan.usage_json(1, first=number == 0)
        yield completed, encode(done)


def _make_failure(_events_sent: int) -> list[Event]:
    return [("error", encode({"type": "error", **make_openai_error(500, "simulated failure")}))]


def _read_number(value: object, default: int) -> int:
    """Return a count from JSON or from a form, whose values are text."""
    return int(value) if isinstance(value, str) and value.isdigit() else as_count(value, default)
