"""Reads a complete request body: the facts that its endpoint needs, and the objects and models that it names.

Pure, so that it can run in another process: gateway/body_worker.py reads the bodies that would delay others here.
"""

from __future__ import annotations

import re

from msgspec.structs import replace

from tornado_proxy.providers.contract import HttpEndpoint, ParsedRequest, Provider, RequestView
from tornado_proxy.providers.shared.body_walk import add_findings, may_need_walk, walk_body

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
