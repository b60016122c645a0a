"""/v1/images/generations, edits and variations: JSON or multipart in; JSON or SSE out.

    gpt-image models   tokens, stated once for all images of a JSON answer, once per image in a stream
    dall-e models      no usage: so many images of a size and a quality

A request without a model is refused: the provider would choose one, and it does not say which.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.domain.request import ImageFacts, RequestFacts, Spend
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, Meter, Quantity, UsageItem, UsageReport
from tornado_proxy.providers.contract import (
    Endpoint,
    HttpEndpoint,
    ParsedRequest,
    RequestView,
    ResponseHead,
    UsageReader,
)
from tornado_proxy.providers.openai.images.image_tokens import ESTIMATE_METHOD, image_tokens
from tornado_proxy.providers.openai.shared.response_readers import EventsReader, JsonReader
from tornado_proxy.providers.openai.shared.usage_report import report_usage
from tornado_proxy.providers.shared.json_body import read_members
from tornado_proxy.wire.multipart import read_form

#: What is made where neither the request nor the answer says it (OpenAI API reference, dall-e models).
_DEFAULT_SIZE, _DEFAULT_QUALITY = "1024x1024", "standard"

_FILES = ("images", "mask")
_FIELDS = ("model", "n", "size", "quality", "stream", "response_format", *_FILES)
_COMPLETED = (b"image_generation.completed", b"image_edit.completed")
_DRAWN = frozenset({Meter.INPUT, Meter.OUTPUT_IMAGE})
_EDITED = _DRAWN | {Meter.INPUT_IMAGE}
_COUNTED = frozenset({Meter.IMAGES})


def priced_by_image(model: str) -> bool:
    """Whether `model` is charged per image: the dall-e family."""
    return model.startswith("dall-e")


def parse_generation(request: RequestView) -> ParsedRequest:
    """The facts of a generation."""
    return _parse(request, _DRAWN)


def parse_edit(request: RequestView) -> ParsedRequest:
    """The facts of an edit or a variation: pictures go in as well."""
    return _parse(request, _EDITED)


def reader(facts: RequestFacts, head: ResponseHead) -> UsageReader:
    """What reads the usage of one answer."""

    def unstated(_: int) -> UsageReport:
        return _without_usage(facts)

    if head.media_type == "text/event-stream":
        return EventsReader(_COMPLETED, lambda events, whole: _from_events(facts, events, whole), unstated)
    return JsonReader(lambda body: _from_body(facts, body), unstated)


def _parse(request: RequestView, meters: frozenset[Meter]) -> ParsedRequest:
    fields = _form_fields(request) if _is_form(request.content_type) else read_members(request.body, _FIELDS)
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("model is missing; name one, such as gpt-image-2, so that its price is known", param="model")
    image = ImageFacts(_whole(fields.get("n")) or 1, _word(fields.get("size")), _word(fields.get("quality")))
    spend = Spend(model, _COUNTED, terms=_terms(image, {})) if priced_by_image(model) else Spend(model, meters)
    facts = RequestFacts(
        model=model,
        spends=(spend,),
        stream=fields.get("stream") in (True, "true", "True", "1"),
        body_bytes=len(request.body),
        image=image,
        references=tuple(_file_ids(fields.get("images"))) + tuple(_file_ids([fields.get("mask")])),
        response_format=_word(fields.get("response_format")),
    )
    return ParsedRequest(facts, request.body)


def _is_form(content_type: str) -> bool:
    return content_type.lower().lstrip().startswith("multipart/")


def _form_fields(request: RequestView) -> Mapping[str, object]:
    form = read_form(request.body, request.content_type)
    return {name: form.text(name) for name in _FIELDS if name not in _FILES}


def _file_ids(images: object) -> list[str]:
    """Ids of uploaded files that a JSON edit names instead of sending pictures."""
    listed = images if isinstance(images, list) else ()
    named = (image.get("file_id") for image in listed if isinstance(image, dict))
    return [file_id for file_id in named if isinstance(file_id, str)]


def _from_body(facts: RequestFacts, body: dict[str, object]) -> UsageReport | None:
    stated = report_usage([body.get("usage")], unnamed_output=Meter.OUTPUT_IMAGE)
    data = body.get("data")
    if stated is not None or not isinstance(data, list):
        return stated
    if facts.model is None or not priced_by_image(facts.model):
        return None
    made = Quantity(Meter.IMAGES, Decimal(len(data)), _terms(facts.image or ImageFacts(), body))
    return UsageReport((UsageItem((made,) if data else ()),), Basis.INFERRED)


def _from_events(facts: RequestFacts, events: list[dict[str, object]], whole: bool) -> UsageReport | None:  # noqa: FBT001  # what EventsReader calls
    """One usage per finished image; where the stream broke, the images that are missing are estimated."""
    stated = report_usage((event.get("usage") for event in events), unnamed_output=Meter.OUTPUT_IMAGE)
    missing = (facts.image or ImageFacts()).count - len(events)
    if stated is None or whole or missing <= 0:
        return stated
    estimate = _estimate(facts, missing)
    return replace(
        stated,
        items=(*stated.items, *estimate.items),
        basis=Basis.ESTIMATED,
        estimate_method=ESTIMATE_METHOD,
        faults=(*stated.faults, *estimate.faults),
    )


def _without_usage(facts: RequestFacts) -> UsageReport:
    return _estimate(facts, (facts.image or ImageFacts()).count)


def _estimate(facts: RequestFacts, count: int) -> UsageReport:
    image = facts.image or ImageFacts()
    if facts.model is not None and priced_by_image(facts.model):
        quantity = Quantity(Meter.IMAGES, Decimal(count), _terms(image, {}))
    else:
        quantity = Quantity(Meter.OUTPUT_IMAGE, Decimal(image_tokens(image.size, image.quality) * count))
    return UsageReport(
        (UsageItem((quantity,)),),
        Basis.ESTIMATED,
        estimate_method=ESTIMATE_METHOD,
        faults=("the answer stated no usage; images were estimated as asked for, their prompt is not known",),
    )


def _terms(asked: ImageFacts, answer: Mapping[str, object]) -> Terms:
    """Size and quality that were used: the answer's echo, else what was asked for, else the API's default."""
    size = _word(answer.get("size")) or _chosen(asked.size) or _DEFAULT_SIZE
    quality = _word(answer.get("quality")) or _chosen(asked.quality) or _DEFAULT_QUALITY
    return Terms(size=size, quality=quality)


def _chosen(word: str | None) -> str | None:
    return None if word == "auto" else word


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _whole(value: object) -> int | None:
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"[1-9]\d{0,3}", value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10_000 else None


IMAGE_ENDPOINTS: tuple[Endpoint, ...] = tuple(
    HttpEndpoint("POST", f"/v1/images/{name}", parse=parse, reader=reader)
    for name, parse in (("generations", parse_generation), ("edits", parse_edit), ("variations", parse_edit))
)
