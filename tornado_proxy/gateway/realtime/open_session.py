"""Runs an open session: in live views while it runs, in the access log when it has ended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.gateway.realtime.meter import SessionRecorder
from tornado_proxy.gateway.realtime.relay import WebSocketRelay
from tornado_proxy.gateway.recorder import RunningRequest
from tornado_proxy.gateway.services import Services
from tornado_proxy.observability import access_log
from tornado_proxy.providers.contract import WebSocketEndpoint


class DetachableClient(Protocol):
    """The client's side of a session."""

    def detach(self) -> None:
        """Ignore all that the client still sends."""


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """The facts of a session that live views and the access log show; `began_at` is of the monotonic clock."""

    request_id: str
    context: RequestContext[WebSocketEndpoint]
    meter: SessionRecorder
    began_at: float


async def run_session(relay: WebSocketRelay, client: DetachableClient, facts: SessionFacts, services: Services) -> None:
    """Relay frames until the session has ended."""
    services.recorder.follow(_running(facts))
    try:
        await relay.run()
    finally:
        client.detach()  # it refers to the relay, which refers to it: break the cycle
        services.budgets.close_stream(facts.request_id)
        services.recorder.unfollow(facts.request_id)
        _log_end(facts, relay.closed.code)


def _running(facts: SessionFacts) -> RunningRequest:
    context = facts.context
    return RunningRequest(
        context.caller,
        facts.request_id,
        context.provider.name,
        "WS",
        context.endpoint.path,
        facts.meter.model,
        datetime.now(UTC),
        facts.meter,
    )


def _log_end(facts: SessionFacts, close_code: int) -> None:
    context = facts.context
    end = access_log.SessionEnd(
        request_id=facts.request_id,
        caller=context.caller,
        provider=context.provider.name,
        endpoint=context.endpoint.path,
        close_code=close_code,
        duration_s=time.monotonic() - facts.began_at,
        records=facts.meter.records,
        config_generation=context.snapshot.generation,
    )
    access_log.log_session_end(end)
