"""The values that a ledger stores of a request: its intent before it is sent, its record when it has ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import msgspec

from tornado_proxy.domain.attribution import NO_ATTRIBUTION, Attribution
from tornado_proxy.domain.container import ContainerTime
from tornado_proxy.domain.cost import Cost, StatedBound
from tornado_proxy.domain.identity import Caller, KeyId
from tornado_proxy.domain.request import DeferredRatingFacts
from tornado_proxy.domain.usage import Basis


class Outcome(StrEnum):
    """How the exchange with the provider ended."""

    COMPLETED = "completed"
    CLIENT_CLOSED = "client_closed"
    #: The provider sent no response, or one that ends with an error.
    UPSTREAM_ERROR = "upstream_error"
    #: The provider's response ended before it was complete.
    UPSTREAM_BROKEN = "upstream_broken"
    #: The proxy closed a session that was idle or too old, or whose credential or price was gone; or an admin has
    #: stopped a session or a request.
    PROXY_CLOSED = "proxy_closed"
    SHUTDOWN = "shutdown"
    #: The process died.  Written at a later start, from the intent.
    CRASHED = "crashed"


class RetryFacts(msgspec.Struct, frozen=True):
    """The client's statements about a repetition of its request.

    Attributes:
        idempotency_hash: The hash of its idempotency key; None without a key.
        count: How many times the client has sent the request before, as text; None if it states none.
    """

    idempotency_hash: str | None = None
    count: str | None = None


#: The client states nothing.
NO_RETRY_FACTS = RetryFacts()


class RequestIntent(msgspec.Struct, frozen=True):
    """An admitted request that is about to be sent.

    endpoint: the provider's path.
    started_at: aware UTC.
    annotations: the names and values that the client described its request with; usage is selected by them.
    key: the provider key that makes the request.
    provider_key_ids: the provider's own ids of that key.
    labels: names and values of the project and the credential.
    attribution: who and what the request is made for, as the client states it.
    traceparent: the client's span that the request belongs to (W3C Trace Context), None without one.
    retry: the client's statements about a repetition.
    bound: the most that it can cost; None without a budget.
    """

    request_id: str
    caller: Caller
    provider: str
    endpoint: str
    method: str
    model_requested: str | None
    started_at: datetime
    session: str | None = None
    annotations: tuple[tuple[str, str], ...] = ()
    key: KeyId | None = None
    provider_key_ids: Mapping[str, str] = msgspec.field(default_factory=dict)
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    attribution: Attribution = NO_ATTRIBUTION
    traceparent: str | None = None
    retry: RetryFacts = NO_RETRY_FACTS
    bound: StatedBound | None = None


class RequestRecord(msgspec.Struct, frozen=True):
    """A request that has ended.

    model: the model of the response.
    status: the HTTP status that the client received; 499 if it left first, None if no status was sent.
    first_byte_at, ended_at: aware UTC.
    usage: the provider's usage as JSON text.
    object_id: the provider's id of the object that the request created.
    objects: the ids of the other objects that it created.
    names_object: False if `object_id` is no created object that later requests can name.
    deferred_facts: set if the provider reports the usage later.
    container_time: the containers that the response used; the stored record has their time among its line items.
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
    names_object: bool = True
    upstream_request_id: str | None = None
    faults: tuple[str, ...] = ()
    deferred_facts: DeferredRatingFacts | None = None
    container_time: ContainerTime | None = None

    @property
    def created_objects(self) -> tuple[str, ...]:
        """Return the ids of all objects that the provider created for the request, each once."""
        created = (self.object_id,) if self.names_object and self.object_id else ()
        if not self.objects:
            return created
        return tuple(dict.fromkeys([*created, *filter(None, self.objects)]))


class ObjectOwner(msgspec.Struct, frozen=True):
    """The project that created an object of a provider, and the provider key that it was made with, if known."""

    project_id: str
    key: KeyId | None = None


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request whose usage the provider reports later.

    seq: the number of its record in the ledger; 0 for a record that may not be written yet.
    endpoint: the path of the request.
    object_id: the provider's id of the object that has the usage.
    deferred_facts: facts of the request that the later response may not repeat.
    participant, user, agent_session: who made it, and in which session; stops are selected by them.
    """

    request_id: str
    project_id: str
    provider: str
    endpoint: str
    object_id: str
    model_requested: str | None
    started_at: datetime
    deferred_facts: DeferredRatingFacts = field(default_factory=DeferredRatingFacts)
    seq: int = 0
    participant: str | None = None
    user: str | None = None
    agent_session: str | None = None

    @classmethod
    def of(cls, record: RequestRecord) -> PendingRequest | None:
        """Return the pending request of a record; None if its usage is known, or its object is not."""
        if record.basis is not Basis.PENDING or record.object_id is None:
            return None
        intent = record.intent
        return cls(
            intent.request_id,
            intent.caller.project_id,
            intent.provider,
            intent.endpoint,
            record.object_id,
            intent.model_requested,
            intent.started_at,
            record.deferred_facts or DeferredRatingFacts(),
            participant=intent.caller.participant,
            user=intent.caller.user,
            agent_session=intent.attribution.agent_session,
        )


@dataclass(frozen=True, slots=True)
class Settlement:
    """The final figures of a pending record.  The first one of a request is stored, and replaces the record's own.

    final: False for the figures of a request that was given up: they are shown until a final settlement is stored.
    """

    request_id: str
    model: str | None
    basis: Basis
    cost: Cost
    settled_at: datetime
    usage: str | None = None
    faults: tuple[str, ...] = ()
    estimate_method: str | None = None
    final: bool = True
    container_time: ContainerTime | None = None
