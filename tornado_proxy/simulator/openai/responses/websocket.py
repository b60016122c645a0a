"""The Responses API over a WebSocket: it reads `response.create` events and sends the events of a stream."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from tornado_proxy.simulator.handlers.provider_errors import ProviderError
from tornado_proxy.simulator.handlers.websocket_handler import ProviderWebSocketHandler
from tornado_proxy.simulator.json_values import as_object, as_text, encode
from tornado_proxy.simulator.model.output import ModelOutput
from tornado_proxy.simulator.object_stores import StoredResponse
from tornado_proxy.simulator.openai.responses.events import make_failure_events, make_response_events
from tornado_proxy.simulator.openai.responses.handlers import ResponsesHandler


class ResponsesWebSocket(ResponsesHandler, ProviderWebSocketHandler):
    """GET /v1/responses with an upgrade.

    A connection can continue from its last response even if `store` is false.
    """

    _last: StoredResponse | None = None
    #: The `stream_id` of the frame that is handled; its events repeat it.
    _lane: str = ""

    async def handle_event(self, event: Mapping[str, object]) -> None:
        """Handle a `response.create`; with `generate: false` the response reads the prompt and has no output."""
        self._lane = as_text(event.get("stream_id"))
        if event.get("type") != "response.create":
            raise ProviderError(400, f"Unknown event type {event.get('type')!r}.", code="invalid_event", param="type")
        # The members of a request may be inside `response` or beside `type`; both forms are in use.
        members = as_object(event.get("response")) or event
        body = {key: value for key, value in members.items() if key not in ("type", "generate", "background")}
        plan, prompt = await self.plan_response(body)
        if event.get("generate") is False:
            plan = replace(plan, output=ModelOutput())
        self.store_response(plan, prompt)
        self._last = StoredResponse(plan, [], prompt.conversation, time.monotonic())
        failing = make_failure_events(plan, self.directives.error_after or 0)
        await self.send_paced_events(make_response_events(plan), failing)

    async def send_text(self, data: bytes) -> None:
        """Send an event; it repeats the lane of the frame that it follows from."""
        await super().send_text(b'{"stream_id":%b,%b' % (encode(self._lane), data[1:]) if self._lane else data)

    def find_previous(self, response_id: str) -> StoredResponse | None:
        """Return the connection's last response, a stored one, or None."""
        if self._last is not None and self._last.plan.id == response_id:
            return self._last
        return super().find_previous(response_id)
