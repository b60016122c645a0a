"""What every simulated endpoint shares: credentials, the record of requests, directives, pace and error answers.

Theory of operation.  A handler reads its body and prompt, then calls `obey(prompt text)`, which answers with an error,
waits or falls silent if the prompt asks for it.  What the handler sends afterwards goes through `send_json` or
`send_events`, which keep the pace and break off where a directive says so:

    prepare (record, credential) -> handler -> obey -> send_json
                                                    -> send_events, send_chunks: head, then a write per event or group

Every wait ends when the client leaves (`on_connection_close`) and raises ConnectionDone, so no coroutine outlives its
connection.
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
    ConnectionDone,
    ProviderFault,
    anthropic_error,
    model_not_found,
    openai_error,
)
from tornado_proxy.simulator.handlers.sse_event import Event, frame
from tornado_proxy.simulator.json_values import Json, decode, encode
from tornado_proxy.simulator.model.directives import Directives, read_directives
from tornado_proxy.simulator.request_log import SeenRequest
from tornado_proxy.simulator.state import SimulatorState

#: Events in one write when nothing slows the stream: fast, and a client still sees many writes.
_BATCH = 16


class ProviderHandler(RequestHandler):
    """One request to a simulated provider.  `anthropic` chooses error shape, headers and key."""

    anthropic: ClassVar[bool] = False
    directives = Directives()

    def initialize(self, simulator: SimulatorState) -> None:
        """Take the simulator that serves this request."""
        self.simulator = simulator
        self.request_id = simulator.new_id("req_")
        self._gone = False
        self._waiting: asyncio.Future[None] | None = None

    def prepare(self) -> None:
        """Record the request and check its credential."""
        if isinstance(self.request.connection, HTTP1Connection):
            # Nagle would hold small chunks for the client's delayed ACK; Tornado leaves it on.
            self.request.connection.stream.set_nodelay(True)
        request = self.request
        body = request.body if isinstance(request.body, bytes) else b""
        headers = tuple(request.headers.get_all())
        self.simulator.requests.add(SeenRequest(request.method or "", request.uri or "", headers, body))
        if request.method != "HEAD":
            self._check_credential()

    def _check_credential(self) -> None:
        given = self.credential()
        if not given:
            what = "x-api-key header is required" if self.anthropic else "You didn't provide an API key."
            raise ProviderFault(401, what)
        wanted = self.simulator.keys.get("anthropic" if self.anthropic else "openai")
        if wanted is not None and given != wanted and not self._opens_session(given):
            what = "invalid x-api-key" if self.anthropic else "Incorrect API key provided."
            raise ProviderFault(401, what)

    def _opens_session(self, key: str) -> bool:
        """Whether it is a short-lived key that opens a realtime session, and this is where one is opened."""
        place = self.request.path.removeprefix("/openai")
        places = ("/v1/realtime", "/v1/realtime/translations", "/v1/realtime/calls")
        return place in places and self.simulator.session_keys.get(key) is not None

    def credential(self) -> str:
        """The key that came with the request, "" for none."""
        headers = self.request.headers
        if key := headers.get("x-api-key", ""):
            return key
        if bearer := headers.get("Authorization", "").removeprefix("Bearer ").strip():
            return bearer
        for offered in headers.get("Sec-WebSocket-Protocol", "").split(","):
            if offered.strip().startswith("openai-insecure-api-key."):
                return offered.strip().removeprefix("openai-insecure-api-key.")
        return ""

    def set_default_headers(self) -> None:
        """The headers that a provider's answer always has."""
        self.clear_header("Server")

    def compute_etag(self) -> None:
        """Providers send none."""

    def read_json(self) -> Json:
        """The request's body, an object.

        Raises:
            ProviderFault: 400, it is not one.
        """
        try:
            body = decode(self.request.body)
        except ValueError as error:
            raise ProviderFault(400, f"We could not parse the JSON body of your request: {error}") from error
        if not isinstance(body, dict):
            raise ProviderFault(400, "the body must be a JSON object")
        return body

    def required_model(self, model: object) -> str:
        """The model's name; any is known but those that start with `sim-missing`."""
        if not isinstance(model, str) or not model:
            raise ProviderFault(400, "you must provide a model parameter", param="model")
        if model.startswith("sim-missing"):
            raise model_not_found(model, anthropic=self.anthropic)
        return model

    async def obey(self, text: str, *, answering: bool = True) -> Directives:
        """Read the directives of `text` and do those that come before any answer.

        `answering` is False where tool results follow the text: its `tool` directives are done already.
        """
        found = read_directives(text) if "[[sim" in text else Directives()
        self.directives = found if answering else replace(found, tools=())
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
            message = f"simulated status {found.status}" + (f" {self.credential()}" if found.echo_secret else "")
            raise ProviderFault(found.status, message)
        return self.directives

    async def send_json(self, answer: object, *, content_type: str = "application/json") -> None:
        """Send the whole answer, or (`cut`) only its first bytes."""
        await self.send_bytes(answer if isinstance(answer, bytes) else encode(answer), content_type)

    async def send_bytes(self, body: bytes, content_type: str) -> None:
        """Send a body of known length, or (`cut`) its first bytes and no more."""
        self._answer_headers(content_type)
        cut = self.directives.cut_after
        if cut is None or cut >= len(body):
            await self._flushed(self.finish(body))
            return
        self.set_header("Content-Length", str(len(body)))
        self.write(body[:cut])
        await self._flushed(self.flush())
        self.break_off()

    async def send_events(self, events: Iterable[Event], failure: Callable[[int], list[Event]]) -> None:
        """Send a stream of server-sent events.

        `failure(n)` makes the events that a provider sends when it fails after `n` events.
        """
        self.set_header("Cache-Control", "no-cache")
        failing = map(frame, failure(self.directives.error_after or 0))
        await self.send_chunks(map(frame, events), "text/event-stream; charset=utf-8", b"".join(failing))

    async def send_chunks(self, chunks: Iterable[bytes], content_type: str, failure: bytes | None = None) -> None:
        """Send a body of unknown length at the pace that was asked for; `error-event` ends it with `failure`."""
        self._answer_headers(content_type)
        self.simulator.streams += 1
        try:
            await self._send_paced(chunks, failure)
        finally:
            self.simulator.streams -= 1
        await self._flushed(self.finish())

    async def _send_paced(self, chunks: Iterable[bytes], failure: bytes | None) -> None:
        asked = self.directives
        batch = asked.batch or (1 if asked.delay_ms else _BATCH)
        held: list[bytes] = []
        for count, chunk in enumerate(chunks):
            if count == asked.error_after and failure is not None:
                held.append(failure)
                break
            if count == asked.cut_after:
                await self._write_held(held)
                self.break_off()
            held.append(chunk)
            if len(held) >= batch:
                await self._write_held(held)
                held = []
                if asked.delay_ms:
                    await self.pause(asked.delay_ms)
        await self._write_held(held)

    async def _write_held(self, held: list[bytes]) -> None:
        if self._gone:
            raise ConnectionDone
        if held:
            self.write(b"".join(held))
        await self._flushed(self.flush())

    async def _flushed(self, writing: asyncio.Future[None]) -> None:
        try:
            await writing
        except StreamClosedError:
            raise ConnectionDone from None

    def break_off(self) -> None:
        """Close the connection in the middle of the answer."""
        if isinstance(self.request.connection, HTTP1Connection):
            self.request.connection.stream.close()
        raise ConnectionDone

    async def pause(self, delay_ms: float) -> None:
        """Wait, unless the client leaves."""
        await self._wait(delay_ms / 1000)

    async def _wait(self, seconds: float | None) -> None:
        if self._gone:
            raise ConnectionDone
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        timer = loop.call_later(seconds, self._wake) if seconds is not None else None
        try:
            await self._waiting
        finally:
            self._waiting = None
            if timer is not None:
                timer.cancel()
        if self._gone:
            raise ConnectionDone

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def on_connection_close(self) -> None:
        """The client left: whoever waits wakes and ends."""
        self._gone = True
        self.simulator.disconnects += 1
        self._wake()
        super().on_connection_close()

    def _answer_headers(self, content_type: str) -> None:
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
        """An error in the provider's shape."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        message = error.message if isinstance(error, ProviderFault) else self._reason
        self._answer_headers("application/json")
        if self.directives.headers:
            for name, value in ACCOUNT_HEADERS:
                self.add_header(name, value)
        if self.directives.retry_after:
            self.set_header("Retry-After", self.directives.retry_after)
        if self.anthropic:
            self.finish(encode(anthropic_error(status_code, message, self.request_id)))
            return
        code, param = (error.code, error.param) if isinstance(error, ProviderFault) else (None, None)
        self.finish(encode(openai_error(status_code, message, code, param)))

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """Error answers are what the simulator is for: only its own failures are logged."""
        if not isinstance(value, HTTPError):
            super().log_exception(typ, value, tb)
