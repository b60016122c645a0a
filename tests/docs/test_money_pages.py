"""What the pages on usage and prices say of routes and recorded answers holds."""

from __future__ import annotations

import json
import re
from decimal import Decimal

import pytest

from tests.docs.pages import DOCS, rows, text_of
from tests.replay import RECORDED
from tornado_proxy.providers.anthropic.endpoints import ANTHROPIC_ENDPOINTS
from tornado_proxy.providers.openai.endpoints import OPENAI_ENDPOINTS

MILLION = 1_000_000


def _section(provider: str) -> str:
    """What docs/usage.md says of one provider."""
    return next(part for part in text_of("usage.md").split("\n## ") if part.lower().startswith(provider))


@pytest.mark.parametrize(
    "endpoint", [*OPENAI_ENDPOINTS, *ANTHROPIC_ENDPOINTS], ids=lambda one: f"{one.method} {one.path}"
)
def test_a_served_route_has_its_place_on_the_page_of_usage(endpoint):
    table, _, free = _section(endpoint.provider).partition("\nFree: ")

    assert f"`{endpoint.path}`" in (free if endpoint.free and endpoint.sideband is None else table)


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
