"""The quota of OpenAI's account in responses: names of headers, and events of WebSockets.

Sources: OpenAI guide "Rate limits", "Rate limits in headers"; API reference, realtime server event
`rate_limits.updated`; Codex CLI, `codex-api/src/rate_limits.rs` and `endpoint/responses_websocket.rs`, which read
`codex.rate_limits`, the `x-codex-` headers, and the headers in an `error` event.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

#: Beginnings of the names of headers that state a quota.  Codex needs others, like `x-codex-turn-state`.
QUOTA_PREFIXES = ("x-ratelimit-", "x-codex-primary-", "x-codex-secondary-", "x-codex-credits-")

#: Events that state a quota and nothing else.
QUOTA_EVENTS = frozenset({"rate_limits.updated", "codex.rate_limits"})


def strip_quota(event: Mapping[str, object]) -> str | None:
    """Return an `error` event without the quota in its `headers`, as a frame; None if it states no quota."""
    headers = event.get("headers")
    if not isinstance(headers, dict):
        return None
    kept = {name: value for name, value in headers.items() if not str(name).lower().startswith(QUOTA_PREFIXES)}
    return None if len(kept) == len(headers) else json.dumps({**event, "headers": kept}, separators=(",", ":"))
