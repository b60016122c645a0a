"""The usage that a provider states, as disjoint quantities, before any price is applied.

A *meter* is a quantity with a price; a *usage item* is one statement of usage that is priced once, at one model.
Meters are disjoint: `input_tokens` never contains tokens of `cached_input_tokens` or `input_audio_tokens`.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

import msgspec

from tornado_proxy.domain.terms import NO_TERMS, Terms


class Meter(StrEnum):
    """Names of the quantities that have prices (schemas/prices.schema.json says what each counts)."""

    INPUT = "input_tokens"
    CACHED_INPUT = "cached_input_tokens"
    # Each cache lifetime is a meter, because one response can write to the cache for several lifetimes.
    CACHE_WRITE = "cache_write_tokens"
    CACHE_WRITE_12H = "cache_write_12h_tokens"
    CACHE_WRITE_5M = "cache_write_5m_tokens"
    CACHE_WRITE_1H = "cache_write_1h_tokens"
    OUTPUT = "output_tokens"
    INPUT_AUDIO = "input_audio_tokens"
    CACHED_INPUT_AUDIO = "cached_input_audio_tokens"
    OUTPUT_AUDIO = "output_audio_tokens"
    INPUT_IMAGE = "input_image_tokens"
    CACHED_INPUT_IMAGE = "cached_input_image_tokens"
    OUTPUT_IMAGE = "output_image_tokens"
    INPUT_CHARACTERS = "input_characters"
    AUDIO_SECONDS = "audio_seconds"
    SESSION_SECONDS = "session_seconds"
    IMAGES = "images"
    WEB_SEARCHES = "web_searches"
    WEB_FETCHES = "web_fetches"
    FILE_SEARCHES = "file_searches"
    CONTAINER_SECONDS = "container_seconds"
    CONTAINER_SESSIONS = "container_sessions"
    FREE_CONTAINER_SECONDS = "free_container_seconds"


CACHE_READ_METERS = frozenset({Meter.CACHED_INPUT, Meter.CACHED_INPUT_AUDIO, Meter.CACHED_INPUT_IMAGE})
CACHE_WRITE_METERS = frozenset({Meter.CACHE_WRITE, Meter.CACHE_WRITE_12H, Meter.CACHE_WRITE_5M, Meter.CACHE_WRITE_1H})

#: Meters whose quantities together are the tokens of the input, and those of the output.
INPUT_METERS = frozenset({Meter.INPUT, Meter.INPUT_AUDIO, Meter.INPUT_IMAGE}) | CACHE_READ_METERS | CACHE_WRITE_METERS
OUTPUT_METERS = frozenset({Meter.OUTPUT, Meter.OUTPUT_AUDIO, Meter.OUTPUT_IMAGE})


class Basis(StrEnum):
    """How a record's cost is known (docs/usage.md)."""

    REPORTED = "reported"
    INFERRED = "inferred"
    ESTIMATED = "estimated"
    PENDING = "pending"
    UNSETTLED = "unsettled"
    FREE = "free"


class Quantity(msgspec.Struct, frozen=True):
    """An amount of one meter.  `terms` hold for this quantity alone, such as the tool that ran a search."""

    meter: Meter
    amount: Decimal
    terms: Terms = NO_TERMS


class UsageItem(msgspec.Struct, frozen=True):
    """One statement of usage, priced once, at one model.

    `model` and `terms` are in the response's own words; None if the response does not state them.
    `context_tokens` is the whole input, cached parts included: long-context limits compare with it.
    Tools that run at the provider make several prompts of one request.  `prompts` is the same usage prompt by prompt,
    if the response states it.  `summed` is True if it states only the sum of what can be several prompts.
    `refusal` is the category of a refusal if the model declined without output: not every such prompt is charged.
    """

    quantities: tuple[Quantity, ...]
    model: str | None = None
    terms: Terms = NO_TERMS
    context_tokens: int = 0
    prompts: tuple[UsageItem, ...] = ()
    summed: bool = False
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class ContainerUse:
    """A container that a response used, as its usage reader reports it.

    `terms` select the price of a container that the response can have created; None if it existed before and its price
    is not known.  `note` is the fault that the report states of it.
    """

    container_id: str
    terms: Terms | None
    note: str


class UsageReport(msgspec.Struct, frozen=True):
    """The result of a usage reader for one response.

    `raw` is the provider's usage as compact JSON text (a JSON list if there are several statements); the ledger stores
    it, so that a missing price never loses usage.  `model` is the model that the response names; `object_id` the id of
    the created object, `objects` the ids of other created objects (output items, containers).  `containers` are those
    that ran code: their time is charged by the ledger, which knows earlier uses.  `names_object` is False
    if no later request can name the object: the provider keeps none, or the caller may have chosen the id.
    `failed` is True if the response ends with an error of the provider, though its HTTP status says 200.
    `output_bytes` is the length of the output text if usage is pending or missing.
    `faults` describe statements that do not add up.  `estimate_method` is set if `basis` is ESTIMATED.
    """

    items: tuple[UsageItem, ...] = ()
    basis: Basis = Basis.UNSETTLED
    raw: str | None = None
    model: str | None = None
    object_id: str | None = None
    objects: tuple[str, ...] = ()
    containers: tuple[ContainerUse, ...] = ()
    names_object: bool = True
    estimate_method: str | None = None
    faults: tuple[str, ...] = ()
    failed: bool = False
    output_bytes: int = 0
