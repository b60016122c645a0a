"""Error responses in the format of each provider."""

from __future__ import annotations

from tornado.web import Finish, HTTPError

from tornado_proxy.simulator.handlers.sse_event import Event
from tornado_proxy.simulator.json_values import Json, encode

#: Error types by status; other statuses get the type of their class, 4xx or 5xx.
_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    409: "conflict_error",
    429: "rate_limit_exceeded",
    500: "server_error",
    503: "server_error",
    529: "server_error",
}
_OPENAI_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded", 503: "server_is_overloaded"}
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class ProviderError(HTTPError):
    """An error response.  Clients see `message`; `code` and `param` are OpenAI's members of those names."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(status)
        self.message = message
        self.code = code
        self.param = param


class ConnectionClosed(Finish):
    """Raised to end a handler whose connection was closed by the client or by a directive.

    Tornado treats a Finish as the normal end of a handler: it neither logs it nor writes an error response.
    """


def make_openai_error(status: int, message: str, code: str | None = None, param: str | None = None) -> Json:
    """Return an error body in OpenAI's format (error codes guide)."""
    kind = _OPENAI_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code or _OPENAI_CODES.get(status)}}


def make_openai_failure(_events_sent: int) -> list[Event]:
    """Return the unnamed event that replaces the rest of an OpenAI stream when the provider fails."""
    return [("", encode(make_openai_error(500, "simulated failure")))]


def make_anthropic_error(status: int, message: str, request_id: str) -> Json:
    """Return an error body in Anthropic's format (errors page)."""
    kind = _ANTHROPIC_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}


def make_model_not_found(model: str, *, anthropic: bool) -> ProviderError:
    """Return the provider's error for a model that does not exist."""
    if anthropic:
        return ProviderError(404, f"model: {model}")
    message = f"The model `{model}` does not exist or you do not have access to it."
    return ProviderError(404, message, code="model_not_found", param="model")
