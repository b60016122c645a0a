"""A chat completion: its request, its response, and a client that sends it."""

from __future__ import annotations

from typing import Any

import httpx2 as httpx

from tests.harness import TIMEOUT_S, ProxyProcess, mint

CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}

#: A provider's response that costs 10 x 0.15 + 5 x 0.60 per million, 0.0000045 USD.
CHAT_RESPONSE = (
    b'{"id":"c","model":"gpt-4o-mini","choices":[],'
    b'"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}'
)

MESSAGE: dict[str, Any] = {"model": "claude-sonnet-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}


def post_chat(proxy: ProxyProcess, body: dict[str, Any] | None = None, token: str | None = None) -> httpx.Response:
    """Send a chat completion request; return the response."""
    headers = {"Authorization": f"Bearer {token or mint()}"}
    return httpx.post(proxy.base_url + "/v1/chat/completions", json=body or CHAT, headers=headers, timeout=TIMEOUT_S)
