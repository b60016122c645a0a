"""Reads a complete request body: the facts that its endpoint needs, and the objects and models that it names.

    small body ──> read_small ──> read_here ──> the endpoint's parse ──> members that name objects or models

Pure, so that it can run in another process: gateway/bodies/worker.py reads the bodies that would delay others here, and
parsing.py chooses which.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from msgspec.structs import replace

from tornado_proxy.domain.errors import BadRequest, BodyTooLarge, CallerError
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.units import MIB
from tornado_proxy.providers.contract import Endpoint, HttpEndpoint, ParsedRequest, Provider, RequestView
from tornado_proxy.providers.shared.body_outline import MIN_BODY_BYTES
from tornado_proxy.providers.shared.body_walk import add_findings, walk_body
from tornado_proxy.providers.shared.json_body import may_need_walk
from tornado_proxy.wire.content_coding import BodyLimit

if TYPE_CHECKING:  # a worker process has no configuration, and does not load the files that read it
    from tornado_proxy.gateway.context import RequestContext

#: Bytes of a body that is read on the event loop: about a millisecond for text.
MAX_BYTES_READ_ON_LOOP = 64 * 1024

#: Objects and lists of such a body: each takes about a microsecond, and 64 KiB of empty ones took 25 ms.
MAX_VALUES_READ_ON_LOOP = 6000

#: The start of a JSON object.  Forms and SDP offers begin otherwise, and a provider may read JSON whatever its
#: Content-Type says.
_JSON_OBJECT = re.compile(rb"[ \t\r\n]*\{")


def is_quick(body: bytes) -> bool:
    """Return True if the event loop can read `body` without delaying others."""
    if len(body) > MAX_BYTES_READ_ON_LOOP:
        return False
    # Each value takes at least two bytes.
    return len(body) <= 2 * MAX_VALUES_READ_ON_LOOP or (body.count(b"{") + body.count(b"[") <= MAX_VALUES_READ_ON_LOOP)


def read_small(context: RequestContext[HttpEndpoint], body: bytes) -> ParsedRequest | None:
    """Return the facts of a small request, and the body to send; None if BodyParser must read it.

    Raises:
        CallerError: the body or the query cannot be read in one way only.
    """
    is_small = len(body) < MIN_BODY_BYTES and "content-encoding" not in context.request.lines
    return read_here(context, body) if is_small and context.endpoint.measure is None else None


def read_body(provider: Provider, endpoint: HttpEndpoint, view: RequestView) -> ParsedRequest:
    """Return the facts of a request, and the body to send.  The endpoint has a parser.

    Raises:
        CallerError: the body cannot be read in one way only.
    """
    assert endpoint.parse is not None
    parsed = endpoint.parse(view)
    if endpoint.measure is not None:
        parsed = endpoint.measure(parsed, view)
    rules = provider.member_rules
    if rules is None or _JSON_OBJECT.match(view.body) is None or not may_need_walk(view.body, rules):
        return parsed
    return replace(parsed, facts=add_findings(parsed.facts, walk_body(view.body, rules)))


def find_body_limit(context: RequestContext[Endpoint]) -> BodyLimit:
    """Return the limit of a request's body."""
    limits, endpoint = context.snapshot.settings.limits, context.endpoint
    if isinstance(endpoint, HttpEndpoint) and endpoint.takes_batch:
        return BodyLimit(limits.max_batch_mb, "limits.max_batch_mb")
    return BodyLimit(limits.max_body_mb, "limits.max_body_mb")


def check_body_length(context: RequestContext[Endpoint], length: int) -> None:
    """Raise BodyTooLarge if a body of `length` bytes is larger than the configured limit."""
    limits = context.snapshot.settings.limits
    if length <= min(limits.max_body_mb, limits.max_batch_mb) * MIB:
        return
    limit = find_body_limit(context)
    if length > limit.mb * MIB:
        raise BodyTooLarge(f"the body is larger than {limit.mb} MiB, the limit of this server ({limit.setting})")


def read_fields(context: RequestContext[HttpEndpoint], form: bytes) -> ParsedRequest | None:
    """Return the facts of a form whose files still arrive; None if what has arrived does not suffice."""
    if context.endpoint.parse is None or not is_quick(form):
        return None
    try:
        return context.endpoint.parse(_make_view(context, form))
    except CallerError:
        return None


def read_here(context: RequestContext[HttpEndpoint], body: bytes) -> ParsedRequest:
    """Return the facts of a request, and the body to send.

    Raises:
        CallerError: the body or the query cannot be read in one way only.
    """
    if context.endpoint.parse is None:
        return ParsedRequest(RequestFacts(body_bytes=len(body)), body)
    return read_body(context.provider, context.endpoint, _make_view(context, body))


def _make_view(context: RequestContext[HttpEndpoint], body: bytes) -> RequestView:
    query = context.query if "?" in context.upstream_target else ""
    return RequestView(body, read_content_type(context), context.path_id, query)


def read_content_type(context: RequestContext[HttpEndpoint]) -> str:
    """Return the Content-Type of a request whose head leaves no doubt about its body."""
    content_types = context.request.lines.get("content-type", ())
    if len(content_types) > 1:
        raise BadRequest("Content-Type is repeated; send it once")
    if "?" in context.upstream_target:
        _reject_unknown_parameters(context)
    return "".join(content_types)


def _reject_unknown_parameters(context: RequestContext[HttpEndpoint]) -> None:
    """Raise BadRequest for a query parameter that the provider does not define: it could override the body."""
    if not context.query or context.endpoint.method != "POST":
        return
    unknown = sorted(set(parse_qs(context.query, keep_blank_values=True)) - context.provider.post_parameters)
    if unknown:
        raise BadRequest(f"unknown query parameter {unknown[0][:60]!r}; send it in the body", param=unknown[0][:60])
