"""Whether prices cover what is served: plain requests put to the real admission, and gaps between cards.  Pure.

The requests are made as a client would, for each model on each of its endpoints and tiers; what admission would refuse
at noon of a working day is better known in the morning.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from tornado_proxy.domain.document import Document
from tornado_proxy.domain.errors import CallerError, Fault
from tornado_proxy.domain.terms import DEFAULT_TERMS, Terms
from tornado_proxy.domain.usage import Meter
from tornado_proxy.pricing.book.price import Conditions, ModelPrice, RateCard
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.providers.contract import HttpEndpoint, Provider, RequestView
from tornado_proxy.providers.registry import PROVIDERS

_PROVIDERS: Mapping[str, Provider] = {provider.name: provider for provider in PROVIDERS}

#: Endpoints whose bodies are forms.
_FORMS = ("/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/edits", "/v1/images/variations")

#: Endpoints whose requests take a tier or a speed.
_TIERED = ("/v1/chat/completions", "/v1/responses", "/v1/messages")

#: What opens a session, here or below, describes all that it may use: there is no plain request of one model.
_SESSIONS = "/v1/realtime"

#: A tier of whole batches, which no request asks for by its word.
_BATCH = "batch"

_BOUNDARY = "----price-check"


def coverage_faults(documents: Sequence[Document], book: PriceBook, now: datetime) -> list[Fault]:
    """What would be refused or left unpriced, with the file and line of the model it is about."""
    found: list[Fault] = []
    for document in documents:
        content: Any = document.content
        for model in book.models(content["provider"]):
            words = [
                *_life(content["models"][model.name], model, now.date()),
                *(() if model.status == "retired" else _refusals(book, model, now)),
                *(() if model.status == "retired" else _gaps(model, now)),
            ]
            found += [document.fault(("models", model.name), word) for word in dict.fromkeys(words)]
    return sorted(found)


def stale_cards(documents: Sequence[Document], today: date, max_age_days: int) -> list[Fault]:
    """Own cards of models still served that nobody has checked for longer."""
    oldest = (today - timedelta(days=max_age_days)).isoformat()
    return sorted(
        document.fault(("models", name, "rates", number), f"was last checked on {card['checked']}")
        for document in documents
        for name, section in _models(document).items()
        if section["status"] != "retired"
        for number, card in enumerate(section["rates"])
        if card["checked"] < oldest
    )


def ending_prices(documents: Sequence[Document], book: PriceBook, now: datetime) -> list[Fault]:
    """Prices of today that end on a known day, with no card for the same terms after them."""
    return sorted(
        {
            document.fault(("models", model.name), word)
            for document in documents
            for model in book.models(_provider(document))
            if model.status != "retired"
            for word in _endings(model, now)
        }
    )


def uneven_prices(documents: Sequence[Document], book: PriceBook, now: datetime) -> list[Fault]:
    """Meters that a model's standard terms have a price for and one of its tiers or speeds has none.

    Usage that states some there is kept, and its cost is not known.
    """
    return sorted(
        document.fault(("models", model.name), word)
        for document in documents
        for model in book.models(_provider(document))
        if model.status != "retired"
        for word in _uneven(model, now)
    )


def _uneven(model: ModelPrice, now: datetime) -> Iterator[str]:
    usual = [meter for meter in model.by_meter if model.find(meter, DEFAULT_TERMS, 0, now)]
    words = {
        pair for card in model.by_meter.get(Meter.INPUT, ()) if card.covers(now) for pair in _pairs(card.conditions)
    }
    for name, word in sorted(words):
        if name not in ("service_tier", "speed") or word == getattr(DEFAULT_TERMS, name):
            continue
        missing = [
            meter
            for meter in usual
            if not model.find(meter, DEFAULT_TERMS.override(Terms.from_pairs([(name, word)])), 0, now)
        ]
        if missing:
            yield f"no price on {name} {word} for {', '.join(missing)}, which the standard terms have a price for"


def _endings(model: ModelPrice, now: datetime) -> Iterator[str]:
    ended: defaultdict[tuple[str, datetime], list[str]] = defaultdict(list)
    for meter, cards in model.by_meter.items():
        for card in cards:
            ends = card.effective_until
            if ends is None or not card.covers(now):
                continue
            terms = DEFAULT_TERMS.override(Terms.from_pairs(_pairs(card.conditions)))
            context = 0 if card.conditions.over is None else card.conditions.over + 1
            if not model.find(meter, terms, context, ends):
                ended[_words(card), ends].append(meter.value)
    for (words, ends), meters in ended.items():
        yield f"no price on {words} from {ends:%Y-%m-%d} on for {', '.join(meters)}"


def _provider(document: Document) -> str:
    content: Any = document.content
    return str(content["provider"])


def _models(document: Document) -> Mapping[str, Any]:
    content: Any = document.content
    models: Mapping[str, Any] = content["models"]
    return models


def _life(section: Mapping[str, Any], model: ModelPrice, today: date) -> Iterator[str]:
    shutdown = section.get("shutdown_date")
    if shutdown is not None and shutdown <= today.isoformat() and model.status != "retired":
        yield f"is {model.status}, but was shut down on {shutdown}; its status is retired"


def _refusals(book: PriceBook, model: ModelPrice, now: datetime) -> Iterator[str]:
    """What admission says to plain requests for the model."""
    for endpoint in _PROVIDERS[model.provider].endpoints:
        priced_as = endpoint.priced_as or endpoint.path
        if not isinstance(endpoint, HttpEndpoint) or endpoint.method != "POST" or endpoint.parse is None:
            continue
        if priced_as not in model.endpoints or priced_as.startswith(_SESSIONS):
            continue
        for asked in _variants(model, endpoint):
            try:
                for spend in endpoint.parse(_request(endpoint, model.name, asked)).facts.spends:
                    book.admit(model.provider, priced_as, spend, now)
            except CallerError as error:
                words = ", ".join(f"{name} {word}" for name, word in asked.items())
                yield f"{endpoint.path}{f' ({words})' if words else ''} is refused: {error.message}"


def _variants(model: ModelPrice, endpoint: HttpEndpoint) -> Iterator[dict[str, str]]:
    """The words of requests: none, then each tier and speed that the model's input has a price of its own for."""
    yield {}
    if endpoint.path not in _TIERED:
        return
    words = {pair for card in model.by_meter.get(Meter.INPUT, ()) for pair in _pairs(card.conditions)}
    for name, word in sorted(words):
        if name in ("service_tier", "speed") and word not in (getattr(DEFAULT_TERMS, name), _BATCH):
            yield {name: word}


