from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.openai.costs import subtotal
from tests.providers.openai.reports import amounts
from tests.providers.reading import pieces, read, read_three_ways
from tests.providers.recorded import exchange, expected_lines, lines, request_body, response_body
from tornado_proxy.domain.errors import BadRequest, InvalidBody
from tornado_proxy.domain.request import ImageFacts, Spend
from tornado_proxy.domain.usage import Basis, Meter, UsageReport
from tornado_proxy.providers.contract import RequestView, ResponseHead
from tornado_proxy.providers.openai.images.endpoint import IMAGE_ENDPOINTS
from tornado_proxy.providers.shared.response_readers import make_usage_reader

GENERATIONS, EDITS, VARIATIONS = IMAGE_ENDPOINTS
JSON, SSE = ResponseHead(200, "application/json"), ResponseHead(200, "text/event-stream")


def request(**members: Any) -> bytes:
    return json.dumps({"model": "gpt-image-2", "prompt": "a cat"} | members).encode()


def form(**fields: str) -> bytes:
    parts = [f'--XX\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    image = '--XX\r\nContent-Disposition: form-data; name="image[]"; filename="a.png"\r\n\r\n\x00PNG\r\n'
    return ("".join(parts) + image + image + "--XX--\r\n").encode()


def response(**members: Any) -> bytes:
    return json.dumps({"created": 1, "data": [{"url": "https://x"}] * 2} | members).encode()


def usage(tokens: int, **members: Any) -> dict[str, Any]:
    return {"input_tokens": 10, "output_tokens": tokens, "total_tokens": 10 + tokens} | members


def describe(report: UsageReport) -> list[tuple[str, int, dict[str, str]]]:
    return [(q.meter.value, int(q.amount), dict(q.terms.pairs())) for item in report.items for q in item.quantities]


def output_image_tokens(report: UsageReport) -> list[int]:
    quantities = [quantity for item in report.items for quantity in item.quantities]
    return [int(quantity.amount) for quantity in quantities if quantity.meter is Meter.OUTPUT_IMAGE]


@pytest.mark.parametrize(("name", "endpoint"), [("images-generation", GENERATIONS), ("images-edit", EDITS)])
def test_recorded_images_give_the_expected_lines(name, endpoint):
    parsed = endpoint.parse(RequestView(*request_body(name)))

    report = read_three_ways(lambda: endpoint.reader(parsed.facts, JSON), response_body(name))

    assert lines([report], parsed.facts.model) == expected_lines(name)
    assert report.basis is Basis.REPORTED


def test_the_recorded_request_without_a_model_is_rejected_with_a_remedy():
    with pytest.raises(BadRequest, match="name one") as caught:
        GENERATIONS.parse(RequestView(*request_body("images-dall-e")))
    assert caught.value.param == "model"


def test_the_recorded_dall_e_response_is_inferred_from_its_images():
    body = json.dumps(exchange("images-dall-e")["request"]["body"] | {"model": "dall-e-2"}).encode()
    facts = GENERATIONS.parse(RequestView(body, "application/json")).facts

    report = read_three_ways(lambda: GENERATIONS.reader(facts, JSON), response_body("images-dall-e"))

    assert describe(report) == [("images", 1, {"size": "256x256", "quality": "standard"})]
    assert report.basis is Basis.INFERRED


@pytest.mark.parametrize(
    ("requested", "echo", "expected"),
    [
        ({}, {}, {"size": "1024x1024", "quality": "standard"}),
        ({"size": "1792x1024", "quality": "hd"}, {}, {"size": "1792x1024", "quality": "hd"}),
        ({"size": "auto", "quality": "auto"}, {}, {"size": "1024x1024", "quality": "standard"}),
        ({"size": "auto"}, {"size": "1024x1792", "quality": "hd"}, {"size": "1024x1792", "quality": "hd"}),
    ],
)
def test_images_without_usage_are_counted_at_the_size_and_quality_generated(requested, echo, expected):
    facts = GENERATIONS.parse(RequestView(request(model="dall-e-3", n=3, **requested), "application/json")).facts

    report = read(GENERATIONS.reader(facts, JSON), [response(**echo)])

    assert describe(report) == [("images", 2, expected)]
    assert facts.spends[0].meters == {Meter.IMAGES}


def test_one_usage_covers_all_images_and_output_without_details_is_image_tokens():
    facts = GENERATIONS.parse(RequestView(request(n=2), "application/json")).facts

    report = read(GENERATIONS.reader(facts, JSON), [response(usage=usage(240))])

    assert amounts(report) == {"input_tokens": 10, "output_image_tokens": 240}


def test_details_separate_text_images_and_cached_parts():
    stated = usage(
        120,
        input_tokens=100,
        input_tokens_details={
            "text_tokens": 30,
            "image_tokens": 70,
            "cached_tokens": 50,
            "cached_tokens_details": {"text_tokens": 10, "image_tokens": 40},
        },
        output_tokens_details={"image_tokens": 100, "text_tokens": 20},
    )
    facts = EDITS.parse(RequestView(request(), "application/json")).facts

    report = read(EDITS.reader(facts, JSON), [response(usage=stated)])

    assert amounts(report) == {
        "input_tokens": 20,
        "cached_input_tokens": 10,
        "input_image_tokens": 30,
        "cached_input_image_tokens": 40,
        "output_tokens": 20,
        "output_image_tokens": 100,
    }


def test_a_stream_has_one_item_for_each_finished_image():
    events = [
        {"type": "image_generation.partial_image", "b64_json": "A" * 5000, "usage": usage(9)},
        {"type": "image_generation.completed", "b64_json": "A" * 5000, "usage": usage(100)},
        {"type": "image_generation.completed", "b64_json": "A" * 5000, "usage": usage(101)},
    ]
    body = b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events)
    facts = GENERATIONS.parse(RequestView(request(stream=True, n=2), "application/json")).facts

    report = read(GENERATIONS.reader(facts, SSE), pieces(body, range(0, len(body), 97)))
    incomplete = read(GENERATIONS.reader(facts, SSE), [body[: body.rindex(b"event:")]], complete=False)

    assert facts.stream
    assert output_image_tokens(report) == [100, 101]
    assert report.basis is Basis.REPORTED
    # The missing image counts as high quality, 1024x1024: the request names neither.
    assert output_image_tokens(incomplete) == [100, 7024]
    assert incomplete.basis is Basis.ESTIMATED


