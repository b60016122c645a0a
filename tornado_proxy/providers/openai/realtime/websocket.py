"""/v1/realtime as a WebSocket: the spends of opening a session, and its frames in both directions."""

from __future__ import annotations

from urllib.parse import parse_qs

from tornado_proxy.domain.errors import BadRequest, RequestError
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.usage import UsageReport
from tornado_proxy.providers.contract import ClientFrame, SocketEvent, WebSocketEndpoint
from tornado_proxy.providers.openai.realtime.client_events import error_event, read_client_event
from tornado_proxy.providers.openai.realtime.session import RealtimeSession
from tornado_proxy.providers.openai.realtime.session_config import input_transcription_spend, realtime_spend

#: The event with which a client requests a response.
_CREATE = "response.create"


class RealtimeSocketReader:
    """A SocketReader of one session.

    `opening_spends` are the spends that the URL names; `references` contains the id of the call that it names.
    """

    def __init__(self, model: str | None, opening_spends: tuple[Spend, ...], references: tuple[str, ...]) -> None:
        self._session = RealtimeSession(model, opening_spends)
        self.references = references

    @property
    def model(self) -> str | None:
        """The model of responses, by the provider's latest session event."""
        return self._session.model

    @property
    def working(self) -> bool:
        """True while a response or a transcription runs."""
        return self._session.working

    @property
    def spends(self) -> tuple[Spend, ...]:
        """Spends of the session: by the provider's latest session event, else by the URL."""
        return self._session.spends

    def accept_frame(self, frame: ClientFrame) -> ClientFrame:
        """Return the frame: a session keeps nothing of it."""
        return frame

    def refusal(self, error: RequestError, frame: ClientFrame, event_id: str) -> str:
        """Return an `error` event with the id of the client's event."""
        return error_event(error, frame.event_id, event_id)

    def feed_server_frame(self, frame: str | bytes) -> tuple[SocketEvent, ...]:
        """Read a provider's frame; return its events in order."""
        return self._session.feed_server_event(frame)

    def close(self) -> tuple[UsageReport, ...]:
        """End the session; return reports of unfinished work."""
        return self._session.close()


def parse_realtime_frame(frame: bytes, model: str | None) -> ClientFrame:
    """Read a client's event before it goes to the provider; `model` is that of the session.

    Raises:
        InvalidBody: the frame is not a JSON object with a `type`, or it has a repeated member.
    """
    event = read_client_event(frame, model)
    facts = RequestFacts(model=model, body_bytes=len(frame)) if event.kind == _CREATE else None
    return ClientFrame(event.event_id, event.spends, event.references, facts)


def open_realtime(query: str, subprotocols: tuple[str, ...]) -> RealtimeSocketReader:
    """Return the reader of a session that is opened with `query` (raw, without the question mark).

    Raises:
        BadRequest: the query names neither a model nor a call, or an argument twice.
    """
    model, intent, call_id = (query_argument(query, name) for name in ("model", "intent", "call_id"))
    references = () if call_id is None else (call_id,)
    if intent == "transcription":
        spends = () if model is None else (input_transcription_spend(model),)
        return RealtimeSocketReader(None, spends, references)
    if model is None and call_id is None:
        raise BadRequest("the query names no model; connect to /v1/realtime?model=...", param="model")
    return RealtimeSocketReader(model, () if model is None else (realtime_spend(model),), references)


def query_argument(query: str, name: str) -> str | None:
    """Return the value of `name` in a raw query; None if it is missing or empty.

    Raises:
        BadRequest: the query has it twice.
    """
    values = parse_qs(query, keep_blank_values=True).get(name, [])
    if len(values) > 1:
        raise BadRequest(f'the query contains "{name}" twice; send it once', param=name)
    return values[0] if values and values[0] else None


REALTIME_SOCKET = WebSocketEndpoint("/v1/realtime", open_realtime, parse_realtime_frame, session_keys=True)
