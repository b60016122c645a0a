"""What of a comparison can be written into a price file, and why the rest cannot.

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
from tornado_proxy.pricing.book.price import UNITS, ModelPrice, RateCard
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.pricing.lists.comparison import Compared, Finding
from tornado_proxy.pricing.lists.price_edits import Card, CardEdit, Edit, NewCard, NewModel, decimal_text
from tornado_proxy.pricing.lists.price_list import ListedModel, ListedPrice


@dataclass(frozen=True, slots=True)
class Import:
    """How to write: under which `source`, since when the prices hold (None: they were wrong), where new models go."""

    source: str
    today: date
    effective_from: date | None = None
    endpoints: tuple[str, ...] = ()


@dataclass(slots=True)
class Plan:
    """Edits by provider, and what cannot be written with the reason."""

    edits: defaultdict[str, list[Edit]] = field(default_factory=lambda: defaultdict(list))
    refused: list[tuple[Compared, str]] = field(default_factory=list)


def plan_import(book: PriceBook, compared: Sequence[Compared], chosen: Iterable[Compared], how: Import) -> Plan:
    """The edits that take over the `chosen` ones of all that was `compared`."""
    plan = Plan()
    picked = list(chosen)
    _change(plan, compared, [one for one in picked if one.finding is Finding.DIFFERS], how)
    _add_cards(plan, book, [one for one in picked if one.finding is Finding.MISSING], how)
    _add_models(plan, [one for one in picked if one.finding is Finding.NEW_MODEL], how)
    plan.refused += [
        (one, f"our price depends on more than the list tells apart; {one.why}")
        for one in picked
        if one.finding is Finding.OTHER_TERMS
    ]
    return plan


def _change(plan: Plan, compared: Sequence[Compared], chosen: Sequence[Compared], how: Import) -> None:
    stated: defaultdict[int, list[Compared]] = defaultdict(list)
    for one in compared:
        if one.entry is not None:
            stated[id(one.entry.card)].append(one)
    by_card: defaultdict[int, list[Compared]] = defaultdict(list)
    for one in chosen:
        assert one.entry is not None
        reason = _why_not(one, stated[id(one.entry.card)])
        if reason:
            plan.refused.append((one, reason))
        else:
            by_card[id(one.entry.card)].append(one)
    for key, ones in by_card.items():
        plan.edits[ones[0].listed_model.provider].append(_card_edit(ones, stated[key], how))


def _why_not(one: Compared, stated: Sequence[Compared]) -> str:
    entry = one.entry
    assert entry is not None
    if _own_index(entry.model, entry.card) is None:
        return "the price stands on a card that several models share; change it in shared_rates"
    if entry.modifiers:
        return f"the price is made by the modifier {entry.modifiers[0].name}; change it there"
    prices = {other.listed.price for other in stated if other.listed.meter is one.listed.meter}
    if len(prices) > 1:
        return "the list has several prices for what one card prices here; split the card"
    if decimal_text(one.listed.price) == "0":
        return "the price has more decimals than a price file can hold; choose a larger unit"
    return ""


def _card_edit(ones: Sequence[Compared], stated: Sequence[Compared], how: Import) -> CardEdit:
    entry = ones[0].entry
    assert entry is not None
    card, index = entry.card, _own_index(entry.model, entry.card)
    assert index is not None
    prices = {one.listed.meter.value: _in_unit(one.listed, card.unit) for one in ones}
    whole = set(card.prices) <= {one.listed.meter for one in stated}
    source = how.source if whole else f"{card.source}; {', '.join(prices)}: {how.source}, {how.today}"
    since = None if how.effective_from is None else how.effective_from.isoformat()
    return CardEdit(entry.model.name, index, prices, source, how.today.isoformat() if whole else None, since)


def _own_index(model: ModelPrice, card: RateCard) -> int | None:
    """Which of the model's own cards it is; its shared ones come after them."""
    return next((number for number, own in enumerate(model.cards[: model.own_cards]) if own is card), None)


def _in_unit(listed: ListedPrice, unit: str) -> Decimal:
    return listed.price * UNITS[unit] / UNITS[listed.unit]


def _add_cards(plan: Plan, book: PriceBook, missing: Sequence[Compared], how: Import) -> None:
    by_model: defaultdict[tuple[str, str], list[Compared]] = defaultdict(list)
    for one in missing:
        ours = book.resolve(one.listed_model.provider, one.listed_model.name)
        assert ours is not None, "a model of ours"
        by_model[one.listed_model.provider, ours.name].append(one)
    for (provider, name), ones in by_model.items():
        model = book.resolve(provider, name)
        assert model is not None
        prices = list(dict.fromkeys(one.listed for one in ones))
        plan.edits[provider] += [NewCard(name, card) for card in _cards(prices, _spelled(model, prices), how)]


def _spelled(model: ModelPrice, prices: Sequence[ListedPrice]) -> set[str]:
    """The terms that the model's cards in the same units tell apart."""
    units = {one.unit for one in prices}
    cards = [card for card in model.cards if card.unit in units]
    return {term for card in cards for term, _ in card.conditions.accepted if term in DEFAULTED_TERMS} | {
        "service_tier"
    }


def _add_models(plan: Plan, new: Sequence[Compared], how: Import) -> None:
    for model in dict.fromkeys(one.listed_model for one in new):
        endpoints = how.endpoints or model.endpoints
        if not endpoints:
            first = next(one for one in new if one.listed_model is model)
            plan.refused.append(
                (first, "the list does not say on which endpoints it is served; name them (--endpoint)")
            )
            continue
        plan.edits[model.provider].append(_new_model(model, endpoints, how))


def _new_model(model: ListedModel, endpoints: Sequence[str], how: Import) -> NewModel:
    return NewModel(model.name, endpoints, _cards(model.prices, {"service_tier"}, how), model.shutdown_date)


def _cards(prices: Sequence[ListedPrice], spelled: set[str], how: Import) -> list[Card]:
    """Cards of all meters that share their terms.  Default terms are spelled out where the file tells them apart."""
    since = None if how.effective_from is None else how.effective_from.isoformat()
    limits: dict[object, int] = {(one.meter, one.terms): one.over for one in prices if one.over is not None}
    grouped: defaultdict[tuple[str, tuple[tuple[str, object], ...]], dict[str, Decimal]] = defaultdict(dict)
    for one in prices:
        terms: dict[str, object] = {name: getattr(DEFAULT_TERMS, name) for name in DEFAULTED_TERMS if name in spelled}
        terms.update(one.terms)
        limit = limits.get((one.meter, one.terms))
        if limit is not None:
            terms["input_tokens"] = ("up_to" if one.over is None else "over", limit)
        grouped[one.unit, tuple(terms.items())][one.meter.value] = one.price
    return [
        Card(_when(terms), unit, meters, how.source, how.today.isoformat(), since)
        for (unit, terms), meters in grouped.items()
    ]


def _when(terms: Iterable[tuple[str, object]]) -> dict[str, object]:
    return {name: {word[0]: word[1]} if isinstance(word, tuple) else word for name, word in terms}