@pytest.mark.parametrize(
    ("requested", "tokens"),
    [
        pytest.param({"size": "1024x1024", "quality": "low"}, 196, id="low square"),
        pytest.param({"size": "1024x1536", "quality": "medium", "n": 2}, 2744, id="two medium portraits, 1372 each"),
        pytest.param({}, 7024, id="no quality counts as high"),
        pytest.param({"quality": "low", "size": "1024x1024", "n": 2.0}, 392, id="two low squares, as a decimal"),
    ],
)
def test_an_incomplete_response_is_estimated_by_size_and_quality(requested, tokens):
    facts = GENERATIONS.parse(RequestView(request(**requested), "application/json")).facts

    report = read(GENERATIONS.reader(facts, JSON), [b'{"created": 1, "data"'], complete=False)

    assert amounts(report) == {"output_image_tokens": tokens}
    assert report.basis is Basis.ESTIMATED
    assert report.estimate_method == "image_size_and_quality"
    assert len(report.faults) == 2


def test_a_form_has_the_same_facts_as_json():
    body = form(model="gpt-image-2", n="3", size="1536x864", quality="xhigh", stream="true")

    facts = EDITS.parse(RequestView(body, "multipart/form-data; boundary=XX")).facts

    assert facts.model == "gpt-image-2"
    assert facts.image == ImageFacts(3, "1536x864", "xhigh")
    assert facts.stream
    assert facts.spends[0].meters == {Meter.INPUT, Meter.INPUT_IMAGE, Meter.OUTPUT_IMAGE}
    assert facts.body_bytes == len(body)


def test_uploaded_files_that_a_body_names_are_references():
    body = request(images=[{"file_id": "file-1"}, {"image_url": "data:"}], mask={"file_id": "file-2"})

    assert EDITS.parse(RequestView(body, "application/json")).facts.references == ("file-1", "file-2")


@pytest.mark.parametrize("endpoint", IMAGE_ENDPOINTS)
@pytest.mark.parametrize("members", [{"model": None}, {"model": ""}, {"model": 1}])
def test_a_request_without_a_model_is_rejected(endpoint, members):
    with pytest.raises(BadRequest):
        endpoint.parse(RequestView(request(**members), "application/json"))
    with pytest.raises(BadRequest):
        endpoint.parse(RequestView(form(n="1"), "multipart/form-data; boundary=XX"))


