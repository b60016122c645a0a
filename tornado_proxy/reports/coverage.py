"""Checks that prices cover the served endpoints: admission of plain requests, and gaps between price cards.  Pure.

The requests have the form that a client would send, for each model on each of its endpoints and tiers.  They find a
missing price before a client does.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from tornado_proxy.domain.config.document import Document
from tornado_proxy.domain.config.fault import Fault
from tornado_proxy.domain.errors import CallerError
from tornado_proxy.domain.terms import DEFAULT_TERMS, Terms
from tornado_proxy.domain.usage import Meter
from tornado_proxy.pricing.book.price import Conditions, ModelPrice, PriceCard
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.providers.contract import HttpEndpoint, Provider, RequestView
from tornado_proxy.providers.registry import PROVIDERS

_PROVIDERS: Mapping[str, Provider] = {provider.name: provider for provider in PROVIDERS}

#: Endpoints whose bodies are forms.
_FORMS = ("/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/edits", "/v1/images/variations")

#: Endpoints whose requests have a tier or a speed.
_TIERED = ("/v1/chat/completions", "/v1/responses", "/v1/messages")

#: Endpoints below this path open a session and describe every model in it, so no plain request of one model exists.
_SESSIONS = "/v1/realtime"

#: The tier of whole batches.  No request can ask for it.
_BATCH = "batch"

#: Meters of input that is written to a cache -> those of its other lifetimes, of which a request chooses one.
_CACHE_LIFETIMES: Mapping[Meter, tuple[Meter, ...]] = {
    Meter.CACHE_WRITE: (Meter.CACHE_WRITE_12H,),
    Meter.CACHE_WRITE_12H: (Meter.CACHE_WRITE,),
    Meter.CACHE_WRITE_5M: (Meter.CACHE_WRITE_1H,),
    Meter.CACHE_WRITE_1H: (Meter.CACHE_WRITE_5M,),
}

#: The terms of a request that select a tier.
_TIER_TERMS = ("service_tier", "speed")

_BOUNDARY = "----price-check"


def find_coverage_faults(documents: Sequence[Document], book: PriceBook, now: datetime) -> list[Fault]:
    """Return models that are past their shutdown, would be rejected, or have gaps between cards, sorted by file."""
    faults: list[Fault] = []
    for document in documents:
        sections = _model_sections(document)
        for model in book.models(provider_of(document)):
            rules = [*_find_missed_shutdown(sections[model.name], model, now.date())]
            if model.status != "retired":
                rules += [*_find_rejections(book, model, now), *_find_gaps(model, now)]
            # Endpoints and tiers often lack the same price: one fault each is enough.
            faults += [document.fault(("models", model.name), rule) for rule in dict.fromkeys(rules)]
    return sorted(faults)


def find_stale_cards(documents: Sequence[Document], today: date, max_age_days: int) -> list[Fault]:
    """Return the cards of served models that were last checked more than `max_age_days` ago."""
    oldest = (today - timedelta(days=max_age_days)).isoformat()
    return sorted(
        document.fault(("models", name, "rates", number), f"was last checked on {card['checked']}")
        for document in documents
        for name, section in _model_sections(document).items()
        if section["status"] != "retired"
        for number, card in enumerate(section["rates"])
        if card["checked"] < oldest
    )


def find_ending_prices(documents: Sequence[Document], book: PriceBook, now: datetime) -> list[Fault]:
    """Return prices that end on a known day, or have ended, and have no successor."""
    return sorted(
        {
            document.fault(("models", model.name), rule)
            for document in documents
            for model in book.models(provider_of(document))
            if model.status != "retired"
            for rule in _find_endings(model, now)
        }
    )


def find_uneven_prices(documents: Sequence[Document], book: PriceBook, now: datetime) -> list[Fault]:
    """Return meters that can be charged on terms that a request can ask for together, and have no price on them.

    A meter can be charged on all terms of a model if it has a price on some of them; so can each lifetime of cached
    input.  Usage of such a meter is recorded without a cost.
    """
    return sorted(
        document.fault(("models", model.name), rule)
        for document in documents
        for model in book.models(provider_of(document))
        if model.status != "retired"
        for rule in _find_uneven_meters(model, now)
    )


def provider_of(document: Document) -> str:
    """Return the name of the provider in a price document that is valid against its schema."""
    content: Any = document.content
    return str(content["provider"])


def _model_sections(document: Document) -> Mapping[str, Any]:
    content: Any = document.content
    sections: Mapping[str, Any] = content["models"]
    return sections


def _find_uneven_meters(model: ModelPrice, now: datetime) -> Iterator[str]:
    priced = {terms: _priced_meters(model, terms, now) for terms in _requestable_terms(model, now)}
    standard, everywhere = priced.get(DEFAULT_TERMS, frozenset()), frozenset[Meter]().union(*priced.values())
    for terms, meters in priced.items():
        described = _describe_pairs(terms.non_default_pairs()) or "the standard terms"
        for source, expected in (("the standard terms", standard), ("other terms", everywhere - standard)):
            missing = sorted(expected - meters)
            if missing:
                yield f"no price on {described} for {', '.join(missing)}, which {source} have a price for"
        for meter in sorted(meters):
            # A lifetime that has no price on any terms: the comparison of terms cannot find it.
            for other in _CACHE_LIFETIMES.get(meter, ()):
                if other not in everywhere:
                    yield f"no price on {described} for {other}, which requests can ask for in place of {meter}"


def _priced_meters(model: ModelPrice, terms: Terms, now: datetime) -> frozenset[Meter]:
    return frozenset(meter for meter in model.by_meter if model.find(meter, terms, 0, now))


def _requestable_terms(model: ModelPrice, now: datetime) -> Iterator[Terms]:
    """Yield the combinations of terms that a request can ask for together and that are not refused.

    A combination without a price for input is refused at admission.
    """
    current = [card for card in model.by_meter.get(Meter.INPUT, ()) if card.covers(now)]
    values: defaultdict[str, set[str | None]] = defaultdict(set)
    for name, value in (pair for card in current for pair in _pairs(card.conditions)):
        values[name] |= {value, getattr(DEFAULT_TERMS, name)}
    for combination in itertools.product(*(sorted(values[name], key=str) for name in values)):
        stated = [(name, value) for name, value in zip(values, combination, strict=True) if value is not None]
        terms = DEFAULT_TERMS.override(Terms.from_pairs(stated))
        if model.find(Meter.INPUT, terms, 0, now):
            yield terms


def _find_endings(model: ModelPrice, now: datetime) -> Iterator[str]:
    ended: defaultdict[tuple[str, datetime], list[str]] = defaultdict(list)
    for meter, cards in model.by_meter.items():
        for card in cards:
            ends = card.effective_until
            if ends is None or (ends > now and not card.covers(now)):
                continue
            context_tokens = 0 if card.conditions.over is None else card.conditions.over + 1
            # `ends` is the first time without the card: a successor must match from then on.
            if not model.find(meter, _terms_of(card), context_tokens, max(ends, now)):
                ended[_describe_terms(card), ends].append(meter.value)
    for (terms, ends), meters in ended.items():
        yield f"no price on {terms} from {ends:%Y-%m-%d} on for {', '.join(meters)}"


def _find_missed_shutdown(section: Mapping[str, Any], model: ModelPrice, today: date) -> Iterator[str]:
    shutdown = section.get("shutdown_date")
    if shutdown is not None and shutdown <= today.isoformat() and model.status != "retired":
        yield f"is {model.status}, but was shut down on {shutdown}; set its status to retired"


def _find_rejections(book: PriceBook, model: ModelPrice, now: datetime) -> Iterator[str]:
    """Yield the errors of plain requests for the model."""
    for endpoint in _PROVIDERS[model.provider].endpoints:
        priced_as = endpoint.priced_as or endpoint.path
        if not isinstance(endpoint, HttpEndpoint) or endpoint.method != "POST" or endpoint.parse is None:
            continue
        if priced_as not in model.endpoints or priced_as.startswith(_SESSIONS):
            continue
        for members in _request_variants(model, endpoint, now):
            # The real parser names the spends, so that new meters of an endpoint are checked without a change here.
            try:
                for spend in endpoint.parse(_plain_request(endpoint, model.name, members)).facts.spends:
                    book.admit(model.provider, priced_as, spend, now)
            except CallerError as error:
                variant = ", ".join(f"{name} {value}" for name, value in members.items())
                yield f"{endpoint.path}{f' ({variant})' if variant else ''} is refused: {error.message}"


def _request_variants(model: ModelPrice, endpoint: HttpEndpoint, now: datetime) -> Iterator[dict[str, str]]:
    """Yield members of requests: none, then each tier and speed for which the model's input has a price of its own.

    Those whose prices have ended are no longer offered: find_ending_prices() reports them.
    """
    yield {}
    if endpoint.path not in _TIERED:
        return
    current = [card for card in model.by_meter.get(Meter.INPUT, ()) if card.covers(now)]
    pairs = {pair for card in current for pair in _pairs(card.conditions)}
    for name, value in sorted(pairs):
        if name in _TIER_TERMS and value not in (getattr(DEFAULT_TERMS, name), _BATCH):
            yield {name: value}


def _plain_request(endpoint: HttpEndpoint, model: str, members: Mapping[str, str]) -> RequestView:
    """Return a plain request for `model`.  It has the members of every endpoint: parsers ignore those of others."""
    if endpoint.path in _FORMS:
        part = f"--{_BOUNDARY}\r\nContent-Disposition: form-data; name="
        form = f'{part}"model"\r\n\r\n{model}\r\n{part}"prompt"\r\n\r\nx\r\n'
        file = f'{part}"file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\nx\r\n'
        return RequestView(f"{form}{file}--{_BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={_BOUNDARY}")
    message = {"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1, **members}
    plain = {**message, "input": "x", "prompt": "x", "voice": "alloy"}
    batch = {"requests": [{"custom_id": "x", "params": message}]}
    body = batch if endpoint.path.endswith("/batches") else plain
    return RequestView(json.dumps(body).encode(), "application/json")


def _find_gaps(model: ModelPrice, at: datetime) -> Iterator[str]:
    """Yield input lengths without a price, between cards that have the same terms otherwise."""
    for meter, cards in model.by_meter.items():
        current = [card for card in cards if card.covers(at)]
        limits = {
            limit for card in current for limit in (card.conditions.over, card.conditions.up_to) if limit is not None
        }
        # Prices change at the limits only, so each limit and its successor cover all input lengths.
        lengths = sorted({0, *limits, *(limit + 1 for limit in limits)})
        for card in current:
            terms = _terms_of(card)
            missing = [length for length in lengths if not model.find(meter, terms, length, at)]
            if missing:
                yield f"{meter} has no price on {_describe_terms(card)} for {missing[0]} input tokens"


def _terms_of(card: PriceCard) -> Terms:
    """Return terms that meet the conditions of a card."""
    return DEFAULT_TERMS.override(Terms.from_pairs(_pairs(card.conditions)))


def _pairs(conditions: Conditions) -> Iterator[tuple[str, str]]:
    for name, values in conditions.accepted:
        for value in sorted(values):
            yield name, value


def _describe_terms(card: PriceCard) -> str:
    return _describe_pairs(_pairs(card.conditions)) or "all terms"


def _describe_pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {value}" for name, value in pairs)
