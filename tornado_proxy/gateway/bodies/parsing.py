"""Decodes a complete request body and has it read: here if that is quick, else by a worker process.

body ── small ──> read_small (reading.py), without this file
     ── a few long texts ──> the rest is read on the event loop (providers/shared/body_outline.py)
     ── quick to read (reading.py) ──> read on the event loop
     ── a form without a recording ──> its fields are read in a thread (wire/form_outline.py)
     ── else: the caller's turn ── decode in a thread ───> a worker reads it
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from msgspec.structs import replace

from tornado_proxy.domain.errors import BodyTooLarge
from tornado_proxy.domain.units import MIB
from tornado_proxy.gateway.bodies.buffers import BodyBuffer, BodyBuffers
from tornado_proxy.gateway.bodies.reading import find_body_limit, is_quick, read_content_type, read_here
from tornado_proxy.gateway.bodies.shared_body import MIN_SHARED_BYTES, SharedBody, open_shared_body
from tornado_proxy.gateway.bodies.worker_messages import BodyTask
from tornado_proxy.gateway.bodies.workers import BodyWorkers, CallerKey
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.providers.contract import (
    ClientFrame,
    Endpoint,
    HttpEndpoint,
    ParsedRequest,
    WebSocketEndpoint,
)
from tornado_proxy.providers.shared.body_outline import MIN_BODY_BYTES, make_outline
from tornado_proxy.wire.content_coding import BodyLimit, decode
from tornado_proxy.wire.multipart import is_form
from tornado_proxy.wire.splice import find_splice

#: Length of a compressed body that is decoded without a turn.
_SMALL = BodyLimit(1, "")


class BodyParser:
    """Reads request bodies.  Waits for a worker, if the body is large; BodyWorkers limits that wait."""

    def __init__(self) -> None:
        #: Collects the bodies.
        self.buffers = BodyBuffers()
        self._workers = BodyWorkers()

    def open(self, context: RequestContext[HttpEndpoint], first: bytes) -> BodyBuffer | SharedBody:
        """Return a buffer that holds `first`, the first bytes of a body: one that a worker shares if it measures it."""
        shared = open_shared_body() if _is_measured(context) else None
        if shared is None:
            return self.buffers.open(first)
        shared.write(first)
        return shared

    async def parse(self, context: RequestContext[HttpEndpoint], body: bytes | SharedBody) -> ParsedRequest:
        """Return the facts of a complete request, and the body to send.

        Raises:
            CallerError: the body or the query cannot be read in one way only, or the body is too large.
            Overloaded: the worker has ended.
        """
        if isinstance(body, SharedBody):
            async with self._workers.turn(_caller_key(context)):
                return await self._workers.read_shared(_make_task(context, body.size, is_shared=True), body)
        coding = (
            context.request.header("content-encoding") if body and "content-encoding" in context.request.lines else ""
        )
        if coding:
            decoded = await _decode_small(body, coding)
            if decoded is None:
                return await self._parse_large(context, body, coding)
            body = decoded
        return _read_outline(context, body) or await self._read_whole(context, body)

    async def _read_whole(self, context: RequestContext[HttpEndpoint], body: bytes) -> ParsedRequest:
        endpoint = context.endpoint
        if endpoint.parse is None or is_quick(body):
            if endpoint.measure is not None:
                return await asyncio.to_thread(read_here, context, body)
            return read_here(context, body)
        if endpoint.measure is None and is_form(read_content_type(context)):
            # It is not decoded, and the contents of its files are not read.
            async with self._workers.turn(_caller_key(context)):
                return await asyncio.to_thread(read_here, context, body)
        return await self._parse_large(context, body, "")

    def parse_frame(
        self, context: RequestContext[WebSocketEndpoint], frame: str | bytes, model: str | None
    ) -> ClientFrame | Awaitable[ClientFrame]:
        """Return the request of a client's frame, in a session with `model`; an awaitable if the frame is large.

        Raises:
            CallerError: the frame cannot be read in one way only, or takes too much memory or time.
            Overloaded: the worker has ended.
        """
        data = frame.encode() if isinstance(frame, str) else frame
        if is_quick(data):
            return context.endpoint.parse_frame(data, model)
        return self._parse_large_frame(context, data, model)

    async def _parse_large_frame(
        self, context: RequestContext[WebSocketEndpoint], frame: bytes, model: str | None
    ) -> ClientFrame:
        async with self._workers.turn(_caller_key(context)):
            return await self._workers.read_frame(_make_frame_task(context, frame, model), frame)

    async def _parse_large(self, context: RequestContext[HttpEndpoint], body: bytes, coding: str) -> ParsedRequest:
        """Read a large body in its caller's turn: before that, a compressed one takes no more memory."""
        async with self._workers.turn(_caller_key(context)):
            if coding:
                body = await asyncio.to_thread(decode, body, coding, find_body_limit(context))
                if (parsed := _read_outline(context, body)) is not None:
                    return parsed
            if context.endpoint.parse is None:
                return read_here(context, body)
            return await self._workers.read(_make_task(context, len(body)), body)

    def close(self) -> None:
        """End the workers."""
        self._workers.close()


