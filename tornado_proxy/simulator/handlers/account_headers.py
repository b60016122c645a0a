"""Response headers that name the provider account or belong to the provider's site; a proxy must drop them."""

from __future__ import annotations

#: Sent if a directive says `headers`.  `Connection: x-hop-by-hop` makes the last one a hop-by-hop header too (RFC
#: 9110 section 7.6.1): a proxy that drops the well-known names alone would relay it.
ACCOUNT_HEADERS = (
    ("openai-organization", "org-simulated"),
    ("openai-project", "proj_simulated"),
    ("anthropic-organization-id", "00000000-0000-4000-8000-000000000000"),
    ("Set-Cookie", "__cf_bm=simulated; path=/; HttpOnly; Secure"),
    ("Alt-Svc", 'h3=":443"; ma=86400'),
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Expose-Headers", "X-Request-ID"),
    ("Connection", "x-hop-by-hop"),
    ("x-hop-by-hop", "named by Connection"),
)
