"""The facts of a request that admission and metering need.  The rest of the body is never inspected."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import msgspec
from msgspec.structs import replace

from tornado_proxy.domain.cost import BillRates
from tornado_proxy.domain.identity import KeyId
from tornado_proxy.domain.terms import NO_TERMS, Terms
from tornado_proxy.domain.usage import Meter, Quantity

#: The registry's role for a model that a hosted tool uses to generate images.
IMAGE_TOOL_ROLE = "image_generation_tool"


# cache_hash: the key under which an admitted spend is found.
class Spend(msgspec.Struct, frozen=True, cache_hash=True):
    """One model that a request can spend on, and the meters that it can be charged for at that model.

    `role` is None for the endpoint's own model, else a role of the price registry (`image_generation_tool`,
    `input_transcription`).  `terms` are in the request's own words.  `endpoint` is set if the prices of another
    endpoint hold for this model, such as those of /v1/responses for the text model that writes an SVG.
    """

    model: str
    meters: frozenset[Meter]
    role: str | None = None
    terms: Terms = NO_TERMS
    endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Requested images, in the provider's words.  None or "auto" leaves the choice to the provider."""

    count: int = 1
    size: str | None = None
    quality: str | None = None


# cache_hash: a part of the key under which a bound is found.
class WorkLimits(msgspec.Struct, frozen=True, cache_hash=True):
    """The most work that a request can cause, as far as its body says; the default says nothing.

    Attributes:
        prompts: Prompts in the body: the requests of a batch, the inputs of embeddings.
        choices: Choices of output for each prompt.
        output_tokens: Output tokens of all prompts and choices; None if the request sets no limit.
        text_only: True if the body holds the whole input as text, which has no more tokens than bytes.  An image, a
            file or a stored response has tokens that the body does not show.
        tool_calls: Calls of tools that run at the provider, each followed by one more prompt; None if the request sets
            no limit.
        names_models: True if the request names every model that it can spend on; False if the provider chooses one.
    """

    prompts: int = 1
    choices: int = 1
    output_tokens: int | None = None
    text_only: bool = False
    tool_calls: int | None = 0
    names_models: bool = True


#: The body says nothing.
UNKNOWN_WORK = WorkLimits()


@lru_cache(1024)
def limit_work(
    output_tokens: int | None,
    tool_calls: int | None,
    choices: int,
    text_only: bool,  # noqa: FBT001  # a positional argument is a cheaper cache key
    names_models: bool = True,  # noqa: FBT001, FBT002
) -> WorkLimits:
    """Return the work of one prompt: one object for the same limits, so that lookups compare by identity."""
    return WorkLimits(1, choices, output_tokens, text_only, tool_calls, names_models)


class RequestFacts(msgspec.Struct, frozen=True):
    """The few fields of a request's body that admission and the usage readers use.

    `model` is None if the endpoint takes none.  `spends` lists every model the request can spend on, its own first.
    `terms` hold for the whole request: its service tier and its cache lifetime.
    `body_bytes` is the length of the client's body, without the options that a proxy adds.
    `usage_injected` is True if the proxy asked for usage itself.
    `inferred` are quantities that only the request states (characters to speak, seconds of uploaded audio).
    `references` are ids of provider objects that the body names; they must belong to the project.
    `continues` is the one of them whose conversation the request continues.
    `session_query` is the query string for a WebSocket to the realtime session that the body describes.
    `seen_output_bytes` is the length of output text that earlier responses of the same work have shown.
    `charges_code_execution` is True if the provider charges the time of a container that runs code for the request, and
    the response does not show that.
    `work` limits the cost of the request.
    `names_response` is True if later requests can name the response because this one asks for it, where others cannot.
    `described` are members that say who and what the request is made for, as (path, text): `metadata.user_id`.
    """

    model: str | None = None
    # Admission checks all of them before the request is sent, so that no part of its cost can lack a price.
    spends: tuple[Spend, ...] = ()
    stream: bool = False
    terms: Terms = NO_TERMS
    body_bytes: int = 0
    usage_injected: bool = False
    background: bool = False
    inferred: tuple[Quantity, ...] = ()
    image: ImageFacts | None = None
    references: tuple[str, ...] = ()
    continues: str | None = None
    response_format: str | None = None
    session_query: str | None = None
    seen_output_bytes: int = 0
    work: WorkLimits = UNKNOWN_WORK
    charges_code_execution: bool = False
    names_response: bool = False
    described: tuple[tuple[str, str], ...] = ()

    @property
    def priced_spends(self) -> tuple[Spend, ...]:
        """The spends with the request's cache lifetime: models of text can charge for input written to a cache."""
        if self.terms.cache_ttl is None:
            return self.spends
        return tuple(
            replace(spend, terms=replace(spend.terms, cache_ttl=self.terms.cache_ttl))
            if Meter.OUTPUT in spend.meters
            else spend
            for spend in self.spends
        )


#: Nothing is known of the request.
NO_FACTS = RequestFacts()


@dataclass(frozen=True, slots=True)
class DeferredRatingFacts:
    """The facts of a request that rate a response which arrives later, possibly in another process.

    `terms` are those of RequestFacts; the ledger stores their service tier and cache lifetime.
    `image_model` is the model requested for the image tool, or the one that was admitted by default.
    `output_bytes` is the length of the output text that has passed: an estimate, if the usage never arrives.
    `made_with` is the provider key that made the request, None for a record of an earlier version.
    `charges_code_execution` is that of RequestFacts.
    `rates` are the surcharge and the discount of the request, None for a record of an earlier version.
    `provider_region` is that of the host that the request was sent to.
    """

    terms: Terms = NO_TERMS
    image_model: str | None = None
    body_bytes: int = 0
    output_bytes: int = 0
    made_with: KeyId | None = None
    charges_code_execution: bool = False
    rates: BillRates | None = None
    provider_region: str | None = None

    @classmethod
    def of(cls, facts: RequestFacts, output_bytes: int = 0) -> DeferredRatingFacts:
        """Return the part of `facts` that a pending record stores, and the length of the output that has passed."""
        # The usage reader prefers the model that the response names, and falls back to this one.
        image_models = (spend.model for spend in facts.spends if spend.role == IMAGE_TOOL_ROLE)
        image_model = next(image_models, None)
        return cls(
            facts.terms,
            image_model,
            facts.body_bytes,
            output_bytes,
            charges_code_execution=facts.charges_code_execution,
        )

    def facts(self, model: str | None) -> RequestFacts:
        """Return facts for a usage reader of a request that asked for `model`."""
        spends = () if self.image_model is None else (Spend(self.image_model, frozenset(), role=IMAGE_TOOL_ROLE),)
        return RequestFacts(
            model=model,
            spends=spends,
            terms=self.terms,
            body_bytes=self.body_bytes,
            seen_output_bytes=self.output_bytes,
            charges_code_execution=self.charges_code_execution,
        )
