"""The HTTP proxy handler: receives a request, has it admitted and relayed, and records its end."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from datetime import UTC, datetime
from functools import partial

from tornado_proxy import tasks
from tornado_proxy.domain.errors import RequestError, RequestTimeout, Stopped
from tornado_proxy.domain.record import Outcome
from tornado_proxy.domain.request_id import new_request_id
from tornado_proxy.domain.stop import Stop, StopTarget
from tornado_proxy.domain.units import MIB
from tornado_proxy.gateway.admission.admitted import AdmittedRequest
from tornado_proxy.gateway.admission.capacity import HeldBytes
from tornado_proxy.gateway.admission.stops import ends_work, find_agent_session
from tornado_proxy.gateway.base_handler import REQUEST_ID_HEADER, error_headers, make_request_error
from tornado_proxy.gateway.bodies.buffers import MIN_READ_BYTES, BodyBuffer
from tornado_proxy.gateway.bodies.reading import check_body_length, read_small
from tornado_proxy.gateway.bodies.shared_body import SharedBody
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.gateway.http.cors import cors_headers
from tornado_proxy.gateway.http.form_upload import FormUpload, UploadBroken, open_upload
from tornado_proxy.gateway.http.owned_list import make_list_upstream
from tornado_proxy.gateway.http.public_url import own_base_url
from tornado_proxy.gateway.http.relay import HttpRelay
from tornado_proxy.gateway.http.response_rewrite import make_rewrite
from tornado_proxy.gateway.realtime.sideband import CallSideband
from tornado_proxy.gateway.recorder import RequestRecording
from tornado_proxy.gateway.services import Services
from tornado_proxy.http_server.exchange import BodyMemory, Exchange
from tornado_proxy.http_server.request_body import BodyFlow, BodyTimeouts
from tornado_proxy.metering.request_meter import RequestEnd, RequestMeter
from tornado_proxy.observability.access_log import RequestLine
from tornado_proxy.providers.contract import HttpEndpoint
from tornado_proxy.upstream.http.messages import Payload
from tornado_proxy.upstream.http.protocols import Upstream

_log = logging.getLogger(__name__)

#: Bytes of a rejected body that are read and dropped, so that the client can read the response: closing a socket with
#: unread data resets the connection, and the response is lost on the way.
MAX_DISCARDED_BYTES = 256 * MIB


class ProxyHandler:
    """One request to a provider, from its head to its record.

    Not a RequestHandler of Tornado: that one prepares pages, sessions and templates for each request.  Waits for the
    ledger's commit, which the ledger bounds, then for whatever HttpRelay waits for.

    Args:
        exchange: The request and its response.
        services: The parts of the server.
        body_timeouts: Watches the body until it is complete.
    """

    def __init__(self, exchange: Exchange, services: Services, body_timeouts: BodyTimeouts) -> None:
        self._exchange = exchange
        self.request_id = new_request_id()
        self.services = services
        self._request = exchange.incoming
        #: True if the body has arrived with the head, so that nothing holds it while it arrives.
        self._is_complete = exchange.incoming.complete
        self._body_timeouts = body_timeouts
        self._context: RequestContext[HttpEndpoint] | None = None
        self._rejection: RequestError | None = None
        #: The body: one chunk, or a buffer from the second one on.
        self._body: bytes | BodyBuffer | SharedBody = b""
        #: The bytes of `_body`, counted until the request is admitted; None for a body that came with the head.
        self._held: HeldBytes | None = None
        #: A form that may be sent while it arrives.
        self._upload: FormUpload | None = None
        #: True while the request counts as one that arrives.
        self._is_arriving = False
        #: Body bytes received so far.
        self.received_bytes = 0
        self._relay: HttpRelay | None = None
        allowed = services.snapshots.current.settings.public.allow_origins
        #: The headers that let the page that sent this request read the response, if its origin is allowed.
        self._cors = cors_headers(self._request, allowed) if allowed else []

    # The request arrives (http_server/exchange.py).

    def headers_received(self) -> Awaitable[None] | None:
        """Called when the headers are complete: authenticate the request; return an awaitable that delays the body.

        A rejection is sent after the body has arrived.  A client that waits for 100-continue gets it at once and need
        not send the body (RFC 9110 10.1.1).
        """
        if not self._is_complete:
            self._body_timeouts.begin(self)
        try:
            identified = self.services.admission.authenticate(self.services.snapshots.current, self._request)
            if not isinstance(identified, RequestContext):
                return self._accept_later(identified)
            self._accept(identified)
        except RequestError as error:
            return self._refuse(error)
        except Exception as error:  # noqa: BLE001  # otherwise the connection closes without a response
            self.fail(error)
        return None

    async def _accept_later(self, identified: Awaitable[RequestContext[HttpEndpoint]]) -> None:
        """Wait for an identity provider, then accept the request; its body is read when this is done."""
        try:
            context = await identified
            if not self._exchange.transport.closed:
                self._accept(context)
        except RequestError as error:
            rejection = self._refuse(error)
            if rejection is not None:
                await rejection
        except Exception as error:  # noqa: BLE001  # as in headers_received()
            self.fail(error)

    def _accept(self, context: RequestContext[HttpEndpoint]) -> None:
        """Let the body of an authenticated request arrive."""
        self._context = context
        self.services.admission.check_capacity(context)
        if not self._is_complete:
            check_body_length(context, self._request.stated_bytes)
        self.services.capacity.add_arriving(self, context.caller.project_id)
        self._is_arriving = True
        if not self._is_complete:
            self._held = self.services.arriving.open(context.caller, context.snapshot.settings.limits)
            if self.services.sends_early:
                self._upload = open_upload(context, self._held, self._request.stated_bytes)

    def _refuse(self, error: RequestError) -> Awaitable[None] | None:
        """Keep the error for serve(); send it now if the client waits for it with its body."""
        self._rejection = error
        return self._reject(error) if self._request.expects_continue else None

    def data_received(self, chunk: bytes) -> None:
        """Collect the body, and send it from memory when it is complete; a form may be sent before."""
        if self._upload is not None and self._upload.begun:
            self.received_bytes += len(chunk)
            self._upload.feed(chunk)
            return
        self.body_read(len(chunk))
        if self._rejection is None:
            if self._body:
                self._collect(chunk)
            else:
                self._body = chunk
            if self._upload is not None:
                self._try_upload(self._upload, chunk)
        elif self.received_bytes > MAX_DISCARDED_BYTES:
            self.cut()

    def find_memory(self) -> BodyMemory | None:
        """Return the buffer of a body if much of it has arrived; None if data_received() takes the next bytes."""
        if self._rejection is None and self._upload is None and self.received_bytes >= MIN_READ_BYTES:
            if self._body and isinstance(self._body, bytes):
                self._collect(b"")
            return self._body if isinstance(self._body, BodyBuffer) else None
        return None

    def body_read(self, size: int) -> None:
        """Count bytes of the body that have arrived, and reject the request if they are too many."""
        self.received_bytes += size
        if self._rejection is None and self._context is not None:
            try:
                check_body_length(self._context, self.received_bytes)
                if self._held is not None:
                    self._held.add(size)
            except RequestError as error:
                self._rejection = error
                self._stop_arriving()

    def on_body_timeout(self) -> None:
        """Reject a request whose body has stopped arriving."""
        timeout = RequestTimeout("the rest of the request body did not arrive in time; send the request again")
        if self._upload is not None and self._upload.begun:
            self._upload.fail(Outcome.CLIENT_CLOSED, timeout)
        elif self._exchange.response_ended:
            self.cut()  # the client waited for 100-continue, got its rejection, and does not close
        else:
            self._stop_arriving()
            tasks.spawn(self._reject(self._rejection or timeout), "reject timed out request")

    def finish(self) -> None:
        """Called when the request is complete: respond in a task of its own."""
        if self._upload is not None:
            self._upload.end()
        if not self._is_complete:
            self._body_timeouts.end(self)
        if self._upload is None or not self._upload.begun:
            tasks.spawn(self.serve(), "call")

    def on_connection_close(self) -> None:
        """Called when the client disconnects before its request is complete: no provider has all of it."""
        self._body_timeouts.end(self)
        self._stop_arriving()
        if self._upload is not None:
            self._upload.fail(Outcome.CLIENT_CLOSED)

    async def serve(self, upload: FormUpload | None = None) -> None:
        """Respond to the complete request, or to one that arrives as an upload.  Never raises."""
        try:
            if upload is not None:
                await self._serve_upload(upload)
            # A closed connection: pipelined behind the last request of it, so that no client reads a response.
            elif not self._exchange.transport.closed and (admitted := await self._admit_or_reject()) is not None:
                await self._relay_and_record(admitted, self.services.upstream)
        except Exception as error:  # noqa: BLE001  # the last place where the client can get an error response
            self.fail(error)
        finally:
            if self._is_arriving:
                self._stop_arriving()

    def fail(self, error: Exception) -> None:
        """Log an unexpected error, and send an error response if none has begun."""
        if not isinstance(error, RequestError):
            _log.error("request failed", extra={"request_id": self.request_id}, exc_info=error)
        if self._exchange.response_begun:
            self.cut()
        elif not self._exchange.transport.closed:
            self._respond(make_request_error(500, error, self.request_id))

    # The server shuts down while the request arrives (gateway/admission/capacity.py).

    def drain(self) -> None:
        """Let the request arrive: it was accepted before the shutdown began."""

    def end(self, outcome: Outcome) -> None:
        """Break the connection: the request has not arrived in time."""
        if self._upload is not None:
            self._upload.fail(outcome)
        self.cut()

    def is_covered(self, target: StopTarget) -> bool:
        """Return True if a stop of `target` covers the request; its body may name the agent session, later."""
        context = self._context
        if context is None or ends_work(context.endpoint):
            return False
        return target.covers(context.caller, find_agent_session(context))

    def stop(self, stop: Stop) -> None:
        """Refuse the request when it has arrived, or at once if it is being sent."""
        self._rejection = self._rejection or Stopped(f"{stop}; ask an admin of the project to resume it")
        if self._upload is not None:
            self._upload.fail(Outcome.PROXY_CLOSED, self._rejection)

    def client_left(self) -> None:
        """Called when the client has disconnected after its request."""
        if self._relay is not None:
            self._relay.client_left()

    async def _admit_or_reject(self) -> AdmittedRequest | None:
        """Return the request if it may be sent, else send the rejection and return None."""
        if self._rejection is not None:
            await self._reject(self._rejection)
            return None
        assert self._context is not None, "headers_received() sets it, or a rejection"
        try:
            return await self._admit(self._context)
        except RequestError as error:
            await self._reject(error)
            return None
        finally:
            if self._held is not None:
                self._held.release()

    async def _admit(self, context: RequestContext[HttpEndpoint]) -> AdmittedRequest:
        # In a function of its own: a variable of its caller would keep the body in memory while a rejection is read.
        body, self._body = self._body, b""
        content = body.finish() if isinstance(body, BodyBuffer) else body
        parsed = read_small(context, content) if isinstance(content, bytes) else None
        if parsed is None:
            parsed = await self.services.bodies.parse(context, content)
        admitted = await self.services.admission.admit_request(context, parsed, self.request_id)
        if isinstance(body, BodyBuffer) and isinstance(admitted.upstream.body, Payload):
            admitted.upstream.body.on_drop = body.release
        self._context = admitted.context
        return admitted

    def _try_upload(self, upload: FormUpload, chunk: bytes) -> None:
        """Begin to send a form if its fields are known; `chunk` are its last bytes."""
        if upload.find_request(chunk, self._body):
            upload.begin(self._body, BodyFlow(self, self._body_timeouts, self._exchange))
            self._body = b""
            tasks.spawn(self.serve(upload), "call")

    async def _serve_upload(self, upload: FormUpload) -> None:
        """Send a form while it arrives, then relay the response."""
        try:
            admitted, upstream = await upload.send(self.services, self.request_id)
        except UploadBroken as broken:
            if broken.error is not None and not self._exchange.transport.closed:
                await (self._respond if broken.is_recorded else self._reject)(broken.error)
            return
        self._upload = None
        self._context = admitted.context
        try:
            await self._relay_and_record(admitted, upstream)
        finally:
            upstream.close()

    async def _relay_and_record(self, admitted: AdmittedRequest, upstream: Upstream) -> None:
        context, services = admitted.context, self.services
        sideband = CallSideband(admitted, services) if context.endpoint.sideband is not None else None
        meter = self._make_meter(admitted)
        background = services.settlement if admitted.facts.background else None
        recording = RequestRecording(services.recorder, context, meter, background, sideband)
        rewrite = make_rewrite(admitted, partial(own_base_url, context)) if context.endpoint.rewrites_body else None
        relay = self._relay = HttpRelay(admitted, meter, self, rewrite, recording)
        if self._exchange.transport.closed:
            relay.client_left()
        services.capacity.replace(self, relay, context.caller.project_id)
        self._is_arriving = False
        end: RequestEnd | None = None
        recording.begin()
        try:
            if admitted.visible_objects is not None or admitted.list_sources:
                upstream = make_list_upstream(upstream, admitted)
            end = await relay.run(upstream, services.drains)
        finally:
            services.capacity.discard(relay)
            self._relay = None
            recording.finish(end or RequestEnd(Outcome.CRASHED, None, datetime.now(UTC)))

    def _make_meter(self, admitted: AdmittedRequest) -> RequestMeter:
        """Return the meter of a request, which also reads the usage of an earlier one if the response can state it."""
        context, endpoint = admitted.context, admitted.context.endpoint
        watched, object_id = None, context.path_id
        if endpoint.shows_usage is not None and object_id is not None:
            project_id = context.caller.project_id
            watched = self.services.settlement.watch(context.provider.name, object_id, endpoint.shows_usage, project_id)
        return RequestMeter(admitted.intent, endpoint, admitted.facts, admitted.access.tariff, watched=watched)

    async def _reject(self, error: RequestError) -> None:
        routes = self.services.snapshots.current.routes
        line = RequestLine(self._request.method, routes.find_template(self._request.target))
        self.services.recorder.reject(self.request_id, error, self._context, line)
        await self._respond(error)

    def _respond(self, error: RequestError) -> Awaitable[None]:
        """Write an error response; the result is done when the socket has taken it."""
        provider = self.services.snapshots.current.routes.find_provider(self._request.target)
        # A dict: the provider's own name of the request id can be ours.
        headers = dict([*error_headers(error, self.request_id, provider), *self._cors])
        self._exchange.begin_response(error.status, "", list(headers.items()))
        return self._exchange.end(provider.error_body(error, self.request_id))

    def _collect(self, chunk: bytes) -> None:
        """Add a chunk to the first one."""
        if isinstance(self._body, bytes):
            assert self._context is not None, "bodies of rejected requests are dropped"
            self._body = self.services.bodies.open(self._context, self._body)
        self._body.write(chunk)

    def _stop_arriving(self) -> None:
        """Drop the body and stop counting the request."""
        self._is_arriving = False
        self.services.capacity.discard(self)
        self._body = b""
        if self._held is not None:
            self._held.release()

    # The client's side of the relay (gateway/http/relay.py, Client).

    def begin(self, status: int, reason: str, headers: list[tuple[str, str]]) -> None:
        """Set the response head, and drop that of the request."""
        if self._context is None or not self._context.endpoint.rewrites_body:
            self._request.drop_headers()
        # A provider that is a proxy has an id of its own, by which its operator knows the request.
        if not (self._context and self._context.provider.is_proxy and _has_request_id(headers)):
            headers = [*headers, (REQUEST_ID_HEADER, self.request_id)]
        self._exchange.begin_response(status, reason, [*headers, *self._cors], spelled=True)

    @property
    def delivered(self) -> bool:
        """True if the client's socket has taken the whole response."""
        return self._exchange.delivered

    def send(self, data: bytes) -> Awaitable[None]:
        """Write `data`; the result is done when the socket has taken it."""
        return self._exchange.send(data)

    def finish_response(self, data: bytes) -> Awaitable[None]:
        """Write the last bytes and end the response; the result is done when the socket has taken them."""
        return self._exchange.end(data)

    def cut(self) -> None:
        """Break the connection in the middle of the response."""
        self._exchange.abort()

    async def reject(self, error: RequestError) -> None:
        """Send an error response; no byte of a response has been sent."""
        await self._respond(error)


def _has_request_id(headers: list[tuple[str, str]]) -> bool:
    return REQUEST_ID_HEADER.lower() in [name.lower() for name, _ in headers]
