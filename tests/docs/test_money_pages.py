"""The pages on usage and prices agree with the endpoints and with the recorded responses."""

from __future__ import annotations

import json
import re
from decimal import Decimal

import pytest

from tests.docs.pages import DOCS, rows, text_of
from tests.replay_provider import RECORDED
from tornado_proxy.providers.contract import Endpoint, WebSocketEndpoint
from tornado_proxy.providers.registry import PROVIDERS

MILLION = 1_000_000


def _read_section(provider: str) -> str:
    """Return the section of docs/usage.md on one provider."""
    return next(part for part in text_of("usage.md").split("\n## ") if part.lower().startswith(provider))


@pytest.mark.parametrize(
    ("provider", "endpoint"),
    [(provider.name, endpoint) for provider in PROVIDERS for endpoint in provider.endpoints],
    ids=lambda value: value if isinstance(value, str) else f"{value.method} {value.path}",
)
def test_usage_page_lists_each_endpoint_as_charged_or_free(provider: str, endpoint: Endpoint) -> None:
    table, _, free = _read_section(provider).partition("\nFree: ")

    charged = isinstance(endpoint, WebSocketEndpoint) or endpoint.charged
    assert f"`{endpoint.path}`" in (table if charged else free)


def _read_costs(name: str) -> list[Decimal]:
    """Return our cost, that of genai-prices and that of LiteLLM, in millionths of a dollar."""
    costs = json.loads((RECORDED / "expected" / f"{name}.json").read_text())["cost_usd"]
    return [Decimal(costs[source]) * MILLION for source in ("prices_json", "genai_prices", "litellm_tokens_only")]


def _list_disputed() -> list[str]:
    """Return the names of recorded responses on whose cost the three sources differ."""
    expected = ((path.stem, json.loads(path.read_text())) for path in sorted((RECORDED / "expected").glob("*.json")))
    return [name for name, costs in expected if costs.get("agree") is False]


def test_page_on_price_lists_has_every_recorded_response_on_which_price_lists_differ() -> None:
    # Rows of this table have the name of a recorded response, three costs and a reason.
    listed = [
        row
        for row in rows(DOCS / "price_lists.md")
        if re.fullmatch(r"`[a-z0-9]+(-[a-z0-9]+)+`", row[0]) and len(row) == 5
    ]

    assert {row[0].strip("`"): [Decimal(cell) for cell in row[1:4]] for row in listed} == {
        name: _read_costs(name) for name in _list_disputed()
    }
