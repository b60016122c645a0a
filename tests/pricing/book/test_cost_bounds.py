"""The upper bound of a request's cost: figures computed by hand, and two laws."""

from __future__ import annotations

import base64
import json
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.providers.recorded import FOLDER, exchange, response_body
from tornado_proxy.config.bundled import conf_path
from tornado_proxy.config.files import read_documents
from tornado_proxy.domain.config.document import Document
from tornado_proxy.domain.cost import CostBound
from tornado_proxy.domain.errors import RequestError
from tornado_proxy.domain.request import RequestFacts, Spend, WorkLimits
from tornado_proxy.domain.usage import Basis, Meter, Quantity, UsageItem, UsageReport
from tornado_proxy.pricing.book.cost_bounds import CostBounds, round_up_length
from tornado_proxy.pricing.book.price_book import PriceBook, Tariff
from tornado_proxy.pricing.book.upper_bound import HIDDEN_TOKENS, WorkCaps
from tornado_proxy.providers.contract import HttpEndpoint, RequestView, ResponseHead
from tornado_proxy.providers.registry import PROVIDERS
from tornado_proxy.providers.shared.response_readers import make_usage_reader

NOW = datetime(2026, 11, 28, tzinfo=UTC)
BOOK = PriceBook.from_documents(read_documents(conf_path("prices")))
BOUNDS = CostBounds(BOOK, WorkCaps(tool_calls=10, session_s=3900))

#: More than the rounding that every bound contains.
ROUNDING = Decimal("1e-8")


def find_endpoint(provider: str, path: str) -> HttpEndpoint:
    """Return the endpoint that serves POST `path`."""
    endpoints = next(known for known in PROVIDERS if known.name == provider).endpoints
    return next(
        endpoint
        for endpoint in endpoints
        if isinstance(endpoint, HttpEndpoint) and (endpoint.method, endpoint.path) == ("POST", path)
    )


def find_facts(provider: str, path: str, body: dict[str, object]) -> RequestFacts:
    """Return the facts of a request with the JSON `body`."""
    endpoint = find_endpoint(provider, path)
    assert endpoint.parse is not None
    return endpoint.parse(RequestView(json.dumps(body).encode(), "application/json")).facts


def bound(provider: str, path: str, body: dict[str, object], surcharge_rate: str = "0") -> Decimal:
    """Return the bound of a request with the JSON `body`."""
    facts = find_facts(provider, path, body)
    found = BOUNDS.bound(Tariff(BOOK, provider, Decimal(surcharge_rate)), path, facts, NOW)
    assert found is not None
    return found.total


def chat(**members: object) -> dict[str, object]:
    """Return a chat request of 100 bytes, without `members`."""
    return {"model": "gpt-5.5", "messages": [{"role": "user", "content": "x" * 33}], **members}


def message(**members: object) -> dict[str, object]:
    """Return a message request."""
    return {"model": "claude-opus-4-8", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}], **members}


def near(found: Decimal, expected: str) -> bool:
    """Return True if `found` is `expected`, and not below."""
    return Decimal(0) <= found - Decimal(expected) < ROUNDING


def test_text_counts_by_its_bytes_and_output_by_the_limit_of_the_request() -> None:
    body = chat(max_completion_tokens=10)
    sent = len(json.dumps(body))

    # gpt-5.5: 5 for input (dearer than cached input), 30 for output, per million.
    expected = Decimal(sent + 4096) * 5 / 1_000_000 + Decimal(10) * 30 / 1_000_000
    assert near(bound("openai", "/v1/chat/completions", body), f"{expected}")


def test_request_without_a_limit_can_use_the_whole_output_of_the_model() -> None:
    body = chat()

    # 128,000 output tokens at 30 per million are 3.84.
    expected = Decimal(len(json.dumps(body)) + 4096) * 5 / 1_000_000 + Decimal("3.84")
    assert near(bound("openai", "/v1/chat/completions", body), f"{expected}")


