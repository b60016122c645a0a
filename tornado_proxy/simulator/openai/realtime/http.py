"""HTTP below /v1/realtime/: short-lived keys for sessions, and realtime calls with a sideband.

A key opens `/v1/realtime` and `/v1/realtime/calls` with the session settings that it was made for.  A realtime call has
no media, unless the simulator is given a WebRTC peer that answers calls (`answer_call`): its sideband gets one spoken
response to the session's instructions, then only responses to its own events.
"""

from __future__ import annotations

import time

from tornado_proxy.simulator.handlers.multipart_form import read_form_field
from tornado_proxy.simulator.handlers.provider_errors import ProviderError
from tornado_proxy.simulator.handlers.provider_handler import ProviderHandler
from tornado_proxy.simulator.json_values import Json, as_object, decode
from tornado_proxy.simulator.object_stores import RealtimeCall

#: Lifetime of a short-lived key: OpenAI's default for `expires_after` (client secrets reference).
_KEY_LIFETIME_S = 600

#: A minimal SDP answer without media (RFC 8866).
_SDP_ANSWER = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"


class ClientSecrets(ProviderHandler):
    """POST /v1/realtime/client_secrets."""

    async def post(self) -> None:
        """Respond with a key for the settings under `session`."""
        session = dict(as_object(self.read_json().get("session")))
        value, expires_at = self.make_key(session)
        shown = {"object": "realtime.session", "id": self.simulator.new_id("sess_"), **session}
        await self.send_json({"value": value, "expires_at": expires_at, "session": shown})

    def make_key(self, session: Json) -> tuple[str, int]:
        """Return a new key and the Unix time at which it expires."""
        value = self.simulator.new_id("ek_")
        self.simulator.session_keys.put(value, session)
        return value, int(time.time()) + _KEY_LIFETIME_S


class BetaSessions(ClientSecrets):
    """POST /v1/realtime/sessions and /v1/realtime/transcription_sessions: the body holds the settings."""

    async def post(self) -> None:
        """Respond with the session and its key."""
        session = self.read_json()
        value, expires_at = self.make_key(session)
        credential: Json = {"value": value, "expires_at": expires_at}
        shown = {"object": "realtime.session", "id": self.simulator.new_id("sess_"), **session}
        await self.send_json({**shown, "client_secret": credential})


class Calls(ProviderHandler):
    """POST /v1/realtime/calls: the body is an SDP offer, or a form with the offer and `session`."""

    async def post(self) -> None:
        """Respond with an SDP answer; `Location` names the realtime call."""
        # A short-lived key brings its settings along; a caller with the provider's key sends them in the form.
        session = self.simulator.session_keys.get(self.find_credential())
        if session is None:
            session = as_object(decode(read_form_field(self.request, "session", "{}").encode()))
        call_id, call = self.simulator.new_id("rtc_"), RealtimeCall(dict(session))
        call.on_end.append(lambda: self._forget(call_id))
        self.simulator.realtime_calls.put(call_id, call)
        answer_call = self.simulator.answer_call
        answer = _SDP_ANSWER if answer_call is None else await answer_call(self._read_offer(), call)
        self.set_status(201)
        self.set_header("Location", f"/v1/realtime/calls/{call_id}")
        await self.send_json(answer.encode(), content_type="application/sdp")

    def _read_offer(self) -> str:
        if self.request.headers.get("Content-Type", "").startswith("application/sdp"):
            return self.request.body.decode()
        return read_form_field(self.request, "sdp", "")

    def _forget(self, call_id: str) -> None:
        self.simulator.realtime_calls.pop(call_id)


class CallAction(ProviderHandler):
    """POST /v1/realtime/calls/{id}/accept, reject, refer and hangup."""

    async def post(self, call_id: str, action: str) -> None:
        """Perform the action; `accept` creates the realtime call, since the simulator receives no phone calls."""
        if action == "accept":
            self.simulator.realtime_calls.put(call_id, RealtimeCall(self.read_json()))
        call = self.simulator.realtime_calls.get(call_id)
        if call is None:
            raise ProviderError(404, f"No call found with id {call_id}.", code="call_id_not_found")
        if action in ("hangup", "reject"):
            self.simulator.realtime_calls.pop(call_id)
            call.hang_up()
        await self.send_json(b"")
