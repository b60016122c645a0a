"""Reads a complete request body: the facts that its endpoint needs, and the objects and models that it names.

Pure, so that it can run in another process: gateway/body_worker.py.
"""

from __future__ import annotations

from dataclasses import replace

from tornado_proxy.providers.contract import HttpEndpoint, ParsedRequest, Provider, RequestView
from tornado_proxy.providers.shared.body_walk import add_findings, may_need_walk, walk_body


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
    if rules is None or not _is_json(view) or not may_need_walk(view.body, rules):
        return parsed
    return replace(parsed, facts=add_findings(parsed.facts, walk_body(view.body, rules)))


def _is_json(view: RequestView) -> bool:
    """Return False for a form or an SDP offer; a missing or wrong Content-Type hides no JSON."""
    return not view.content_type.lower().lstrip().startswith(("multipart/", "application/sdp"))
