"""HTTP clients for the SDKs that log each request and response without secrets, and without delaying a stream.

request ──> #1 POST URL headers body
response head ──> #1 200 after 85 ms headers
response body, passed on as it arrives ──> when it ends: #1 1834 bytes in 310 ms: body
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import logging
from collections.abc import Callable, Coroutine, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Literal, cast, overload

from tornado_proxy.sdk.exchange_log import AsyncPassingBody, BodyCapture, ExchangeLog, PassingBody, is_enabled
from tornado_proxy.sdk.redaction import Redactor

if TYPE_CHECKING:
    import httpx2

#: The timeouts, in seconds, and the numbers of connections of the SDKs' own HTTP clients.
_TIMEOUT_S, _CONNECT_TIMEOUT_S, _MAX_CONNECTIONS, _MAX_IDLE_CONNECTIONS = 600.0, 5.0, 1000, 100

#: The extension of a request that holds its ExchangeLog.
_EXTENSION = "tornado_proxy.sdk"


def _import_http_library() -> ModuleType:
    """Return httpx2, or httpx for an SDK that accepts its clients only; both have the same names."""
    name = "httpx2"
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        if int(importlib.metadata.version("openai").partition(".")[0]) < 3:
            name = "httpx"
    return importlib.import_module(name)


_LIBRARY = _import_http_library()


@overload
def get_logging_http_client(*, asynchronous: Literal[False] = False, body_limit: int = 4096) -> httpx2.Client: ...


@overload
def get_logging_http_client(*, asynchronous: Literal[True], body_limit: int = 4096) -> httpx2.AsyncClient: ...


def get_logging_http_client(
    *, asynchronous: bool = False, body_limit: int = 4096
) -> httpx2.Client | httpx2.AsyncClient:
    """Return an HTTP client for `http_client=` of an SDK, which logs to `tornado_proxy.sdk.http` at level INFO.

    Credential headers, cookies, and secrets in URLs and bodies are shown as `***`.  It is an httpx2 client; with openai
    before version 3, which does not accept one, an httpx client.

    Args:
        asynchronous: Return the client of an asynchronous SDK client.
        body_limit: Bytes of each body that are logged; 0 logs none.

    Raises:
        ValueError: `body_limit` is negative.
    """
    if body_limit < 0:
        raise ValueError(f"body_limit is {body_limit}; it must be 0 or more bytes")
    _filter_library_log()
    options = {
        "event_hooks": _make_async_hooks(body_limit) if asynchronous else _make_hooks(body_limit),
        "timeout": _LIBRARY.Timeout(_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S),
        "limits": _LIBRARY.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=_MAX_IDLE_CONNECTIONS),
        "follow_redirects": True,
    }
    if asynchronous:
        return cast("httpx2.AsyncClient", _LIBRARY.AsyncClient(**options))
    return cast("httpx2.Client", _LIBRARY.Client(**options))


def _filter_library_log() -> None:
    own_log = logging.getLogger(_LIBRARY.__name__)
    if not any(isinstance(known, _UrlFilter) for known in own_log.filters):
        own_log.addFilter(_UrlFilter())


class _UrlFilter(logging.Filter):
    """Redacts the URL in the line that the HTTP library itself logs for each request, at the same level."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                Redactor().redact(str(argument)) if type(argument).__name__ == "URL" else argument
                for argument in record.args
            )
        return True


def _make_hooks(body_limit: int) -> Mapping[str, list[Callable[..., None]]]:
    logged_body = type("LoggedBody", (PassingBody, _LIBRARY.SyncByteStream), {})

    def on_request(request: httpx2.Request) -> None:
        _begin(request, _find_body(request), body_limit)

    def on_response(response: httpx2.Response) -> None:
        capture = _log_head(response)
        if capture is not None:
            response.stream = logged_body(response.stream, capture)

    return {"request": [on_request], "response": [on_response]}


def _make_async_hooks(body_limit: int) -> Mapping[str, list[Callable[..., Coroutine[None, None, None]]]]:
    logged_body = type("LoggedBody", (AsyncPassingBody, _LIBRARY.AsyncByteStream), {})

    async def on_request(request: httpx2.Request) -> None:
        _begin(request, _find_body(request), body_limit)

    async def on_response(response: httpx2.Response) -> None:
        capture = _log_head(response)
        if capture is not None:
            response.stream = logged_body(response.stream, capture)

    return {"request": [on_request], "response": [on_response]}


def _find_body(request: httpx2.Request) -> bytes | None:
    """Return the body of a request, None if it is read while it is sent, such as an uploaded file."""
    try:
        return request.content
    except _LIBRARY.RequestNotRead:
        return None


def _begin(request: httpx2.Request, body: bytes | None, body_limit: int) -> None:
    # A redirected request shares the extensions of the first one.
    log = ExchangeLog(request, body, body_limit) if is_enabled() else None
    request.extensions = {**request.extensions, _EXTENSION: log}


def _log_head(response: httpx2.Response) -> BodyCapture | None:
    log = response.request.extensions.get(_EXTENSION)
    return log.log_head(response) if isinstance(log, ExchangeLog) else None
