"""Which path is whose: both APIs under /v1, and each under its own prefix."""

from __future__ import annotations

from tornado.httputil import HTTPServerRequest
from tornado.routing import AnyMatches, Matcher, PathMatches, Rule
from tornado.web import RequestHandler

from tornado_proxy.simulator import (
    anthropic_batches,
    anthropic_messages,
    inspection,
    model_lists,
    openai_chat,
    openai_images,
    openai_responses,
    openai_speech,
    openai_transcriptions,
    realtime_http,
    realtime_socket,
    responses_socket,
    translation_socket,
)
from tornado_proxy.simulator.state import SimulatorState
from tornado_proxy.simulator.unknown import UnknownAnthropicPath, UnknownPath

_ID = "([^/]+)"
_OPENAI: tuple[tuple[str, type[RequestHandler]], ...] = (
    ("/v1/chat/completions", openai_chat.ChatCompletions),
    ("/v1/embeddings", openai_chat.Embeddings),
    ("/v1/responses", openai_responses.Responses),
    ("/v1/responses/compact", openai_responses.CompactResponse),
    ("/v1/responses/input_tokens", openai_responses.CountInputTokens),
    (f"/v1/responses/{_ID}", openai_responses.OneResponse),
    (f"/v1/responses/{_ID}/cancel", openai_responses.CancelResponse),
    (f"/v1/responses/{_ID}/input_items", openai_responses.ResponseInputItems),
    ("/v1/audio/speech", openai_speech.Speech),
    ("/v1/audio/transcriptions", openai_transcriptions.Transcriptions),
    ("/v1/audio/translations", openai_transcriptions.Translations),
    ("/v1/images/generations", openai_images.Images),
    ("/v1/images/edits", openai_images.ImageEdits),
    ("/v1/images/variations", openai_images.ImageVariations),
    ("/v1/realtime/client_secrets", realtime_http.ClientSecrets),
    ("/v1/realtime/translations/client_secrets", realtime_http.ClientSecrets),
    ("/v1/realtime/sessions", realtime_http.BetaSessions),
    ("/v1/realtime/transcription_sessions", realtime_http.BetaSessions),
    ("/v1/realtime/calls", realtime_http.Calls),
    (f"/v1/realtime/calls/{_ID}/(accept|reject|refer|hangup)", realtime_http.CallAction),
    ("/v1/models", model_lists.OpenAIModels),
    (f"/v1/models/{_ID}", model_lists.OneOpenAIModel),
)
_SOCKETS: tuple[tuple[str, type[RequestHandler]], ...] = (
    ("/v1/responses", responses_socket.ResponsesSocket),
    ("/v1/realtime", realtime_socket.RealtimeSocket),
    ("/v1/realtime/translations", translation_socket.TranslationSocket),
)
_ANTHROPIC: tuple[tuple[str, type[RequestHandler]], ...] = (
    ("/v1/messages", anthropic_messages.Messages),
    ("/v1/messages/count_tokens", anthropic_messages.CountTokens),
    ("/v1/messages/batches", anthropic_batches.Batches),
    (f"/v1/messages/batches/{_ID}", anthropic_batches.OneBatch),
    (f"/v1/messages/batches/{_ID}/cancel", anthropic_batches.CancelBatch),
    (f"/v1/messages/batches/{_ID}/results", anthropic_batches.BatchResults),
    ("/v1/complete", anthropic_messages.Complete),
    ("/v1/models", model_lists.AnthropicModels),
    (f"/v1/models/{_ID}", model_lists.OneAnthropicModel),
)


class _AnthropicPath(Matcher):
    """A path, where the request shows by its `anthropic-version` header which API it means."""

    def __init__(self, pattern: str) -> None:
        self._path = PathMatches(pattern)

    def match(self, request: HTTPServerRequest) -> dict[str, object] | None:
        return self._path.match(request) if "anthropic-version" in request.headers else None


class _SocketPath(Matcher):
    """A path, where the request asks to become a WebSocket."""

    def __init__(self, pattern: str) -> None:
        self._path = PathMatches(pattern)

    def match(self, request: HTTPServerRequest) -> dict[str, object] | None:
        upgrade = request.headers.get("Upgrade", "").lower()
        return self._path.match(request) if upgrade == "websocket" else None


def make_routes(simulator: SimulatorState) -> list[Rule]:
    """The rules of the application, first match wins."""
    rules: list[tuple[Matcher, type[RequestHandler]]] = []
    if simulator.record:
        rules.append((PathMatches("/_simulator/requests"), inspection.Requests))
    for path, handler in _ANTHROPIC:
        rules.append((PathMatches("/anthropic" + path), handler))
        shared = path.startswith("/v1/models")
        rules.append((_AnthropicPath(path) if shared else PathMatches(path), handler))
    rules += [(_SocketPath("(?:/openai)?" + path), handler) for path, handler in _SOCKETS]
    rules += [(PathMatches("(?:/openai)?" + path), handler) for path, handler in _OPENAI]
    rules += [
        (PathMatches("/anthropic(?:/.*)?"), UnknownAnthropicPath),
        (_AnthropicPath(".*"), UnknownAnthropicPath),
        (AnyMatches(), UnknownPath),
    ]
    return [Rule(matcher, handler, {"simulator": simulator}) for matcher, handler in rules]
