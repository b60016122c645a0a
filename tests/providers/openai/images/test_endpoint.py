from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.reading import pieces, read, read_three_ways
from tests.providers.recorded import exchange, expected_lines, lines, request_body, response_body
from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.domain.request import ImageFacts
from tornado_proxy.domain.usage import Basis, Meter, UsageReport
from tornado_proxy.providers.contract import RequestView, ResponseHead
from tornado_proxy.providers.openai.images.endpoint import IMAGE_ENDPOINTS
from tornado_proxy.providers.openai.shared.base64_truncation import MAX_STRING_BYTES, Base64Truncator

GENERATIONS, EDITS, VARIATIONS = IMAGE_ENDPOINTS
JSON, SSE = ResponseHead(200, "application/json"), ResponseHead(200, "text/event-stream")


def request(**members: Any) -> bytes:
    return json.dumps({"model": "gpt-image-2", "prompt": "a cat"} | members).encode()


def form(**fields: str) -> bytes:
    parts = [f'--XX\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    image = '--XX\r\nContent-Disposition: form-data; name="image[]"; filename="a.png"\r\n\r\n\x00PNG\r\n'
    return ("".join(parts) + image + image + "--XX--\r\n").encode()


def answer(**members: Any) -> bytes:
    return json.dumps({"created": 1, "data": [{"url": "https://x"}] * 2} | members).encode()


def usage(tokens: int, **members: Any) -> dict[str, Any]:
    return {"input_tokens": 10, "output_tokens": tokens, "total_tokens": 10 + tokens} | members


def described(report: UsageReport) -> list[tuple[str, int, dict[str, str]]]:
    return [
        (q.meter.value, int(q.amount), dict(q.terms.pairs())) for reading in report.items for q in reading.quantities
    ]


def meters(report: UsageReport) -> dict[str, int]:
    return {meter: amount for meter, amount, _ in described(report)}


@pytest.mark.parametrize(("name", "endpoint"), [("images-generation", GENERATIONS), ("images-edit", EDITS)])
def test_recorded_images_come_to_the_expected_lines(name, endpoint):
    parsed = endpoint.parse(RequestView(*request_body(name)))

    report = read_three_ways(lambda: endpoint.reader(parsed.facts, JSON), response_body(name))

    assert lines([report], parsed.facts.model) == expected_lines(name)
    assert report.basis is Basis.REPORTED


def test_the_recorded_request_without_a_model_is_refused_and_told_what_to_do():
    with pytest.raises(BadRequest, match="name one") as caught:
        GENERATIONS.parse(RequestView(*request_body("images-dall-e")))
    assert caught.value.param == "model"


def test_the_recorded_dall_e_answer_is_inferred_from_its_shape():
    body = json.dumps(exchange("images-dall-e")["request"]["body"] | {"model": "dall-e-2"}).encode()
    facts = GENERATIONS.parse(RequestView(body, "application/json")).facts

    report = read_three_ways(lambda: GENERATIONS.reader(facts, JSON), response_body("images-dall-e"))

    assert described(report) == [("images", 1, {"size": "256x256", "quality": "standard"})]
    assert report.basis is Basis.INFERRED


@pytest.mark.parametrize(
    ("asked", "echo", "expected"),
    [
        ({}, {}, {"size": "1024x1024", "quality": "standard"}),
        ({"size": "1792x1024", "quality": "hd"}, {}, {"size": "1792x1024", "quality": "hd"}),
        ({"size": "auto", "quality": "auto"}, {}, {"size": "1024x1024", "quality": "standard"}),
        ({"size": "auto"}, {"size": "1024x1792", "quality": "hd"}, {"size": "1024x1792", "quality": "hd"}),
    ],
)
def test_images_without_usage_count_as_many_as_came_at_the_size_that_was_made(asked, echo, expected):
    facts = GENERATIONS.parse(RequestView(request(model="dall-e-3", n=3, **asked), "application/json")).facts

    report = read(GENERATIONS.reader(facts, JSON), [answer(**echo)])

    assert described(report) == [("images", 2, expected)]
    assert facts.spends[0].meters == {Meter.IMAGES}


def test_one_usage_covers_all_images_and_all_output_without_details_is_image():
    facts = GENERATIONS.parse(RequestView(request(n=2), "application/json")).facts

    report = read(GENERATIONS.reader(facts, JSON), [answer(usage=usage(240))])

    assert meters(report) == {"input_tokens": 10, "output_image_tokens": 240}


def test_details_divide_text_images_and_cached_parts():
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

    report = read(EDITS.reader(facts, JSON), [answer(usage=stated)])

    assert meters(report) == {
        "input_tokens": 20,
        "cached_input_tokens": 10,
        "input_image_tokens": 30,
        "cached_input_image_tokens": 40,
        "output_tokens": 20,
        "output_image_tokens": 100,
    }


def test_a_stream_sums_one_usage_per_finished_image():
    events = [
        {"type": "image_generation.partial_image", "b64_json": "A" * 5000, "usage": usage(9)},
        {"type": "image_generation.completed", "b64_json": "A" * 5000, "usage": usage(100)},
        {"type": "image_generation.completed", "b64_json": "A" * 5000, "usage": usage(101)},
    ]
    body = b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events)
    facts = GENERATIONS.parse(RequestView(request(stream=True, n=2), "application/json")).facts

    report = read(GENERATIONS.reader(facts, SSE), pieces(body, range(0, len(body), 97)))
    broken = read(GENERATIONS.reader(facts, SSE), [body[: body.rindex(b"event:")]], complete=False)

    assert facts.stream
    assert [q.amount for r in report.items for q in r.quantities if q.meter is Meter.OUTPUT_IMAGE] == [100, 101]
    assert report.basis is Basis.REPORTED
    assert [q.amount for r in broken.items for q in r.quantities if q.meter is Meter.OUTPUT_IMAGE] == [100, 4160]
    assert broken.basis is Basis.ESTIMATED


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        pytest.param({"size": "1024x1024", "quality": "low"}, 272, id="low square"),
        pytest.param({"size": "1024x1536", "quality": "medium", "n": 2}, 3168, id="two medium portraits, 1584 each"),
        pytest.param({}, 4160, id="nothing said counts as high"),
    ],
)
def test_an_answer_that_broke_is_estimated_by_size_and_quality(asked, tokens):
    facts = GENERATIONS.parse(RequestView(request(**asked), "application/json")).facts

    report = read(GENERATIONS.reader(facts, JSON), [b'{"created": 1, "data"'], complete=False)

    assert meters(report) == {"output_image_tokens": tokens}
    assert report.basis is Basis.ESTIMATED
    assert report.estimate_method == "image_size_and_quality"
    assert len(report.faults) == 2


