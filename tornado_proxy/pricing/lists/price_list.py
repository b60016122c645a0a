"""Prices as public lists state them, in the words of our registry: what every parser of a list gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from tornado_proxy.domain.usage import Meter


@dataclass(frozen=True, slots=True)
class ListedPrice:
    """USD for one `unit` of a meter.  `terms` are the registry's words, those that are not the default.

    `over` is the input length, in tokens, above which the price holds; None where it holds from the first token.
    `rounding` is how far the price can be from what was published, because the list gives it by a smaller unit.
    """

    meter: Meter
    unit: str
    price: Decimal
    terms: tuple[tuple[str, str], ...] = ()
    over: int | None = None
    rounding: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model of a list.  `endpoints` are those that the list names, none where it does not say."""

    provider: str
    name: str
    prices: tuple[ListedPrice, ...]
    endpoints: tuple[str, ...] = ()
    shutdown_date: str | None = None


@dataclass(slots=True)
class PriceList:
    """What a file held, and what of it was not read: a reason to its count."""

    kind: str
    models: list[ListedModel] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def add(self, model: ListedModel) -> None:
        """Add a model, unless the list has no price for it that is read here."""
        if model.prices:
            self.models.append(model)
        else:
            self.skipped["models without a price that is read here"] += 1


class NotAPriceList(ValueError):
    """The file is neither of the lists that are read here; the message says what was expected."""


#: No unit costs a million dollars, and no price has thirty decimals.
_TOO_MUCH = Decimal(1_000_000)
_MOST_DECIMALS = 30

#: Where a model of a kind may be used, in the registry's endpoints.
TEXT = ("/v1/chat/completions", "/v1/responses", "/v1/responses/compact")
MESSAGES = ("/v1/messages", "/v1/messages/batches")


def price_of(value: object) -> Decimal | None:
    """A number of a list as a price; None for what cannot be one: no number, below zero, beyond all measure."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    price = Decimal(value)
    exponent = price.as_tuple().exponent
    if not isinstance(exponent, int) or not -_MOST_DECIMALS <= exponent <= _MOST_DECIMALS or not 0 <= price < _TOO_MUCH:
        return None
    return price


def known(endpoints: Iterable[str], among: frozenset[str]) -> tuple[str, ...]:
    """Those of `endpoints` that the registry knows, once each, in their order."""
    return tuple(dict.fromkeys(one for one in endpoints if one in among))
