"""The heart of the program: one admitted request, its exchange with the provider, and the client that waits.

    exchange.read() ──> meter.feed ──> edit ──> scrub ──> client.send ──> (await: the client's speed)
          │                                                  │
          │ UpstreamError: client.cut, record                │ the client has gone:
          │ b"": client.finish, record                       │    drain   go on reading, for the record's sake
          │                                                  │    cancel  exchange.abort

Waits and who ends them: head and read end by the exchange's own time-outs or abort(); send ends when the client reads
or leaves (`client_left`); a drain ends by its limit; shutdown calls end().
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from tornado.iostream import StreamClosedError

from tornado_proxy.domain.errors import ExchangeAborted, UpstreamError, UpstreamUnreachable
from tornado_proxy.domain.record import Outcome
from tornado_proxy.gateway.admission import AdmittedRequest, provider_access
from tornado_proxy.gateway.drains import Drains
from tornado_proxy.metering.request_meter import RequestEnd, RequestMeter
from tornado_proxy.providers.contract import ResponseEdit, ResponseHead
from tornado_proxy.upstream.http.client import UpstreamClient
from tornado_proxy.upstream.http.exchange import Exchange
from tornado_proxy.upstream.http.response_head import UpstreamResponseHead
from tornado_proxy.wire.headers import filter_response_headers
from tornado_proxy.wire.redaction import Redactor

#: What a record shows for a client that left before its answer was whole (nginx's word for it).
CLIENT_CLOSED_REQUEST = 499


class Client(Protocol):
    """The side of the client.  Each method raises StreamClosedError when it has gone."""

    def begin(self, status: int, reason: str, headers: list[tuple[str, str]]) -> None:
        """Set the head; it leaves with the first flush."""

    def send(self, data: bytes) -> Awaitable[None]:
        """Write; what is given waits until the client has taken it."""

    async def finish_answer(self, data: bytes) -> None:
        """Write the last bytes and end the answer properly."""

    def cut(self) -> None:
        """Break the connection, so that the answer cannot look complete."""

    async def refuse(self, error: UpstreamError) -> None:
        """Answer with an error in the provider's shape; nothing was sent yet."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What else happens while an answer passes.

    `created` hears the id of what the call has created; `answered` is awaited before the client sees the head of a good
    answer, and may raise UpstreamError to have it refused.
    """

    created: Callable[[str], None]
    answered: Callable[[UpstreamResponseHead], Awaitable[None]] | None = None


class Relay:
    """Relays one call.  run() once; client_left() and end() may come at any time."""

    def __init__(
        self,
        admitted: AdmittedRequest,
        meter: RequestMeter,
        client: Client,
        whole_edit: ResponseEdit | None,
        hooks: Hooks,
    ) -> None:
        self._admitted = admitted
        self._meter = meter
        self._client = client
        self._edit = whole_edit
        self._hooks = hooks
        self._created: str | None = None
        self._scrub = Redactor(admitted.key)
        self._exchange: Exchange | None = None
        self._drains: Drains | None = None
        self._gone = False
        self._whole = False
        self._ended_as: Outcome | None = None
        self._broken_by: str | None = None
        self._status: int | None = None
        self._first_byte_at: datetime | None = None
        self._upstream_request_id: str | None = None

    async def run(self, upstream: UpstreamClient, drains: Drains) -> RequestEnd:
        """Send the request and pass the answer on, to whatever end."""
        if self._gone or self._ended_as is not None:
            return self._ending(Outcome.CLIENT_CLOSED, reached_provider=False)
        self._drains = drains
        self._exchange = upstream.start(self._admitted.upstream)
        try:
            head = await self._exchange.head()
            if self._hooks.answered is not None and 200 <= head.status < 300:
                await self._hooks.answered(head)
            self._begin(head)
        except UpstreamError as error:
            self._exchange.abort("its answer cannot be passed on")  # no effect where there is none
            return await self._never_answered(error)
        try:
            await self._pass_body(self._exchange)
        except UpstreamError as error:
            self._broke(error)
            self._client.cut()
            return self._ending(self._broken_outcome())
        finally:
            drains.done(self)
            self._exchange.abort("the relay has ended")  # no effect on an exchange that came to its own end
        self._meter.body_complete()
        return self._ending(Outcome.COMPLETED if self._whole else self._broken_outcome())

    def client_left(self) -> None:
        """The client's connection has closed."""
        self._gone = True
        if self._exchange is None:
            return
        streams = self._admitted.entry.snapshot.settings.streams
        if streams.on_client_disconnect == "cancel" or self._drains is None:
            self._exchange.abort("the client left")
        else:
            self._drains.begin(self, streams.drain_limit_s, streams.drain_max)

    def drain(self) -> None:
        """The server is going down: an answer comes to its end by itself."""

    def end(self, outcome: Outcome, why: str | None = None) -> None:
        """End the call now, so that it looks broken to the client; the record says `why`."""
        self._ended_as = self._ended_as or outcome
        self._broken_by = self._broken_by or why
        if self._exchange is not None:
            self._exchange.abort(outcome.value)
            self._client.cut()  # it may have stopped reading, and nothing else would end the write that waits for it

    def _begin(self, head: UpstreamResponseHead) -> None:
        self._first_byte_at = datetime.now(UTC)
        self._status = head.status
        provider = self._admitted.entry.match.provider
        self._upstream_request_id = head.get(provider.request_id_header)
        answer = ResponseHead(head.status, (head.get("content-type") or "").partition(";")[0].strip().lower())
        self._meter.answered(answer)
        coded = answer.ok and self._is_coded(head)
        self._edit = self._choose_edit(answer, coded=coded)
        headers = filter_response_headers(
            head.headers, account_headers=provider.account_headers, keep_length=self._edit is None
        )
        changed_type = None if coded else self._answer_type(answer)
        if changed_type is not None:
            headers = [pair for pair in headers if pair[0].lower() != "content-type"]
            headers.append(("Content-Type", changed_type))
        if head.get("location") is not None:
            headers = [self._own_location(pair) for pair in headers]
        if not self._gone:
            self._client.begin(head.status, head.reason, self._scrub.headers(headers))

    def _is_coded(self, head: UpstreamResponseHead) -> bool:
        """Whether the body is compressed, though it was asked for as it is: then it passes, and cannot be read."""
        coding = (head.get("content-encoding") or "identity").strip().lower()
        if coding == "identity":
            return False
        self._meter.unreadable(f"the answer is coded ({coding[:40]}), though it was asked for as it is")
        return True

    def _choose_edit(self, answer: ResponseHead, *, coded: bool) -> ResponseEdit | None:
        """What changes the body.

        Raises:
            UpstreamUnreachable: it must be cut to what the caller may see, and cannot be read.
        """
        if not answer.ok:
            return None
        if coded and self._edit is not None:
            raise UpstreamUnreachable("the provider's answer is compressed, and cannot be cut to what you may see")
        make_edit = self._admitted.entry.match.endpoint.response_edits.body
        return self._edit if make_edit is None or coded else make_edit(self._admitted.facts, answer)

    def _own_location(self, header: tuple[str, str]) -> tuple[str, str]:
        """A Location with the provider's own address, without it: the path leads to where the client came from."""
        name, value = header
        if name.lower() != "location":
            return header
        return name, value.removeprefix(provider_access(self._admitted.entry)[0].base_url)

    def _answer_type(self, answer: ResponseHead) -> str | None:
        decide = self._admitted.entry.match.endpoint.response_edits.content_type
        return None if decide is None else decide(self._admitted.facts, answer)

    async def _pass_body(self, exchange: Exchange) -> None:
        if not exchange.held_bytes and not exchange.finished and not self._gone:
            await self._taken(self._send(b""))  # the head, as early as it came
        while data := await exchange.read():
            self._feed(data)
            if exchange.complete:
                await self._finish(data)
                return
            if not self._gone:
                unsent = self._send(self._scrub.feed(self._edit.feed(data) if self._edit is not None else data))
                del data  # the client's connection holds it, and may do so for long
                await self._taken(unsent)
        await self._finish(b"")

    def _feed(self, data: bytes) -> None:
        self._meter.feed(data)
        if self._created is None and self._meter.object_id is not None:
            self._created = self._meter.object_id
            self._hooks.created(self._created)

    def _send(self, data: bytes) -> Awaitable[None] | None:
        try:
            return self._client.send(data)
        except StreamClosedError:
            self._gone = self._ended_as is None
            return None

    async def _taken(self, unsent: Awaitable[None] | None) -> None:
        try:
            if unsent is not None:
                await unsent
        except StreamClosedError:
            self._gone = self._ended_as is None
        finally:
            del unsent  # its error holds this frame, which must not hold it

    async def _finish(self, data: bytes) -> None:
        if self._gone:
            return
        if self._edit is not None:
            data = self._edit.feed(data) + self._edit.close()
        try:
            await self._client.finish_answer(self._scrub.feed(data) + self._scrub.close())
            self._whole = True
        except StreamClosedError:
            self._gone = self._ended_as is None

    async def _never_answered(self, error: UpstreamError) -> RequestEnd:
        assert self._drains is not None
        self._drains.done(self)
        self._broke(error)
        if not self._gone and self._ended_as is None:
            self._status = error.status
            await self._client.refuse(error)
        elif not self._gone:
            self._client.cut()
        return self._ending(self._broken_outcome(answered=False), reached_provider=error.request_sent)

    def _broke(self, error: UpstreamError) -> None:
        if not isinstance(error, ExchangeAborted):  # what we do ourselves is in the outcome
            self._broken_by = error.message

    def _broken_outcome(self, *, answered: bool = True) -> Outcome:
        if self._ended_as is not None:
            return self._ended_as
        if self._gone:
            return Outcome.CLIENT_CLOSED
        return Outcome.UPSTREAM_BROKEN if answered else Outcome.UPSTREAM_ERROR

    def _ending(self, outcome: Outcome, *, reached_provider: bool = True) -> RequestEnd:
        return RequestEnd(
            outcome=outcome,
            status=CLIENT_CLOSED_REQUEST if self._gone else self._status,
            at=datetime.now(UTC),
            first_byte_at=self._first_byte_at,
            upstream_request_id=self._upstream_request_id,
            reached_provider=reached_provider,
            broken_by=self._broken_by,
        )
