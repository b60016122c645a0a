"""POST /v1/images/generations, edits and variations: always the same small picture."""

from __future__ import annotations

import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass

from tornado_proxy.simulator.handlers.multipart_form import count_files, form_field
from tornado_proxy.simulator.handlers.provider_errors import ProviderFault, openai_error
from tornado_proxy.simulator.handlers.provider_handler import ProviderHandler
from tornado_proxy.simulator.handlers.sse_event import Event
from tornado_proxy.simulator.json_values import Json, as_count, as_list, as_text, encode
from tornado_proxy.simulator.model.tokens import IMAGE_TOKENS
from tornado_proxy.simulator.openai.prompt import text_prompt

#: A PNG of one transparent pixel, base64.
_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
#: Output tokens of gpt-image-1 by size and quality (image generation guide); other sizes count as the square.
_OUTPUT_TOKENS = {
    "1024x1024": {"low": 272, "medium": 1056, "high": 4160},
    "1024x1536": {"low": 408, "medium": 1584, "high": 6240},
    "1536x1024": {"low": 400, "medium": 1568, "high": 6208},
}
#: Extra output tokens of each partial picture of a stream.
_PARTIAL_TOKENS = 100


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """What is drawn: `count` pictures, each with `partials` partial ones before it when streamed."""

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
    def picture(self) -> str:
        """The picture, base64, made longer by `padding` bytes after its end."""
        return b64encode(b64decode(_PNG) + bytes(self.padding)).decode() if self.padding else _PNG

    def echo(self) -> Json:
        """What was drawn: the provider chooses where the request says `auto`."""
        size, quality = as_text(self.fields.get("size"), "auto"), as_text(self.fields.get("quality"), "auto")
        background = as_text(self.fields.get("background"), "auto")
        return {
            "background": "opaque" if background == "auto" else background,
            "output_format": as_text(self.fields.get("output_format"), "png"),
            "quality": "high" if quality == "auto" else quality,
            "size": "1024x1024" if size == "auto" else size,
        }

    def usage_json(self, count: int, *, first: bool = True) -> Json:
        """Usage of `count` pictures; in a stream the input is counted with the first."""
        echo = self.echo()
        table = _OUTPUT_TOKENS.get(as_text(echo["size"]), _OUTPUT_TOKENS["1024x1024"])
        written = count * (table.get(as_text(echo["quality"]), table["high"]) + self.partials * _PARTIAL_TOKENS)
        text, images = (self.prompt_tokens, self.input_images * IMAGE_TOKENS) if first else (0, 0)
        return {
            "input_tokens": text + images,
            "input_tokens_details": {"image_tokens": images, "text_tokens": text},
            "output_tokens": written,
            "output_tokens_details": {"image_tokens": written, "text_tokens": 0},
            "total_tokens": text + images + written,
        }


class Images(ProviderHandler):
    """POST /v1/images/generations."""

    kind = "image_generation"

    async def post(self) -> None:
        """Answer with one JSON body or a stream."""
        fields, images = self.read_fields()
        model = self.required_model(fields.get("model"))
        text = as_text(fields.get("prompt"))
        if not text:
            raise ProviderFault(400, "prompt is required", param="prompt")
        asked = await self.obey(text)
        streamed = fields.get("stream") in (True, "true")
        plan = ImagePlan(
            kind=self.kind,
            model=model,
            fields=fields,
            prompt_tokens=text_prompt(text).tokens,
            input_images=images,
            count=max(1, _number(fields.get("n"), 1)),
            partials=_number(fields.get("partial_images"), 0) if streamed else 0,
            padding=asked.size,
            usage=not asked.no_usage,
        )
        if streamed:
            await self.send_events(_events(plan), _failure)
        else:
            await self.send_json(_images_json(plan))

    def read_fields(self) -> tuple[Json, int]:
        """The request's fields and how many pictures it brings."""
        body = self.read_json()
        return body, len(as_list(body.get("images")))


class ImageEdits(Images):
    """POST /v1/images/edits: multipart, or JSON with references."""

    kind = "image_edit"

    def read_fields(self) -> tuple[Json, int]:
        """The fields of either form."""
        if not self.request.headers.get("Content-Type", "").startswith("multipart/"):
            return super().read_fields()
        fields: Json = {name: form_field(self.request, name) for name in self.request.body_arguments}
        return fields, count_files(self.request, "image", "image[]", "mask")


class ImageVariations(ProviderHandler):
    """POST /v1/images/variations: dall-e-2 alone, which states no usage."""

    async def post(self) -> None:
        """As many pictures as `n` says."""
        self.required_model(form_field(self.request, "model", "dall-e-2"))
        if not count_files(self.request, "image"):
            raise ProviderFault(400, "image is required", param="image")
        count = _number(form_field(self.request, "n"), 1)
        await self.send_json({"created": int(time.time()), "data": [{"b64_json": _PNG}] * count})


def _images_json(plan: ImagePlan) -> Json:
    answer: Json = {"created": int(time.time()), "data": [{"b64_json": plan.picture}] * plan.count}
    if plan.model.startswith("dall-e"):
        return answer
    answer |= plan.echo()
    return {**answer, "usage": plan.usage_json(plan.count)} if plan.usage else answer


def _events(plan: ImagePlan) -> Iterator[Event]:
    shown: Json = {"b64_json": plan.picture, "created_at": int(time.time()), **plan.echo()}
    partial, completed = f"{plan.kind}.partial_image", f"{plan.kind}.completed"
    for number in range(plan.count):
        for index in range(plan.partials):
            yield partial, encode({"type": partial, **shown, "partial_image_index": index})
        done: Json = {"type": completed, **shown}
        if plan.usage:
            done["usage"] = plan.usage_json(1, first=number == 0)
        yield completed, encode(done)


def _failure(_sent: int) -> list[Event]:
    return [("error", encode({"type": "error", **openai_error(500, "simulated failure")}))]


def _number(value: object, default: int) -> int:
    """A count from JSON or from a form."""
    return int(value) if isinstance(value, str) and value.isdigit() else as_count(value, default)
