"""The base class of all simulated endpoints: credentials, recorded requests, directives, pacing and error responses.

Theory of operation.  A handler reads its body and prompt, then calls `apply_directives(prompt text)`, which raises an
error, waits, or never returns if a directive says so.  The handler sends its response through `send_json` or
`send_events`, which pace the response and close the connection early if a directive says so:

    prepare (record, check the key) -> handler -> apply_directives -> send_json
                                                                   -> send_events, send_chunks: one write per batch

Every wait ends when the client disconnects (`on_connection_close`) and raises ConnectionClosed, so no coroutine
outlives its connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, ClassVar

from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler

from tornado_proxy.simulator.handlers.account_headers import ACCOUNT_HEADERS
from tornado_proxy.simulator.handlers.provider_errors import (
    ConnectionClosed,
    ProviderError,
    make_anthropic_error,
    make_model_not_found,
    make_openai_error,
)
from tornado_proxy.simulator.handlers.sse_event import Event, format_event
from tornado_proxy.simulator.json_values import Json, decode, encode
from tornado_proxy.simulator.model.directives import Directives, read_directives
from tornado_proxy.simulator.request_log import RecordedRequest
from tornado_proxy.simulator.state import SimulatorState

#: Events in one write of a stream without delays: enough to keep the simulator fast in benchmarks, and few enough that
#: a client reads a stream in many parts.
DEFAULT_BATCH_EVENTS = 16


class ProviderHandler(RequestHandler):
    """A request to a simulated provider.  `anthropic` selects the error format, the headers and the accepted key."""

    anthropic: ClassVar[bool] = False
    directives = Directives()

    def initialize(self, simulator: SimulatorState) -> None:
        """Called by Tornado before a request is handled."""
        self.simulator = simulator
        self.request_id = simulator.new_id("req_")
        self._disconnected = False
        self._waiter: asyncio.Future[None] | None = None

    def prepare(self) -> None:
        """Record the request and check its credential.

        Raises:
            ProviderError: 401, no key or the wrong one.
        """
        if isinstance(self.request.connection, HTTP1Connection):
            # Nagle would hold small chunks for the client's delayed ACK; Tornado leaves it on.
            self.request.connection.stream.set_nodelay(True)
        request = self.request
        body = request.body if isinstance(request.body, bytes) else b""
        headers = tuple(request.headers.get_all())
        self.simulator.requests.add(RecordedRequest(request.method or "", request.uri or "", headers, body))
        # Some clients probe a base URL with HEAD and without a key.
        if request.method != "HEAD":
            self._check_credential()

    def _check_credential(self) -> None:
        key = self.find_credential()
        if not key:
            message = "x-api-key header is required" if self.anthropic else "You didn't provide an API key."
            raise ProviderError(401, message)
        # A proxy that mixes up its two provider keys must fail here, so each provider accepts its own key alone.
        accepted_key = self.simulator.keys.get("anthropic" if self.anthropic else "openai")
        if accepted_key is not None and key != accepted_key and not self._is_session_key(key):
            message = "invalid x-api-key" if self.anthropic else "Incorrect API key provided."
            raise ProviderError(401, message)

    def _is_session_key(self, key: str) -> bool:
        """Return True if `key` is a short-lived key and the path opens a realtime session, its only use."""
        path = self.request.path.removeprefix("/openai")
        session_paths = ("/v1/realtime", "/v1/realtime/translations", "/v1/realtime/calls")
        return path in session_paths and self.simulator.session_keys.get(key) is not None

    def find_credential(self) -> str:
        """Return the key that the client sent, "" if it sent none.

        Browsers cannot set headers on a WebSocket, so OpenAI accepts the key as a subprotocol too.
        """
        headers = self.request.headers
        if key := headers.get("x-api-key", ""):
            return key
        if bearer := headers.get("Authorization", "").removeprefix("Bearer ").strip():
            return bearer
        for subprotocol in headers.get("Sec-WebSocket-Protocol", "").split(","):
            if subprotocol.strip().startswith("openai-insecure-api-key."):
                return subprotocol.strip().removeprefix("openai-insecure-api-key.")
        return ""

    def set_default_headers(self) -> None:
        """Remove Tornado's `Server` header, which providers do not send."""
        self.clear_header("Server")

    def compute_etag(self) -> None:
        """Return None: providers send no ETag."""

    def read_json(self) -> Json:
        """Return the request's body, a JSON object.

        Raises:
            ProviderError: 400, the body is not a JSON object.
        """
        try:
            body = decode(self.request.body)
        except ValueError as error:
            raise ProviderError(400, f"We could not parse the JSON body of your request: {error}") from error
        if not isinstance(body, dict):
            raise ProviderError(400, "the body must be a JSON object")
        return body

    def check_model(self, model: object) -> str:
        """Return the model's name; every name exists but those that start with `sim-missing`.

        Raises:
            ProviderError: 400 without a name, 404 for a model that does not exist.
        """
        if not isinstance(model, str) or not model:
            raise ProviderError(400, "you must provide a model parameter", param="model")
        if model.startswith("sim-missing"):
            raise make_model_not_found(model, anthropic=self.anthropic)
        return model

    async def apply_directives(self, text: str, *, tools_answered: bool = False) -> Directives:
        """Read the directives of `text`, apply those that take effect before a response, and return them all.

        Args:
            text: the last text of the user.
            tools_answered: tool results follow the text, so its `tool` directives are done.

        Raises:
            ProviderError: a directive asks for an error status.
            ConnectionClosed: the client disconnected during a wait.
        """
        # Most prompts hold no directive; the search spares them the regular expressions.
        found = read_directives(text) if "[[sim" in text else Directives()
        self.directives = replace(found, tools=()) if tools_answered else found
        # This order lets one prompt combine them: wait, then fail with account headers.
        if found.silent:
            await self._wait(None)
        if found.first_delay_ms:
            await self.pause(found.first_delay_ms)
        if found.headers:
            for name, value in ACCOUNT_HEADERS:
                self.add_header(name, value)
        if found.status and self.simulator.still_failing(text, found.status_times):
            if found.retry_after:
                self.set_header("Retry-After", found.retry_after)
            message = f"simulated status {found.status}" + (f" {self.find_credential()}" if found.echo_secret else "")
            raise ProviderError(found.status, message)
        return self.directives

    async def send_json(self, body: object, *, content_type: str = "application/json") -> None:
        """Send a JSON body; bytes are sent as they are.  See send_bytes."""
        await self.send_bytes(body if isinstance(body, bytes) else encode(body), content_type)

    async def send_bytes(self, body: bytes, content_type: str) -> None:
        """Send a body of known length.  With `cut`, send its first bytes and close the connection."""
        self._set_response_headers(content_type)
        cut = self.directives.cut_after
        if cut is None or cut >= len(body):
            await self._await_flush(self.finish(body))
            return
        # The full length: the client must see that the body is incomplete.
        self.set_header("Content-Length", str(len(body)))
        self.write(body[:cut])
        await self._await_flush(self.flush())
        self.abort_connection()

    async def send_events(self, events: Iterable[Event], failure: Callable[[int], list[Event]]) -> None:
        """Send a stream of server-sent events.

        Args:
            events: all events of the response.
            failure: called with a number of events, returns the events that a provider sends when it fails after them.
        """
        # Keeps caches between simulator and client from collecting the events.
        self.set_header("Cache-Control", "no-cache")
        failing = map(format_event, failure(self.directives.error_after or 0))
        await self.send_chunks(map(format_event, events), "text/event-stream; charset=utf-8", b"".join(failing))

    async def send_chunks(self, chunks: Iterable[bytes], content_type: str, failure: bytes | None = None) -> None:
        """Send a body of unknown length at the pace of the directives; `error-event` ends it with `failure`."""
        self._set_response_headers(content_type)
        self.simulator.streams += 1
        try:
            await self._send_paced(chunks, failure)
        finally:
            self.simulator.streams -= 1
        await self._await_flush(self.finish())

    async def _send_paced(self, chunks: Iterable[bytes], failure: bytes | None) -> None:
        directives = self.directives
        batch = directives.batch or (1 if directives.delay_ms else DEFAULT_BATCH_EVENTS)
        # Chunks of the present batch; `cut` and `error-event` count chunks, so they can fall inside a batch.
        held: list[bytes] = []
        for count, chunk in enumerate(chunks):
            if count == directives.error_after and failure is not None:
                held.append(failure)
                break
            if count == directives.cut_after:
                await self._write_held(held)
                self.abort_connection()
            held.append(chunk)
            if len(held) >= batch:
                await self._write_held(held)
                held = []
                if directives.delay_ms:
                    await self.pause(directives.delay_ms)
        await self._write_held(held)

    async def _write_held(self, held: list[bytes]) -> None:
        if self._disconnected:
            raise ConnectionClosed
        if held:
            self.write(b"".join(held))
        await self._await_flush(self.flush())

    async def _await_flush(self, writing: asyncio.Future[None]) -> None:
        try:
            await writing
        except StreamClosedError:
            raise ConnectionClosed from None

    def abort_connection(self) -> None:
        """Close the connection in the middle of the response.

        Raises:
            ConnectionClosed: always.
        """
        # The TCP stream, not finish(): the end of a chunked body would make the response look complete.
        if isinstance(self.request.connection, HTTP1Connection):
            self.request.connection.stream.close()
        raise ConnectionClosed

    async def pause(self, delay_ms: float) -> None:
        """Wait.

        Raises:
            ConnectionClosed: the client disconnected.
        """
        await self._wait(delay_ms / 1000)

    async def _wait(self, seconds: float | None) -> None:
        """Wait for `seconds`, or without a limit for None, until the client disconnects."""
        if self._disconnected:
            raise ConnectionClosed
        # A future rather than asyncio.sleep: Tornado does not cancel a handler when its client disconnects.
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(seconds, self._end_wait) if seconds is not None else None
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()
        if self._disconnected:
            raise ConnectionClosed

    def _end_wait(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def on_connection_close(self) -> None:
        """Called when the client disconnects: end the wait of the handler, if it waits."""
        self._disconnected = True
        self.simulator.disconnects += 1
        self._end_wait()
        super().on_connection_close()

    def _set_response_headers(self, content_type: str) -> None:
        self.set_header("Content-Type", content_type)
        if self.anthropic:
            self.set_header("request-id", self.request_id)
            for name, value in self.simulator.anthropic_limits:
                self.set_header(name, value)
            return
        self.set_header("x-request-id", self.request_id)
        self.set_header("openai-version", "2020-10-01")
        self.set_header("openai-processing-ms", "1")
        for name, value in self.simulator.openai_limits:
            self.set_header(name, value)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Send an error in the provider's format."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        message = error.message if isinstance(error, ProviderError) else self._reason
        self._set_response_headers("application/json")
        if self.directives.headers:
            for name, value in ACCOUNT_HEADERS:
                self.add_header(name, value)
        if self.directives.retry_after:
            self.set_header("Retry-After", self.directives.retry_after)
        if self.anthropic:
            self.finish(encode(make_anthropic_error(status_code, message, self.request_id)))
            return
        code, param = (error.code, error.param) if isinstance(error, ProviderError) else (None, None)
        self.finish(encode(make_openai_error(status_code, message, code, param)))

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """Log the simulator's own failures alone: error responses are its purpose."""
        if not isinstance(value, HTTPError):
            super().log_exception(typ, value, tb)


class AnthropicHandler(ProviderHandler):
    """A request to Anthropic's API."""

    anthropic = True
