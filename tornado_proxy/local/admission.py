"""The admission of the local proxy: its own bearer in, the session's token out, and every model allowed.

The hosted proxy decides about models, prices and objects.  The local one only counts, so that it must not refuse what
it cannot price: such a record is unsettled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from datetime import datetime

from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.gateway.admission.admission import Admission
from tornado_proxy.gateway.context import RequestContext, make_context
from tornado_proxy.http_server.incoming_request import IncomingRequest
from tornado_proxy.local.access import LocalAccess
from tornado_proxy.local.hosted import HostedProxy
from tornado_proxy.providers.contract import Endpoint, HttpEndpoint, WebSocketEndpoint
from tornado_proxy.providers.route_table import EndpointT, Match
from tornado_proxy.snapshot import Snapshot
from tornado_proxy.upstream.credentials import reject_token_in_target


class LocalAdmission(Admission):
    """Admits requests of this machine.  Call use() before the first one."""

    def use(self, access: LocalAccess, hosted: HostedProxy, caller: Caller) -> None:
        """Admit requests by `access`, send them to `hosted`, and record them as those of `caller`."""
        self._access = access
        self._hosted = hosted
        self._caller = caller

    def authenticate(
        self, snapshot: Snapshot, request: IncomingRequest
    ) -> RequestContext[HttpEndpoint] | Awaitable[RequestContext[HttpEndpoint]]:
        """Return the route of a request of this machine; an awaitable if the token must be refreshed.

        Raises:
            CallerError: a page sent it, no endpoint matches, the bearer is missing, or there is no session.
        """
        self._access.check_sender(request)
        return self._identify(snapshot.routes.match_http(request.method, request.target), request)

    def authenticate_upgrade(
        self, snapshot: Snapshot, request: IncomingRequest
    ) -> RequestContext[WebSocketEndpoint] | Awaitable[RequestContext[WebSocketEndpoint]]:
        """Return the route of a WebSocket upgrade of this machine; an awaitable if the token must be refreshed.

        Raises:
            CallerError: as authenticate().
        """
        self._access.check_sender(request)
        return self._identify(snapshot.routes.match_websocket(request.target), request)

    def require_priced_spend(self, context: RequestContext[HttpEndpoint], facts: RequestFacts) -> None:
        """Accept every request: the hosted proxy refuses."""

    def refuse_unknown_model(self) -> None:
        """Accept every frame: the hosted proxy refuses."""

    def admit_spends(self, context: RequestContext[Endpoint], spends: Iterable[Spend], at: datetime) -> None:
        """Accept every model: the hosted proxy refuses."""

    async def recheck(self, context: RequestContext[Endpoint], spends: Iterable[Spend], snapshot: Snapshot) -> None:
        """Accept a running session: the hosted proxy checks its credential."""

    def _identify(
        self, match: Match[EndpointT], request: IncomingRequest
    ) -> RequestContext[EndpointT] | Awaitable[RequestContext[EndpointT]]:
        self._access.check_credential(request, match.provider)
        reject_token_in_target(request.target, self._access.credential.reveal())
        current = self._hosted.find_current()
        if current is not None:
            return self._make_context(current, match, request)

        async def refresh() -> RequestContext[EndpointT]:
            return self._make_context(await self._hosted.get_current(), match, request)

        return refresh()

    def _make_context(
        self, snapshot: Snapshot, match: Match[EndpointT], request: IncomingRequest
    ) -> RequestContext[EndpointT]:
        return make_context(snapshot, match, self._caller, self._access.credential.reveal(), request)
