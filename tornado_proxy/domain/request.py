"""What admission and metering need to know of a request's body; the rest of the body is never looked at."""

from __future__ import annotations

from dataclasses import dataclass

from tornado_proxy.domain.usage import Meter, Quantity

#: The registry's word for a model that a hosted tool draws with.
IMAGE_TOOL_ROLE = "image_generation_tool"


@dataclass(frozen=True, slots=True)
class Spend:
    """One model that a request can spend on, and the meters it can be charged on there.

    `role` is None for the model of the endpoint itself, else the registry's word (`image_generation_tool`,
    `input_transcription`).  `service_tier` and `speed` are the words of the request, None where it says nothing.
    `when` holds further conditions that are known before the call, such as ("tool", "web_search").
    """

    model: str
    meters: frozenset[Meter]
    role: str | None = None
    service_tier: str | None = None
    speed: str | None = None
    when: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image request asks for, in the provider's words; None or "auto" leaves the choice to the provider."""

    count: int = 1
    size: str | None = None
    quality: str | None = None


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """The few fields of a request's body that admission and the usage readers look at.

    `model` is None where the endpoint takes none.  `spends` lists every model the request can spend on, its own first.
    `body_bytes` is the length of the client's body.  `usage_injected`: usage was asked for on the client's behalf.
    `inferred` are quantities that only the request can tell (characters to speak, seconds of uploaded audio).
    `references` are ids of provider objects that the body names; they must be the project's own.
    `cache_ttl` is how long the provider is asked to keep what it caches, in its words ("12h").
    `session_query` is the query that opens a WebSocket of the realtime session which the body describes.
    """

    model: str | None = None
    spends: tuple[Spend, ...] = ()
    stream: bool = False
    service_tier: str | None = None
    body_bytes: int = 0
    usage_injected: bool = False
    background: bool = False
    inferred: tuple[Quantity, ...] = ()
    image: ImageFacts | None = None
    references: tuple[str, ...] = ()
    response_format: str | None = None
    cache_ttl: str | None = None
    session_query: str | None = None


@dataclass(frozen=True, slots=True)
class DeferredRatingFacts:
    """What of a request is needed to rate an answer that comes after it, perhaps to another process.

    `image_model` is the model that the image tool was asked to use, or the one it was admitted with.
    """

    service_tier: str | None = None
    cache_ttl: str | None = None
    image_model: str | None = None
    body_bytes: int = 0

    @classmethod
    def of(cls, facts: RequestFacts) -> DeferredRatingFacts:
        """Those of `facts`."""
        drawing = (spend.model for spend in facts.spends if spend.role == IMAGE_TOOL_ROLE)
        return cls(facts.service_tier, facts.cache_ttl, next(drawing, None), facts.body_bytes)

    def facts(self, model: str | None) -> RequestFacts:
        """What a usage reader is told of the request, which asked for `model`."""
        drawing = () if self.image_model is None else (Spend(self.image_model, frozenset(), role=IMAGE_TOOL_ROLE),)
        return RequestFacts(
            model=model,
            spends=drawing,
            service_tier=self.service_tier,
            body_bytes=self.body_bytes,
            cache_ttl=self.cache_ttl,
        )
