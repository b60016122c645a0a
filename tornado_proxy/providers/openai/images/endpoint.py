"""/v1/images/generations, edits and variations: JSON or multipart requests, JSON or SSE responses.

    gpt-image models   charged by tokens; a JSON response states them once for all images, a stream once for each
    dall-e models      charged by image, of a size and a quality; no usage

A request without a model is rejected: the provider would choose a model and not name it.

Source: OpenAI API reference, "Images" and "Image streaming"; pricing page, "Image generation".
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import msgspec
from msgspec.structs import replace

from tornado_proxy.domain.errors import BadRequest, InvalidBody
from tornado_proxy.domain.request import ImageFacts, RequestFacts, Spend, WorkLimits
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
from tornado_proxy.providers.openai.images.svg_author import SVG, author_spend, read_author_usage
from tornado_proxy.providers.openai.shared.media_readers import EventsReader
from tornado_proxy.providers.openai.shared.usage_report import report_usage
from tornado_proxy.providers.shared.json_body import read_count, read_described, read_members
from tornado_proxy.providers.shared.json_skimmer import KEEP, Shape
from tornado_proxy.providers.shared.json_values import as_objects, as_text
from tornado_proxy.providers.shared.response_readers import JsonReader, choose_reader
from tornado_proxy.wire.multipart import is_form, read_form

#: Size and quality of dall-e images if neither request nor response names them (OpenAI API reference, "Create image").
_DEFAULT_SIZE, _DEFAULT_QUALITY = "1024x1024", "standard"
#: The value that leaves size or quality to the provider.
_AUTO = "auto"

_FILE_MEMBERS = ("images", "mask")
#: The member that says who the request is made for (OpenAI API reference, "Create image").
_DESCRIBED = ("user",)
_MEMBERS = (
    *("model", "n", "size", "quality", "stream", "response_format", "output_format", "svg"),
    *_FILE_MEMBERS,
    *_DESCRIBED,
)
#: The form field of `svg.model`, as SDKs write nested members in a form.
_SVG_MODEL_FIELD = "svg[model]"
_COMPLETED_EVENTS = (b"image_generation.completed", b"image_edit.completed")
#: The members of a response that are read.  `data` counts its images.
_RESPONSE_SHAPE: Mapping[str, Shape] = {**dict.fromkeys(("size", "quality", "usage", "svg_usage"), KEEP), "data": {}}
_GENERATION_METERS = frozenset({Meter.INPUT, Meter.OUTPUT_IMAGE})
_EDIT_METERS = _GENERATION_METERS | {Meter.INPUT_IMAGE}
_IMAGE_METERS = frozenset({Meter.IMAGES})


def is_priced_by_image(model: str) -> bool:
    """Return True if `model` is charged per image: the dall-e family."""
    return model.startswith("dall-e")


def parse_generation(request: RequestView) -> ParsedRequest:
    """Return the facts of a generation, and its unchanged body.

    Raises:
        InvalidBody: the body is invalid or ambiguous.
        BadRequest: the model is missing.
    """
    return _parse(request, _GENERATION_METERS)


def parse_edit(request: RequestView) -> ParsedRequest:
    """Return the facts of an edit or a variation, whose input has images as well.  Raises as parse_generation does."""
    return _parse(request, _EDIT_METERS)


def make_reader(facts: RequestFacts, head: ResponseHead) -> UsageReader:
    """Return the usage reader of a response."""

    def report_without_usage(_: int) -> UsageReport:
        return _estimate(facts, _requested(facts).count)

    return choose_reader(
        facts,
        head,
        lambda: EventsReader(
            _COMPLETED_EVENTS, lambda events, complete: _report_events(facts, events, complete), report_without_usage
        ),
        lambda: JsonReader(_RESPONSE_SHAPE, lambda body: _report_body(facts, body), report_without_usage),
    )


def _parse(request: RequestView, meters: frozenset[Meter]) -> ParsedRequest:
    members = _read_form(request) if is_form(request.content_type) else read_members(request.body, _MEMBERS)
    model = members.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("model is missing; name one, such as gpt-image-2, so that its price is known", param="model")
    image = ImageFacts(
        count=read_count(members.get("n")),
        size=as_text(members.get("size")) or None,
        quality=as_text(members.get("quality")) or None,
    )
    by_image = is_priced_by_image(model)
    spend = Spend(model, _IMAGE_METERS, terms=_terms(image, {})) if by_image else Spend(model, meters)
    facts = RequestFacts(
        model=model,
        spends=(spend, *_author_spends(members)),
        stream=members.get("stream") in (True, "true", "True", "1"),
        body_bytes=len(request.body),
        image=image,
        references=(*_file_ids(members.get("images")), *_file_ids([members.get("mask")])),
        response_format=as_text(members.get("response_format")) or None,
        work=WorkLimits(choices=image.count),
        described=read_described(members, _DESCRIBED),
    )
    return ParsedRequest(facts, request.body)


def _read_form(request: RequestView) -> Mapping[str, object]:
    form = read_form(request.body, request.content_type)
    fields = {name: form.text(name) for name in _MEMBERS if name not in (*_FILE_MEMBERS, SVG)}
    for part in form.parts:
        if part.name.startswith(SVG) and part.name not in (_SVG_MODEL_FIELD, "svg[reasoning][effort]"):
            raise InvalidBody(f"unknown form field {part.name[:60]!r}; send {_SVG_MODEL_FIELD}", param=SVG)
    return {**fields, SVG: {"model": form.text(_SVG_MODEL_FIELD)}}


def _author_spends(members: Mapping[str, object]) -> tuple[Spend, ...]:
    """Return the spend of the text model that writes an SVG; empty for another format.

    Raises:
        BadRequest: the format is SVG, and no model is named: the provider would choose one.
    """
    svg = members.get("svg")
    model = svg.get("model") if isinstance(svg, dict) else None
    if isinstance(model, str) and model:
        return (author_spend(model),)
    if model is not None or members.get("output_format") == SVG:
        raise BadRequest("svg.model is missing; name the model that writes the SVG", param="svg.model")
    return ()


def _file_ids(images: object) -> tuple[str, ...]:
    """Return the ids of uploaded files that a JSON edit names in place of image data."""
    file_ids = (image.get("file_id") for image in as_objects(images))
    return tuple(file_id for file_id in file_ids if isinstance(file_id, str))


def _requested(facts: RequestFacts) -> ImageFacts:
    return facts.image or ImageFacts()


def _report_body(facts: RequestFacts, body: dict[str, object]) -> UsageReport | None:
    report = report_usage([body.get("usage")], default_output=Meter.OUTPUT_IMAGE)
    if report is None:
        report = _estimate(facts, _requested(facts).count) if body.get("svg_usage") else None
    if report is not None:
        return _with_author(facts, report, [body])
    images = body.get("data")
    if not isinstance(images, list):
        return None
    if facts.model is None or not is_priced_by_image(facts.model):
        return None
    quantity = Quantity(Meter.IMAGES, Decimal(len(images)), _terms(_requested(facts), body))
    return UsageReport((UsageItem((quantity,) if images else ()),), Basis.INFERRED)


def _report_events(facts: RequestFacts, events: list[dict[str, object]], complete: bool) -> UsageReport | None:  # noqa: FBT001  # the signature of ReadEvents
    """Return one item for each finished image; estimate the missing images of an incomplete stream."""
    report = report_usage((event.get("usage") for event in events), default_output=Meter.OUTPUT_IMAGE)
    if report is not None:
        report = _with_author(facts, report, events)
    missing = _requested(facts).count - len(events)
    if report is None or complete or missing <= 0:
        return report
    estimate = _estimate(facts, missing)
    return replace(
        report,
        items=(*report.items, *estimate.items),
        basis=Basis.ESTIMATED,
        estimate_method=ESTIMATE_METHOD,
        faults=(*report.faults, *estimate.faults),
    )


def _with_author(facts: RequestFacts, report: UsageReport, holders: list[dict[str, object]]) -> UsageReport:
    """Return `report` with the usage of the text model that wrote the SVG."""
    usages = [holder["svg_usage"] for holder in holders if holder.get("svg_usage")]
    authors = [read_author_usage(holder) for holder in holders]
    items = tuple(item for item, _ in authors if item is not None)
    faults = tuple(fault for _, item_faults in authors for fault in item_faults)
    if not items and any(spend.endpoint is not None for spend in facts.spends):
        faults = ("the response does not state the usage of the model that wrote the SVG",)
    if not items and not faults:
        return report
    raw = {"usage": msgspec.Raw((report.raw or "null").encode()), "svg_usage": usages}
    return replace(
        report,
        items=(*report.items, *items),
        basis=Basis.UNSETTLED if faults else report.basis,
        raw=msgspec.json.encode(raw).decode(),
        faults=(*report.faults, *faults),
    )


def _estimate(facts: RequestFacts, count: int) -> UsageReport:
    image = _requested(facts)
    if facts.model is not None and is_priced_by_image(facts.model):
        quantity = Quantity(Meter.IMAGES, Decimal(count), _terms(image, {}))
    else:
        tokens = image_tokens(facts.model, image.size, image.quality)
        quantity = Quantity(Meter.OUTPUT_IMAGE, Decimal(tokens * count))
    return UsageReport(
        (UsageItem((quantity,)),),
        Basis.ESTIMATED,
        estimate_method=ESTIMATE_METHOD,
        faults=("the response stated no usage; the requested images are estimated, their prompt is not known",),
    )


def _terms(requested: ImageFacts, response: Mapping[str, object]) -> Terms:
    """Return size and quality as the response echoes them, else as requested, else the API's defaults."""
    size = as_text(response.get("size")) or _unless_auto(requested.size) or _DEFAULT_SIZE
    quality = as_text(response.get("quality")) or _unless_auto(requested.quality) or _DEFAULT_QUALITY
    return Terms(size=size, quality=quality)


def _unless_auto(value: str | None) -> str | None:
    return None if value == _AUTO else value


IMAGE_ENDPOINTS: tuple[Endpoint, ...] = tuple(
    HttpEndpoint("POST", f"/v1/images/{name}", parse=parse, reader=make_reader, admits_by_fields=True)
    for name, parse in (("generations", parse_generation), ("edits", parse_edit), ("variations", parse_edit))
)
