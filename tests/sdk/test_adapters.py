"""The adapters: text as it arrives, errors, cut responses, and whose clients they close."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any

import anthropic
import openai
import pytest

from tests.harness import ProxyProcess, wait_until
from tests.replay_provider import ProviderResponse, ReplayProvider
from tornado_proxy.ledger.rows import format_time
from tornado_proxy.sdk import (
    AnthropicMessagesAdapter,
    OpenAIResponsesAdapter,
    get_anthropic_client,
    get_async_anthropic_client,
    get_async_openai_client,
    get_openai_client,
)

Adapter = OpenAIResponsesAdapter | AnthropicMessagesAdapter

ADAPTERS = [
    pytest.param(OpenAIResponsesAdapter, "gpt-4o-mini", id="openai"),
    pytest.param(AnthropicMessagesAdapter, "claude-haiku-4-5", id="anthropic"),
]

#: The last line of a stream comes half a second after the first one.
SLOW = '[[sim say="one two three four five six" delay-ms=50]] go'
TEXT = "one two three four five six"


def read(adapter: Adapter, prompt: str, pieces: list[str] | None = None) -> list[str]:
    """Return the pieces of text; `pieces` has them too, also after an error."""
    pieces = [] if pieces is None else pieces
    pieces.extend(adapter.stream(prompt))
    return pieces


def read_asynchronously(adapter: Adapter, prompt: str, pieces: list[str] | None = None) -> list[str]:
    found = [] if pieces is None else pieces

    async def run() -> list[str]:
        async with adapter:
            async for piece in adapter.astream(prompt):
                found.append(piece)
        return found

    return asyncio.run(run())


READERS = [pytest.param(read, id="stream"), pytest.param(read_asynchronously, id="astream")]


@pytest.mark.parametrize("read_text", READERS)
@pytest.mark.parametrize(("make", "model"), ADAPTERS)
@pytest.mark.usefixtures("variables")
def test_adapter_yields_the_text_of_the_model_of_the_variable(
    make: Any, model: str, read_text: Any, proxy: ProxyProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_MODEL" if make is OpenAIResponsesAdapter else "ANTHROPIC_MODEL", model)
    known = len(proxy.read_records())

    with make() as adapter:
        pieces = read_text(adapter, SLOW)

    assert ("".join(pieces), "" in pieces) == (TEXT, False)
    record = proxy.read_records(count=known + 1)[-1]
    assert (record["model_requested"], record["outcome"], record["basis"]) == (model, "completed", "reported")


@pytest.mark.parametrize(("make", "model"), ADAPTERS)
@pytest.mark.usefixtures("variables")
def test_text_arrives_while_the_model_writes(make: Any, model: str) -> None:
    with make(model) as adapter:
        pieces = adapter.stream("[[sim tokens=20 delay-ms=50]] go")
        next(pieces)
        began = time.monotonic()
        list(pieces)

    assert time.monotonic() - began > 0.5


@pytest.mark.parametrize(("make", "model"), ADAPTERS)
def test_limit_of_the_output_is_sent(make: Any, model: str, server: ReplayProvider) -> None:
    server.response = ProviderResponse(status=400, chunks=(b'{"error": {"message": "no", "type": "x"}}',))
    for limit in (7, None):
        with (
            make(model, base_url=server.url, api_key="t", max_output_tokens=limit) as adapter,
            pytest.raises((openai.BadRequestError, anthropic.BadRequestError)),
        ):
            read(adapter, "hi")

    first, second = (json.loads(request.body) for request in server.requests)
    if make is OpenAIResponsesAdapter:
        assert (first["max_output_tokens"], second["max_output_tokens"]) == (7, None)
    else:
        assert (first["max_tokens"], second["max_tokens"]) == (7, 4096)


@pytest.mark.parametrize("read_text", READERS)
@pytest.mark.parametrize(("make", "model"), ADAPTERS)
@pytest.mark.parametrize("directive", ["cut=after:8", "error-event=after:8"])
@pytest.mark.usefixtures("variables")
def test_response_that_breaks_off_is_an_error_after_its_text(
    make: Any, model: str, read_text: Any, directive: str
) -> None:
    adapter = make(model)
    pieces: list[str] = []

    with pytest.raises((openai.APIError, anthropic.APIError)):
        read_text(adapter, f"[[sim tokens=50 {directive}]] go", pieces)

    adapter.close()
    assert pieces


@pytest.mark.parametrize(("make", "model"), ADAPTERS)
def test_stream_without_its_last_event_is_an_error(make: Any, model: str, server: ReplayProvider) -> None:
    server.response = ProviderResponse(headers=(("Content-Type", "text/event-stream"),), chunks=(b": hello\n\n",))

    with (
        make(model, base_url=server.url, api_key="t") as adapter,
        pytest.raises((openai.APIConnectionError, anthropic.APIConnectionError), match="before its last event"),
    ):
        read(adapter, "hi")


def test_failed_response_is_an_error_with_its_message(server: ReplayProvider) -> None:
    failed = {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "out of order"}}}
    event = f"event: response.failed\ndata: {json.dumps(failed)}\n\n"
    server.response = ProviderResponse(headers=(("Content-Type", "text/event-stream"),), chunks=(event.encode(),))

    with (
        OpenAIResponsesAdapter("gpt-4o-mini", base_url=server.url, api_key="t") as adapter,
        pytest.raises(openai.APIError, match="out of order"),
    ):
        read(adapter, "hi")


@pytest.mark.usefixtures("variables")
def test_incomplete_response_is_no_error() -> None:
    with OpenAIResponsesAdapter("gpt-4o-mini", max_output_tokens=16) as adapter:
        assert read(adapter, "[[sim tokens=100]] go")


@pytest.mark.usefixtures("variables")
def test_given_client_is_used_and_left_open() -> None:
    with get_openai_client() as gpt, get_anthropic_client() as claude:
        with OpenAIResponsesAdapter("gpt-4o-mini", client=gpt) as gpt_adapter:
            assert read(gpt_adapter, "hi")
        with AnthropicMessagesAdapter("claude-haiku-4-5", client=claude) as claude_adapter:
            assert read(claude_adapter, "hi")
        assert (gpt.is_closed(), claude.is_closed()) == (False, False)

    async def run() -> None:
        async with get_async_openai_client() as gpt:
            async with OpenAIResponsesAdapter("gpt-4o-mini", client=gpt) as adapter:
                assert [piece async for piece in adapter.astream("hi")]
            assert not gpt.is_closed()

    asyncio.run(run())


@pytest.mark.usefixtures("variables")
def test_own_client_is_closed() -> None:
    adapter = OpenAIResponsesAdapter("gpt-4o-mini")
    assert read(adapter, "hi")
    adapter.close()

    with pytest.raises(RuntimeError, match="has been closed"):
        read(adapter, "hi")


@pytest.mark.usefixtures("variables")
def test_client_of_the_other_kind_is_refused() -> None:
    gpt, claude = get_async_openai_client(), get_async_anthropic_client()
    with pytest.raises(TypeError, match="use astream"):
        read(OpenAIResponsesAdapter("m", client=gpt), "hi")
    with pytest.raises(TypeError, match="use astream"):
        read(AnthropicMessagesAdapter("m", client=claude), "hi")
    with get_openai_client() as sync_gpt, pytest.raises(TypeError, match=r"use stream\(\)"):
        read_asynchronously(OpenAIResponsesAdapter("m", client=sync_gpt), "hi")
    with get_anthropic_client() as sync_claude, pytest.raises(TypeError, match=r"use stream\(\)"):
        read_asynchronously(AnthropicMessagesAdapter("m", client=sync_claude), "hi")


@pytest.mark.usefixtures("variables")
def test_client_excludes_url_and_key() -> None:
    with get_openai_client() as gpt, pytest.raises(ValueError, match="client= excludes base_url= and api_key="):
        OpenAIResponsesAdapter("m", client=gpt, api_key="t")


@pytest.mark.usefixtures("variables")
def test_reader_that_stops_early_ends_the_request(proxy: ProxyProcess) -> None:
    began = format_time(datetime.now(UTC))
    with AnthropicMessagesAdapter("claude-haiku-4-5") as adapter:
        pieces = adapter.stream("[[sim tokens=40 delay-ms=20]] go")
        next(pieces)
        pieces.close()  # type: ignore[attr-defined]  # a generator

    def list_outcomes() -> list[str]:
        return [record["outcome"] for record in proxy.read_records() if record["started_at"] >= began]

    wait_until(lambda: bool(list_outcomes()), "the record")
    assert list_outcomes() == ["client_closed"]