def test_each_choice_has_the_limit_of_the_request() -> None:
    one, three = chat(max_completion_tokens=1000, n=1), chat(max_completion_tokens=1000, n=3)

    # Two more choices of 1,000 tokens at 30 per million.
    assert bound("openai", "/v1/chat/completions", three) - bound("openai", "/v1/chat/completions", one) == Decimal(
        "0.06"
    )


def test_newer_limit_of_a_chat_counts_beside_the_older_one() -> None:
    newer, both = chat(max_completion_tokens=5000), chat(max_completion_tokens=5000, max_tokens=1)

    assert bound("openai", "/v1/chat/completions", both) >= bound("openai", "/v1/chat/completions", newer)


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}],
        [{"type": "file", "file": {"file_data": "data:application/pdf;base64,AA=="}}],
        [{"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}],
    ],
)
def test_media_can_fill_the_context_of_the_model(content: list[object]) -> None:
    model = "gpt-4o" if "audio" not in json.dumps(content) else "gpt-audio-1.5"
    body = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": content}]}

    # 128,000 tokens: at 2.50 per million, or 32 for audio; one token of output.
    expected = {"gpt-4o": "0.32001", "gpt-audio-1.5": "4.09601"}[model]
    assert near(bound("openai", "/v1/chat/completions", body), expected)


def test_name_written_with_escapes_counts_as_media() -> None:
    body = json.dumps(
        {"model": "gpt-4o", "max_tokens": 1, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}
    ).replace('"image_url"', r'"\u0069mage_url"')
    endpoint = find_endpoint("openai", "/v1/chat/completions")
    assert endpoint.parse is not None

    facts = endpoint.parse(RequestView(body.encode(), "application/json")).facts

    assert not facts.work.text_only


def test_tier_auto_can_be_the_dearest() -> None:
    standard, auto = chat(max_completion_tokens=1000), chat(max_completion_tokens=1000, service_tier="auto")
    priority = chat(max_completion_tokens=1000, service_tier="priority")

    dearest = bound("openai", "/v1/chat/completions", priority)
    assert bound("openai", "/v1/chat/completions", auto) >= dearest - Decimal("0.0001")
    assert dearest > bound("openai", "/v1/chat/completions", standard)


def test_long_prompt_has_the_price_of_its_length() -> None:
    body = chat(max_completion_tokens=1)
    body["messages"] = [{"role": "user", "content": "x" * 300_000}]

    # Above 272,000 tokens gpt-5.5 costs 10 and 45 per million.
    expected = Decimal(len(json.dumps(body)) + 4096) * 10 / 1_000_000 + Decimal(45) / 1_000_000
    assert near(bound("openai", "/v1/chat/completions", body), f"{expected}")


def test_hosted_tool_adds_a_call_and_a_prompt_each_time() -> None:
    body = {"model": "gpt-5.5", "input": "hi", "max_output_tokens": 100, "tools": [{"type": "web_search"}]}

    limited = bound("openai", "/v1/responses", {**body, "max_tool_calls": 2})
    capped = bound("openai", "/v1/responses", body)

    # Two calls: three prompts of 1,050,000 tokens at 10, three turns of 100 tokens at 45, two searches at 0.01.  The
    # spend of the searches counts no tokens.
    assert near(limited, "31.5335")
    # Ten calls, the cap.
    assert near(capped, "115.6495")


def test_tools_of_the_client_add_nothing() -> None:
    body = {"model": "gpt-5.5", "input": "hi", "max_output_tokens": 100}
    tools = [{"type": "function", "name": "f", "parameters": {}}, {"type": "custom", "name": "g"}]

    found = bound("openai", "/v1/responses", {**body, "tools": tools})

    assert found < Decimal("0.03")


def test_earlier_response_can_fill_the_context() -> None:
    body = {"model": "gpt-5.5", "input": "hi", "max_output_tokens": 100, "previous_response_id": "resp_1"}

    # 1,050,000 tokens at 10, 100 at 45 per million.
    assert near(bound("openai", "/v1/responses", body), "10.5045")