def _caller_key(context: RequestContext[Endpoint]) -> CallerKey:
    caller = context.caller
    return caller.project_id, caller.participant, caller.user


def _is_measured(context: RequestContext[HttpEndpoint]) -> bool:
    """Return True if the body is a large recording whose length a worker has to find."""
    request = context.request
    if context.endpoint.measure is None or request.stated_bytes <= MIN_SHARED_BYTES:
        return False
    return "content-encoding" not in request.lines and is_form("".join(request.lines.get("content-type", ())))


def _read_outline(context: RequestContext[HttpEndpoint], body: bytes) -> ParsedRequest | None:
    """Read a body that is little more than a few long texts by its outline; return None if it is another one."""
    names = context.endpoint.content_members
    outline = make_outline(body, names) if names and len(body) >= MIN_BODY_BYTES else None
    if outline is None or not outline.cuts or not is_quick(outline.text):
        return None
    parsed = read_here(context, outline.text)
    if any(path.rpartition(".")[2].encode() in names for path, _ in parsed.facts.described):
        return None  # such a text is read
    facts = replace(parsed.facts, body_bytes=parsed.facts.body_bytes + outline.cut_bytes)
    if parsed.body is outline.text:
        return ParsedRequest(facts, body)
    splice = outline.find_in_body(find_splice(outline.text, parsed.body))
    return None if splice is None else ParsedRequest(facts, body, splice)


async def _decode_small(body: bytes, coding: str) -> bytes | None:
    """Return the body without its Content-Encoding, None if it is large."""
    if len(body) > _SMALL.mb * MIB:
        return None
    try:
        # In a thread: zlib frees the interpreter lock.
        return await asyncio.to_thread(decode, body, coding, _SMALL)
    except BodyTooLarge:
        return None


def _make_frame_task(context: RequestContext[WebSocketEndpoint], frame: bytes, model: str | None) -> BodyTask:
    return BodyTask(
        provider=context.provider.name,
        method=context.endpoint.method,
        path=context.endpoint.path,
        exact_speech=context.snapshot.settings.speech_usage == "exact",
        content_type="",
        path_id=None,
        query="",
        body_bytes=len(frame),
        is_frame=True,
        model=model,
    )


def _make_task(context: RequestContext[HttpEndpoint], body_bytes: int, *, is_shared: bool = False) -> BodyTask:
    return BodyTask(
        provider=context.provider.name,
        method=context.endpoint.method,
        path=context.endpoint.path,
        exact_speech=context.snapshot.settings.speech_usage == "exact",
        content_type=read_content_type(context),
        path_id=context.path_id,
        query=context.query,
        body_bytes=body_bytes,
        is_shared=is_shared,
    )
