"""One call as the ledger keeps it: the intent before anything is sent, the record when it has ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from tornado_proxy.domain.cost import Cost
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.request import DeferredRatingFacts
from tornado_proxy.domain.usage import Basis


class Outcome(StrEnum):
    """How the exchange ended."""

    COMPLETED = "completed"
    CLIENT_CLOSED = "client_closed"
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_BROKEN = "upstream_broken"
    SHUTDOWN = "shutdown"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class RequestIntent:
    """A request that was let in and is about to be sent.  Times are aware UTC; `endpoint` is the provider's path.

    `annotations` are the client's own words on what the call is for, by which its usage can be asked for.
    """

    request_id: str
    caller: Caller
    provider: str
    endpoint: str
    method: str
    model_requested: str | None
    started_at: datetime
    session: str | None = None
    service_tier: str | None = None
    annotations: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One ledger line.  `status` is the HTTP status the client saw (499: it left first), None when none was sent.

    `usage` is the provider's usage as JSON text; `object_id` the provider's id of what the call created, `objects` the
    ids of what else it created; `kept` is there where the provider reports usage later.
    """

    intent: RequestIntent
    model: str | None
    status: int | None
    outcome: Outcome
    basis: Basis
    cost: Cost
    first_byte_at: datetime | None
    ended_at: datetime
    usage: str | None = None
    estimate_method: str | None = None
    object_id: str | None = None
    objects: tuple[str, ...] = ()
    upstream_request_id: str | None = None
    faults: tuple[str, ...] = ()
    kept: DeferredRatingFacts | None = None


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A call whose usage the provider reports later, under `object_id`.  `endpoint` is where it was made.

    `kept` is what its request said that the answer may not repeat.
    """

    request_id: str
    project_id: str
    provider: str
    endpoint: str
    object_id: str
    model_requested: str | None
    started_at: datetime
    kept: DeferredRatingFacts = field(default_factory=DeferredRatingFacts)


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a pending call came to.  Stored once; it stands in for the record's own figures from then on."""

    request_id: str
    model: str | None
    basis: Basis
    cost: Cost
    settled_at: datetime
    usage: str | None = None
    faults: tuple[str, ...] = ()
    estimate_method: str | None = None
