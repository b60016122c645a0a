"""/v1/realtime: what opening a session can cost, and the two sides of its frames put together for the relay."""

from __future__ import annotations

from urllib.parse import parse_qs

from tornado_proxy.domain.errors import BadRequest, RequestError
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.usage import UsageReport
from tornado_proxy.providers.contract import ClientFrame, SocketEvent, WebSocketEndpoint
from tornado_proxy.providers.openai.audio.transcription_models import transcription_spend
from tornado_proxy.providers.openai.realtime.client_events import error_event, read_client_event
from tornado_proxy.providers.openai.realtime.session import INPUT_TRANSCRIPTION, RealtimeSession, realtime_spend

#: The event by which a client asks for an answer.
_ASKS = "response.create"


class RealtimeSocketReader:
    """A SocketReader of one session.  `opening` is what its URL can cost, `references` the call that it names."""

    def __init__(self, model: str | None, opening: tuple[Spend, ...], references: tuple[str, ...]) -> None:
        self._session = RealtimeSession(model)
        self._opening = opening
        self.references = references

    @property
    def model(self) -> str | None:
        """The model that answers, as the provider last said."""
        return self._session.model

    @property
    def working(self) -> bool:
        """Whether a response or a transcription runs."""
        return self._session.working

    @property
    def spends(self) -> tuple[Spend, ...]:
        """What the session can be charged for: by its URL, and by the provider's last word on it."""
        return self._session.spends or self._opening

    def read_client_frame(self, frame: str | bytes) -> ClientFrame:
        """Look at a client's event.

        Raises:
            InvalidBody: not a JSON object with a `type`, or a member is given twice.
        """
        event = read_client_event(frame, self._session.model)
        facts = RequestFacts(model=self._session.model, body_bytes=len(frame)) if event.kind == _ASKS else None
        return ClientFrame(event.event_id, event.spends, (), facts)

    def refusal(self, error: RequestError, frame: ClientFrame, own_id: str) -> str:
        """An `error` event with the client's own event id."""
        return error_event(error, frame.event_id, own_id)

    def feed_server_frame(self, frame: str | bytes) -> tuple[SocketEvent, ...]:
        """Read an event of the provider."""
        return self._session.feed_server_event(frame)

    def close(self) -> tuple[UsageReport, ...]:
        """What the session leaves open."""
        return self._session.close()


def open_realtime(query: str, subprotocols: tuple[str, ...]) -> RealtimeSocketReader:
    """The reader of a session that is opened with `query` (raw, without the question mark).

    Raises:
        BadRequest: it names no model and no call, or a member twice.
    """
    model, intent, call_id = (query_argument(query, name) for name in ("model", "intent", "call_id"))
    references = () if call_id is None else (call_id,)
    if intent == "transcription":
        spends = () if model is None else (transcription_spend(model, role=INPUT_TRANSCRIPTION),)
        return RealtimeSocketReader(None, spends, references)
    if model is None and call_id is None:
        raise BadRequest("the query names no model; connect to /v1/realtime?model=...", param="model")
    return RealtimeSocketReader(model, () if model is None else (realtime_spend(model),), references)


def query_argument(query: str, name: str) -> str | None:
    """The value of `name` in a raw query; None where it is missing or empty.

    Raises:
        BadRequest: it stands there twice.
    """
    values = parse_qs(query, keep_blank_values=True).get(name, [])
    if len(values) > 1:
        raise BadRequest(f'"{name}" stands twice in the query; send it once', param=name)
    return values[0] if values and values[0] else None


REALTIME_SOCKET = WebSocketEndpoint("/v1/realtime", open_realtime, session_keys=True)
