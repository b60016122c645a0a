"""Admission: the only place that lets a request, a WebSocket upgrade or a frame go to a provider.

    HTTP request    authenticate ── check_capacity ── [body arrives] ── admit_request
    form            authenticate ── check_capacity ── [fields arrive] ── admit_request ── [files arrive] ── amendment.py
    WebSocket       authenticate_upgrade ── check_capacity ── admit_upgrade ── admit_frame for each client frame
                    recheck while the session runs; admit_spends if the provider changes the session's model

Each step returns a value or raises a RequestError.  A request that is admitted names only models that its caller may
use and only spends that have a price, refers only to objects of its project, and has its intent in the ledger.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from datetime import UTC, datetime

from msgspec.structs import replace

from tornado_proxy.auth.credentials import find_token, find_websocket_token, list_stated_projects
from tornado_proxy.auth.permissions import require_model
from tornado_proxy.domain.cost import StatedBound
from tornado_proxy.domain.errors import IdentityProviderUnavailable, ModelNotPriced, RequestError
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import RequestIntent
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.request_id import new_request_id
from tornado_proxy.gateway.admission.admitted import AdmittedRequest, AdmittedSession, AdmittedUpgrade
from tornado_proxy.gateway.admission.capacity import Capacity
from tornado_proxy.gateway.admission.model_visibility import require_visible_model
from tornado_proxy.gateway.admission.object_ownership import ObjectOwnership
from tornado_proxy.gateway.admission.priced_spends import check_provider, require_priced_spend
from tornado_proxy.gateway.admission.stops import require_not_stopped
from tornado_proxy.gateway.budgets.gate import BudgetGate
from tornado_proxy.gateway.context import (
    RequestContext,
    RequestStart,
    make_context,
    renew_context,
    request_intent,
    start_request,
)
from tornado_proxy.gateway.http.list_sources import ListSource, find_list_accesses, make_list_sources
from tornado_proxy.gateway.realtime.live_calls import LiveCalls
from tornado_proxy.gateway.recorder import Recorder
from tornado_proxy.http_server.incoming_request import IncomingRequest
from tornado_proxy.metering.deferred_settlement import DeferredSettlement
from tornado_proxy.providers.contract import (
    ClientFrame,
    Endpoint,
    HttpEndpoint,
    ParsedRequest,
    WebSocketEndpoint,
)
from tornado_proxy.providers.owned_objects import ModelObject, OwnedList, OwnedObject
from tornado_proxy.providers.route_table import EndpointT, Match
from tornado_proxy.snapshot import Snapshot
from tornado_proxy.upstream.credentials import (
    ProviderAccess,
    caller_access,
    forwarded_headers,
    forwarded_subprotocols,
    reject_token_in_target,
)
from tornado_proxy.wire.annotations import require_annotations

# A name of its own: the union would be made anew for each request.
_OWNED = OwnedObject | OwnedList


class Admission:
    """Admits requests, upgrades and frames."""

    def __init__(
        self,
        ownership: ObjectOwnership,
        live_calls: LiveCalls,
        capacity: Capacity,
        recorder: Recorder,
        settlement: DeferredSettlement,
        budgets: BudgetGate,
    ) -> None:
        self._settlement = settlement
        self._budgets = budgets
        self._ownership = ownership
        self._live_calls = live_calls
        self._capacity = capacity
        self._recorder = recorder

    def authenticate(
        self, snapshot: Snapshot, request: IncomingRequest
    ) -> RequestContext[HttpEndpoint] | Awaitable[RequestContext[HttpEndpoint]]:
        """Return the route and caller of an HTTP request; an awaitable if an identity provider must be asked.

        Raises:
            CallerError: no endpoint matches, the credential is missing or invalid, or contradicts the stated project.
            ServiceError: an identity provider cannot be asked.
        """
        routes, line = snapshot.routes, (request.method, request.target)
        match = routes.matched_http.get(line) or routes.match_http(*line)
        accepted = match.provider.credential_headers
        known = snapshot.authenticator.recognize(request.lines, accepted, request.received_at)
        if known is not None:
            token, caller = known
            return _make_checked_context(snapshot, match, caller, token, request)
        token = find_token(request.headers, accepted, opaque=snapshot.authenticator.accepts_opaque_tokens)
        return _identify(snapshot, match, token, request)

    def authenticate_upgrade(
        self, snapshot: Snapshot, request: IncomingRequest
    ) -> RequestContext[WebSocketEndpoint] | Awaitable[RequestContext[WebSocketEndpoint]]:
        """Return the route and caller of a WebSocket upgrade; an awaitable if an identity provider must be asked.

        Raises:
            CallerError: no WebSocket endpoint matches, the credential is missing or invalid, or contradicts the stated
                project.
            ServiceError: an identity provider cannot be asked.
        """
        match = snapshot.routes.match_websocket(request.target)
        convention = match.provider.websocket
        prefix = convention.token_prefix if convention is not None else None
        opaque = snapshot.authenticator.accepts_opaque_tokens
        token = find_websocket_token(request.headers, match.provider.credential_headers, prefix, opaque=opaque)
        return _identify(snapshot, match, token, request)

    def check_capacity(self, context: RequestContext[Endpoint]) -> None:
        """Check that one more request may run.

        Raises:
            ServiceError: the server is shutting down, or too many requests are in flight.
            RateLimited: too many requests of the caller's project are in flight.
        """
        self._capacity.check(context.snapshot.settings.limits, context.caller.project_id)

    async def admit_request(
        self, context: RequestContext[HttpEndpoint], parsed: ParsedRequest, request_id: str
    ) -> AdmittedRequest:
        """Check a complete request and record its intent; it may be sent when this returns.

        Raises:
            CallerError: a model is not granted or not priced, an object is not the project's, or its usage must be
                known before it is deleted.
            ServiceError: the provider is not configured, or the ledger cannot store the intent.
        """
        try:
            return await self._admit_parsed(context, parsed, request_id)
        except RequestError as error:
            error.model = parsed.facts.model
            raise

    async def _admit_parsed(
        self, context: RequestContext[HttpEndpoint], parsed: ParsedRequest, request_id: str
    ) -> AdmittedRequest:
        self.check_facts(context, parsed.facts)
        objects, made_with = context.endpoint.objects, None
        if parsed.facts.references or isinstance(objects, _OWNED):
            references, continues = parsed.facts.references, parsed.facts.continues
            made_with = await self._ownership.require_own(context, references, continues=continues)
        accesses = find_list_accesses(context, made_with) if isinstance(objects, OwnedList) else ()
        access, *_ = accesses or (caller_access(context.snapshot, context.provider, context.caller, made_with),)
        headers = forwarded_headers(context.request.headers, access, context.request.token)
        pieces = parsed.pieces if parsed.splice is not None or parsed.shared is not None else (parsed.body,)
        upstream = access.client_request(context.endpoint.method, context.upstream_target, headers, *pieces)
        visible_objects: frozenset[str] | None = None
        sources: tuple[ListSource, ...] = ()
        if isinstance(objects, OwnedList):
            visible_objects = await self._ownership.visible_objects(context, access)
            keys = await self._ownership.keys_of_list(context) if accesses else {}
            sources = make_list_sources(context, accesses, headers, keys, visible_objects)
        if context.endpoint.ends_usage is not None:
            await self._settle_object(context)
        start = start_request(context, parsed.facts, request_id, context.request.received_at)
        if context.snapshot.state.stops:
            require_not_stopped(context, start.attribution.agent_session)
        if context.endpoint.sideband is None:
            intent, context = await self._begin(context, access, parsed.facts, start), context.drop_statements()
        else:  # each response of the call reserves, and gets an intent by the headers of the call
            await self._budgets.check(context)
            intent = request_intent(context, access, parsed.facts, start)
            await self._recorder.begin(intent)
        return AdmittedRequest(context, parsed.facts, intent, access, upstream, visible_objects, sources)

    def check_facts(self, context: RequestContext[HttpEndpoint], facts: RequestFacts) -> None:
        """Check all that needs no ledger: annotations, models, their prices, sealing of keys; raise CallerError."""
        endpoint = context.endpoint
        if isinstance(endpoint.objects, ModelObject):
            require_visible_model(context)
        if (required := context.project.attribution.required) and endpoint.charged:
            require_annotations(context.stated.annotations, required)
        if not facts.spends:
            self.require_priced_spend(context, facts)
        spends = facts.spends if facts.terms.cache_ttl is None else facts.priced_spends
        self.admit_spends(context, spends, context.request.received_at)
        if endpoint.response_edits.seal_secrets is not None:
            context.snapshot.authenticator.require_sealing(context.caller)

    async def admit_running(
        self, context: RequestContext[Endpoint], access: ProviderAccess, facts: RequestFacts, intent: RequestIntent
    ) -> tuple[RequestIntent, RequestError | None]:
        """Reserve for work of a session that the provider has started.

        Returns:
            The intent with the bound that is reserved, and the error if a budget is spent.
        """
        return await self._budgets.reserve_running(context, access.tariff, facts, intent)

    async def _begin(
        self, context: RequestContext[Endpoint], access: ProviderAccess, facts: RequestFacts, start: RequestStart
    ) -> RequestIntent:
        """Reserve the most that the request can cost, if that is limited, and record its intent, with that bound."""
        bound = None
        if context.is_limited:
            reserved = self._budgets.reserve(context, access.tariff, facts, start)
            bound = reserved if isinstance(reserved, StatedBound) or reserved is None else await reserved
        try:
            intent = request_intent(context, access, facts, start, bound)
            await self._recorder.begin(intent)
        except BaseException:
            if context.is_limited:
                self._budgets.release(start.request_id)
            raise
        return intent

    async def _settle_object(self, context: RequestContext[HttpEndpoint]) -> None:
        """Settle the object in the path if the request would delete it: its usage cannot be fetched afterwards."""
        deferred, object_id = context.endpoint.ends_usage, context.path_id
        if deferred is not None and object_id is not None:
            project_id = context.caller.project_id
            await self._settlement.settle_before_delete(context.provider.name, object_id, deferred, project_id)

    async def admit_upgrade(
        self, context: RequestContext[WebSocketEndpoint], subprotocols: tuple[str, ...]
    ) -> AdmittedUpgrade:
        """Check everything that opening a session can cost; `subprotocols` are those that the client offers.

        Raises:
            CallerError: a model is not granted or not priced, or an object is not the project's.
            ServiceError: the provider is not configured.
        """
        reader = context.endpoint.open_reader(_session_query(context), subprotocols)
        try:
            require_annotations(context.stated.annotations, context.project.attribution.required)
            self.admit_spends(context, reader.spends, context.request.received_at)
            made_with = await self._ownership.require_own(context, reader.references)
            await self._budgets.check(context)
        except RequestError as error:
            error.model = reader.model
            raise
        sticky = context.endpoint.resumes
        access = caller_access(context.snapshot, context.provider, context.caller, made_with, sticky=sticky)
        upstream = access.websocket_request(
            context.upstream_target,
            forwarded_headers(context.request.headers, access, context.request.token),
            forwarded_subprotocols(subprotocols, context.provider, context.token),
        )
        billed_elsewhere = any(self._live_calls.has(context.provider.name, call_id) for call_id in reader.references)
        return AdmittedUpgrade(context, reader, access, billed_elsewhere, upstream=upstream)

    async def admit_frame(self, session: AdmittedSession, frame: ClientFrame, session_id: str) -> RequestIntent | None:
        """Check a client's frame and record its intent, if it requests work; it may be sent when this returns.

        Raises:
            CallerError: a model is not granted or not priced, or an object is not the project's.
            LedgerUnavailable: the ledger cannot store the intent.
        """
        context, now = session.context, datetime.now(UTC)
        if frame.facts is not None and not frame.spends and not session.reader.spends:
            self.refuse_unknown_model()
        # The models of the session are admitted again: the configuration may have changed since.
        works_on = () if frame.facts is None else session.reader.spends
        self.admit_spends(context, (*works_on, *frame.spends), now)
        if frame.facts is not None and frame.facts.terms.cache_ttl is not None:
            self.admit_spends(context, frame.facts.priced_spends, now)
        if frame.references:
            continues = None if frame.facts is None else frame.facts.continues
            await self._ownership.require_own(context, frame.references, session.access, continues=continues)
        if frame.facts is None or session.billed_elsewhere:
            return None
        start = start_request(context, frame.facts, new_request_id(), now, session=session_id)
        require_not_stopped(context, start.attribution.agent_session)
        # The frames of some sessions name no model: the session does.
        spends = frame.facts.spends or (*session.reader.spends, *frame.spends)
        return await self._begin(context, session.access, replace(frame.facts, spends=spends), start)

    def require_priced_spend(self, context: RequestContext[HttpEndpoint], facts: RequestFacts) -> None:
        """Check that a request to a charged endpoint names something with a price: else its cost would be unknown.

        Raises:
            ModelNotPriced: it names no model.
            BadRequest: it starts a realtime call without a session.
        """
        require_priced_spend(context, facts)

    def refuse_unknown_model(self) -> None:
        """Refuse a frame that requests work while the model of its session is not known.

        Raises:
            ModelNotPriced: always.
        """
        raise ModelNotPriced("the model of this session is not known yet; wait for session.created", param="model")

    def admit_spends(self, context: RequestContext[Endpoint], spends: Iterable[Spend], at: datetime) -> None:
        """Check that the caller may use each model, and that everything it can cost has a price at `at`.

        Raises:
            CallerError: a model is not granted or not priced.
        """
        endpoint = context.endpoint
        unrestricted = context.caller.granted.patterns is None and context.project.models.patterns is None
        for spend in spends:
            if not unrestricted:
                require_model(context.caller, context.project, context.provider.name, spend.model)
            try:
                context.tariff.admit(endpoint.priced_as or endpoint.path, spend, at)
            except ModelNotPriced:
                check_provider(context, spend.model)
                raise

    async def recheck(self, context: RequestContext[Endpoint], spends: Iterable[Spend], snapshot: Snapshot) -> None:
        """Check the credential and the models of a running session against the configuration that is current now.

        Raises:
            CallerError: the credential has expired or was revoked; a model is not granted or not priced any more.
        """
        # A short-lived key limits when a session may be opened; only its revocation ends a session that runs.
        at = datetime.now(UTC) if context.caller.session is None else context.request.received_at
        stated = list_stated_projects(context.request.headers)
        try:
            identified = snapshot.authenticator.authenticate(
                context.token.reveal(), at, session_keys=True, stated_projects=stated
            )
            caller = identified if isinstance(identified, Caller) else await identified
        except IdentityProviderUnavailable:
            # An outage says nothing about the credential, so that it must not end sessions.
            caller = snapshot.authenticator.recheck_user(context.caller, at)
        present = replace(renew_context(context, snapshot), caller=caller)
        self.admit_spends(present, spends, datetime.now(UTC))


def _identify(
    snapshot: Snapshot, match: Match[EndpointT], token: str, request: IncomingRequest
) -> RequestContext[EndpointT] | Awaitable[RequestContext[EndpointT]]:
    caller = snapshot.authenticator.authenticate(
        token,
        request.received_at,
        session_keys=match.endpoint.session_keys,
        stated_projects=list_stated_projects(request.headers),
    )
    if isinstance(caller, Caller):
        return _make_checked_context(snapshot, match, caller, token, request)

    async def wait_for(caller: Awaitable[Caller]) -> RequestContext[EndpointT]:
        return _make_checked_context(snapshot, match, await caller, token, request)

    return wait_for(caller)


def _make_checked_context(
    snapshot: Snapshot, match: Match[EndpointT], caller: Caller, token: str, request: IncomingRequest
) -> RequestContext[EndpointT]:
    if match.path_id is not None or "?" in request.target:  # any other path is one that the routes know
        reject_token_in_target(request.target, token)
    context = make_context(snapshot, match, caller, token, request)
    if snapshot.state.stops:
        require_not_stopped(context)
    return context


def _session_query(context: RequestContext[WebSocketEndpoint]) -> str:
    """Return the query that tells the reader the session's model; the provider knows it from a short-lived key."""
    query, session = context.query, context.caller.session
    return f"{query}&{session.query}" if session is not None and "model=" not in query else query
