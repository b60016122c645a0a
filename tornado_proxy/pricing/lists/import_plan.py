"""Plans which compared prices can be written into a price file, and says why the others cannot.

differs    ── the model's own card, one listed price for it ──> new price, or an end and a beginning
missing    ── a model of ours ───────────────────────────────> new card
new model  ── the list, or the operator, names endpoints ────> new model
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from tornado_proxy.domain.terms import DEFAULT_TERMS, DEFAULTED_TERMS
from tornado_proxy.pricing.book.price import UNITS, ModelPrice, PriceCard
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.pricing.lists.comparison import ComparedPrice, Finding
from tornado_proxy.pricing.lists.price_edits import Card, CardEdit, Edit, NewCard, NewModel, decimal_text
from tornado_proxy.pricing.lists.price_list import ListedModel, ListedPrice


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """The source to write, the first day of the new prices (None: ours were wrong), the endpoints of new models."""

    source: str
    today: date
    effective_from: date | None = None
    endpoints: tuple[str, ...] = ()

    @property
    def effective_from_text(self) -> str | None:
        """The first day as the price files write it."""
        return None if self.effective_from is None else self.effective_from.isoformat()


@dataclass(slots=True)
class ImportPlan:
    """Edits by provider, and the prices that cannot be written, each with the reason."""

    edits: defaultdict[str, list[Edit]] = field(default_factory=lambda: defaultdict(list))
    refused: list[tuple[ComparedPrice, str]] = field(default_factory=list)


def plan_import(
    book: PriceBook, compared: Sequence[ComparedPrice], chosen: Iterable[ComparedPrice], options: ImportOptions
) -> ImportPlan:
    """Return the edits that import the `chosen` prices.  `compared` are all prices of the list."""
    plan = ImportPlan()
    selected = list(chosen)
    _change_cards(plan, compared, _with_finding(selected, Finding.DIFFERS), options)
    _add_cards(plan, book, _with_finding(selected, Finding.MISSING), options)
    _add_models(plan, _with_finding(selected, Finding.NEW_MODEL), options)
    plan.refused += [
        (price, f"our price depends on more terms than the list distinguishes; {price.why}")
        for price in _with_finding(selected, Finding.OTHER_TERMS)
    ]
    return plan


def _with_finding(prices: Iterable[ComparedPrice], finding: Finding) -> list[ComparedPrice]:
    return [price for price in prices if price.finding is finding]


def _change_cards(
    plan: ImportPlan, compared: Sequence[ComparedPrice], chosen: Sequence[ComparedPrice], options: ImportOptions
) -> None:
    # Cards are grouped by identity: two cards of a model can be equal, and each edit must change its own.
    listed_by_card: defaultdict[int, list[ComparedPrice]] = defaultdict(list)
    for price in compared:
        if price.entry is not None:
            listed_by_card[id(price.entry.card)].append(price)
    chosen_by_card: defaultdict[int, list[ComparedPrice]] = defaultdict(list)
    for price in chosen:
        assert price.entry is not None
        reason = _find_obstacle(price, listed_by_card[id(price.entry.card)])
        if reason:
            plan.refused.append((price, reason))
        else:
            chosen_by_card[id(price.entry.card)].append(price)
    for key, prices in chosen_by_card.items():
        plan.edits[prices[0].listed_model.provider].append(_edit_card(prices, listed_by_card[key], options))


def _find_obstacle(price: ComparedPrice, listed: Sequence[ComparedPrice]) -> str:
    """Return why a price cannot be written on its card, "" if it can."""
    entry = price.entry
    assert entry is not None
    if _own_index(entry.model, entry.card) is None:
        return "the price is on a card that several models share; change it in shared_rates"
    if entry.modifiers:
        return f"the price is multiplied by the modifier {entry.modifiers[0].name}; change it there"
    prices = {other.listed.price for other in listed if other.listed.meter is price.listed.meter}
    if len(prices) > 1:
        return "the list has several prices where one card has one; split the card"
    if decimal_text(price.listed.price) == "0":
        return "the price has more decimals than a price file can hold; choose a larger unit"
    return ""


def _edit_card(prices: Sequence[ComparedPrice], listed: Sequence[ComparedPrice], options: ImportOptions) -> CardEdit:
    entry = prices[0].entry
    assert entry is not None
    card, index = entry.card, _own_index(entry.model, entry.card)
    assert index is not None
    new_prices = {price.listed.meter.value: _convert_unit(price.listed, card.unit) for price in prices}
    # A card that the list covers only in part keeps its date: its other prices have not been read again.
    covered = set(card.prices) <= {price.listed.meter for price in listed}
    partial_source = f"{card.source}; {', '.join(new_prices)}: {options.source}, {options.today}"
    return CardEdit(
        entry.model.name,
        index,
        new_prices,
        source=options.source if covered else partial_source,
        checked=options.today.isoformat() if covered else None,
        effective_from=options.effective_from_text,
    )


def _own_index(model: ModelPrice, card: PriceCard) -> int | None:
    """Return the index of `card` among the model's own cards, None if it is a shared card."""
    return next((number for number, own in enumerate(model.cards[: model.own_cards]) if own is card), None)


