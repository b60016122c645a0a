"""The price registry: resolves model names, admits requests whose whole cost has a price, and rates their usage.

    before sending   admit(spend)  ──> ModelPrice, or ModelNotPriced (400)
    after the end    charge(report) ─> Cost: one line item for each quantity, then the surcharge

docs/pricing.md, "How a card is chosen", describes the selection rule.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from operator import attrgetter

import msgspec
from msgspec.structs import replace

from tornado_proxy.domain.config.document import Document
from tornado_proxy.domain.config.fault import Fault
from tornado_proxy.domain.container import PricedUse
from tornado_proxy.domain.cost import NO_DISCOUNT, ZERO, BillRates, Cost, Discount
from tornado_proxy.domain.errors import ConfigError, ModelNotPriced
from tornado_proxy.domain.request import Spend
from tornado_proxy.domain.terms import DEFAULT_TERMS, NAMED_TERMS, Terms
from tornado_proxy.domain.usage import CACHE_WRITE_METERS, Basis, Meter, UsageItem, UsageReport
from tornado_proxy.pricing.book.calculator import Itemised, bill, itemise, without_price
from tornado_proxy.pricing.book.container_price import quote_container
from tornado_proxy.pricing.book.name_hints import MAX_HINT_CHARACTERS, find_nearest_name
from tornado_proxy.pricing.book.price import ModelPrice
from tornado_proxy.pricing.book.price_file import ProviderPrices, make_fingerprint, read_prices
from tornado_proxy.pricing.book.refusals import apply_refusal_rules

# A name of its own: CPython 3.11 takes as long for an attribute of an enumeration as for a call.
_FREE = Basis.FREE

#: Tiers without prices of their own.  Requests name them to let the provider choose, and some responses repeat them.
_UNDECIDED_TIERS = frozenset({"auto", "standard_only", "scale"})

#: The meters of input that is written to a cache, and the lifetimes that requests ask for by name.
_LIFETIMES = {"12h": Meter.CACHE_WRITE_12H, "1h": Meter.CACHE_WRITE_1H}

#: Admitted spends that are cached.  The cache needs a limit, because clients can invent fine-tuned model names.
MAX_CACHED_ADMISSIONS = 4096

#: Resolved terms that are cached, and ratings.  Both need a limit, because their keys contain words of responses.
MAX_CACHED_TERMS = 1000

#: Characters of such words; no model and no tier has as many.
MAX_CACHED_CHARACTERS = 300

_HOW_TO_ADD = "the operator can add one to the price files and reload"


class _Rating(msgspec.Struct, frozen=True):
    """The prices of usage: a model, terms in the words of its price cards, and notes about the choice of both."""

    model: ModelPrice
    terms: Terms
    notes: tuple[str, ...] = ()


class PriceBook:
    """The prices of all providers.  Immutable apart from its caches; a reload makes a new one."""

    def __init__(self, providers: Mapping[str, ProviderPrices], fingerprint: str = "") -> None:
        """Keep the prices; `fingerprint` names them."""
        self._providers = providers
        self.fingerprint = fingerprint
        models = [model for prices in providers.values() for model in prices.models.values()]
        #: The times at which a price can change, sorted.
        self._dates = sorted({date for model in models for date in model.dates})
        #: (provider, endpoint, spend, interval between two dates) to the prices of an admitted spend.
        self._admitted: dict[tuple[str, str, Spend, int], ModelPrice] = {}
        #: (provider, stated terms) to the terms of price cards.
        self._resolved_terms: dict[tuple[str, Terms, str | None], Terms] = {}
        #: (provider, model of the response, requested model, stated terms, region) to the prices that rate such usage.
        self._ratings: dict[tuple[str, str | None, str | None, Terms, str | None], _Rating] = {}

    @classmethod
    def from_documents(cls, documents: Sequence[Document]) -> PriceBook:
        """Return the price book of documents that are valid against schemas/prices.schema.json.

        Raises:
            ConfigError: with every fault that the schema cannot express.
        """
        faults: list[Fault] = []
        providers: dict[str, ProviderPrices] = {}
        for document in documents:
            prices, own_faults = read_prices(document)
            faults.extend(own_faults)
            # With two files the order of reading would decide which price of a model is used.
            if prices.provider in providers:
                faults.append(document.fault(("provider",), f"a second file for {prices.provider}; there must be one"))
            providers[prices.provider] = prices
        if faults:
            raise ConfigError(faults)
        return cls(providers, make_fingerprint(frozenset(documents)))

    def equals(self, other: PriceBook) -> bool:
        """Return True if both have the same prices."""
        return self._providers == other._providers

    def models(self, provider: str) -> Iterable[ModelPrice]:
        """Return every model of a provider."""
        return self._providers[provider].models.values() if provider in self._providers else ()

    def find_check_dates(self) -> dict[str, date]:
        """Return the day on which the price that was not checked for the longest time was checked, by provider."""
        return {
            provider: date.fromisoformat(min(checked))
            for provider in self._providers
            if (checked := [card.checked for model in self.models(provider) for card in model.list_own_cards()])
        }

    def resolve(self, provider: str, model: str) -> ModelPrice | None:
        """Return the prices of `model`: its own entry, its alias's, or that of a fine-tuned model's base.

        `ft:BASE:ORGANISATION:SUFFIX:ID` uses the entry `ft:BASE`.  No other part of a name is guessed, because a model
        with a similar name can cost ten times as much.
        """
        prices = self._providers.get(provider)
        if prices is None:
            return None
        entry = prices.models.get(prices.aliases.get(model, model))
        if entry is None and model.startswith("ft:"):
            base = model.split(":")[1]
            # The base can be named by an alias, with a date that the entry `ft:BASE` does not have.
            entry = prices.models.get(f"ft:{base}") or prices.models.get(f"ft:{prices.aliases.get(base, base)}")
        return entry

    def admit(self, provider: str, endpoint: str, spend: Spend, at: datetime) -> ModelPrice:
        """Return the prices that will rate `spend`.

        Raises:
            ModelNotPriced: the model, its tier, or a meter that it can be charged for has no price at `at`.
        """
        key = (provider, endpoint, spend, bisect_right(self._dates, at))
        cached = self._admitted.get(key)
        if cached is not None:
            return cached
        entry = self._admit(provider, endpoint, spend, at)
        if len(self._admitted) < MAX_CACHED_ADMISSIONS:
            self._admitted[key] = entry
        return entry

    def apply_refusals(self, provider: str, report: UsageReport, at: datetime) -> UsageReport:
        """Return `report` without the refusals that the provider does not charge at `at`."""
        prices = self._providers.get(provider)
        return report if prices is None else apply_refusal_rules(report, prices.refusals, at)

    def possible_terms(self, provider: str, stated: Terms, region: str | None) -> tuple[Terms, ...]:
        """Return the terms, in the words of price cards, on which a request that states `stated` can be served.

        An unstated tier is the standard one; a tier that leaves the choice to the provider can be any.
        """
        if stated.service_tier not in _UNDECIDED_TIERS:
            return (self._resolve_terms(provider, stated, region),)
        tiers = dict.fromkeys(self._providers[provider].tiers.values())
        return tuple(self._resolve_terms(provider, replace(stated, service_tier=tier), region) for tier in tiers)

    def rate(
        self,
        provider: str,
        report: UsageReport,
        *,
        requested_model: str | None,
        at: datetime,
        provider_region: str | None,
        rates: BillRates,
    ) -> Cost:
        """Return the itemised cost of the usage in `report`, at the prices of `at`.

        A usage item is rated at the model that it names if that model has prices, else at `requested_model`; on the
        tier that the response names, and on the standard tier if it names none.
        """
        itemised = Itemised()
        # A free report can contain usage: providers state it for refusals that they do not charge.
        if report.basis is not _FREE:
            for usage_item in report.items:
                rating = self._find_rating(provider, usage_item, requested_model, provider_region)
                if rating is None:
                    _add_unpriced(usage_item, requested_model, itemised)
                    continue
                itemised.notes += rating.notes
                itemise(usage_item, rating.model, rating.terms, at, itemised)
        notes = dict.fromkeys(itemised.notes)
        return bill(itemised.items, rates.surcharge, itemised.faults, notes, discount_rate=rates.discount)

    def price_containers(
        self,
        provider: str,
        report: UsageReport,
        *,
        requested_model: str | None,
        at: datetime,
        provider_region: str | None,
    ) -> tuple[PricedUse, ...]:
        """Return the containers of `report` with the price of their time at `at`, None for those without one."""
        models = (model for model in (report.model, requested_model) if model)
        entry = next((entry for model in models if (entry := self.resolve(provider, model)) is not None), None)
        uses = []
        for use in report.containers:
            price = None
            if entry is not None and use.terms is not None:
                price = quote_container(entry, self._resolve_terms(provider, use.terms, provider_region), at)
            uses.append(PricedUse(use.container_id, price, use.note))
        return tuple(uses)

    def _admit(self, provider: str, endpoint: str, spend: Spend, at: datetime) -> ModelPrice:
        entry = self.resolve(provider, spend.model)
        if entry is None:
            raise ModelNotPriced(self._describe_unknown(provider, spend.model), param="model")
        endpoint = spend.endpoint or endpoint
        if spend.role is None and endpoint not in entry.endpoints:
            served = ", ".join(sorted(entry.endpoints))
            raise ModelNotPriced(f"{spend.model} has no price on {endpoint}, only on {served}", param="model")
        if spend.role is not None and spend.role not in entry.roles:
            raise ModelNotPriced(f"{spend.model} has no price as {spend.role}; {_HOW_TO_ADD}", param="model")
        requested = replace(spend.terms, service_tier=self._requested_tier(provider, spend.terms.service_tier))
        terms = self._resolve_terms(provider, requested, spend.terms.provider_region)
        for name in NAMED_TERMS:
            value = getattr(terms, name)
            if value is not None and not entry.names(name, terms):
                tier = terms.service_tier
                raise ModelNotPriced(
                    f"{spend.model} has no price for {name} {value[:40]!r} on service_tier {tier}; {_HOW_TO_ADD}",
                    param=name,
                )
        for meter in sorted(spend.meters | _cache_write_meters(entry, spend.terms.cache_ttl)):
            # The length in tokens is not known yet; `pricing check` finds gaps at other lengths.
            # Two cards cannot match: price files with overlapping cards are rejected.
            if not entry.find(meter, terms, 0, at):
                # The memory limit has a default in every request; only a container's price can depend on it.
                term_list = ", ".join(f"{name} {value}" for name, value in terms.pairs() if name != "memory_limit")
                raise ModelNotPriced(
                    f"{spend.model} has no price for {meter} on {term_list}; {_HOW_TO_ADD}", param="model"
                )
        return entry

    def _find_rating(
        self, provider: str, usage_item: UsageItem, requested_model: str | None, region: str | None
    ) -> _Rating | None:
        """Return the prices that rate usage, None if neither its own model nor the requested one has any.

        Cached, because nearly all responses to a request for a model state the same model and terms.
        """
        key = (provider, usage_item.model, requested_model, usage_item.terms, region)
        cached = self._ratings.get(key)
        if cached is not None:
            return cached
        # The model of the response first: it can be a fallback or an advisor with prices of its own.
        entries = (self.resolve(provider, model) for model in (usage_item.model, requested_model) if model)
        entry = next((entry for entry in entries if entry is not None), None)
        if entry is None:
            return None
        stated = usage_item.terms
        notes: tuple[str, ...] = ()
        if stated.service_tier in _UNDECIDED_TIERS and stated.service_tier not in self._providers[provider].tiers:
            # Recorded responses of OpenAI name `auto` and `scale`.  Scale Tier is bought in advance and has no price
            # per token; both are charged at the standard price.
            notes = (f"service tier {stated.service_tier} has no price; the standard price is charged",)
            stated = replace(stated, service_tier=None)
        rating = _Rating(entry, self._resolve_terms(provider, stated, region), notes)
        words = (usage_item.model, requested_model, usage_item.terms.service_tier)
        if len(self._ratings) < MAX_CACHED_TERMS and sum(len(word or "") for word in words) <= MAX_CACHED_CHARACTERS:
            self._ratings[key] = rating
        return rating

    def _requested_tier(self, provider: str, tier: str | None) -> str | None:
        """Return the tier that must have a price, None for the standard tier.

        Raises:
            ModelNotPriced: the price files do not know the tier.
        """
        if tier is None or tier in _UNDECIDED_TIERS:
            return None
        known = self._providers[provider].tiers
        if tier not in known:
            raise ModelNotPriced(
                f"service tier {tier[:40]!r} has no price; known are {', '.join(sorted(known))}", param="service_tier"
            )
        return tier

    def _resolve_terms(self, provider: str, stated: Terms, region: str | None) -> Terms:
        """Return `stated` in the words of price cards, with the provider's region and the default of unstated terms.

        Cached, because a value with ten fields costs microseconds to copy, and every line item of a request needs the
        result.
        """
        key = (provider, stated, region)
        cached = self._resolved_terms.get(key)
        if cached is not None:
            return cached
        tier = stated.service_tier
        if tier is not None:
            # An unknown tier keeps its word: it then matches no card, and the fault names it.
            tier = self._providers[provider].tiers.get(tier, tier)
        resolved = DEFAULT_TERMS.override(replace(stated, service_tier=tier, provider_region=region))
        if len(self._resolved_terms) < MAX_CACHED_TERMS and len(tier or "") <= MAX_CACHED_CHARACTERS:
            self._resolved_terms[key] = resolved
        return resolved

    def _describe_unknown(self, provider: str, model: str) -> str:
        prices = self._providers.get(provider)
        names = [*prices.models, *prices.aliases] if prices is not None else []
        nearest = find_nearest_name(model, names)
        hint = "" if nearest is None else f"did you mean {nearest}? "
        return f"model {model[:MAX_HINT_CHARACTERS]!r} has no price; {hint}{_HOW_TO_ADD}"


def _cache_write_meters(entry: ModelPrice, cache_ttl: str | None) -> frozenset[Meter]:
    """Return the meter of input written to a cache for `cache_ttl`; none if the model is not charged for writing."""
    charged = any(meter in entry.by_meter for meter in CACHE_WRITE_METERS)
    return frozenset({_LIFETIMES[cache_ttl]}) if charged and cache_ttl in _LIFETIMES else frozenset()


def _add_unpriced(usage_item: UsageItem, requested_model: str | None, into: Itemised) -> None:
    model = usage_item.model or requested_model
    into.items.extend(without_price(quantity, model) for quantity in usage_item.quantities if quantity.amount)
    into.faults.append(f"{model} has no prices")


_get_refusal = attrgetter("refusal")


class Charge(msgspec.Struct, frozen=True):
    """The usage that a provider charges for, and its cost.  `report` names no refusal that is free.

    `containers` are those of the report with the prices of their time, which the ledger adds to the cost.
    """

    report: UsageReport
    cost: Cost
    containers: tuple[PricedUse, ...] = ()


@dataclass(frozen=True, slots=True)
class Tariff:
    """The prices of one provider when a request began.  A reload during the request does not change them.

    `surcharge_rate` is a fraction of the provider's charge.  `provider_region` is the region of the provider's host,
    None for its global host.  `discount` is that of the key that makes the request.
    """

    prices: PriceBook
    provider: str
    surcharge_rate: Decimal
    provider_region: str | None = None
    discount: Discount = NO_DISCOUNT

    def find_rates(self, at: datetime) -> BillRates:
        """Return the rates of a bill of a request that began at `at`."""
        discount_rate = ZERO if self.discount is NO_DISCOUNT else self.discount.rate_at(at)
        return BillRates(self.surcharge_rate, discount_rate)

    def admit(self, endpoint: str, spend: Spend, at: datetime) -> None:
        """Raise ModelNotPriced unless everything that `spend` can cost has a price."""
        self.prices.admit(self.provider, endpoint, spend, at)

    def charge(self, report: UsageReport, model: str | None, at: datetime) -> Charge:
        """Return `report` without free refusals, and its itemised cost at the prices of `at`.

        Usage whose own model has no prices is rated at `model`, which the request named.
        """
        is_refused = any(map(_get_refusal, report.items))
        charged = self.prices.apply_refusals(self.provider, report, at) if is_refused else report
        cost = self.prices.rate(
            self.provider,
            charged,
            requested_model=model,
            at=at,
            provider_region=self.provider_region,
            rates=self.find_rates(at),
        )
        if not charged.containers:
            return Charge(charged, cost)
        containers = self.prices.price_containers(
            self.provider, charged, requested_model=model, at=at, provider_region=self.provider_region
        )
        cost = replace(cost, faults=(*cost.faults, *_list_unpriced(charged, containers)))
        return Charge(charged, cost, containers)


def _list_unpriced(report: UsageReport, containers: Iterable[PricedUse]) -> Iterator[str]:
    """Yield a fault for each container that the response can have created and that has no price."""
    for use, priced in zip(report.containers, containers, strict=True):
        if use.terms is not None and priced.price is None:
            yield f"container {use.container_id} has no price: {Meter.CONTAINER_SECONDS} of {report.model}"
