"""A provider is added by its folder and one line of the registry."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from tests.harness import ROOT
from tests.providers.fake_provider.generate import GENERATE
from tests.providers.fake_provider.provider import FAKE
from tornado_proxy.config.files import read_document, read_documents
from tornado_proxy.domain.errors import ModelNotPriced
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.pricing.book.tariff import Tariff
from tornado_proxy.providers.contract import RequestView, ResponseHead
from tornado_proxy.providers.registry import PROVIDERS
from tornado_proxy.providers.route_table import RouteTable

FOLDER = Path(__file__).parent / "fake_provider"
ROUTES = RouteTable((*PROVIDERS, FAKE))
NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)

BODY = b'{"model":"parrot-1","prompt":"hello"}'
RESPONSE = b'{"id": "gen_1", "text": "hello", "units": {"read": 12, "written": 3}}'


@pytest.fixture(scope="module")
def prices() -> PriceBook:
    """The price book of the program with the fake provider's price file."""
    return PriceBook.from_documents([*read_documents(ROOT / "conf" / "prices"), read_document(FOLDER / "prices.yaml")])


def test_routes_of_an_added_provider_have_its_prefix() -> None:
    match = ROUTES.match_http("POST", "/fake/v1/generate?beta=1")

    assert (match.provider, match.upstream_target) == (FAKE, "/v1/generate?beta=1")
    assert match.endpoint.charged
    assert not ROUTES.match_http("GET", "/fake/v1/voices").endpoint.charged
    assert ROUTES.provider_for("/fake/v1/unknown") is FAKE


def test_usage_of_an_added_provider_is_rated_at_its_prices(prices: PriceBook) -> None:
    endpoint = ROUTES.match_http("POST", "/fake/v1/generate").endpoint
    tariff = Tariff(prices, FAKE.name, surcharge_rate=Decimal("0.05"))
    assert endpoint.parse is not None
    facts = endpoint.parse(RequestView(BODY, "application/json")).facts
    reader = endpoint.usage_reader(facts, ResponseHead(200, "application/json"))

    tariff.admit(endpoint.path, facts.spends[0], NOON)
    reader.feed(RESPONSE)
    reader.close(complete=True)
    cost = tariff.rate(reader.result(), facts, NOON)

    # 12 units at 2 USD and 3 at 10 USD per million, and 5 %
    assert cost.total == Decimal("0.0000567")
    assert cost.faults == ()


def test_a_model_of_an_added_provider_needs_a_price(prices: PriceBook) -> None:
    facts = GENERATE.parse(RequestView(b'{"model":"parrot-2"}')).facts  # type: ignore[misc]  # its parse is set

    with pytest.raises(ModelNotPriced, match="parrot-2"):
        Tariff(prices, FAKE.name, surcharge_rate=Decimal(0)).admit(GENERATE.path, facts.spends[0], NOON)
