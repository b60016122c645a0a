"""The HTTP proxy handler: reads a request, has it admitted, has it relayed, and leaves one record."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from dataclasses import replace
from datetime import UTC, datetime

from tornado.util import ObjectDict

from tornado_proxy import tasks
from tornado_proxy.domain.errors import BodyTooLarge, RequestError, RequestTimeout
from tornado_proxy.domain.record import Outcome, RequestIntent, RequestRecord
from tornado_proxy.domain.units import MIB
from tornado_proxy.gateway.admission import (
    AdmittedRequest,
    RequestContext,
    admit_body,
    admit_head,
    log_refusal,
    parse_body,
)
from tornado_proxy.gateway.base_handler import REQUEST_ID_HEADER, BaseHandler
from tornado_proxy.gateway.http.relay import Hooks, Relay
from tornado_proxy.gateway.http.response_rewrite import whole_body_edit
from tornado_proxy.gateway.realtime.sideband import Sidebands
from tornado_proxy.gateway.services import Services
from tornado_proxy.http_server.response_writer import ResponseWriter
from tornado_proxy.metering.request_meter import RequestEnd, RequestMeter
from tornado_proxy.observability import access_log
from tornado_proxy.providers.contract import HttpEndpoint, OwnedObject, ResponseEdit

#: A host and a port, as they may stand in a URL inside JSON.
_HOST = re.compile(r"[A-Za-z0-9.\-]+(?::\d+)?|\[[0-9a-fA-F:]+\](?::\d+)?")

#: Bytes of a refused body that are read and dropped so that the client gets to read the refusal: closing a socket
#: with unread data resets it, and the answer is lost on the way.
_DISCARD_BYTES = 256 * MIB


class ProxyHandler(BaseHandler):
    """One request to a provider.

    Waits: for the ledger's commit (the ledger ends it), then whatever Relay waits for.
    """

    def initialize(self, services: Services) -> None:
        """Begin the call's clock."""
        super().initialize(services)
        self.ui = ObjectDict()  # Tornado's own holds the handler, which would stay until the collector finds it
        self._transforms = []  # Tornado's own delegate sets it: what would change the bytes of an answer
        self._started_at = datetime.now(UTC)
        self._entry: RequestContext[HttpEndpoint] | None = None
        self._refusal: RequestError | None = None
        self._chunks: list[bytes] = []
        #: Bytes of the body that have come.
        self.received_bytes = 0
        self._relay: Relay | None = None
        self._answer = ResponseWriter(self.request)

    def prepare(self) -> Awaitable[None] | None:
        """Admit the head.  A refusal waits until the body has been read, so that the client gets to see it.

        A client that asks first (`Expect: 100-continue`) is told at once, and does not send what nobody will take
        (RFC 9110 section 10.1.1).
        """
        try:
            snapshot = self.services.snapshots.current
            headers = list(self.request.headers.get_all())
            self._entry = admit_head(
                snapshot, self.request.method or "", self.request.uri or "", headers, self._started_at
            )
            self.services.in_flight.check(snapshot.settings.limits.max_streams)
            self._check_length(self._declared_length())
            self.services.in_flight.arrives(self)
        except RequestError as error:
            self._refusal = error
            if self.request.headers.get("Expect", "").lower() == "100-continue":
                return self._turn_away(error)
        return None

    def data_received(self, chunk: bytes) -> None:
        """Collect the body: libcurl sends it whole."""
        self.received_bytes += len(chunk)
        if self._refusal is None:
            try:
                self._check_length(self.received_bytes)
            except BodyTooLarge as error:
                self._refusal = error
        if self._refusal is None:
            self._chunks.append(chunk)
            return
        self._chunks.clear()
        if self.received_bytes > _DISCARD_BYTES:
            self.cut()

    def on_body_timeout(self) -> None:
        """The rest of the body does not come: turn the request away."""
        if self._finished:
            self.cut()  # the client asked first, has been told, and does not leave
        else:
            self.services.in_flight.discard(self)
            late = RequestTimeout("the rest of the request did not come; send it again")
            tasks.spawn(self._turn_away(self._refusal or late), "turn away")

    async def serve(self) -> None:
        """ResponseWriter the request, which is whole.  Never raises."""
        try:
            await self._serve()
        except Exception as error:  # noqa: BLE001  # the last place where a caller can be told
            self.fail(error)
        finally:
            self.services.in_flight.discard(self)

    def on_client_gone(self) -> None:
        """The client left before its request was whole: nothing has been sent to a provider, and nobody waits."""
        self.services.in_flight.discard(self)

    def fail(self, error: Exception) -> None:
        """Log what should not have happened, and tell the caller as far as that can be done."""
        if self._answer.headers_sent:
            self.log_exception(type(error), error, error.__traceback__)
            self.cut()
        else:
            self._handle_request_exception(error)

    def drain(self) -> None:
        """The server is going down: a request that arrives may still come to its end."""

    def end(self, outcome: Outcome) -> None:
        """The server goes down, and the request has not arrived."""
        self.cut()

    def on_connection_close(self) -> None:
        """The client has gone."""
        self._answer.on_client_gone()
        if self._relay is not None:
            self._relay.client_left()

    async def _serve(self) -> None:
        if self._answer.closed:
            return  # it came behind the last request of its connection, and nobody would hear an answer
        if self._refusal is not None:
            await self._turn_away(self._refusal)
            return
        try:
            admitted, edit = await self._admit()
        except RequestError as error:
            await self._turn_away(error)
            return
        await self._call(admitted, edit)

    async def _admit(self) -> tuple[AdmittedRequest, ResponseEdit | None]:
        """Admit the body, and promise it to the ledger.  No frame that outlives this one holds the body."""
        assert self._entry is not None
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        parsed = await parse_body(self._entry, body)
        admitted = admit_body(self._entry, parsed, self.request_id)
        await self.services.ownership.require(self._entry, parsed.facts.references)
        own = await self.services.ownership.own_list(self._entry)
        await self.services.ledger.begin(admitted.intent)
        return admitted, whole_body_edit(admitted, own, self._own_base_url)

    async def _call(self, admitted: AdmittedRequest, edit: ResponseEdit | None) -> None:
        meter = RequestMeter(admitted.intent, admitted.entry.match.endpoint, admitted.facts, admitted.tariff)
        calls = Sidebands(admitted, self.services) if admitted.entry.match.endpoint.sideband else None
        hooks = Hooks(lambda created: self._remember(meter.intent, created), calls.answered if calls else None)
        relay = self._relay = Relay(admitted, meter, self, edit, hooks)
        if self._answer.client_gone:
            relay.client_left()
        self.services.in_flight.add(relay)
        self.services.in_flight.discard(self)
        ending: RequestEnd | None = None
        try:
            ending = await relay.run(self.services.upstream, self.services.drains)
        finally:
            self.services.in_flight.discard(relay)
            self._relay = None
            record = meter.close(ending or RequestEnd(Outcome.CRASHED, None, datetime.now(UTC)))
            self._keep(record if calls is None else replace(record, object_id=calls.call_id))

    async def _turn_away(self, error: RequestError) -> None:
        log_refusal(self.request_id, error, self._entry)
        await self.respond_with_error(error)

    def _keep(self, record: RequestRecord) -> None:
        for created in (record.object_id, *record.objects):
            if created is not None:
                self._remember(record.intent, created)
        assert self._entry is not None
        if self._entry.match.endpoint.objects == OwnedObject() and self._entry.match.path_id is not None:
            self.services.settler.poll_now(self._entry.match.path_id)
        self.services.ledger.finish(record)
        access_log.log_request(record, self._entry.snapshot.generation)

    def _own_base_url(self) -> str:
        """Where the client reaches this provider here; "" when its Host header cannot stand in a URL."""
        host = self.request.host
        forwarded = self.request.headers.get("X-Forwarded-Proto", "")
        scheme = forwarded if forwarded in ("http", "https") else self.request.protocol
        return f"{scheme}://{host}/{self.provider.prefix}" if _HOST.fullmatch(host) else ""

    def _remember(self, intent: RequestIntent, created: str) -> None:
        self.services.ownership.remember(intent.provider, created, intent.caller.project_id)

    def _declared_length(self) -> int:
        """What Content-Length says in bytes; 0 where it says nothing, or nonsense that Tornado refuses next."""
        declared = self.request.headers.get("Content-Length", "")
        # Eighteen digits are more than any limit; of thousands Python makes no number.
        return int(declared[:18]) if declared.isascii() and declared.isdigit() else 0

    def _check_length(self, length: int) -> None:
        assert self._entry is not None
        most = self._entry.snapshot.settings.limits.max_body_mb
        if length > most * MIB:
            raise BodyTooLarge(f"the body is larger than {most} MiB, the limit of this server (limits.max_body_mb)")

    # The client's side of a relay (gateway/http/relay.py, Client).

    def begin(self, status: int, reason: str, headers: list[tuple[str, str]]) -> None:
        """Set the head of the answer."""
        self._answer.begin(status, reason, [*headers, (REQUEST_ID_HEADER, self.request_id)])

    def send(self, data: bytes) -> Awaitable[None]:
        """Write; what is given waits until the socket has taken it."""
        return self._answer.send(data)

    async def finish_answer(self, data: bytes) -> None:
        """Write the last bytes and end the answer."""
        await self._answer.finish(data)

    def cut(self) -> None:
        """Close the connection in the middle of the answer."""
        self._answer.abort()

    async def refuse(self, error: RequestError) -> None:
        """ResponseWriter with an error; no byte of an answer has left yet."""
        await self.respond_with_error(error)
