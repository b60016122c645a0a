"""The Responses API over a WebSocket: `response.create` frames in, the events of the streams out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from tornado_proxy.simulator.handlers.provider_errors import ProviderFault
from tornado_proxy.simulator.handlers.websocket_handler import SocketHandler
from tornado_proxy.simulator.json_values import as_object
from tornado_proxy.simulator.model.output import Answer
from tornado_proxy.simulator.object_stores import StoredResponse
from tornado_proxy.simulator.openai.responses.events import failure_events, response_events
from tornado_proxy.simulator.openai.responses.handlers import ResponsesHandler


class ResponsesSocket(ResponsesHandler, SocketHandler):
    """GET /v1/responses with an upgrade.  A connection remembers its last response even where `store` is false."""

    _last: StoredResponse | None = None

    async def handle(self, event: Mapping[str, object]) -> None:
        """Answer a `response.create`; `generate: false` reads the prompt and writes nothing."""
        if event.get("type") != "response.create":
            raise ProviderFault(400, f"Unknown event type {event.get('type')!r}.", code="invalid_event", param="type")
        asked = as_object(event.get("response")) or event
        body = {key: value for key, value in asked.items() if key not in ("type", "generate", "background")}
        plan, prompt = await self.plan(body)
        if event.get("generate") is False:
            plan = replace(plan, answer=Answer())
        self.keep(plan, prompt)
        self._last = StoredResponse(plan, [], prompt.conversation, time.monotonic())
        failing = failure_events(plan, self.directives.error_after or 0)
        await self.send_paced_frames(response_events(plan), failing)

    def remembered(self, response_id: str) -> StoredResponse | None:
        """The connection's last response, or a stored one."""
        if self._last is not None and self._last.plan.id == response_id:
            return self._last
        return super().remembered(response_id)
