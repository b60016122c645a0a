"""The prices of public lists in the words of our registry: the result of every list parser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from tornado_proxy.domain.terms import NO_TERMS, Terms
from tornado_proxy.domain.usage import Meter
from tornado_proxy.providers.contract import Provider
from tornado_proxy.providers.registry import PROVIDERS

#: The reason why prices of zero are skipped: an unknown cost would become free.
ZERO_PRICES = "prices of zero: the list does not tell free from unknown"


@dataclass(frozen=True, slots=True)
class ListedPrice:
    """USD for one `unit` of a meter.  `terms` are in the registry's words, without the default ones.

    `over` is the input length, in tokens, above which the price applies; None if it applies from the first token.
    `rounding` is the largest possible distance from the published price, because the list uses a smaller unit.
    """

    meter: Meter
    unit: str
    price: Decimal
    terms: Terms = NO_TERMS
    over: int | None = None
    rounding: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model of a list.  `endpoints` are those that the list names, empty if it names none."""

    provider: str
    name: str
    prices: tuple[ListedPrice, ...]
    endpoints: tuple[str, ...] = ()
    shutdown_date: str | None = None


@dataclass(slots=True)
class PriceList:
    """The parsed models of a list.  `skipped` counts ignored entries by reason."""

    kind: str
    models: list[ListedModel] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def add(self, model: ListedModel) -> None:
        """Add a model, or count it as skipped if it has no price that we can read."""
        if model.prices:
            self.models.append(model)
        else:
            self.skipped["models without a price that is read here"] += 1


class NotAPriceList(ValueError):
    """The file is not in the format of the parser.  The message describes the expected format."""


#: No unit costs a million dollars: a larger number is a mistake of the list.
MAX_PRICE = Decimal(1_000_000)

#: No price has thirty decimals; the limit also rejects 1e-999999, which would take a megabyte as plain digits.
MAX_PRICE_DECIMALS = 30

#: Endpoints that serve a text model, in the registry's names.
TEXT = ("/v1/chat/completions", "/v1/responses", "/v1/responses/compact")


def parse_price(value: object) -> Decimal | None:
    """Return a number of a list as a price, or None if it is no number, negative, or outside the limits above."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    price = Decimal(value)
    exponent = price.as_tuple().exponent
    # The exponent of NaN and of infinity is a letter.
    if not isinstance(exponent, int) or not -MAX_PRICE_DECIMALS <= exponent <= MAX_PRICE_DECIMALS:
        return None
    return price if 0 <= price < MAX_PRICE else None


def find_provider(list_name: object) -> Provider | None:
    """Return the provider that a list calls `list_name`, None if it is none of ours."""
    if not isinstance(list_name, str):
        return None
    return next((provider for provider in PROVIDERS if list_name in provider.price_lists.names), None)


def filter_endpoints(endpoints: Iterable[str], known: frozenset[str]) -> tuple[str, ...]:
    """Return those of `endpoints` that are `known` to the registry, each once, in their order."""
    return tuple(dict.fromkeys(endpoint for endpoint in endpoints if endpoint in known))
