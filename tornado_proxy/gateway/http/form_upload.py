"""Sends a form to the provider while its files arrive, once the fields before them tell its cost.

    fields ── a file begins ──> admission, intent ──> the exchange begins ── the file passes ──> the end arrives
      │                                                    │                                        │
      └── they do not suffice: collect the whole body      └── the client leaves, stalls ...        └── check all fields

The last bytes are withheld until the whole form has been checked, so that the provider never has a request whose fields
were not.  A request that ends before leaves a record without a cost.  A recording whose length can be a charge is kept
as well, and measured before its end is sent.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Protocol

from msgspec.structs import replace

from tornado_proxy.domain.errors import InvalidBody, RequestError, UpstreamError
from tornado_proxy.domain.record import Outcome
from tornado_proxy.gateway.admission.admitted import AdmittedRequest
from tornado_proxy.gateway.admission.amendment import amend
from tornado_proxy.gateway.bodies.buffers import BodyBuffer
from tornado_proxy.gateway.bodies.reading import read_fields
from tornado_proxy.gateway.bodies.shared_body import SharedBody
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.gateway.http.relay import CLIENT_CLOSED_REQUEST
from tornado_proxy.gateway.recorder import RequestRecording
from tornado_proxy.gateway.services import Services
from tornado_proxy.http_server.request_body import ByteCount
from tornado_proxy.metering.request_meter import RequestEnd, RequestMeter
from tornado_proxy.providers.contract import HttpEndpoint, ParsedRequest
from tornado_proxy.upstream.http.messages import UpstreamRequest
from tornado_proxy.upstream.http.protocols import ProviderExchange
from tornado_proxy.upstream.http.streamed_payload import KEPT_BYTES, StreamedPayload
from tornado_proxy.wire.form_stream import FormStream
from tornado_proxy.wire.multipart import is_form, open_form_stream

#: Bytes of the smallest body that is sent while it arrives, and of the content with which a file has begun: a shorter
#: one is there before the provider could be reached.
MIN_BODY_BYTES, MIN_FILE_BYTES = 256 * 1024, 64 * 1024

#: Unread bytes from which on the client is not read, and up to which it is read again.
_HIGH_WATER_BYTES, _LOW_WATER_BYTES = 256 * 1024, 64 * 1024

#: Bytes of memory of one upload: one read of the client's socket more than the limit, and those for a second attempt.
_UPLOAD_BYTES = 2 * _HIGH_WATER_BYTES + KEPT_BYTES


#: The fault of a record without another one.
_NOT_SENT = "the request was not sent whole"

#: Statuses from which on a response is an error, which no provider charges.
_MIN_ERROR_STATUS = 400


#: The bytes of a body that have arrived.
Collected = bytes | BodyBuffer | SharedBody


class Flow(Protocol):
    """The body of the client."""

    def pause(self) -> None:
        """Read nothing more of it."""

    def resume(self, *, is_watched: bool) -> None:
        """Read it again, within its time limits if `is_watched`."""


class UploadBroken(Exception):
    """A request has ended before all of it was sent.

    `error` is for the client, None if it has left.  `is_recorded` is False if nothing was sent: there is no record.
    """

    def __init__(self, outcome: Outcome, error: RequestError | None = None, *, is_recorded: bool = True) -> None:
        super().__init__(outcome.value)
        self.outcome = outcome
        self.error = error
        self.is_recorded = is_recorded


class FormUpload:
    """One form: find_request() until it returns a request, begin(), then send() while feed() and end() or fail() run.

    send() waits for the client, whose body has time limits, then as admission does.
    """

    def __init__(self, context: RequestContext[HttpEndpoint], held: ByteCount, stream: FormStream, size: int) -> None:
        self._context = context
        self._held = held
        self._stream = stream
        self._size = size
        self._is_searching = True
        self._parsed: ParsedRequest | None = None
        self._flow: Flow | None = None
        self._payload: StreamedPayload | None = None
        #: The body, if a worker measures a file of it.
        self._kept: SharedBody | None = None
        self._is_paused = False
        #: Done when the request has arrived, or has failed.
        self._arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._failure: UploadBroken | None = None

    @property
    def begun(self) -> bool:
        """True after begin()."""
        return self._payload is not None

    def find_request(self, chunk: bytes, collected: Collected) -> bool:
        """Take the next bytes of the body; return True, once, if a file has begun and the fields before it suffice.

        Then the memory of the upload is counted.  `collected` has all bytes so far.
        """
        if not self._is_searching:
            return False
        try:
            self._stream.feed(chunk)
            can_measure = self._context.endpoint.measure is None or isinstance(collected, SharedBody)
            if self._stream.content_bytes < MIN_FILE_BYTES or not can_measure:
                return False
            self._is_searching = False
            self._parsed = read_fields(self._context, self._stream.form_so_far())
            if self._parsed is not None:
                self._held.add(_UPLOAD_BYTES)
        except RequestError:
            # The whole body is refused, for this reason or for one that comes first; or there is room when it is here.
            self._is_searching = False
            return False
        return self._parsed is not None

    def begin(self, collected: Collected, flow: Flow) -> None:
        """Send `collected`, the bytes that find_request() has taken, and those that arrive from now on."""
        self._flow = flow
        self._payload = StreamedPayload(self._size, self._on_read)
        if isinstance(collected, SharedBody):
            self._kept = collected
        first = collected if isinstance(collected, bytes) else collected.finish()
        self._payload.add(memoryview(first)[: len(first) - self._stream.withheld_bytes])

    def feed(self, chunk: bytes) -> None:
        """Take bytes of the body."""
        payload = self._payload
        assert payload is not None, "begin() comes first"
        if self._failure is not None:
            return
        try:
            if self._kept is not None:
                self._held.add(len(chunk))
                self._kept.write(chunk)
            for piece in self._stream.feed(chunk):
                payload.add(piece)
        except RequestError as error:
            self.fail(Outcome.PROXY_CLOSED, error)
        if payload.unread_bytes > _HIGH_WATER_BYTES and not self._is_paused and self._flow is not None:
            self._is_paused = True
            self._flow.pause()

    def end(self) -> None:
        """Note that the body has arrived."""
        self._resume()
        if not self._arrived.done():
            self._arrived.set_result(None)

    def fail(self, outcome: Outcome, error: RequestError | None = None) -> None:
        """End the request: the client has left, or `error` is sent to it.  No effect if it has arrived."""
        if self.begun and not self._arrived.done():
            self._failure = UploadBroken(outcome, error)
            self._arrived.set_result(None)

    async def send(self, services: Services, request_id: str) -> tuple[AdmittedRequest, StartedUpstream]:
        """Send the request while it arrives, but its end; return it with an upstream that sends the end.

        Raises:
            UploadBroken: the request is not admitted, or has ended before all of it was sent.
        """
        assert self._payload is not None, "begin() makes it"
        try:
            admitted = await self._admit(services, request_id)
            return await self._receive(services, admitted, self._payload)
        finally:
            self._kept = None
            self._held.release()

    async def _admit(self, services: Services, request_id: str) -> AdmittedRequest:
        assert self._parsed is not None, "find_request() has it"
        assert self._payload is not None, "begin() makes it"
        try:
            return await services.admission.admit_request(self._context, self._with_length(self._parsed), request_id)
        except RequestError as error:
            self._payload.drop()
            self._kept = None
            await self._arrived  # as with every rejection: many clients read no response while they send
            raise UploadBroken(Outcome.PROXY_CLOSED, error, is_recorded=False) from error

    async def _receive(
        self, services: Services, admitted: AdmittedRequest, payload: StreamedPayload
    ) -> tuple[AdmittedRequest, StartedUpstream]:
        """Return the request when all of it has been checked; record one that has ended before."""
        exchange: ProviderExchange | None = None
        broken: UploadBroken | None = UploadBroken(Outcome.CRASHED)
        try:
            exchange = services.upstream.start(replace(admitted.upstream, body=payload))
            received, rest = await self._check_whole(services, admitted)
            broken = None
        except RequestError as error:
            broken = UploadBroken(Outcome.PROXY_CLOSED, error)
            raise broken from error
        except UploadBroken as failure:
            broken = failure
            raise
        finally:
            if broken is not None:
                await _record(services, admitted, exchange, broken)
        return received, StartedUpstream(exchange, payload, rest)

    async def _check_whole(self, services: Services, admitted: AdmittedRequest) -> tuple[AdmittedRequest, bytes]:
        await self._arrived
        if self._failure is not None:
            raise self._failure
        form, rest = self._stream.end()
        parsed = await services.bodies.parse(self._context, self._kept or form)
        return await amend(services, admitted, self._context, self._with_length(parsed).facts), rest

    def _with_length(self, parsed: ParsedRequest) -> ParsedRequest:
        return ParsedRequest(replace(parsed.facts, body_bytes=self._size), b"")

    def _on_read(self) -> None:
        """Called from within libcurl when it has read."""
        payload = self._payload
        if self._is_paused and payload is not None and payload.unread_bytes <= _LOW_WATER_BYTES:
            asyncio.get_running_loop().call_soon(self._resume)

    def _resume(self) -> None:
        if self._is_paused and self._flow is not None:
            self._is_paused = False
            self._flow.resume(is_watched=not self._arrived.done())


class StartedUpstream:
    """An upstream whose only exchange runs, and gets the end of its request when it is asked for it."""

    def __init__(self, exchange: ProviderExchange, payload: StreamedPayload, rest: bytes) -> None:
        self._exchange = exchange
        self._payload = payload
        self._rest = rest
        self._is_asked = False

    def start(self, request: UpstreamRequest) -> ProviderExchange:  # the exchange has it
        """Send the end of the request; return the exchange."""
        self._is_asked = True
        self._payload.add(self._rest)
        self._payload.end()
        return self._exchange

    def close(self) -> None:
        """Abort an exchange that start() has not returned: its client left before the end was sent."""
        if not self._is_asked:
            self._exchange.abort(_NOT_SENT)


def open_upload(context: RequestContext[HttpEndpoint], held: ByteCount, size: int) -> FormUpload | None:
    """Return the upload of a body of `size` bytes, counted by `held`; None if it is not sent before it has arrived."""
    lines = context.request.lines
    if size < MIN_BODY_BYTES or not context.endpoint.admits_by_fields or "content-encoding" in lines:
        return None
    if context.endpoint.measure is not None and context.is_limited:
        return None  # budgets and limits reserve by the length of a recording, which is known at its end
    content_types = lines.get("content-type", ())
    if len(content_types) != 1 or not is_form(content_types[0]):
        return None
    try:
        return FormUpload(context, held, open_form_stream(content_types[0], size), size)
    except InvalidBody:
        return None


async def _record(
    services: Services, admitted: AdmittedRequest, exchange: ProviderExchange | None, broken: UploadBroken
) -> None:
    """Abort the exchange, None if it could not begin, and record a request that was not sent whole."""
    accepted = False
    if exchange is not None:
        accepted = await _is_accepted(exchange)
        exchange.abort(_NOT_SENT)
    error = broken.error
    status = CLIENT_CLOSED_REQUEST if broken.outcome is Outcome.CLIENT_CLOSED else None
    end = RequestEnd(
        broken.outcome,
        status if error is None else error.status,
        datetime.now(UTC),
        reached_provider=accepted,
        # Not the message: it can repeat a field, into which a caller can write anything, its own token included.
        broken_by=_NOT_SENT if error is None else f"{_NOT_SENT}: {error.code}",
    )
    context = admitted.context
    meter = RequestMeter(admitted.intent, context.endpoint, admitted.facts, admitted.access.tariff)
    RequestRecording(services.recorder, context, meter).finish(end)


async def _is_accepted(exchange: ProviderExchange) -> bool:
    """Return True if the provider has begun a response that it can charge, before it had the whole request."""
    try:
        async with asyncio.timeout(0):
            return (await exchange.head()).status < _MIN_ERROR_STATUS
    except (UpstreamError, TimeoutError):
        return False
