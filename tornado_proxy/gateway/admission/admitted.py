"""Requests and sessions that Admission has let through."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from tornado_proxy.domain.record import RequestIntent
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.gateway.http.list_sources import ListSource
from tornado_proxy.providers.contract import HttpEndpoint, SocketReader, WebSocketEndpoint
from tornado_proxy.upstream.credentials import ProviderAccess
from tornado_proxy.upstream.http.messages import UpstreamRequest
from tornado_proxy.upstream.websocket.connection import WebSocketRequest


class AdmittedRequest(msgspec.Struct, frozen=True):
    """An HTTP request that may be sent.

    `visible_objects` are the objects that its response may list, None for all; `list_sources` those of several keys.
    """

    context: RequestContext[HttpEndpoint]
    facts: RequestFacts
    intent: RequestIntent
    access: ProviderAccess
    upstream: UpstreamRequest
    visible_objects: frozenset[str] | None = None
    list_sources: tuple[ListSource, ...] = ()


@dataclass(frozen=True, slots=True)
class AdmittedSession:
    """A WebSocket session that may run.

    `billed_elsewhere` is True for a realtime call of this proxy that is metered over its sideband already.
    """

    context: RequestContext[WebSocketEndpoint]
    reader: SocketReader
    access: ProviderAccess
    billed_elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class AdmittedUpgrade(AdmittedSession):
    """A WebSocket session that may be opened with the request `upstream`."""

    upstream: WebSocketRequest = field(kw_only=True)

    def opened(self) -> AdmittedSession:
        """Return the session without its request, which is not needed once it is open."""
        return AdmittedSession(self.context, self.reader, self.access, self.billed_elsewhere)
