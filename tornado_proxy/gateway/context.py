"""A request on its way through the gateway: its route and caller, then its intent."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Generic

import msgspec

from tornado_proxy.domain.attribution import Attribution
from tornado_proxy.domain.cost import StatedBound
from tornado_proxy.domain.identity import Caller, Project, Secret
from tornado_proxy.domain.record import NO_RETRY_FACTS, RequestIntent
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.http_server.incoming_request import IncomingRequest
from tornado_proxy.pricing.book.price_book import Tariff
from tornado_proxy.providers.contract import Endpoint, Provider
from tornado_proxy.providers.route_table import EndpointT, Match
from tornado_proxy.snapshot import Snapshot
from tornado_proxy.upstream.credentials import ProviderAccess
from tornado_proxy.wire.annotations import check_annotations
from tornado_proxy.wire.client_facts import NOTHING_STATED, StatedHeaders, attribute_request, find_stated_headers
from tornado_proxy.wire.redaction import Redaction
from tornado_proxy.wire.retry_headers import RETRY_HEADERS, read_retry_headers


class RequestContext(msgspec.Struct, Generic[EndpointT], frozen=True):
    """A request whose route and caller are known.

    Attributes:
        snapshot: The configuration that the request keeps to its end, whatever is reloaded meanwhile.  The context of
            a session is renewed for each request in it.
        endpoint: The endpoint that serves the request.
        provider: The provider that the request goes to.
        upstream_target: The provider's path, and the query.
        path_id: The `{id}` segment of the path, None if the path has none.
        caller: The caller that the credential identifies.
        project: The caller's project.
        tariff: The provider's prices when the request arrived.
        request: Request line and headers.
        redaction: Masks the provider keys of the configuration, and the short-lived one that a session key holds.
        stated: The headers that describe the request.
        is_limited: True if a budget or a limit applies to the caller's requests.
        has_limits: True if a limit of requests, tokens or streams applies to them.
        shares_bounds: True if the request is charged, and only budgets of the configuration apply to it, with their
            limits there: then requests of the caller share bounds (gateway/budgets/shared_bounds.py).
    """

    snapshot: Snapshot
    endpoint: EndpointT
    provider: Provider
    upstream_target: str
    path_id: str | None
    caller: Caller
    project: Project
    tariff: Tariff
    request: IncomingRequest
    redaction: Redaction
    stated: StatedHeaders
    is_limited: bool
    has_limits: bool
    shares_bounds: bool

    @property
    def token(self) -> Secret:
        """The credential; empty after the headers have been dropped."""
        return Secret(self.request.token)

    @property
    def has_own_key(self) -> bool:
        """True if the project's key for the provider is its own (Snapshot.has_own_key)."""
        return self.snapshot.has_own_key(self.project.id, self.provider.name)

    @property
    def on_client_disconnect(self) -> str:
        """What to do if the client disconnects, `drain` or `cancel`: the project's word, else the server's."""
        return self.project.on_client_disconnect or self.snapshot.settings.streams.on_client_disconnect

    @property
    def labels(self) -> Mapping[str, str]:
        """The names and values that records of the request have; those of the credential win."""
        own = self.caller.labels
        return {**self.project.labels, **own} if own else self.project.labels

    @property
    def query(self) -> str:
        """The raw query, without the question mark."""
        return self.upstream_target.partition("?")[2]

    def drop_statements(self) -> RequestContext[EndpointT]:
        """Return the context of an admitted request, which no longer needs what its headers state."""
        return msgspec.structs.replace(self, stated=NOTHING_STATED)


class _SharedFacts(msgspec.Struct, frozen=True):
    """The members of a context that all requests of a project to a provider share."""

    project: Project
    tariff: Tariff
    is_limited: bool
    has_limits: bool
    shares_bounds: bool


