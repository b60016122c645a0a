"""Builds model prices from price documents, and reports the faults that their schema cannot express.

The prices of the bundled files take 0.05 s of CPU time.  Those of a document are built once: a reload gets the same
document from a file that has not changed (config/price_files.py).
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import combinations
from typing import Any

from tornado_proxy.domain.config.document import Document, Path
from tornado_proxy.domain.config.fault import Fault
from tornado_proxy.domain.usage import Meter
from tornado_proxy.pricing.book.price import Conditions, ModelPrice, Modifier, PriceCard, TokenLimits
from tornado_proxy.pricing.book.refusals import RefusalRule

#: Documents whose prices are kept: those of one configuration, before and after a change.
_MAX_KEPT_DOCUMENTS = 8

#: Members of a card that change the quantity that is charged.
_QUANTITY_RULES = ("minimum", "step", "idle", "free_per_month")


@dataclass(frozen=True, slots=True)
class ProviderPrices:
    """One provider's prices.

    `tiers` maps the tier names of requests and responses to those of price cards.  `refusals` say which refusals are
    charged, and when.
    """

    provider: str
    models: Mapping[str, ModelPrice]
    aliases: Mapping[str, str]
    tiers: Mapping[str, str]
    refusals: tuple[RefusalRule, ...] = ()


@functools.lru_cache(_MAX_KEPT_DOCUMENTS)
def read_prices(document: Document) -> tuple[ProviderPrices, tuple[Fault, ...]]:
    """Return the prices and the faults of a document that is valid against its schema.

    Both are shared between calls with the same document, whose content nothing may change.
    """
    faults: list[Fault] = []
    return _Reader(document, faults).read(), tuple(faults)


@functools.lru_cache(_MAX_KEPT_DOCUMENTS)
def make_fingerprint(documents: frozenset[Document]) -> str:
    """Return a short hash of the content of price files, whatever their order, comments and layout."""
    contents = sorted(json.dumps(document.content, default=str, sort_keys=True) for document in documents)
    return hashlib.sha256("\n".join(contents).encode()).hexdigest()[:12]


class _Reader:
    # All faults are collected, so that an operator can fix a file in one go.
    def __init__(self, document: Document, faults: list[Fault]) -> None:
        self._document = document
        self._faults = faults
        self._content: Any = document.content
        self._shared: dict[str, list[PriceCard]] = {}
        self._modifiers: dict[str, Modifier] = {}

    def read(self) -> ProviderPrices:
        content = self._content
        # Shared cards and modifiers first: models refer to them by name.
        for name, cards in content.get("shared_rates", {}).items():
            self._shared[name] = [self._card(card, ("shared_rates", name, number)) for number, card in enumerate(cards)]
        for name, modifier in content.get("modifiers", {}).items():
            self._modifiers[name] = Modifier(
                name, _conditions(modifier["when"]), Decimal(modifier["multiply"]), frozenset(modifier["units"])
            )
        models = {name: self._model(name, section) for name, section in content["models"].items()}
        aliases = content.get("aliases", {})
        self._check_aliases(aliases, models)
        rules = content.get("refusals", ())
        refusals = tuple(self._refusal_rule(rule, ("refusals", number)) for number, rule in enumerate(rules))
        return ProviderPrices(content["provider"], models, aliases, content.get("service_tiers", {}), refusals)

    def _refusal_rule(self, section: Any, path: Path) -> RefusalRule:
        charged, free = frozenset(section.get("charged", ())), frozenset(section.get("free", ()))
        for category in sorted(charged & free):
            self._fault((*path, "free"), f"{category!r} is charged as well")
        starts, ends = self._period(section, path)
        return RefusalRule(charged, free, section.get("others") == "free", starts, ends)

    def _model(self, name: str, section: Any) -> ModelPrice:
        path: Path = ("models", name)
        cards = [self._card(card, (*path, "rates", number)) for number, card in enumerate(section["rates"])]
        self._check_tiers(section["rates"], path)
        for number, shared in enumerate(section.get("includes", ())):
            if shared not in self._shared:
                self._fault((*path, "includes", number), f"unknown shared_rates {shared!r}")
            cards.extend(self._shared.get(shared, ()))
        for number, modifier in enumerate(section.get("modifiers", ())):
            if modifier not in self._modifiers:
                self._fault((*path, "modifiers", number), f"unknown modifier {modifier!r}")
        modifiers = [
            self._modifiers[modifier] for modifier in section.get("modifiers", ()) if modifier in self._modifiers
        ]
        conditions = [*(card.conditions for card in cards), *(modifier.conditions for modifier in modifiers)]
        limits = {limit for condition in conditions for limit in (condition.over, condition.up_to)}
        dates = {date for card in cards for date in (card.effective_from, card.effective_until)}
        by_meter = _by_meter(cards)
        self._check_overlaps(by_meter, path)
        return ModelPrice(
            provider=self._content["provider"],
            name=name,
            status=section["status"],
            endpoints=frozenset(section["endpoints"]),
            roles=frozenset(section.get("roles", ())),
            cards=tuple(cards),
            modifiers=tuple(modifiers),
            by_meter=by_meter,
            # `pricing import` edits own cards only: a shared card would change the prices of other models.
            own_cards=len(section["rates"]),
            limits=tuple(sorted(limit for limit in limits if limit is not None)),
            dates=tuple(sorted(date for date in dates if date is not None)),
            token_limits=_token_limits(section.get("limits")),
        )

    def _card(self, section: Any, path: Path) -> PriceCard:
        starts, ends = self._period(section, path)
        conditions = _conditions(section.get("when", {}))
        if conditions.up_to is not None and conditions.over is not None and conditions.up_to <= conditions.over:
            self._fault((*path, "when"), f"up_to {conditions.up_to} is not more than over {conditions.over}")
        return PriceCard(
            # The schema allows text only, because YAML would read 0.1 as a binary float.
            prices={Meter(meter): Decimal(price) for meter, price in section["prices"].items()},
            unit=section["unit"],
            conditions=conditions,
            source=section["source"],
            checked=section["checked"],
            effective_from=starts,
            effective_until=ends,
            **{name: Decimal(section[name]) for name in _QUANTITY_RULES if name in section},
        )

    def _period(self, section: Any, path: Path) -> tuple[datetime | None, datetime | None]:
        starts, ends = self._date(section, "effective_from", path), self._date(section, "effective_until", path)
        if starts is not None and ends is not None and starts >= ends:
            self._fault((*path, "effective_until"), f"{ends:%Y-%m-%d} is not after effective_from {starts:%Y-%m-%d}")
        return starts, ends

    def _date(self, section: Any, key: str, path: Path) -> datetime | None:
        if key not in section:
            return None
        try:
            return datetime.strptime(section[key], "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError:
            # The schema checks the pattern only, and YYYY-MM-DD also matches 2026-02-30.
            self._fault((*path, key), f"{section[key]!r} is not a day of the calendar")
            return None

    def _check_tiers(self, cards: Iterable[Any], path: Path) -> None:
        # A card for a tier that no response word leads to would never be used.
        known = set(self._content.get("service_tiers", {}).values()) | {"standard"}
        for number, card in enumerate(cards):
            tier = card.get("when", {}).get("service_tier", "standard")
            if tier not in known:
                self._fault(
                    (*path, "rates", number, "when", "service_tier"), f"no entry of service_tiers leads to {tier!r}"
                )

    def _check_overlaps(self, by_meter: Mapping[Meter, tuple[PriceCard, ...]], path: Path) -> None:
        # Compare all pairs, not neighbours: cards can differ in several terms at once, and have no order.
        for meter, cards in by_meter.items():
            for first, second in combinations(cards, 2):
                if first.overlaps(second):
                    cards_named = f"{_describe_card(first)} and {_describe_card(second)}"
                    self._fault(path, f"two cards can price {meter} for one request: {cards_named}")

    def _check_aliases(self, aliases: Mapping[str, str], models: Mapping[str, ModelPrice]) -> None:
        for alias, model in aliases.items():
            if model not in models:
                self._fault(("aliases", alias), f"unknown model {model!r}")
            # resolve() looks an alias up first, and would never find the prices of a model with the same name.
            if alias in models:
                self._fault(("aliases", alias), "is a model with prices of its own")

    def _fault(self, path: Path, rule: str) -> None:
        self._faults.append(self._document.fault(path, rule))


def _token_limits(section: Any) -> TokenLimits | None:
    return None if section is None else TokenLimits(section["context_tokens"], section["max_output_tokens"])


def _conditions(when: Mapping[str, Any]) -> Conditions:
    limits = when.get("input_tokens", {})
    accepted = tuple(
        (name, frozenset([value] if isinstance(value, str) else value))
        for name, value in when.items()
        if name != "input_tokens"
    )
    return Conditions(accepted, limits.get("over"), limits.get("up_to"))


def _by_meter(cards: Iterable[PriceCard]) -> dict[Meter, tuple[PriceCard, ...]]:
    found: defaultdict[Meter, list[PriceCard]] = defaultdict(list)
    for card in cards:
        for meter in card.prices:
            found[meter].append(card)
    return {meter: tuple(meter_cards) for meter, meter_cards in found.items()}


def _describe_card(card: PriceCard) -> str:
    terms = [f"{name} {'/'.join(sorted(values))}" for name, values in card.conditions.accepted]
    return f"the card for {', '.join(terms)}" if terms else "the card without conditions"
