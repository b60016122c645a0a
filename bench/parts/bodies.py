"""Request bodies of 1 MB, the size of prompts with images; the provider reads them to the end."""

from __future__ import annotations

from bench.parts.base import Figures, Part, Round
from bench.parts.json_responses import load
from bench.requests import CHAT_COMPLETION

_CONNECTIONS = 8
_BODY_BYTES = 1024 * 1024


async def measure(round_: Round) -> Figures:
    """Measure requests with bodies of 1 MB."""
    return await load(round_, CHAT_COMPLETION, _CONNECTIONS, _BODY_BYTES)


PARTS = (Part("body-1mb", f"1 MB request bodies, {_CONNECTIONS} connections", measure, needs="wrk"),)
