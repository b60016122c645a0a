"""HTTP below /v1/realtime/: short-lived keys, and calls whose media flows past the proxy.

    client_secrets                              a session's config -> a key; ours in place of the provider's
    sessions, transcription_sessions            the same in the beta shape
    translations/client_secrets                 the same for a translation session
    calls                                       SDP offer -> SDP answer; metered over a sideband
    calls/{id}/accept, reject, refer, hangup    own calls only

Source: OpenAI API reference, "Realtime"; guides "Realtime API with WebRTC" and "with SIP".
"""

from __future__ import annotations

import json
import re
from urllib.parse import urlencode

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.providers.contract import (
    HttpEndpoint,
    OwnedObject,
    ParsedRequest,
    RequestView,
    ResponseEdits,
    Seal,
    Sideband,
)
from tornado_proxy.providers.openai.realtime.client_events import read_object, session_spends
from tornado_proxy.providers.openai.realtime.translation import TRANSLATION_SOCKET, translation_spends
from tornado_proxy.providers.openai.realtime.websocket import open_realtime
from tornado_proxy.providers.openai.shared.usage_report import decode_object
from tornado_proxy.wire.multipart import read_form

_PRICED_AS = "/v1/realtime"

#: A short-lived key of the provider, wherever in an answer it stands.
_PROVIDER_KEY = re.compile(rb"(?<![A-Za-z0-9_.-])ek_[A-Za-z0-9_-]{8,}")


_MASK = "***"


def parse_secret(request: RequestView) -> ParsedRequest:
    """The config stands under `session`."""
    body = request.body
    return ParsedRequest(_facts(_session_of(body), len(body)), body)


def parse_translation_secret(request: RequestView) -> ParsedRequest:
    """The config of a translation session stands under `session`."""
    body = request.body
    session = _session_of(body)
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
    """The body is the config."""
    body = request.body
    return ParsedRequest(_facts(read_object(body), len(body)), body)


def parse_transcription(request: RequestView) -> ParsedRequest:
    """The body is the config of a session that only transcribes."""
    body = request.body
    return ParsedRequest(_facts({**read_object(body), "type": "transcription"}, len(body)), body)


def parse_call(request: RequestView) -> ParsedRequest:
    """An SDP offer, alone or in a form beside the session's config.  Alone, the caller's key says what it is for."""
    body = request.body
    if request.content_type.partition(";")[0].strip().lower() == "application/sdp":
        return ParsedRequest(RequestFacts(body_bytes=len(body)), body)
    config = read_form(body, request.content_type).content("session")
    if config is None:
        return ParsedRequest(RequestFacts(body_bytes=len(body)), body)
    return ParsedRequest(_facts(read_object(bytes(config)), len(body)), body)


def own_secrets(body: bytes, seal: Seal) -> bytes:
    """The answer with keys of ours in the place of the provider's; one that stands anywhere else is masked.

    Both shapes are known: `value` and `expires_at` on top, or under `client_secret`.  All other bytes stay, unless a
    key is spelled in a way that keys are not: then the answer is written anew.
    """
    ours: dict[str, str] = {}
    for place, value in _stated_keys(decode_object(body)):
        expires_at = place.get("expires_at")
        ours[value] = seal(value, expires_at) if isinstance(expires_at, int) else _MASK
    edited = _PROVIDER_KEY.sub(lambda found: ours.get(found[0].decode(), _MASK).encode(), body)
    answer = decode_object(edited)
    left = [(place, value) for place, value in _stated_keys(answer) if value in ours]
    for place, value in left:
        place["value"] = ours[value]
    return json.dumps(answer).encode() if left else edited


def _stated_keys(answer: dict[str, object] | None) -> list[tuple[dict[str, object], str]]:
    """Each object of the answer that states a key, with the key."""
    found = []
    for place in (answer, (answer or {}).get("client_secret")):
        value = place.get("value") if isinstance(place, dict) else None
        if isinstance(place, dict) and isinstance(value, str):
            found.append((place, value))
    return found


def _session_of(body: bytes) -> dict[str, object]:
    session = read_object(body).get("session")
    if not isinstance(session, dict):
        raise InvalidBody('"session" is missing; the key is for the session that it describes', param="session")
    return session


def _facts(session: dict[str, object], length: int) -> RequestFacts:
    spends = session_spends(session)
    transcribes = session.get("type") == "transcription"
    model = session.get("model")
    if not spends or (model is None and not transcribes):
        raise InvalidBody("the session names no model; name it, so that its price is known", param="model")
    query = urlencode({"intent": "transcription"} if transcribes else {"model": str(model)})
    return RequestFacts(model=spends[0].model, spends=spends, body_bytes=length, session_query=query)


_SIDEBAND = Sideband(
    target=lambda call_id: f"/v1/realtime?call_id={call_id}",
    hang_up=lambda call_id: f"/v1/realtime/calls/{call_id}/hangup",
    open_reader=open_realtime,
)

REALTIME_HTTP_ENDPOINTS = (
    HttpEndpoint(
        "POST",
        "/v1/realtime/client_secrets",
        parse=parse_secret,
        priced_as=_PRICED_AS,
        response_edits=ResponseEdits(seal_secrets=own_secrets),
    ),
    HttpEndpoint(
        "POST",
        "/v1/realtime/translations/client_secrets",
        parse=parse_translation_secret,
        priced_as=TRANSLATION_SOCKET.path,
        response_edits=ResponseEdits(seal_secrets=own_secrets),
    ),
    HttpEndpoint(
        "POST",
        "/v1/realtime/sessions",
        parse=parse_session,
        priced_as=_PRICED_AS,
        response_edits=ResponseEdits(seal_secrets=own_secrets),
    ),
    HttpEndpoint(
        "POST",
        "/v1/realtime/transcription_sessions",
        parse=parse_transcription,
        priced_as=_PRICED_AS,
        response_edits=ResponseEdits(seal_secrets=own_secrets),
    ),
    HttpEndpoint(
        "POST",
        "/v1/realtime/calls",
        parse=parse_call,
        priced_as=_PRICED_AS,
        session_keys=True,
        sideband=_SIDEBAND,
    ),
    HttpEndpoint(
        "POST",
        "/v1/realtime/calls/{id}/accept",
        parse=parse_session,
        priced_as=_PRICED_AS,
        objects=OwnedObject(),
        sideband=_SIDEBAND,
    ),
    *(
        HttpEndpoint("POST", f"/v1/realtime/calls/{{id}}/{one}", objects=OwnedObject())
        for one in ("reject", "refer", "hangup")
    ),
)
