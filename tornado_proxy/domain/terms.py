"""The terms of a request: service tier, speed, region and the other words that select a price card.

    request or response words ──> Terms ──> price book: registry words, DEFAULT_TERMS for the rest
                                              │ find the card
                                              └──> line item: text pairs that differ from the default

The length of the input also selects a card.  It is a number of its own (`context_tokens`), because it differs with
every request: as part of this value it would make every cached price quote unique.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace


# cache_hash: terms are part of the keys under which prices are found.
class Terms(msgspec.Struct, frozen=True, cache_hash=True):
    """The terms that a request asks for, or that a response states.  None means not stated.

    The field names are those of `when` in schemas/prices.schema.json, which describes each, except for `cache_ttl`:
    how long the provider is asked to keep cached input ("12h").  It selects the meter, not the card of a meter, and
    therefore appears in no pair of a line item.
    """

    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None
    provider_region: str | None = None
    tool: str | None = None
    memory_limit: str | None = None
    size: str | None = None
    quality: str | None = None
    session_state: str | None = None
    completion_window: str | None = None
    cache_ttl: str | None = None

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[str, str]]) -> Terms:
        """Return the terms of the text pairs of a line item or a price list.

        Ignore names that this version does not know: no card can depend on them.
        """
        return cls(**{name: value for name, value in pairs if name in CARD_TERMS})

    def override(self, other: Terms) -> Terms:
        """Return these terms with every term that `other` states in place of their own."""
        stated = {name: value for name in _NAMES if (value := getattr(other, name)) is not None}
        return replace(self, **stated) if stated else self

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Return the stated terms that can select a card as (name, value), sorted by name."""
        return tuple((name, value) for name in CARD_TERMS if (value := getattr(self, name)) is not None)

    def non_default_pairs(self) -> tuple[tuple[str, str], ...]:
        """Return the pairs that differ from DEFAULT_TERMS: the form that line items store."""
        return tuple((name, value) for name, value in self.pairs() if getattr(DEFAULT_TERMS, name) != value)


_NAMES = Terms.__struct_fields__

#: Names of the terms that a price card can depend on, sorted: line items and error messages list them in this order.
CARD_TERMS = tuple(sorted(name for name in _NAMES if name != "cache_ttl"))

#: Terms that a request chooses and that change the price, though cards without them match as well: a request with one
#: is admitted only if a card or a modifier of the model names it.
NAMED_TERMS = ("completion_window",)

#: No term is stated.
NO_TERMS = Terms()


def make_terms(
    service_tier: str | None = None,
    speed: str | None = None,
    inference_geo: str | None = None,
    cache_ttl: str | None = None,
    completion_window: str | None = None,
) -> Terms:
    """Return the terms of a request.  Most state none and share one object, so that lookups compare by identity."""
    if service_tier is speed is inference_geo is cache_ttl is completion_window is None:
        return NO_TERMS
    return Terms(service_tier, speed, inference_geo, cache_ttl=cache_ttl, completion_window=completion_window)


#: The values of unstated terms, in the words that price cards use.
DEFAULT_TERMS = Terms(service_tier="standard", speed="standard", memory_limit="1g")

#: Names of the terms with a default, in the order in which new price cards are written.
DEFAULTED_TERMS = tuple(name for name in _NAMES if getattr(DEFAULT_TERMS, name) is not None)