def test_a_response_without_usage_of_a_token_priced_model_is_estimated():
    facts = GENERATIONS.parse(RequestView(request(quality="low", size="1024x1024", n=2), "application/json")).facts

    report = read(GENERATIONS.reader(facts, JSON), [response()])

    assert amounts(report) == {"output_image_tokens": 392}
    assert report.basis is Basis.ESTIMATED


def test_an_error_status_is_free():
    facts = GENERATIONS.parse(RequestView(request(), "application/json")).facts

    report = read(make_usage_reader(GENERATIONS, facts, ResponseHead(400, "application/json")), [b"{}"])

    assert report.basis is Basis.FREE


@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 1000)), complete=st.booleans())
def test_reading_random_responses_never_raises(data, cuts, complete):
    for model in ("gpt-image-2", "dall-e-3"):
        facts = GENERATIONS.parse(RequestView(request(model=model), "application/json")).facts
        for head in (JSON, SSE):
            for body in (data, b'{"usage":' + data + b"}", b'data: {"type":"image_edit.completed","usage":' + data):
                read(GENERATIONS.reader(facts, head), pieces(body, cuts), complete=complete)


@given(body=st.binary(max_size=200), content_type=st.sampled_from(["multipart/form-data; boundary=XX", "", "x"]))
def test_parsing_random_requests_raises_nothing_but_bad_request(body, content_type):
    for endpoint in IMAGE_ENDPOINTS:
        try:
            endpoint.parse(RequestView(body, content_type))
        except BadRequest:
            continue


ASTRA = Spend("gpt-6-astra", frozenset({Meter.INPUT, Meter.OUTPUT}), endpoint="/v1/responses")
SVG_USAGE = {
    "model": "gpt-6-astra",
    "input_tokens": 5000,
    "output_tokens": 20_000,
    "reasoning_tokens": 9000,
    "total_tokens": 25_000,
}


def test_the_model_that_writes_an_svg_is_admitted_and_charged_beside_the_image_model():
    body = request(model="gpt-image-2", output_format="svg", svg={"model": "gpt-6-astra"})
    facts = GENERATIONS.parse(RequestView(body, "application/json")).facts

    report = read(GENERATIONS.reader(facts, JSON), [response(usage=usage(1000), svg_usage=SVG_USAGE)])

    # USD per million: gpt-image-2 text 5 and output 30, 10 and 1000 tokens; gpt-6-astra input 10, output 50.
    assert facts.spends[1] == ASTRA
    assert subtotal(report, facts) == Decimal("1.08005")
    assert json.loads(report.raw or "")["svg_usage"] == [SVG_USAGE]


def test_a_form_names_the_author_of_its_svg_in_a_field():
    fields = {"model": "gpt-image-2", "output_format": "svg", "svg[model]": "gpt-6-astra"}
    facts = EDITS.parse(RequestView(form(**fields), "multipart/form-data; boundary=XX")).facts

    assert facts.spends[1] == ASTRA


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({"output_format": "svg"}, id="no author"),
        pytest.param({"output_format": "svg", "svg": {}}, id="no model"),
        pytest.param({"svg": {"model": ["gpt-6-astra"]}}, id="not text"),
    ],
)
def test_an_svg_without_a_named_author_is_rejected(members):
    with pytest.raises(BadRequest, match="name the model that writes the SVG"):
        GENERATIONS.parse(RequestView(request(**members), "application/json"))


@pytest.mark.parametrize("field", ["svg", "svg.model", "svg[model][]"])
def test_another_field_of_an_svg_in_a_form_is_rejected(field):
    with pytest.raises(InvalidBody, match=r"send svg\[model\]"):
        EDITS.parse(RequestView(form(model="gpt-image-2", **{field: "x"}), "multipart/form-data; boundary=XX"))


def test_an_svg_whose_author_states_no_usage_is_unsettled():
    body = request(model="gpt-image-2", output_format="svg", svg={"model": "gpt-6-astra"})
    facts = GENERATIONS.parse(RequestView(body, "application/json")).facts

    assert read(GENERATIONS.reader(facts, JSON), [response(usage=usage(1000))]).basis is Basis.UNSETTLED
