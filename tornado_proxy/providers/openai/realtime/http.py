"""HTTP endpoints below /v1/realtime/: short-lived keys, and realtime calls whose media does not pass the proxy.

    client_secrets                              a session's configuration -> a short-lived key; replaced by one of ours
    sessions, transcription_sessions            the same in the beta format
    translations/client_secrets                 the same for a translation session
    calls                                       SDP offer -> SDP answer; metered over a sideband
    calls/{id}/accept, reject, refer, hangup    for realtime calls of the caller's project

Source: OpenAI API reference, "Realtime"; guides "Realtime API with WebRTC" and "Realtime API with SIP".
"""

from __future__ import annotations

import json
import re
from urllib.parse import urlencode

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.providers.contract import (
    HttpEndpoint,
    Parse,
    ParsedRequest,
    RequestView,
    ResponseEdits,
    Seal,
    Sideband,
)
from tornado_proxy.providers.openai.realtime.session_config import session_spends
from tornado_proxy.providers.openai.realtime.translation import TRANSLATION_SOCKET, translation_spends
from tornado_proxy.providers.openai.realtime.websocket import REALTIME_SOCKET, open_realtime
from tornado_proxy.providers.owned_objects import OwnedObject
from tornado_proxy.providers.shared.json_values import decode_object
from tornado_proxy.providers.shared.strict_json import decode_strict_object
from tornado_proxy.wire.multipart import read_form

#: A short-lived key of the provider, anywhere in a response.
_PROVIDER_KEY = re.compile(rb"(?<![A-Za-z0-9_.-])ek_[A-Za-z0-9_-]{8,}")
_MASK = "***"


def parse_secret(request: RequestView) -> ParsedRequest:
    """Return the facts of a key request, whose `session` is the configuration, and its unchanged body.

    Raises:
        InvalidBody: the body is not a JSON object with a `session` that names its model, or has a repeated member.
    """
    body = request.body
    return ParsedRequest(_session_facts(_read_session(body), len(body)), body)


def parse_translation_secret(request: RequestView) -> ParsedRequest:
    """Return the facts of a key request for a translation session, and its unchanged body.

    Raises:
        InvalidBody: as parse_secret() does.
        BadRequest: the session asks for a transcription without a way to meter it.
    """
    body = request.body
    session = _read_session(body)
    model = session.get("model")
    if not isinstance(model, str):
        raise InvalidBody("the session names no model; name it, so that its price is known", param="model")
    facts = RequestFacts(
        model=model,
        spends=translation_spends(session),
        body_bytes=len(body),
        session_query=urlencode({"model": model}),
    )
    return ParsedRequest(facts, body)


def parse_session(request: RequestView) -> ParsedRequest:
    """Return the facts of a body that is itself the configuration.  Raises as parse_secret() does."""
    body = request.body
    return ParsedRequest(_session_facts(decode_strict_object(body), len(body)), body)


def parse_transcription(request: RequestView) -> ParsedRequest:
    """Return the facts of a body that configures a transcription session.  Raises as parse_secret() does."""
    body = request.body
    session = {**decode_strict_object(body), "type": "transcription"}
    return ParsedRequest(_session_facts(session, len(body)), body)


def parse_call(request: RequestView) -> ParsedRequest:
    """Return the facts of an SDP offer, alone or in a form with the session's configuration.

    An offer alone has no spends: the caller's session key holds them.

    Raises:
        InvalidBody: the form is invalid, or its session is (see parse_secret).
    """
    body = request.body
    if request.content_type.partition(";")[0].strip().lower() == "application/sdp":
        return ParsedRequest(RequestFacts(body_bytes=len(body)), body)
    session = read_form(body, request.content_type).content("session")
    if session is None:
        return ParsedRequest(RequestFacts(body_bytes=len(body)), body)
    return ParsedRequest(_session_facts(decode_strict_object(bytes(session)), len(body)), body)


def seal_secrets(body: bytes, seal: Seal) -> bytes:
    """Return a response with the provider's short-lived keys replaced by ours; mask any other occurrence of a key.

    A key is `value`, with `expires_at`, at the top level (general format) or in `client_secret` (beta format).  All
    other bytes stay, unless a key is escaped or unusual, so that a search in the bytes misses it: then the response is
    encoded again.
    """
    our_keys: dict[str, str] = {}
    for holder, provider_key in _find_keys(decode_object(body)):
        expires_at = holder.get("expires_at")
        our_keys[provider_key] = seal(provider_key, expires_at) if isinstance(expires_at, int) else _MASK
    edited = _PROVIDER_KEY.sub(lambda match: our_keys.get(match[0].decode(), _MASK).encode(), body)
    response = decode_object(edited)
    missed = [(holder, key) for holder, key in _find_keys(response) if key in our_keys]
    for holder, key in missed:
        holder["value"] = our_keys[key]
    return json.dumps(response).encode() if missed else edited


def _find_keys(response: dict[str, object] | None) -> list[tuple[dict[str, object], str]]:
    """Return each object of the response that contains a key, with the key."""
    keys = []
    for holder in (response, (response or {}).get("client_secret")):
        value = holder.get("value") if isinstance(holder, dict) else None
        if isinstance(holder, dict) and isinstance(value, str):
            keys.append((holder, value))
    return keys


def _read_session(body: bytes) -> dict[str, object]:
    session = decode_strict_object(body).get("session")
    if not isinstance(session, dict):
        raise InvalidBody('"session" is missing; send the configuration of the session of the key', param="session")
    return session


def _session_facts(session: dict[str, object], body_bytes: int) -> RequestFacts:
    spends = session_spends(session)
    transcribes = session.get("type") == "transcription"
    model = session.get("model")
    if not spends or (model is None and not transcribes):
        raise InvalidBody("the session names no model; name it, so that its price is known", param="model")
    query = urlencode({"intent": "transcription"} if transcribes else {"model": str(model)})
    return RequestFacts(model=spends[0].model, spends=spends, body_bytes=body_bytes, session_query=query)


_SIDEBAND = Sideband(
    target=lambda call_id: f"/v1/realtime?call_id={call_id}",
    hang_up=lambda call_id: f"/v1/realtime/calls/{call_id}/hangup",
    open_reader=open_realtime,
)


def _key_endpoint(name: str, parse: Parse, priced_as: str = REALTIME_SOCKET.path) -> HttpEndpoint:
    # Free: the sessions that the key opens are charged, over their WebSocket or sideband.
    edits = ResponseEdits(seal_secrets=seal_secrets)
    return HttpEndpoint("POST", f"/v1/realtime/{name}", parse=parse, priced_as=priced_as, response_edits=edits)


REALTIME_HTTP_ENDPOINTS = (
    _key_endpoint("client_secrets", parse_secret),
    _key_endpoint("translations/client_secrets", parse_translation_secret, TRANSLATION_SOCKET.path),
    _key_endpoint("sessions", parse_session),
    _key_endpoint("transcription_sessions", parse_transcription),
    HttpEndpoint(
        "POST",
        "/v1/realtime/calls",
        parse=parse_call,
        priced_as=REALTIME_SOCKET.path,
        session_keys=True,
        sideband=_SIDEBAND,
    ),
    HttpEndpoint(
        "POST",
        "/v1/realtime/calls/{id}/accept",
        parse=parse_session,
        priced_as=REALTIME_SOCKET.path,
        objects=OwnedObject(),
        sideband=_SIDEBAND,
    ),
    *(
        HttpEndpoint("POST", f"/v1/realtime/calls/{{id}}/{action}", objects=OwnedObject())
        for action in ("reject", "refer", "hangup")
    ),
)