def _convert_unit(listed: ListedPrice, unit: str) -> Decimal:
    return listed.price * UNITS[unit] / UNITS[listed.unit]


def _add_cards(plan: ImportPlan, book: PriceBook, missing: Sequence[ComparedPrice], options: ImportOptions) -> None:
    by_model: defaultdict[tuple[str, str], list[ComparedPrice]] = defaultdict(list)
    for price in missing:
        our_model = book.resolve(price.listed_model.provider, price.listed_model.name)
        assert our_model is not None, "only a price of a known model can be missing"
        by_model[price.listed_model.provider, our_model.name].append(price)
    for (provider, name), prices in by_model.items():
        model = book.resolve(provider, name)
        assert model is not None
        # A list repeats a price under each alias of a model.
        listed = list(dict.fromkeys(price.listed for price in prices))
        plan.edits[provider] += [NewCard(name, card) for card in _cards(listed, _spelled_terms(model, listed), options)]


def _spelled_terms(model: ModelPrice, prices: Sequence[ListedPrice]) -> set[str]:
    """Return the terms that the model's cards in the same units distinguish: new cards must name them too."""
    units = {price.unit for price in prices}
    cards = [card for card in model.cards if card.unit in units]
    distinguished = {name for card in cards for name, _ in card.conditions.accepted}
    return {name for name in distinguished if name in DEFAULTED_TERMS} | {"service_tier"}


def _add_models(plan: ImportPlan, new: Sequence[ComparedPrice], options: ImportOptions) -> None:
    for model in dict.fromkeys(price.listed_model for price in new):
        endpoints = options.endpoints or model.endpoints
        if not endpoints:
            first = next(price for price in new if price.listed_model is model)
            plan.refused.append((first, "the list does not name the endpoints that serve it; use --endpoint"))
            continue
        plan.edits[model.provider].append(_new_model(model, endpoints, options))


def _new_model(model: ListedModel, endpoints: Sequence[str], options: ImportOptions) -> NewModel:
    return NewModel(model.name, endpoints, _cards(model.prices, {"service_tier"}, options), model.shutdown_date)


def _cards(prices: Sequence[ListedPrice], spelled: set[str], options: ImportOptions) -> list[Card]:
    """Return one card for all meters with the same unit and terms.  `spelled` default terms are written out."""
    limits: dict[object, int] = {(price.meter, price.terms): price.over for price in prices if price.over is not None}
    grouped: defaultdict[tuple[str, tuple[tuple[str, object], ...]], dict[str, Decimal]] = defaultdict(dict)
    for price in prices:
        terms: dict[str, object] = {name: getattr(DEFAULT_TERMS, name) for name in DEFAULTED_TERMS if name in spelled}
        terms.update(price.terms.pairs())
        limit = limits.get((price.meter, price.terms))
        # A price above a limit bounds the other price of the same meter and terms: the two cards must not overlap.
        if limit is not None:
            terms["input_tokens"] = ("up_to" if price.over is None else "over", limit)
        grouped[price.unit, tuple(terms.items())][price.meter.value] = price.price
    return [
        Card(_when(terms), unit, meters, options.source, options.today.isoformat(), options.effective_from_text)
        for (unit, terms), meters in grouped.items()
    ]


def _when(terms: Iterable[tuple[str, object]]) -> dict[str, object]:
    return {name: {value[0]: value[1]} if isinstance(value, tuple) else value for name, value in terms}