def test_cache_lifetime_that_the_request_names_is_the_dearest_input() -> None:
    cached = message(system=[{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}])
    plain = message()

    # claude-opus-4-8: 6.25 per million for a write of five minutes, 10 for one hour, 25 for output.
    expected = {
        "1h": Decimal(len(json.dumps(cached)) + 4096) * 10 / 1_000_000 + Decimal("0.0025"),
        "5m": Decimal(len(json.dumps(plain)) + 4096) * Decimal("6.25") / 1_000_000 + Decimal("0.0025"),
    }
    assert near(bound("anthropic", "/v1/messages", cached), f"{expected['1h']}")
    assert near(bound("anthropic", "/v1/messages", plain), f"{expected['5m']}")


def test_server_tools_count_by_their_own_limits() -> None:
    tools = [{"type": "web_search_20250305", "name": "web_search", "max_uses": 1}]

    found = bound("anthropic", "/v1/messages", message(tools=tools))

    # Two prompts of 1,000,000 tokens at 6.25, two turns of 100 tokens at 25 per million, one search at 0.01.
    assert near(found, "12.515")


def test_fallback_that_the_provider_chooses_can_be_the_dearest_model() -> None:
    named, unnamed = message(), message(fallbacks="default")

    # The dearest model that serves costs more than claude-opus-4-8 itself, whose output is 25 per million.
    assert bound("anthropic", "/v1/messages", unnamed) > 2 * bound("anthropic", "/v1/messages", named)


def test_fallback_that_the_provider_chooses_has_no_bound_if_a_model_has_none() -> None:
    documents = [
        Document(document.file, _drop_limits(document.content, "claude-fable-5-2"))
        for document in read_documents(conf_path("prices"))
    ]
    bounds = CostBounds(PriceBook.from_documents(documents), WorkCaps(tool_calls=10, session_s=3900))
    tariff = Tariff(BOOK, "anthropic", Decimal(0))

    def find(**members: object) -> object:
        facts = find_facts("anthropic", "/v1/messages", message(**members))
        return bounds.bound(tariff, "/v1/messages", facts, NOW)

    assert find() is not None
    assert find(fallbacks="default") is None


def _drop_limits(content: Any, model: str) -> object:  # a document
    models = {
        name: {**prices, "limits": None} if name == model else prices for name, prices in content["models"].items()
    }
    return {**content, "models": models}


def test_batch_counts_all_its_requests() -> None:
    request = {"custom_id": "a", "params": message()}
    one = bound("anthropic", "/v1/messages/batches", {"requests": [request]})
    five = bound("anthropic", "/v1/messages/batches", {"requests": [request] * 5})

    # Output of claude-opus-4-8 in a batch: 12.50 per million.
    assert five > 5 * Decimal("0.00125")
    assert Decimal("4.9") * one < five < Decimal("5.1") * one


def test_image_counts_its_largest_size_for_each_image() -> None:
    body = {"model": "gpt-image-1.5", "prompt": "a", "n": 2}

    # Input: 200,000 tokens at 8 (an image) or 5 (text) per million; two images of 6,540 tokens at 32.
    assert near(bound("openai", "/v1/images/generations", body), "1.41856")


def test_surcharge_is_a_part_of_the_bound() -> None:
    body = message()

    plain, raised = bound("anthropic", "/v1/messages", body), bound("anthropic", "/v1/messages", body, "0.5")

    assert raised == plain * Decimal("1.5")


def test_model_without_limits_has_no_bound() -> None:
    facts = RequestFacts("gpt-unlimited", (Spend("gpt-unlimited", frozenset({Meter.INPUT})),))

    assert BOUNDS.bound(Tariff(BOOK, "openai", Decimal(0)), "/v1/chat/completions", facts, NOW) is None


def test_request_of_two_models_has_no_bound_if_one_has_no_limits() -> None:
    meters = frozenset({Meter.INPUT, Meter.OUTPUT})
    facts = RequestFacts("gpt-5.5", (Spend("gpt-5.5", meters), Spend("gpt-unlimited", meters)))

    assert BOUNDS.bound(Tariff(BOOK, "openai", Decimal(0)), "/v1/responses", facts, NOW) is None


