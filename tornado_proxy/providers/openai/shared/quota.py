"""The quota of OpenAI's account in responses: names of headers, and events of WebSockets.

Sources: OpenAI guide "Rate limits", "Rate limits in headers"; API reference, realtime server event
`rate_limits.updated`; Codex CLI, `codex-api/src/rate_limits.rs` and `endpoint/responses_websocket.rs`, which read
`codex.rate_limits`, the `x-codex-` headers, and `headers` of an `error` event; openai-python 3.57, type
ResponseWsError, whose `error` has `headers`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from tornado_proxy.providers.shared.json_values import as_object
from tornado_proxy.wire.headers import filter_response_headers

#: Beginnings of the names of headers that state a quota.  Codex needs others, like `x-codex-turn-state`.
QUOTA_PREFIXES = ("x-ratelimit-", "x-codex-primary-", "x-codex-secondary-", "x-codex-credits-")

#: Headers that name the provider account.
ACCOUNT_HEADERS = frozenset({"openai-organization", "openai-project"})

#: Events that state a quota and nothing else.
QUOTA_EVENTS = frozenset({"rate_limits.updated", "codex.rate_limits"})


def strip_quota(event: Mapping[str, object]) -> str | None:
    """Return an `error` event without the headers that no HTTP response has, as a frame; None if it has none."""
    error = as_object(event.get("error"))
    stripped = {**_strip(event), "error": _strip(error)} if "headers" in error else _strip(event)
    return None if stripped == event else json.dumps(stripped, separators=(",", ":"))


def _strip(members: Mapping[str, object]) -> Mapping[str, object]:
    headers = members.get("headers")
    if not isinstance(headers, dict):
        return members
    names = [(str(name), "") for name in headers]
    passing = filter_response_headers(names, account_headers=ACCOUNT_HEADERS, prefixes=QUOTA_PREFIXES)
    kept = {name for name, _ in passing}
    return {**members, "headers": {name: value for name, value in headers.items() if name in kept}}
