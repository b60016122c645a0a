"""What the pages on usage and prices say of routes and recorded answers holds."""

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


def _section(provider: str) -> str:
    """What docs/usage.md says of one provider."""
    return next(part for part in text_of("usage.md").split("\n## ") if part.lower().startswith(provider))


@pytest.mark.parametrize(
    ("provider", "endpoint"),
    [(provider.name, endpoint) for provider in PROVIDERS for endpoint in provider.endpoints],
    ids=lambda value: value if isinstance(value, str) else f"{value.method} {value.path}",
)
def test_usage_page_lists_each_endpoint_as_charged_or_free(provider: str, endpoint: Endpoint) -> None:
    table, _, free = _section(provider).partition("\nFree: ")

    charged = isinstance(endpoint, WebSocketEndpoint) or endpoint.charged
    assert f"`{endpoint.path}`" in (table if charged else free)


def _figures(name: str) -> list[Decimal]:
    """Ours, that of genai-prices and that of LiteLLM, in millionths of a dollar."""
    costs = json.loads((RECORDED / "expected" / f"{name}.json").read_text())["cost_usd"]
    return [Decimal(costs[one]) * MILLION for one in ("prices_json", "genai_prices", "litellm_tokens_only")]


def _disputed() -> list[str]:
    stated = ((path.stem, json.loads(path.read_text())) for path in sorted((RECORDED / "expected").glob("*.json")))
    return [name for name, figures in stated if figures.get("agree") is False]


def test_the_page_of_prices_tells_of_every_recorded_answer_that_price_lists_differ_on():
    told = [
        row for row in rows(DOCS / "pricing.md") if re.fullmatch(r"`[a-z0-9]+(-[a-z0-9]+)+`", row[0]) and len(row) == 5
    ]

    assert {row[0].strip("`"): [Decimal(cell) for cell in row[1:4]] for row in told} == {
        name: _figures(name) for name in _disputed()
    }
