"""Relays one admitted request: its exchange with the provider, and the response to the client.

    exchange.read() ──> meter.feed ──> edit ──> redact ──> client.send ──> (await: the client's speed)
    the end         ──> hooks.before_last_byte: the record is durable ──> client.finish_response

    READY ── run ──> WAITING ── response head ──> STREAMING ── last byte taken ──> DELIVERED
                        │                            │
                        ├── the client leaves ───────┴──> CLIENT_GONE   drain: keep reading, for an exact record
                        │                                               cancel: abort the exchange
                        └── end() ───────────────────────> STOPPED      shutdown, a stop, or the drain took too long

The state when the exchange ends decides the outcome (`_outcome`).  Every await has an owner that can end it: head and
read end by the exchange's timeouts or abort(), send ends when the client reads or disconnects, a drain by its limit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from enum import Enum, auto

import msgspec
from msgspec.structs import replace
from tornado.iostream import StreamClosedError

from tornado_proxy.domain.errors import ExchangeAborted, UpstreamError, UpstreamUnreachable
from tornado_proxy.domain.record import Outcome
from tornado_proxy.domain.stop import Stop, StopTarget
from tornado_proxy.gateway.admission.admitted import AdmittedRequest
from tornado_proxy.gateway.admission.capacity import DrainLimiter
from tornado_proxy.gateway.admission.stops import begins_work, is_covered
from tornado_proxy.gateway.base_handler import REQUEST_ID_HEADER
from tornado_proxy.gateway.http.public_url import own_location
from tornado_proxy.gateway.http.relay_protocols import Client, RelayHooks
from tornado_proxy.metering.request_meter import RequestEnd, RequestMeter
from tornado_proxy.providers.contract import ResponseEdit, ResponseHead
from tornado_proxy.upstream.http.messages import UpstreamResponseHead
from tornado_proxy.upstream.http.protocols import ProviderExchange, Upstream
from tornado_proxy.wire.headers import filter_response_headers
from tornado_proxy.wire.redaction import Redactor

#: The status that a record shows if the client left before its response was complete (nginx's convention).
CLIENT_CLOSED_REQUEST = 499

_EVENT_STREAM = "text/event-stream"

#: Bytes of a response that the meter reads at a time, and seconds after which other requests get their turn.  A
#: response can repeat the content of the request: 64 KiB of empty objects took 26 ms, of usual events 0.1 ms.
MAX_FED_BYTES = 16 * 1024
MAX_FEEDING_S = 0.001


class RelayState(Enum):
    """The state of a relay; the module docstring draws the transitions."""

    READY = auto()
    WAITING = auto()
    STREAMING = auto()
    CLIENT_GONE = auto()
    STOPPED = auto()
    DELIVERED = auto()


# Names of the module, because CPython 3.11 takes as long for an attribute of an enumeration as for ten function calls.
_READY, _WAITING, _STREAMING, _CLIENT_GONE, _STOPPED, _DELIVERED = RelayState
_COMPLETED, _SHUTDOWN = Outcome.COMPLETED, Outcome.SHUTDOWN


class _Progress(msgspec.Struct, frozen=True):
    """The members of the record that the response has determined so far.  `status` is the one that the client sees."""

    status: int | None = None
    first_byte_at: datetime | None = None
    upstream_request_id: str | None = None


class HttpRelay:
    """Relays one request.  Call run() once; client_left() and end() at any time."""

    __slots__ = (
        "_admitted", "_client", "_created", "_drains", "_edit", "_exchange", "_fault", "_head_held", "_hooks",
        "_is_stream", "_meter", "_progress", "_redactor", "_remaining_bytes", "_rewrite", "_state", "_stopped_as",
    )  # fmt: skip

    def __init__(
        self,
        admitted: AdmittedRequest,
        meter: RequestMeter,
        client: Client,
        rewrite: ResponseEdit | None,
        hooks: RelayHooks,
    ) -> None:
        self._admitted = admitted
        self._meter = meter
        self._client = client
        self._rewrite = self._edit = rewrite
        #: True if the head waits for the whole body, which is rewritten: an error response is possible to the end.
        self._head_held = False
        self._hooks = hooks
        self._redactor = Redactor(admitted.context.redaction)
        self._state, self._stopped_as = _READY, _SHUTDOWN
        self._progress, self._is_stream = _Progress(), False
        #: Body bytes that are still to come, None if the provider declared no length.
        self._remaining_bytes: int | None = None
        self._fault: str | None = None
        self._created: str | None = None
        self._exchange: ProviderExchange | None = None
        self._drains: DrainLimiter | None = None

    async def run(self, upstream: Upstream, drains: DrainLimiter) -> RequestEnd:
        """Send the request and relay the response; return how it ended."""
        if self._state is not _READY:
            return self._end(reached_provider=False)
        self._state, self._drains = _WAITING, drains
        self._exchange = exchange = upstream.start(self._admitted.upstream)
        try:
            return await self._relay_head(exchange) or await self._relay_body(exchange) or self._end()
        except UpstreamError as error:
            return await self._break_off(error)
        finally:
            drains.done(self)
            exchange.abort("the relay has ended")  # no effect on a complete exchange

    def client_left(self) -> None:
        """Called when the client's connection has closed: drain the response or abort the exchange."""
        if self._state is _DELIVERED:
            return
        self._lose_client()
        if self._client.delivered or self._exchange is None or self._drains is None:
            return
        streams = self._admitted.context.snapshot.settings.streams
        if self._admitted.context.on_client_disconnect == "cancel" and not self._has_unnamed_work():
            self._exchange.abort("the client left")
        else:
            self._drains.begin(self, streams.drain_limit_s, streams.drain_max)

    def drain(self) -> None:
        """Called when the server shuts down: a response ends in its own time."""

    def end(self, outcome: Outcome, reason: str | None = None) -> None:
        """Stop now, so that the response looks broken to the client; the record states `reason`."""
        if self._state is not _STOPPED:
            self._state, self._stopped_as = _STOPPED, outcome
        self._fault = self._fault or reason
        if self._exchange is not None:
            self._exchange.abort(outcome.value)
            self._client.cut()  # a client that does not read would keep the pending write open

    def is_covered(self, target: StopTarget) -> bool:
        """Return True if a stop of `target` covers the request."""
        return is_covered(self._admitted, target)

    def stop(self, stop: Stop) -> None:
        """Stop because of a stop that covers the request; no effect on a response that is delivered."""
        if self._state is not _DELIVERED and not self._has_unnamed_work():
            self.end(Outcome.PROXY_CLOSED, str(stop))

    def _has_unnamed_work(self) -> bool:
        return self._exchange is not None and self._created is None and begins_work(self._admitted)

    async def _relay_head(self, exchange: ProviderExchange) -> RequestEnd | None:
        """Begin the response; return the end of a request that gets none."""
        try:
            head = await exchange.head()
            self._admitted.access.note_response(head.status, head.fields.get("retry-after"))
            if self._hooks.response_received is not None and 200 <= head.status < 300:
                await self._hooks.response_received(head)
            self._begin_response(head)
        except UpstreamError as error:
            exchange.abort("the response cannot be relayed")  # no effect on an exchange that failed
            return await self._fail_before_response(error)
        return None

    async def _break_off(self, error: UpstreamError) -> RequestEnd:
        """Return the end of a response whose body is incomplete."""
        if self._head_held and self._state is _STREAMING:
            self._state = _WAITING
            return await self._fail_before_response(error)
        self._note(error)
        self._client.cut()
        return self._end()

    def _begin_response(self, head: UpstreamResponseHead) -> None:
        response = ResponseHead(head.status, head.fields.get("content-type", "").partition(";")[0].strip().lower())
        self._meter.response_started(response)
        ok = 200 <= head.status < 300
        coding = head.fields.get("content-encoding")
        compressed = ok and coding is not None and self._is_compressed(coding)
        edit = self._edit = self._choose_edit(response, compressed=compressed) if ok else None
        gone = self._state is not _WAITING
        self._progress = _Progress(
            status=self._progress.status if gone else head.status,
            first_byte_at=datetime.now(UTC),
            upstream_request_id=head.fields.get(self._admitted.context.provider.request_id_header),
        )
        if gone:
            return
        self._head_held = edit is not None and edit is self._rewrite
        self._remaining_bytes = head.declared_length
        self._is_stream = response.media_type == _EVENT_STREAM and self._remaining_bytes is None
        if self._is_stream:
            self._admitted.upstream.drop()
        headers = self._response_headers(head, response, keep_length=edit is None, compressed=compressed)
        self._state = _STREAMING
        self._client.begin(head.status, *self._admitted.context.redaction.head(head.reason, headers))

    def _response_headers(
        self, head: UpstreamResponseHead, response: ResponseHead, *, keep_length: bool, compressed: bool
    ) -> list[tuple[str, str]]:
        context = self._admitted.context
        headers = filter_response_headers(
            head.headers,
            account_headers=context.provider.account_headers,
            prefixes=() if self._admitted.access.exclusive else context.provider.quota_prefixes,
            keep_length=keep_length,
        )
        edit_type = context.endpoint.response_edits.content_type
        content_type = None if compressed or edit_type is None else edit_type(self._admitted.facts, response)
        if content_type is not None:
            headers = [(name, value) for name, value in headers if name.lower() != "content-type"]
            headers.append(("Content-Type", content_type))
        if context.provider.is_proxy:
            headers.extend((name, value) for name, value in head.headers if name.lower() == REQUEST_ID_HEADER.lower())
        return headers if head.fields.get("location") is None else self._redirect(head, headers)

    def _is_compressed(self, content_encoding: str) -> bool:
        """Return True for a body compressed despite Accept-Encoding: identity; it is relayed, but not metered."""
        coding = content_encoding.strip().lower() or "identity"
        if coding != "identity":
            self._meter.unreadable(f"the response is compressed ({coding[:40]}) despite Accept-Encoding: identity")
        return coding != "identity"

    def _choose_edit(self, response: ResponseHead, *, compressed: bool) -> ResponseEdit | None:
        """Return the edit of the body of a successful response.

        Raises:
            UpstreamUnreachable: the body must be cut to the objects of the caller, and is compressed.
        """
        if compressed and self._edit is not None:
            raise UpstreamUnreachable("the provider's response is compressed and cannot be cut to what you may see")
        make_edit = self._admitted.context.endpoint.response_edits.body
        return self._edit if make_edit is None or compressed else make_edit(self._admitted.facts, response)

    def _redirect(self, head: UpstreamResponseHead, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the headers with a Location that leads to the proxy, or without one that leads elsewhere.

        Raises:
            UpstreamError: the response is a redirect to elsewhere.
        """
        kept: list[tuple[str, str]] = []
        for name, value in headers:
            own = value
            if name.lower() == "location":
                base_url = self._admitted.access.settings.base_url
                own = own_location(self._admitted.context, base_url, value) or ""
                if not own and 300 <= head.status < 400:
                    raise UpstreamError("the provider redirects the request to another host, which is not followed")
            if own:
                kept.append((name, own))
        return kept

    async def _relay_body(self, exchange: ProviderExchange) -> RequestEnd | None:
        if self._state is _STREAMING and not (self._head_held or exchange.held_bytes or exchange.finished):
            await self._written(self._send(b""))  # send the head before the first body byte arrives
        while data := await exchange.read():
            if len(data) <= MAX_FED_BYTES:
                self._feed_meter(data)
            else:
                await self._feed_in_pieces(data)
            if exchange.complete or await self._ends_after(data, exchange):
                return await self._finish(await self._relay_first_events(data) if self._is_stream else data)
            if self._state is not _STREAMING:
                continue
            edited = self._edit.feed(data) if self._edit is not None else data
            if not self._head_held:
                pending = self._send(self._redactor.feed(edited))
                del edited
                del data  # the client's connection holds the bytes, perhaps for long: hold no second copy
                await self._written(pending)
        return await self._finish(b"")

    async def _relay_first_events(self, data: bytes) -> bytes:
        """Relay all but the last event, and return that: the record of the stream must not delay the others."""
        cut = data.rfind(b"\n\n", 0, -2) + 2
        if cut < 2 or self._head_held or self._state is not _STREAMING:
            return data
        edited = data[:cut] if self._edit is None else self._edit.feed(data[:cut])
        await self._written(self._send(self._redactor.feed(edited)))
        return data[cut:]

    async def _feed_in_pieces(self, data: bytes) -> None:
        """Feed the meter, and let others run if that takes long."""
        began = time.monotonic()  # the loop's time() does not move within a turn
        for start in range(0, len(data), MAX_FED_BYTES):
            self._feed_meter(data[start : start + MAX_FED_BYTES])
            if time.monotonic() - began > MAX_FEEDING_S:
                await asyncio.sleep(0)
                began = time.monotonic()

    def _feed_meter(self, data: bytes) -> None:
        self._meter.feed(data)
        if self._created is None and self._meter.object_id is not None:
            self._created = self._meter.object_id
            self._hooks.object_created(self._created)

    def _send(self, data: bytes, *, last: bool = False) -> Awaitable[None] | None:
        try:
            return self._client.finish_response(data) if last else self._client.send(data)
        except StreamClosedError:
            self._lose_client()
            return None

    async def _written(self, pending: Awaitable[None] | None) -> bool:
        """Wait until the client's socket has taken all bytes; return False if the client has left instead."""
        try:
            if pending is not None:
                await pending
        except StreamClosedError:
            self._lose_client()
            return False
        finally:
            del pending  # its exception holds this frame: break the cycle
        return True

    async def _ends_after(self, data: bytes, exchange: ProviderExchange) -> bool:
        """Return True if `data` completes the declared length; then the exchange has ended when this returns.

        libcurl may report the end in a later turn of the loop.  A client that has all bytes of the declared length has
        a complete response, so the last ones wait until it is recorded.
        """
        if self._remaining_bytes is None:
            return False
        self._remaining_bytes -= len(data)
        return self._remaining_bytes <= 0 and not await exchange.read()

    async def _finish(self, data: bytes) -> RequestEnd | None:
        self._meter.body_complete()
        if self._state is not _STREAMING:
            return None
        if self._edit is not None:
            data = self._edit.feed(data) + self._edit.close()
        data = self._redactor.finish(data)
        self._hooks.before_last_byte(end := self._end(outcome=_COMPLETED))
        pending = self._send(data, last=True)
        is_final = self._client.delivered  # nearly always true: the record was written ahead with `end`
        if pending is None or not (is_final or await self._written(pending)):
            return None
        self._state = _DELIVERED
        return end if is_final else None

    def _lose_client(self) -> None:
        """Note that the client has left.  Tornado calls client_left() as well, which starts the drain's limit."""
        if self._state in (_STOPPED, _DELIVERED):
            return  # end() has cut the connection, or the client has read all: it did not leave early
        if self._client.delivered:
            self._state = _DELIVERED
            return
        self._state = _CLIENT_GONE
        self._progress = replace(self._progress, status=CLIENT_CLOSED_REQUEST)

    async def _fail_before_response(self, error: UpstreamError) -> RequestEnd:
        self._note(error)
        if self._state is _WAITING:
            self._progress = replace(self._progress, status=error.status)
            self._hooks.before_last_byte(self._end(reached_provider=error.request_sent))
            await self._client.reject(error)
        elif self._state is _STOPPED:
            self._client.cut()
        return self._end(reached_provider=error.request_sent)

    def _note(self, error: UpstreamError) -> None:
        if not isinstance(error, ExchangeAborted):  # our own aborts are told by the outcome
            self._fault = error.message

    def _outcome(self) -> Outcome:
        match self._state:
            case RelayState.DELIVERED:
                return _COMPLETED
            case RelayState.STOPPED:
                return self._stopped_as
            case RelayState.CLIENT_GONE:
                return Outcome.CLIENT_CLOSED
            case RelayState.STREAMING:
                return Outcome.UPSTREAM_BROKEN
            case RelayState.READY | RelayState.WAITING:
                return Outcome.UPSTREAM_ERROR

    def _end(self, *, outcome: Outcome | None = None, reached_provider: bool = True) -> RequestEnd:
        return RequestEnd(
            outcome=outcome or self._outcome(),
            status=self._progress.status,
            at=datetime.now(UTC),
            first_byte_at=self._progress.first_byte_at,
            upstream_request_id=self._progress.upstream_request_id,
            reached_provider=reached_provider,
            broken_by=self._fault,
        )
