"""Recorded exchanges are relayed byte for byte, and their records have the cost of the provider's price page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.harness import KEY_ID, PROJECT, ProxyProcess, mint, running_proxy
from tests.replay_provider import ReplayProvider, load_exchange, load_expected, recorded_response

#: name -> cost in USD, computed by hand from the provider's price page.  `expected/` holds the figures of independent
#: libraries, with the reasons for differences.
COSTS = {
    "chat-several-choices": "0.0000078",  # 12 x 0.15 + 10 x 0.60 per million
    "chat-stream-with-usage": "0.0001035",  # 14 x 0.25 + 50 x 2 per million
    "responses-priority": "0.0000192",  # 24 x 0.20 + 18 x 0.80 per million
    "responses-web-search": "0.0264045",  # 8614 x 1.75 + 95 x 14 per million, one search at 0.01
    "messages-compaction": "0.353135",  # (682 + 60385) x 5 + (1320 + 592) x 25 per million
    "messages-advisor": "0.01913",  # 2390 x 2 + 121 x 10 at sonnet-5, 2518 x 5 + 22 x 25 at opus-4-8
    "messages-refusal": "0",  # a refusal without content is free
    "messages-cache-split-stream": "0.0115923",  # 6 x 2 + 6289 x 0.20 + 3337 x 2.50 + 198 x 10 per million
    "messages-fallback-stream": "0.00866",  # 412 x 5 + 264 x 25 per million
}

NAMES = sorted(
    path.stem
    for path in (Path(__file__).parent.parent / "fixtures" / "recorded").glob("*.json")
    if load_exchange(path.stem)["endpoint"]
    in {
        "openai.chat.completions",
        "openai.responses",
        "openai.responses.compact",
        "openai.embeddings",
        "anthropic.messages",
        "anthropic.messages.count_tokens",
        "anthropic.models",
    }
)


#: A vector store that a recorded request searches.
VECTOR_STORE = "vs_6931d72a43048191bbe7518b93c1d8ed"


@pytest.fixture(scope="module")
def proxy(provider: ReplayProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """The server, configured to relay model lists unchanged, and to let its project use the vector store."""
    project = {
        "id": PROJECT,
        "name": "first",
        "api_keys": [{"id": KEY_ID, "secret": {"env": "TEST_SIGNING_SECRET"}}],
        "allowed_objects": [VECTOR_STORE],
    }
    folder = tmp_path_factory.mktemp("recorded")
    with running_proxy(folder, provider.url, models_list="provider", projects=[project]) as running:
        yield running


@pytest.mark.parametrize("name", NAMES)
def test_recorded_exchange_is_relayed_unchanged_and_costs_what_the_price_page_says(
    name: str, proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    exchange = load_exchange(name)
    request = exchange["request"]
    body = request.get("body")
    if isinstance(body, dict):
        body.pop("previous_response_id", None)  # no project owns it, so the proxy would reject it
    provider.response = recorded_response(name)
    sent = None if body is None else json.dumps(body).encode()

    response = httpx.request(
        request["method"],
        proxy.base_url + "/" + exchange["provider"] + request["path"],
        content=sent,
        headers={"Authorization": f"Bearer {mint()}", "Content-Type": "application/json"},
        timeout=30,
    )

    if name == "responses-error":  # the model does not exist, so it has no price: rejected before it is sent
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "model_not_priced"
        return
    assert response.status_code == provider.response.status
    if not _usage_was_added(name):
        sent_on = [
            seen for seen in provider.requests if (seen.method, seen.target) == (request["method"], request["path"])
        ]
        assert sent_on[-1].body == (sent or b"")  # later requests may be polls of deferred usage
        assert response.content == provider.response.body
    record = proxy.read_record(response.headers["llm-proxy-request-id"])
    if name == "chat-stream-without-usage":  # recorded without the option, so its response has no usage
        assert record["basis"] == "estimated"
        assert record["estimate_method"]
        return
    if name == "responses-image-generation":  # the response does not state the tokens of the image tool
        assert (record["basis"], record["estimate_method"]) == ("estimated", "image_size_and_quality")
        # Per million: 3151 x 0.05 + 1970 x 0.40 = 945.55; a small low picture of gpt-image-2, 196 x 30 = 5880.
        assert Decimal(record["subtotal"]) == Decimal("0.00682555")
        return
    if name == "responses-code-interpreter":  # no response states the life of its container
        assert (record["basis"], record["estimate_method"]) == ("estimated", "container_minimum")
        # The tokens as `expected/` has them, and five minutes of a container of 1 GB at 0.0015.
        assert Decimal(record["subtotal"]) == Decimal("0.00088535") + Decimal("0.0075")
        assert ["container_seconds", "300"] in [[item["type"], item["quantity"]] for item in record["line_items"]]
        return
    assert Decimal(record["subtotal"]) == _cost(name)
    assert Decimal(record["surcharge"]) == (_cost(name) * Decimal("0.05")).quantize(Decimal("1e-12"))
    assert sum((Decimal(item["amount"]) for item in record["line_items"]), Decimal(0)) == Decimal(record["total"])


def _cost(name: str) -> Decimal:
    figures = load_expected(name).get("cost_usd")
    independent = Decimal(figures["prices_json"]) if figures else Decimal(0)
    typed = Decimal(COSTS.get(name, independent))
    assert typed == independent
    return typed


def _usage_was_added(name: str) -> bool:
    body = load_exchange(name)["request"].get("body") or {}
    requested = (body.get("stream_options") or {}).get("include_usage")
    return bool(load_exchange(name)["endpoint"] == "openai.chat.completions" and body.get("stream") and not requested)