def test_a_form_is_read_like_json():
    body = form(model="gpt-image-2", n="3", size="1536x864", quality="xhigh", stream="true")

    facts = EDITS.parse(RequestView(body, "multipart/form-data; boundary=XX")).facts

    assert facts.model == "gpt-image-2"
    assert facts.image == ImageFacts(3, "1536x864", "xhigh")
    assert facts.stream
    assert facts.spends[0].meters == {Meter.INPUT, Meter.INPUT_IMAGE, Meter.OUTPUT_IMAGE}
    assert facts.body_bytes == len(body)


def test_uploaded_files_that_a_body_names_are_its_references():
    body = request(images=[{"file_id": "file-1"}, {"image_url": "data:"}], mask={"file_id": "file-2"})

    assert EDITS.parse(RequestView(body, "application/json")).facts.references == ("file-1", "file-2")


@pytest.mark.parametrize("endpoint", IMAGE_ENDPOINTS)
@pytest.mark.parametrize("members", [{"model": None}, {"model": ""}, {"model": 1}])
def test_a_request_without_a_model_is_refused(endpoint, members):
    with pytest.raises(BadRequest):
        endpoint.parse(RequestView(request(**members), "application/json"))
    with pytest.raises(BadRequest):
        endpoint.parse(RequestView(form(n="1"), "multipart/form-data; boundary=XX"))


def test_an_answer_without_usage_of_a_token_priced_model_is_estimated():
    facts = GENERATIONS.parse(RequestView(request(quality="low", size="1024x1024", n=2), "application/json")).facts

    report = read(GENERATIONS.reader(facts, JSON), [answer()])

    assert meters(report) == {"output_image_tokens": 544}
    assert report.basis is Basis.ESTIMATED


def test_an_error_is_free():
    facts = GENERATIONS.parse(RequestView(request(), "application/json")).facts

    report = read(GENERATIONS.usage_reader(facts, ResponseHead(400, "application/json")), [b"{}"])

    assert report.basis is Basis.FREE


def test_pictures_are_not_kept():
    thinner = Base64Truncator()
    body = json.dumps({"data": [{"b64_json": "A" * 1_000_000}, {"b64_json": "B" * 1_000_000}], "size": "1x1"}).encode()

    thin = b"".join(map(thinner.feed, pieces(body, range(0, len(body), 16_384))))

    assert len(thin) < 3 * MAX_STRING_BYTES
    assert json.loads(thin)["size"] == "1x1"
    assert len(json.loads(thin)["data"]) == 2


def test_a_long_text_without_quotation_marks_stays_whole():
    text = "so it goes on " * 2000 + 'and "ends"'
    body = json.dumps({"text": text}).encode()

    for size in (1000, 16_384, len(body)):
        thinner = Base64Truncator()
        thin = b"".join(thinner.feed(body[at : at + size]) for at in range(0, len(body), size))
        assert json.loads(thin)["text"] == text


@given(
    texts=st.lists(st.text(max_size=60).map(lambda text: text * 120), max_size=3),
    cuts=st.lists(st.integers(0, 100_000), max_size=20),
    ascii_only=st.booleans(),
)
def test_thinned_json_stays_json_with_the_same_shape(texts, cuts, ascii_only):
    thinner = Base64Truncator()
    body = json.dumps({"texts": texts, "end": 1}, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")

    thin = b"".join(map(thinner.feed, pieces(body, cuts)))

    found = json.loads(thin.decode("utf-8", "surrogatepass"))
    assert found["end"] == 1
    assert len(found["texts"]) == len(texts)


@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 1000)), complete=st.booleans())
def test_random_answers_raise_nothing(data, cuts, complete):
    for model in ("gpt-image-2", "dall-e-3"):
        facts = GENERATIONS.parse(RequestView(request(model=model), "application/json")).facts
        for head in (JSON, SSE):
            for body in (data, b'{"usage":' + data + b"}", b'data: {"type":"image_edit.completed","usage":' + data):
                read(GENERATIONS.reader(facts, head), pieces(body, cuts), complete=complete)


@given(body=st.binary(max_size=200), content_type=st.sampled_from(["multipart/form-data; boundary=XX", "", "x"]))
def test_random_requests_raise_nothing_but_refusals(body, content_type):
    for endpoint in IMAGE_ENDPOINTS:
        try:
            endpoint.parse(RequestView(body, content_type))
        except BadRequest:
            continue