def test_request_that_names_no_model_has_no_bound() -> None:
    assert BOUNDS.bound(Tariff(BOOK, "openai", Decimal(0)), "/v1/chat/completions", RequestFacts(), NOW) is None


def test_every_bundled_model_states_its_limits() -> None:
    unlimited = [
        model.name for provider in ("openai", "anthropic") for model in BOOK.models(provider) if not model.token_limits
    ]

    assert unlimited == []


RECORDED = sorted(
    path.stem
    for path in FOLDER.glob("*.json")
    if exchange(path.stem)["request"]["method"] == "POST" and exchange(path.stem)["response"].get("status", 200) == 200
)


def _encode_request(request: dict[str, Any]) -> tuple[bytes, str]:
    """Return body and Content-Type of a recorded request; some recordings left the header out."""
    content_type = request["headers"].get("content-type", "application/json")
    if "body_base64" in request:
        return base64.b64decode(request["body_base64"]), content_type
    return json.dumps(request["body"]).encode(), content_type


@pytest.mark.parametrize("name", RECORDED)
def test_bound_is_never_below_the_cost_of_a_recorded_exchange(name: str) -> None:
    recorded = exchange(name)
    path = recorded["request"]["path"].partition("?")[0]
    endpoint = find_endpoint(recorded["provider"], path)
    if endpoint.parse is None or endpoint.reader is None:
        pytest.skip("free")
    try:
        facts = endpoint.parse(RequestView(*_encode_request(recorded["request"]))).facts
    except RequestError as error:
        pytest.skip(f"such a request is refused: {error}")
    if BOOK.resolve(recorded["provider"], facts.model or "") is None:
        pytest.skip("a request for this model is refused")
    media_type = recorded["response"]["headers"].get("content-type", "").partition(";")[0]
    reader = make_usage_reader(endpoint, facts, ResponseHead(200, media_type))
    reader.feed(response_body(name))
    reader.close(complete=True)
    tariff = Tariff(BOOK, recorded["provider"], Decimal("0.05"))

    found = BOUNDS.bound(tariff, path, facts, NOW)

    cost = tariff.charge(reader.result(), facts.model, NOW).cost
    assert found is not None
    assert cost.total <= found.total
    assert cost.subtotal <= found.subtotal


#: Text models of both providers, with the meters that a request for text is admitted with.
TEXT_MODELS = [
    (provider, model.name)
    for provider, path in (("openai", "/v1/chat/completions"), ("anthropic", "/v1/messages"))
    for model in BOOK.models(provider)
    if path in model.endpoints and model.status == "active"
]


