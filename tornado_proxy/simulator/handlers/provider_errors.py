"""Errors as the providers write them."""

from __future__ import annotations

from tornado.web import Finish, HTTPError

from tornado_proxy.simulator.json_values import Json

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


class ProviderFault(HTTPError):
    """An error answer.  `message` is shown; `code` and `param` are OpenAI's members of that name."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(status)
        self.message = message
        self.code = code
        self.param = param


class ConnectionDone(Finish):
    """Ends a handler whose connection is closed, by the client or by a directive."""


def openai_error(status: int, message: str, code: str | None = None, param: str | None = None) -> Json:
    """OpenAI's shape (error codes guide)."""
    kind = _OPENAI_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code or _OPENAI_CODES.get(status)}}


def anthropic_error(status: int, message: str, request_id: str) -> Json:
    """Anthropic's shape (errors page)."""
    kind = _ANTHROPIC_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}


def model_not_found(model: str, *, anthropic: bool) -> ProviderFault:
    """What each provider says of a model that does not exist."""
    if anthropic:
        return ProviderFault(404, f"model: {model}")
    message = f"The model `{model}` does not exist or you do not have access to it."
    return ProviderFault(404, message, code="model_not_found", param="model")
