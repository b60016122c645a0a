"""The registry of prices: looks models up, says before a call whether all of it has a price, and rates it afterwards.

Source of the selection rule: docs/pricing.md, "How a card is chosen".
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from tornado_proxy.domain.cost import Cost, bill
from tornado_proxy.domain.document import Document
from tornado_proxy.domain.errors import ConfigError, Fault, ModelNotPriced
from tornado_proxy.domain.request import Spend
from tornado_proxy.domain.terms import DEFAULT_TERMS, Terms
from tornado_proxy.domain.usage import Basis, UsageItem, UsageReport
from tornado_proxy.pricing.book.calculator import Itemised, itemise, without_price
from tornado_proxy.pricing.book.price import ModelPrice
from tornado_proxy.pricing.book.price_file import ProviderPrices, read_prices

#: Request words that leave the tier to the provider: the standard price must be known, the answer names the tier.
_UNDECIDED_TIERS = frozenset({"auto", "standard_only", "scale"})

#: Kinds of spending that are remembered; fine-tuned models have names without end.
_MOST_ADMITTED = 4096

_HOW_TO_ADD = "the operator can add one to the price files and reload"


class PriceBook:
    """The prices of all providers.  Immutable; a reload makes a new one."""

    def __init__(self, providers: Mapping[str, ProviderPrices]) -> None:
        self._providers = providers
        #: What has been admitted, where that does not depend on the time.
        self._admitted: dict[tuple[str, str, Spend], ModelPrice] = {}

    @classmethod
    def from_documents(cls, documents: Sequence[Document]) -> PriceBook:
        """Read documents that are valid against schemas/prices.schema.json.

        Raises:
            ConfigError: with every fault that the schema cannot express.
        """
        faults: list[Fault] = []
        providers: dict[str, ProviderPrices] = {}
        for document in documents:
            prices = read_prices(document, faults)
            if prices.provider in providers:
                faults.append(document.fault(("provider",), f"a second file for {prices.provider}; there must be one"))
            providers[prices.provider] = prices
        if faults:
            raise ConfigError(faults)
        return cls(providers)

    def models(self, provider: str) -> Iterable[ModelPrice]:
        """Every model of a provider."""
        return self._providers[provider].models.values() if provider in self._providers else ()

    def resolve(self, provider: str, model: str) -> ModelPrice | None:
        """The prices of `model`: its own entry, that of its alias, or that of a fine-tuned model's base.

        `ft:BASE:ORGANISATION:SUFFIX:ID` takes the entry `ft:BASE`.  No other part of a name is ever guessed at.
        """
        prices = self._providers.get(provider)
        if prices is None:
            return None
        entry = prices.models.get(prices.aliases.get(model, model))
        if entry is None and model.startswith("ft:"):
            base = model.split(":")[1]
            entry = prices.models.get(f"ft:{prices.aliases.get(base, base)}")
        return entry

    def admit(self, provider: str, endpoint: str, spend: Spend, at: datetime) -> ModelPrice:
        """The prices that `spend` will be rated with.

        Raises:
            ModelNotPriced: the model, its tier, or a meter that it can be charged on has no price there at `at`.
        """
        known = self._admitted.get((provider, endpoint, spend))
        if known is not None:
            return known
        entry = self._admit(provider, endpoint, spend, at)
        if len(self._admitted) < _MOST_ADMITTED and all(entry.is_steady(meter) for meter in spend.meters):
            self._admitted[provider, endpoint, spend] = entry
        return entry

    def rate(
        self,
        provider: str,
        report: UsageReport,
        *,
        requested_model: str | None,
        at: datetime,
        provider_region: str | None,
        surcharge_rate: Decimal,
    ) -> Cost:
        """The itemised cost of what `report` says was used, at the prices of `at`.

        A reading is rated at the model it names where that has prices, else at the one that was requested; on the tier
        that the answer names, and on the standard one where it names none.
        """
        itemised = Itemised()
        if report.basis is not Basis.FREE:
            for reading in report.items:
                self._rate_reading(provider, reading, requested_model, provider_region, at, itemised)
        return bill(itemised.items, surcharge_rate, itemised.faults)

    def _admit(self, provider: str, endpoint: str, spend: Spend, at: datetime) -> ModelPrice:
        entry = self.resolve(provider, spend.model)
        if entry is None:
            raise ModelNotPriced(self._unknown(provider, spend.model), param="model")
        if spend.role is None and endpoint not in entry.endpoints:
            served = ", ".join(sorted(entry.endpoints))
            raise ModelNotPriced(f"{spend.model} has no price on {endpoint}, only on {served}", param="model")
        if spend.role is not None and spend.role not in entry.roles:
            raise ModelNotPriced(f"{spend.model} has no price as {spend.role}; {_HOW_TO_ADD}", param="model")
        terms = self._card_terms(provider, replace(spend.terms, service_tier=self._requested_tier(provider, spend)))
        for meter in sorted(spend.meters):
            if not entry.find(meter, terms, 0, at):
                words = ", ".join(f"{name} {value}" for name, value in terms.pairs() if name != "memory_limit")
                raise ModelNotPriced(f"{spend.model} has no price for {meter} on {words}; {_HOW_TO_ADD}", param="model")
        return entry

    def _rate_reading(
        self,
        provider: str,
        reading: UsageItem,
        requested_model: str | None,
        region: str | None,
        at: datetime,
        into: Itemised,
    ) -> None:
        entry = self._rated_model(provider, reading, requested_model)
        if entry is None:
            named = reading.model or requested_model
            into.items.extend(without_price(quantity, named) for quantity in reading.quantities if quantity.amount)
            into.faults.append(f"{named} has no prices")
            return
        terms = self._card_terms(provider, replace(reading.terms, provider_region=region))
        itemise(reading, entry, terms, at, into)

    def _rated_model(self, provider: str, reading: UsageItem, requested: str | None) -> ModelPrice | None:
        for model in (reading.model, requested):
            entry = self.resolve(provider, model) if model else None
            if entry is not None:
                return entry
        return None

    def _requested_tier(self, provider: str, spend: Spend) -> str | None:
        tier = spend.terms.service_tier
        if tier is None or tier in _UNDECIDED_TIERS:
            return None
        known = self._providers[provider].tiers
        if tier not in known:
            raise ModelNotPriced(
                f"service tier {tier[:40]!r} has no price; known are {', '.join(sorted(known))}", param="service_tier"
            )
        return tier

    def _card_terms(self, provider: str, stated: Terms) -> Terms:
        """Return `stated` in the words of price cards, with the default for each term that is not stated."""
        tier = stated.service_tier
        if tier is not None:
            # An unknown tier keeps its word: it then matches no card, and the fault names it.
            stated = replace(stated, service_tier=self._providers[provider].tiers.get(tier, tier))
        return DEFAULT_TERMS.override(stated)

    def _unknown(self, provider: str, model: str) -> str:
        prices = self._providers.get(provider)
        names = [*prices.models, *prices.aliases] if prices is not None else []
        near = difflib.get_close_matches(model, names, 1) if len(model) < 100 else []
        hint = f"; is it {near[0]}?" if near else "."
        return f"model {model[:100]!r} has no price here{hint} {_HOW_TO_ADD.capitalize()}."
