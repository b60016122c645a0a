"""HTTP below /v1/realtime/: short-lived keys for sessions, and calls with a sideband.

A key opens `/v1/realtime` and `/v1/realtime/calls` with the session it was made for.  A call has no media; who listens
on its sideband hears one spoken answer to the session's instructions, and then nothing until it is hung up.
"""

from __future__ import annotations

import time

from tornado_proxy.simulator.handlers.multipart_form import form_field
from tornado_proxy.simulator.handlers.provider_errors import ProviderFault
from tornado_proxy.simulator.handlers.provider_handler import ProviderHandler
from tornado_proxy.simulator.json_values import Json, as_object, decode
from tornado_proxy.simulator.object_stores import Call

_KEY_LASTS_S = 600
_SDP_ANSWER = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"


class ClientSecrets(ProviderHandler):
    """POST /v1/realtime/client_secrets."""

    async def post(self) -> None:
        """A key for the session under `session`."""
        session = dict(as_object(self.read_json().get("session")))
        value, expires_at = self.new_key(session)
        shown = {"object": "realtime.session", "id": self.simulator.new_id("sess_"), **session}
        await self.send_json({"value": value, "expires_at": expires_at, "session": shown})

    def new_key(self, session: Json) -> tuple[str, int]:
        """A fresh key, and when it expires."""
        value = self.simulator.new_id("ek_")
        self.simulator.session_keys.put(value, session)
        return value, int(time.time()) + _KEY_LASTS_S


class BetaSessions(ClientSecrets):
    """POST /v1/realtime/sessions and /v1/realtime/transcription_sessions: the config is the body."""

    async def post(self) -> None:
        """The session, with a key in it."""
        session = self.read_json()
        value, expires_at = self.new_key(session)
        secret: Json = {"value": value, "expires_at": expires_at}
        shown = {"object": "realtime.session", "id": self.simulator.new_id("sess_"), **session}
        await self.send_json({**shown, "client_secret": secret})


class Calls(ProviderHandler):
    """POST /v1/realtime/calls: an SDP offer, alone or in a form beside `session`."""

    async def post(self) -> None:
        """The SDP answer; `Location` names the call."""
        session = self.simulator.session_keys.get(self.credential())
        if session is None:
            session = as_object(decode(form_field(self.request, "session", "{}").encode()))
        call_id = self.simulator.new_id("rtc_")
        self.simulator.calls.put(call_id, Call(dict(session)))
        self.set_status(201)
        self.set_header("Location", f"/v1/realtime/calls/{call_id}")
        await self.send_json(_SDP_ANSWER.encode(), content_type="application/sdp")


class CallAction(ProviderHandler):
    """POST /v1/realtime/calls/{id}/accept, reject, refer and hangup."""

    async def post(self, call_id: str, action: str) -> None:
        """Do it; a call that comes in is made known by its `accept`."""
        if action == "accept":
            self.simulator.calls.put(call_id, Call(self.read_json()))
        call = self.simulator.calls.get(call_id)
        if call is None:
            raise ProviderFault(404, f"No call found with id {call_id}.", code="call_id_not_found")
        if action in ("hangup", "reject"):
            self.simulator.calls.pop(call_id)
            call.hang_up()
        await self.send_json(b"")
