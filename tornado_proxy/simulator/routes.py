"""Maps paths to handlers: both APIs under /v1, and each under its own prefix."""

from __future__ import annotations

from tornado.httputil import HTTPServerRequest
from tornado.routing import AnyMatches, Matcher, PathMatches, Rule
from tornado.web import RequestHandler

from tornado_proxy.simulator.anthropic import batches, complete, messages
from tornado_proxy.simulator.handlers import model_lists, request_log_handler
from tornado_proxy.simulator.handlers.unknown_path import UnknownAnthropicPath, UnknownPath
from tornado_proxy.simulator.openai import chat, embeddings, images
from tornado_proxy.simulator.openai.audio import speech, transcriptions
from tornado_proxy.simulator.openai.realtime import http as realtime_http
from tornado_proxy.simulator.openai.realtime import translation
from tornado_proxy.simulator.openai.realtime import websocket as realtime_websocket
from tornado_proxy.simulator.openai.responses import handlers as responses
from tornado_proxy.simulator.openai.responses import websocket as responses_websocket
from tornado_proxy.simulator.state import SimulatorState

_ID = "([^/]+)"
_OPENAI: tuple[tuple[str, type[RequestHandler]], ...] = (
    ("/v1/chat/completions", chat.ChatCompletions),
    ("/v1/embeddings", embeddings.Embeddings),
    ("/v1/responses", responses.Responses),
    ("/v1/responses/compact", responses.CompactResponse),
    ("/v1/responses/input_tokens", responses.CountInputTokens),
    (f"/v1/responses/{_ID}", responses.ResponseById),
    (f"/v1/responses/{_ID}/cancel", responses.CancelResponse),
    (f"/v1/responses/{_ID}/input_items", responses.ResponseInputItems),
    ("/v1/audio/speech", speech.Speech),
    ("/v1/audio/transcriptions", transcriptions.Transcriptions),
    ("/v1/audio/translations", transcriptions.Translations),
    ("/v1/images/generations", images.Images),
    ("/v1/images/edits", images.ImageEdits),
    ("/v1/images/variations", images.ImageVariations),
    ("/v1/realtime/client_secrets", realtime_http.ClientSecrets),
    ("/v1/realtime/translations/client_secrets", realtime_http.ClientSecrets),
    ("/v1/realtime/sessions", realtime_http.BetaSessions),
    ("/v1/realtime/transcription_sessions", realtime_http.BetaSessions),
    ("/v1/realtime/calls", realtime_http.Calls),
    (f"/v1/realtime/calls/{_ID}/(accept|reject|refer|hangup)", realtime_http.CallAction),
    ("/v1/models", model_lists.OpenAIModels),
    (f"/v1/models/{_ID}", model_lists.OpenAIModelById),
)
_WEBSOCKETS: tuple[tuple[str, type[RequestHandler]], ...] = (
    ("/v1/responses", responses_websocket.ResponsesWebSocket),
    ("/v1/realtime", realtime_websocket.RealtimeWebSocket),
    ("/v1/realtime/translations", translation.TranslationWebSocket),
)
_ANTHROPIC: tuple[tuple[str, type[RequestHandler]], ...] = (
    ("/v1/messages", messages.Messages),
    ("/v1/messages/count_tokens", messages.CountTokens),
    ("/v1/messages/batches", batches.Batches),
    (f"/v1/messages/batches/{_ID}", batches.BatchById),
    (f"/v1/messages/batches/{_ID}/cancel", batches.CancelBatch),
    (f"/v1/messages/batches/{_ID}/results", batches.BatchResults),
    ("/v1/complete", complete.Complete),
    ("/v1/models", model_lists.AnthropicModels),
    (f"/v1/models/{_ID}", model_lists.AnthropicModelById),
)


class _AnthropicPath(Matcher):
    """Matches a path if the request has the header `anthropic-version`, which every Anthropic client must send."""

    def __init__(self, pattern: str) -> None:
        self._path = PathMatches(pattern)

    def match(self, request: HTTPServerRequest) -> dict[str, object] | None:
        return self._path.match(request) if "anthropic-version" in request.headers else None


class _WebSocketPath(Matcher):
    """Matches a path if the request asks for an upgrade to a WebSocket."""

    def __init__(self, pattern: str) -> None:
        self._path = PathMatches(pattern)

    def match(self, request: HTTPServerRequest) -> dict[str, object] | None:
        upgrade = request.headers.get("Upgrade", "").lower()
        return self._path.match(request) if upgrade == "websocket" else None


def make_routes(simulator: SimulatorState) -> list[Rule]:
    """Return the rules of the application; the first match wins."""
    rules: list[tuple[Matcher, type[RequestHandler]]] = []
    if simulator.record:
        # Only with `record`, because the log shows credentials.
        rules.append((PathMatches("/_simulator/requests"), request_log_handler.RequestLogHandler))
    for path, handler in _ANTHROPIC:
        rules.append((PathMatches("/anthropic" + path), handler))
        # Both APIs have /v1/models; all other paths belong to one provider.
        shared = path.startswith("/v1/models")
        rules.append((_AnthropicPath(path) if shared else PathMatches(path), handler))
    # Before the HTTP routes: /v1/responses is a path of both.
    rules += [(_WebSocketPath("(?:/openai)?" + path), handler) for path, handler in _WEBSOCKETS]
    rules += [(PathMatches("(?:/openai)?" + path), handler) for path, handler in _OPENAI]
    rules += [
        # Last: each unknown path gets a 404 in the format that its client can parse.
        (PathMatches("/anthropic(?:/.*)?"), UnknownAnthropicPath),
        (_AnthropicPath(".*"), UnknownAnthropicPath),
        (AnyMatches(), UnknownPath),
    ]
    return [Rule(matcher, handler, {"simulator": simulator}) for matcher, handler in rules]
