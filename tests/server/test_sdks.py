"""The official SDKs with only base URL and key configured, through the real server to the simulator."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import anthropic
import openai
import pytest

from tests.harness import ANTHROPIC_KEY, OPENAI_KEY, ProxyProcess, mint, running_proxy
from tornado_proxy.simulator import Simulator, running_simulator

MILLION = Decimal(1_000_000)
QUESTION = "Which ocean contains Bouvet Island?"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """The server in front of a simulator that accepts the provider keys only."""
    simulator = Simulator(keys={"openai": OPENAI_KEY, "anthropic": ANTHROPIC_KEY})
    with (
        running_simulator(simulator) as url,
        running_proxy(tmp_path_factory.mktemp("sdks"), url) as running,
    ):
        yield running


@pytest.fixture
def gpt(proxy: ProxyProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=proxy.base_url + "/openai/v1", api_key=mint(), max_retries=0) as client:
        yield client


@pytest.fixture
def claude(proxy: ProxyProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=proxy.base_url + "/anthropic", api_key=mint(), max_retries=0) as client:
        yield client


def last_record(proxy: ProxyProcess, headers: Any) -> dict[str, Any]:
    return proxy.read_record(headers["llm-proxy-request-id"])


def priced(record: dict[str, Any]) -> dict[str, tuple[Decimal, Decimal]]:
    """Return {meter: (quantity, unit price)}."""
    return {item["type"]: (Decimal(item["quantity"]), Decimal(item["unit_price"])) for item in record["line_items"]}


def test_openai_chat_json_is_billed_at_the_list_price(gpt: openai.OpenAI, proxy: ProxyProcess) -> None:
    raw = gpt.chat.completions.with_raw_response.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": QUESTION}]
    )
    response = raw.parse()

    assert response.choices[0].message.content
    assert response.usage is not None
    record = last_record(proxy, raw.headers)
    cost = (
        response.usage.prompt_tokens * Decimal("0.15") + response.usage.completion_tokens * Decimal("0.60")
    ) / MILLION
    assert Decimal(record["subtotal"]) == cost
    assert Decimal(record["total"]) == cost + (cost * Decimal("0.05")).quantize(Decimal("1e-12"))
    assert record["basis"] == "reported"
    assert record["participant"] == "ada"


@pytest.mark.parametrize("requests_usage", [True, False], ids=["usage requested", "usage not requested"])
def test_openai_chat_stream_is_billed_and_contains_usage_only_on_request(
    gpt: openai.OpenAI, proxy: ProxyProcess, requests_usage: bool
) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if requests_usage else {}
    raw = gpt.chat.completions.with_raw_response.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": QUESTION}], stream=True, **options
    )
    chunks = list(raw.parse())

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert any(not chunk.choices for chunk in chunks) == requests_usage
    assert any("usage" in chunk.model_fields_set for chunk in chunks) == requests_usage
    record = last_record(proxy, raw.headers)
    assert record["basis"] == "reported"
    quantities = priced(record)
    assert quantities["input_tokens"][1] == Decimal("0.15")
    assert quantities["output_tokens"][1] == Decimal("0.6")
    if requests_usage:
        assert chunks[-1].usage is not None
        assert quantities["output_tokens"][0] == chunks[-1].usage.completion_tokens


def test_openai_responses_json_and_stream_cost_the_same_per_token(gpt: openai.OpenAI, proxy: ProxyProcess) -> None:
    raw = gpt.responses.with_raw_response.create(model="gpt-4o-mini", input=QUESTION)
    streamed = gpt.responses.with_raw_response.create(model="gpt-4o-mini", input=QUESTION, stream=True)
    events = list(streamed.parse())

    assert raw.parse().output_text
    assert events[-1].type == "response.completed"
    first, second = last_record(proxy, raw.headers), last_record(proxy, streamed.headers)
    assert first["basis"] == second["basis"] == "reported"
    assert priced(first)["output_tokens"][1] == priced(second)["output_tokens"][1] == Decimal("0.6")
    assert second["usage"]["output_tokens"] == events[-1].response.usage.output_tokens  # type: ignore[union-attr]


def test_openai_embeddings_cost_their_input_only(gpt: openai.OpenAI, proxy: ProxyProcess) -> None:
    raw = gpt.embeddings.with_raw_response.create(model="text-embedding-3-small", input=["one", "two words"])
    response = raw.parse()

    record = last_record(proxy, raw.headers)
    assert Decimal(record["subtotal"]) == response.usage.prompt_tokens * Decimal("0.02") / MILLION
    assert len(response.data) == 2


def test_model_lists_contain_priced_models_only_and_are_free(
    gpt: openai.OpenAI, claude: anthropic.Anthropic, proxy: ProxyProcess
) -> None:
    raw = gpt.models.with_raw_response.list()
    names = {model.id for model in raw.parse().data}
    granted = openai.OpenAI(base_url=proxy.base_url + "/v1", api_key=mint(models=["openai/gpt-4o*"]), max_retries=0)

    assert "gpt-4o-mini" in names
    assert "sim-unpriced-1" not in names
    assert "claude-sonnet-5" in {model.id for model in claude.models.list().data}
    with granted:
        assert {model.id for model in granted.models.list().data} == {
            name for name in names if name.startswith("gpt-4o")
        }
    assert last_record(proxy, raw.headers)["basis"] == "free"
    assert last_record(proxy, raw.headers)["total"] in {"0", "0.000000000000"}


def test_anthropic_messages_json_and_stream_are_billed(claude: anthropic.Anthropic, proxy: ProxyProcess) -> None:
    body: Any = {
        "model": "claude-sonnet-5",
        "max_tokens": 200,
        "messages": [{"role": "user", "content": QUESTION}],
    }
    raw = claude.messages.with_raw_response.create(**body)
    with claude.messages.stream(**body) as stream:
        final = stream.get_final_message()
        streamed = stream.response.headers

    response = raw.parse()
    record = last_record(proxy, raw.headers)
    cost = (response.usage.input_tokens * Decimal(2) + response.usage.output_tokens * Decimal(10)) / MILLION
    assert Decimal(record["subtotal"]) == cost
    assert record["usage"]["output_tokens"] == response.usage.output_tokens
    second = last_record(proxy, streamed)
    assert second["usage"]["output_tokens"] == final.usage.output_tokens
    assert second["basis"] == "reported"


def test_anthropic_count_tokens_is_free(claude: anthropic.Anthropic, proxy: ProxyProcess) -> None:
    raw = claude.messages.with_raw_response.count_tokens(
        model="claude-sonnet-5", messages=[{"role": "user", "content": QUESTION}]
    )

    assert raw.parse().input_tokens > 0
    assert last_record(proxy, raw.headers)["basis"] == "free"


def test_async_clients_stream_concurrently(proxy: ProxyProcess) -> None:
    async def talk() -> tuple[list[str], list[str]]:
        async with (
            openai.AsyncOpenAI(base_url=proxy.base_url + "/v1", api_key=mint(), max_retries=0) as gpt,
            anthropic.AsyncAnthropic(base_url=proxy.base_url + "/anthropic", api_key=mint(), max_retries=0) as claude,
        ):
            return await asyncio.gather(_chat(gpt), _messages(claude))

    chunks, texts = asyncio.run(talk())

    assert len(chunks) > 1
    assert "".join(texts)


async def _chat(client: openai.AsyncOpenAI) -> list[str]:
    stream = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": QUESTION}], stream=True
    )
    return [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]


async def _messages(client: anthropic.AsyncAnthropic) -> list[str]:
    async with client.messages.stream(
        model="claude-sonnet-5", max_tokens=100, messages=[{"role": "user", "content": QUESTION}]
    ) as stream:
        return [text async for text in stream.text_stream]


def test_openai_errors_are_typed(gpt: openai.OpenAI, proxy: ProxyProcess) -> None:
    def create(client: openai.OpenAI, model: str = "gpt-4o-mini", text: str = "hi") -> None:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}])

    stranger = openai.OpenAI(base_url=proxy.base_url + "/v1", api_key="sk-unknown", max_retries=0)
    narrow = openai.OpenAI(base_url=proxy.base_url + "/v1", api_key=mint(models=["openai/gpt-5*"]), max_retries=0)
    with stranger, narrow:
        with pytest.raises(openai.AuthenticationError):
            create(stranger)
        with pytest.raises(openai.PermissionDeniedError):
            create(narrow)
    with pytest.raises(openai.BadRequestError) as rejected:
        create(gpt, model="sim-unpriced-1")
    assert rejected.value.code == "model_not_priced"
    with pytest.raises(openai.NotFoundError):
        gpt.models.retrieve("sim-missing-1")
    with pytest.raises(openai.RateLimitError):
        create(gpt, text="[[sim status=429]]")


def test_anthropic_errors_are_typed(claude: anthropic.Anthropic, proxy: ProxyProcess) -> None:
    def create(client: anthropic.Anthropic, model: str = "claude-sonnet-5", text: str = "hi") -> None:
        client.messages.create(model=model, max_tokens=10, messages=[{"role": "user", "content": text}])

    stranger = anthropic.Anthropic(base_url=proxy.base_url + "/anthropic", api_key="unknown", max_retries=0)
    narrow = anthropic.Anthropic(
        base_url=proxy.base_url + "/anthropic", api_key=mint(models=["openai/*"]), max_retries=0
    )
    with stranger, narrow:
        with pytest.raises(anthropic.AuthenticationError):
            create(stranger)
        with pytest.raises(anthropic.PermissionDeniedError):
            create(narrow)
    with pytest.raises(anthropic.BadRequestError, match="price"):
        create(claude, model="claude-unknown")
    with pytest.raises(anthropic.NotFoundError):
        claude.models.retrieve("sim-missing-1")
    with pytest.raises(anthropic.InternalServerError):
        create(claude, text="[[sim status=529]]")


def test_tool_call_is_relayed_completely(gpt: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    text = '[[sim tool=get_weather args={"city":"Oslo"}]]'
    chat = gpt.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": text}],
        tools=[{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}],
    )
    message = claude.messages.create(
        model="claude-sonnet-5",
        max_tokens=100,
        messages=[{"role": "user", "content": text}],
        tools=[{"name": "get_weather", "input_schema": {"type": "object"}}],
    )

    assert chat.choices[0].message.tool_calls is not None
    assert chat.choices[0].message.tool_calls[0].function.arguments == '{"city":"Oslo"}'  # type: ignore[union-attr]
    assert any(block.type == "tool_use" and block.input == {"city": "Oslo"} for block in message.content)