def _pairs(conditions: Conditions) -> Iterator[tuple[str, str]]:
    for name, accepted in conditions.accepted:
        for word in sorted(accepted):
            yield name, word


def _request(endpoint: HttpEndpoint, model: str, asked: Mapping[str, str]) -> RequestView:
    """Return a plain request for `model`."""
    if endpoint.path in _FORMS:
        part = f"--{_BOUNDARY}\r\nContent-Disposition: form-data; name="
        form = f'{part}"model"\r\n\r\n{model}\r\n{part}"prompt"\r\n\r\nx\r\n'
        file = f'{part}"file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\nx\r\n'
        return RequestView(f"{form}{file}--{_BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={_BOUNDARY}")
    asks = {"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1, **asked}
    plain = {**asks, "input": "x", "prompt": "x", "voice": "alloy"}
    batch = {"requests": [{"custom_id": "x", "params": asks}]}
    body = batch if endpoint.path.endswith("/batches") else plain
    return RequestView(json.dumps(body).encode(), "application/json")


def _gaps(model: ModelPrice, at: datetime) -> Iterator[str]:
    """Input lengths that lie between cards which otherwise hold on the same terms."""
    for meter, cards in model.by_meter.items():
        current = [card for card in cards if card.covers(at)]
        edges = {
            limit for card in current for limit in (card.conditions.over, card.conditions.up_to) if limit is not None
        }
        contexts = sorted({0, *edges, *(edge + 1 for edge in edges)})
        for card in current:
            terms = DEFAULT_TERMS.override(Terms.from_pairs(_pairs(card.conditions)))
            missing = [context for context in contexts if not model.find(meter, terms, context, at)]
            if missing:
                yield f"{meter} has no price on {_words(card)} for {missing[0]} input tokens"


def _words(card: RateCard) -> str:
    return ", ".join(f"{name} {word}" for name, word in _pairs(card.conditions)) or "all terms"