@given(
    model=st.sampled_from(TEXT_MODELS),
    body_bytes=st.integers(0, 3_000_000),
    shares=st.lists(st.integers(0, 100), min_size=4, max_size=4).filter(any),
    output_limit=st.one_of(st.none(), st.integers(1, 200_000)),
    text_only=st.booleans(),
    calls=st.integers(0, 3),
)
def test_bound_is_never_below_the_cost_of_any_usage_that_the_request_allows(
    model: tuple[str, str],
    body_bytes: int,
    shares: list[int],
    output_limit: int | None,
    text_only: bool,
    calls: int,
) -> None:
    provider, name = model
    price = BOOK.resolve(provider, name)
    assert price is not None
    assert price.token_limits is not None
    limits = price.token_limits
    work = WorkLimits(output_tokens=output_limit, text_only=text_only, tool_calls=calls)
    spend = Spend(name, frozenset({Meter.INPUT, Meter.OUTPUT}))
    facts = RequestFacts(name, (spend,), body_bytes=body_bytes, work=work)
    # The most that such a request can use, in any split between the meters of input.
    prompt = limits.context_tokens if calls or not text_only else min(limits.context_tokens, body_bytes)
    output = min(limits.max_output_tokens, output_limit or limits.max_output_tokens)
    meters = (Meter.INPUT, Meter.CACHED_INPUT, Meter.CACHE_WRITE, Meter.CACHE_WRITE_5M)
    priced = [(meter, share) for meter, share in zip(meters, shares, strict=True) if meter in price.by_meter and share]
    total_share = sum(share for _, share in priced) or 1
    quantities = [Quantity(meter, Decimal(prompt * share // total_share)) for meter, share in priced]
    item = UsageItem((*quantities, Quantity(Meter.OUTPUT, Decimal(output))), model=name, context_tokens=prompt)
    report = UsageReport((item,) * (1 + calls), Basis.REPORTED, model=name)
    tariff = Tariff(BOOK, provider, Decimal("0.1"))

    found = BOUNDS.bound(tariff, "/v1/chat/completions", facts, NOW)

    cost = tariff.charge(report, facts.model, NOW).cost
    assert not cost.faults
    assert found is not None
    assert cost.total <= found.total
    assert cost.subtotal <= found.subtotal


@pytest.mark.parametrize("name", ["gpt-4o-mini", *(price.name for price in BOOK.models("openai") if price.limits)])
def test_bound_depends_on_the_request_alone_and_not_on_those_before_it(name: str) -> None:
    price = BOOK.resolve("openai", name)
    assert price is not None
    assert price.dates
    assert price.token_limits is not None
    second = timedelta(seconds=1)
    times = [NOW, *(date + shift for date in price.dates for shift in (-second, timedelta(0), second))]
    lengths = (*price.limits, price.token_limits.context_tokens)
    edges = (*lengths, *(length - HIDDEN_TOKENS for length in lengths), 10**7)
    sizes = sorted({max(0, edge + shift) for edge in (0, *edges) for shift in (-1, 0, 1)})
    requests = [(at, size) for at in times for size in sizes]
    spend = Spend(name, frozenset({Meter.INPUT, Meter.OUTPUT}))
    tariff = Tariff(BOOK, "openai", Decimal(0))

    def bound_one(bounds: CostBounds, at: datetime, size: int) -> Decimal:
        facts = RequestFacts(name, (spend,), body_bytes=size, work=WorkLimits(text_only=True, tool_calls=0))
        found = bounds.bound(tariff, "/v1/chat/completions", facts, at)
        assert found is not None
        return found.total

    caps = WorkCaps(tool_calls=10, session_s=3900)
    alone = {request: bound_one(CostBounds(BOOK, caps), *request) for request in requests}
    shared = CostBounds(BOOK, caps)
    for request in (*requests, *reversed(requests), *sorted(requests, key=lambda one: (one[1], one[0]))):
        assert bound_one(shared, *request) == alone[request]


#: Endpoints with requests whose bounds depend on the length of the body, and on more than tokens.
_SHARED: list[tuple[str, dict[str, object]]] = [
    ("/v1/chat/completions", chat(max_completion_tokens=10)),
    ("/v1/chat/completions", chat(model="gpt-5.6-sol")),
    ("/v1/responses", {"model": "gpt-5.5", "input": "x", "tools": [{"type": "web_search"}], "max_tool_calls": 3}),
    ("/v1/images/generations", {"model": "gpt-image-1", "prompt": "x", "n": 2}),
    ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "x"}),
]


@given(request=st.sampled_from(_SHARED), length=st.one_of(st.integers(1, 20_000), st.integers(1, 70_000_000)))
def test_shared_bound_is_that_of_a_longer_body(request: tuple[str, dict[str, object]], length: int) -> None:
    path, body = request
    tariff = Tariff(BOOK, "openai", Decimal("0.05"))
    facts = replace(find_facts("openai", path, body), body_bytes=length)
    longest = length + max(256, length // 16 + 1)

    shared = BOUNDS.share(tariff, facts, NOW)
    assert shared is not None
    own, of_longest = (BOUNDS.bound(tariff, path, replace(facts, body_bytes=some), NOW) for some in (length, longest))
    assert own is not None
    assert of_longest is not None
    assert own.total <= shared.bound.total <= of_longest.total
    assert own.subtotal <= shared.bound.subtotal <= of_longest.subtotal
    assert own.tokens <= shared.bound.tokens <= of_longest.tokens
    assert round_up_length(length) == round_up_length(round_up_length(length) - 1)


def test_lengths_of_shared_bounds_are_few() -> None:
    lengths = {round_up_length(length) for length in range(1_000_000)}
    assert len(lengths) <= 32 + 16 * 7  # of 256 bytes up to 8 KiB, and sixteen for each doubling after that
    assert all(length < round_up_length(length) for length in lengths)


@pytest.mark.parametrize(
    ("provider", "path", "body"),
    [
        ("openai", "/v1/chat/completions", chat(model="gpt-4o-search-preview")),
        ("openai", "/v1/audio/speech", {"model": "tts-1", "input": "x", "voice": "alloy"}),
        ("anthropic", "/v1/messages", message(fallbacks="default")),
    ],
)
def test_bound_that_more_than_the_length_decides_is_not_shared(
    provider: str, path: str, body: dict[str, object]
) -> None:
    facts, tariff = find_facts(provider, path, body), Tariff(BOOK, provider, Decimal(0))
    assert BOUNDS.bound(tariff, path, facts, NOW) is not None
    assert BOUNDS.share(tariff, facts, NOW) is None


def test_session_without_a_body_shares_no_bound() -> None:
    facts = RequestFacts("whisper-1", (Spend("whisper-1", frozenset({Meter.AUDIO_SECONDS})),))
    tariff, path = Tariff(BOOK, "openai", Decimal(0)), "/v1/audio/transcriptions"
    of_session, of_upload = (BOUNDS.bound(tariff, path, replace(facts, body_bytes=length), NOW) for length in (0, 256))
    assert of_session is not None
    assert of_upload is not None
    assert of_session.total > of_upload.total
    assert BOUNDS.share(tariff, facts, NOW) is None


@pytest.mark.parametrize("name", ["gpt-5.6-sol", "gpt-5.6-luna"])
def test_shared_bound_ends_when_a_price_changes(name: str) -> None:
    price = BOOK.resolve("openai", name)
    assert price is not None
    assert price.dates
    tariff, path, second = Tariff(BOOK, "openai", Decimal(0)), "/v1/chat/completions", timedelta(seconds=1)
    facts = find_facts("openai", path, chat(model=name, max_completion_tokens=10))
    for date in price.dates:
        before, after = (BOUNDS.share(tariff, facts, at) for at in (date - second, date))
        assert before is not None
        assert after is not None
        assert (before.until, after.since) == (date, date)


def test_bound_has_no_more_decimals_than_amounts_have() -> None:
    facts = replace(find_facts("openai", "/v1/chat/completions", chat()), body_bytes=12_345)
    found = BOUNDS.bound(Tariff(BOOK, "openai", Decimal("0.0333333333")), "/v1/chat/completions", facts, NOW)
    assert found is not None
    assert found.total == found.total.quantize(Decimal("1e-12"))
    assert found.total >= found.subtotal * Decimal("1.0333333333")


def test_bound_of_any_size_is_a_number() -> None:
    body = {"model": "gpt-5.5", "input": "x", "tools": [{"type": "web_search"}], "max_tool_calls": 10**40}
    assert bound("openai", "/v1/responses", body, surcharge_rate="0.05") > 10**30


#: Models whose prices change at a length and at different dates, one of one price, and one without output.
_SEVERAL = ["gpt-5.6-sol", "gpt-5.6-luna", "gpt-4o-mini", "text-embedding-3-small"]


@pytest.mark.parametrize("region", [None, "eu"])
def test_bound_of_several_models_is_the_sum_of_theirs_whatever_was_asked_before(region: str | None) -> None:
    prices = {name: BOOK.resolve("openai", name) for name in _SEVERAL}
    lengths, dates = {0}, {NOW}
    for price in prices.values():
        assert price is not None
        assert price.token_limits is not None
        ends = {*price.limits, price.token_limits.context_tokens}
        lengths |= {max(0, end - added + shift) for end in ends for added in (0, HIDDEN_TOKENS) for shift in (-1, 0, 1)}
        dates |= {date + timedelta(seconds=shift) for date in price.dates for shift in (-1, 0)}
    by_length = [(at, size) for size in sorted(lengths) for at in sorted(dates)]
    shuffled = random.Random(0).sample(by_length, len(by_length))
    tariff = Tariff(BOOK, "openai", Decimal("0.05"), region)
    caps = WorkCaps(tool_calls=10, session_s=3900)
    text = frozenset({Meter.INPUT, Meter.OUTPUT})
    spends = [Spend(name, text - {Meter.OUTPUT} if "embedding" in name else text) for name in _SEVERAL]

    def bound(bounds: CostBounds, at: datetime, size: int, *spends: Spend) -> CostBound:
        work = WorkLimits(text_only=True, tool_calls=0, output_tokens=10)
        found = bounds.bound(
            tariff, "/v1/responses", RequestFacts(spends[0].model, spends, body_bytes=size, work=work), at
        )
        assert found is not None
        return found

    shared = CostBounds(BOOK, caps)
    shared.bound(Tariff(BOOK, "openai", Decimal(0)), "/v1/responses", RequestFacts(spends=tuple(spends)), NOW)
    rounding = Decimal("1e-9") * (len(spends) - 1)  # added once to each bound
    for at, size in (*by_length, *reversed(by_length), *shuffled):
        together = bound(shared, at, size, *spends)
        each = [bound(CostBounds(BOOK, caps), at, size, spend) for spend in spends]
        assert together.tokens == sum(found.tokens for found in each)
        assert together.subtotal == sum(found.subtotal for found in each) - rounding
        assert together.total == together.subtotal * Decimal("1.05")


def test_bound_of_a_region_does_not_depend_on_requests_to_another() -> None:
    spend = Spend("gpt-5.5", frozenset({Meter.INPUT, Meter.OUTPUT}))
    facts = RequestFacts("gpt-5.5", (spend,), body_bytes=100, work=WorkLimits(text_only=True))
    tariffs = [Tariff(BOOK, "openai", Decimal(0), region) for region in (None, "eu", None)]
    caps = WorkCaps(tool_calls=10, session_s=3900)
    shared = CostBounds(BOOK, caps)

    found = [shared.bound(tariff, "/v1/responses", facts, NOW) for tariff in tariffs]

    assert found == [CostBounds(BOOK, caps).bound(tariff, "/v1/responses", facts, NOW) for tariff in tariffs]
    assert found[0] != found[1]


def test_bound_of_a_model_at_one_provider_is_not_that_of_another() -> None:
    spend = Spend("gpt-5.5", frozenset({Meter.INPUT, Meter.OUTPUT}))
    facts = RequestFacts("gpt-5.5", (spend,), body_bytes=100, work=WorkLimits(text_only=True))
    shared = CostBounds(BOOK, WorkCaps(tool_calls=10, session_s=3900))

    found = [
        shared.bound(Tariff(BOOK, name, Decimal(0)), "/v1/responses", facts, NOW) for name in ("openai", "anthropic")
    ]

    assert found[0] is not None
    assert found[1] is None  # Anthropic has no such model


@pytest.mark.parametrize(("kind", "provider_runs_it"), [("shell", True), ("mcp", True), ("custom", False)])
def test_tool_of_an_unknown_kind_counts_as_run_by_the_provider(kind: str, *, provider_runs_it: bool) -> None:
    body = {"model": "gpt-5.5", "input": "hi", "tools": [{"type": kind, "name": "f"}]}
    endpoint = find_endpoint("openai", "/v1/responses")
    assert endpoint.parse is not None

    work = endpoint.parse(RequestView(json.dumps(body).encode(), "application/json")).facts.work

    assert (work.tool_calls is None) == provider_runs_it
    assert replace(work, tool_calls=0).names_models
