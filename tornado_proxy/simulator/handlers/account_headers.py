"""Answer headers that name the account or speak of the provider's own site: what a proxy must keep to itself."""

from __future__ import annotations

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