def make_context(
    snapshot: Snapshot, match: Match[EndpointT], caller: Caller, token: str, request: IncomingRequest
) -> RequestContext[EndpointT]:
    """Return the context of a request.  What each step of a request needs is looked up here, once."""
    provider, request.token = match.provider, token
    known: dict[tuple[str, str], _SharedFacts] = snapshot.caches[__name__]
    key = (caller.project_id, provider.name)
    shared = known.get(key)
    if shared is None:
        shared = known[key] = _find_shared_facts(snapshot, *key)
    return RequestContext(
        snapshot=snapshot,
        endpoint=match.endpoint,
        provider=provider,
        upstream_target=match.upstream_target,
        path_id=match.path_id,
        caller=caller,
        project=shared.project,
        tariff=shared.tariff,
        request=request,
        redaction=snapshot.redaction
        if caller.session is None
        else snapshot.redaction.with_secret(caller.session.provider_key),
        stated=find_stated_headers(request.headers, shared.project.attribution.end_user_header),
        is_limited=shared.is_limited or bool(caller.token_budgets),
        has_limits=shared.has_limits,
        shares_bounds=shared.shares_bounds and match.endpoint.charged and not caller.token_budgets,
    )


def renew_context(context: RequestContext[EndpointT], snapshot: Snapshot) -> RequestContext[EndpointT]:
    """Return the context for the next request of a session: its project, prices, budgets and limits as they are now.

    A project that was removed keeps its context; the check of the credential ends the session.  The masked keys stay
    those of the session, which uses one of them.
    """
    project_id = context.caller.project_id
    if project_id not in snapshot.projects:
        return context
    shared = _find_shared_facts(snapshot, project_id, context.provider.name)
    return msgspec.structs.replace(
        context,
        snapshot=snapshot,
        project=shared.project,
        tariff=shared.tariff,
        is_limited=shared.is_limited or bool(context.caller.token_budgets),
        has_limits=shared.has_limits,
        shares_bounds=shared.shares_bounds and context.endpoint.charged and not context.caller.token_budgets,
    )


def _find_shared_facts(snapshot: Snapshot, project_id: str, provider: str) -> _SharedFacts:
    project = snapshot.projects[project_id]
    own = snapshot.find_account(project_id, provider) is not None
    has_budgets, has_limits = bool(snapshot.find_budgets(project)), bool(snapshot.find_limits(project))
    return _SharedFacts(
        project=project,
        tariff=snapshot.find_tariff(provider, project_id, own=own),
        is_limited=has_budgets or has_limits,
        has_limits=has_limits,
        shares_bounds=has_budgets and not has_limits and not snapshot.budget_limits.changes.get(project_id),
    )


class RequestStart(msgspec.Struct, frozen=True, gc=False):
    """The start of a request, which its reservation and its intent state alike.

    Attributes:
        started_at: Aware UTC.
        attribution: Who and what the request is made for, as the client states it.
        session: The id of the WebSocket session or realtime call that it belongs to.
    """

    request_id: str
    started_at: datetime
    attribution: Attribution
    session: str | None = None


def start_request(
    context: RequestContext[Endpoint],
    facts: RequestFacts,
    request_id: str,
    started_at: datetime,
    *,
    session: str | None = None,
) -> RequestStart:
    """Return the start of a request."""
    caller = context.caller
    attribution = attribute_request(
        context.stated, facts.described, context.project.attribution, caller.participant or caller.user
    )
    return RequestStart(request_id, started_at, attribution, session)


def request_intent(
    context: RequestContext[Endpoint],
    access: ProviderAccess,
    facts: RequestFacts,
    start: RequestStart,
    bound: StatedBound | None = None,
) -> RequestIntent:
    """Return the intent of a request; `bound` is the most that it can cost, None without a budget."""
    caller, session = context.caller, start.session
    return RequestIntent(
        request_id=start.request_id,
        caller=caller,
        provider=context.provider.name,
        endpoint=context.upstream_target.partition("?")[0],
        method=context.endpoint.method,
        model_requested=facts.model,
        started_at=start.started_at,
        session=session,
        annotations=check_annotations(context.stated.annotations) if context.stated.annotations else (),
        key=access.made_with,
        provider_key_ids=access.provider_key_ids,
        labels=context.labels,
        attribution=start.attribution,
        traceparent=context.stated.traceparent,
        # The headers of a WebSocket's opening request are not those of each request on it.
        retry=read_retry_headers(context.request.lines, caller, context.provider.name)
        if session is None and not RETRY_HEADERS.isdisjoint(context.request.lines)
        else NO_RETRY_FACTS,
        bound=bound,
    )
