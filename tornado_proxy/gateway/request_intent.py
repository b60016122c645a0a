"""Makes the intent of a request: everything that its record states before the provider responds."""

from __future__ import annotations

from datetime import datetime

from tornado_proxy.domain.record import NO_RETRY_FACTS, RequestIntent
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.providers.contract import Endpoint
from tornado_proxy.upstream.credentials import ProviderAccess
from tornado_proxy.wire.annotations import check_annotations
from tornado_proxy.wire.client_facts import attribute_request
from tornado_proxy.wire.retry_headers import read_retry_headers


def request_intent(
    context: RequestContext[Endpoint],
    access: ProviderAccess,
    facts: RequestFacts,
    request_id: str,
    started_at: datetime,
    *,
    session: str | None = None,
) -> RequestIntent:
    """Return the intent of a request; `session` is the id of the WebSocket session or realtime call it belongs to."""
    caller = context.caller
    return RequestIntent(
        request_id=request_id,
        caller=caller,
        provider=context.provider.name,
        endpoint=context.upstream_target.partition("?")[0],
        method=context.endpoint.method,
        model_requested=facts.model,
        started_at=started_at,
        session=session,
        annotations=check_annotations(context.stated.annotations) if context.stated.annotations else (),
        key=access.made_with,
        provider_key_ids=access.provider_key_ids,
        labels=context.labels,
        attribution=attribute_request(
            context.stated, facts.described, context.project.attribution, caller.participant or caller.user
        ),
        traceparent=context.stated.traceparent,
        # The headers of a WebSocket's opening request are not those of each request on it.
        retry=read_retry_headers(context.head.headers, caller, context.provider.name)
        if session is None
        else NO_RETRY_FACTS,
    )
