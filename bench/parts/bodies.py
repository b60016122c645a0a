"""Request bodies of 1 MB, as prompts with pictures have; the provider reads them whole."""

from __future__ import annotations

from bench.parts.base import Figures, Part, Round
from bench.parts.json_answers import load

_CONNECTIONS = 8
_BODY_BYTES = 1024 * 1024


async def measure(now: Round) -> Figures:
    return await load(now, _CONNECTIONS, _BODY_BYTES)


PARTS = (Part("body-1mb", f"1 MB request bodies, {_CONNECTIONS} connections", measure, needs="wrk"),)
