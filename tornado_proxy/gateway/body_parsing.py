"""Reads a complete request body: its coding, the facts that its endpoint needs, and the objects and models it names.

Large bodies are read in a thread.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from urllib.parse import parse_qs

from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.providers.contract import HttpEndpoint, ParsedRequest, RequestView
from tornado_proxy.providers.shared.body_walk import add_findings, may_need_walk, walk_body
from tornado_proxy.wire.content_coding import decode

#: Bytes of a body that is parsed on the event loop: about a millisecond.
MAX_BYTES_PARSED_ON_LOOP = 64 * 1024


async def parse_body(context: RequestContext[HttpEndpoint], body: bytes) -> ParsedRequest:
    """Return the facts of a complete request, and the body to send.

    Raises:
        CallerError: the body or the query cannot be read in one way only.
    """
    body = await _decode(context, body)
    endpoint, head = context.endpoint, context.head
    if endpoint.parse is None:
        return ParsedRequest(RequestFacts(body_bytes=len(body)), body)
    content_types = head.header_lines("content-type")
    if len(content_types) > 1:
        raise BadRequest("Content-Type is repeated; send it once")
    _reject_unknown_parameters(context)
    view = RequestView(body, "".join(content_types), context.path_id, context.query, head.headers)
    # A large body is parsed in a thread: on the event loop it would hold up every stream.
    in_thread = len(body) > MAX_BYTES_PARSED_ON_LOOP
    parsed = await asyncio.to_thread(endpoint.parse, view) if in_thread else endpoint.parse(view)
    if endpoint.measure is not None:
        parsed = await asyncio.to_thread(endpoint.measure, parsed, view)
    rules = context.provider.member_rules
    if rules is None or not _is_json(view) or not may_need_walk(body, rules):
        return parsed
    findings = await asyncio.to_thread(walk_body, body, rules) if in_thread else walk_body(body, rules)
    return replace(parsed, facts=add_findings(parsed.facts, findings))


async def _decode(context: RequestContext[HttpEndpoint], body: bytes) -> bytes:
    """Return the body as it is read, and sent to the provider: without its Content-Encoding."""
    coding = context.head.header("content-encoding")
    if not coding or not body:
        return body
    # In a thread: zlib frees the interpreter lock, and 64 MiB take a tenth of a second.
    return await asyncio.to_thread(decode, body, coding, context.snapshot.settings.limits.max_body_mb)


def _reject_unknown_parameters(context: RequestContext[HttpEndpoint]) -> None:
    """Raise BadRequest for a query parameter that the provider does not define: it could override the body."""
    if not context.query or context.endpoint.method != "POST":
        return
    unknown = sorted(set(parse_qs(context.query, keep_blank_values=True)) - context.provider.post_parameters)
    if unknown:
        raise BadRequest(f"unknown query parameter {unknown[0][:60]!r}; send it in the body", param=unknown[0][:60])


def _is_json(view: RequestView) -> bool:
    """Return False for a form or an SDP offer; a missing or wrong Content-Type hides no JSON."""
    return not view.content_type.lower().lstrip().startswith(("multipart/", "application/sdp"))
