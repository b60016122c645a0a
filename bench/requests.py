"""The JSON requests of the benchmarks: chat completions and messages, of any length."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JsonRequest:
    """A request: its path, its own headers, and the body around the prompt."""

    path: str
    before: str
    after: str
    headers: tuple[tuple[str, str], ...] = ()


#: A model that every contestant knows; nothing of a measurement depends on its name.
CLAUDE = "claude-sonnet-4-5"

CHAT_COMPLETION = JsonRequest(
    "/v1/chat/completions", '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"', '"}]}'
)
MESSAGE = JsonRequest(
    "/v1/messages",
    f'{{"model":"{CLAUDE}","max_tokens":1024,"messages":[{{"role":"user","content":"',
    '"}]}',
    (("anthropic-version", "2023-06-01"),),
)
