"""JSON chat completions: a small request, about 1 kB of answer with usage, connections kept alive."""

from __future__ import annotations

from bench.parts.base import Figures, Part, Round
from bench.wrk import Wrk

CONNECTIONS = (1, 32, 256)


def part(connections: int) -> Part:
    """The part with so many connections at once."""

    async def measure(now: Round) -> Figures:
        return await load(now, connections, body_bytes=100)

    return Part(f"json-{connections}", f"JSON, {connections} connections", measure, needs="wrk")


async def load(now: Round, connections: int, body_bytes: int) -> Figures:
    """Figures of one run of wrk; `cpu_us` is processor time of the relay for each request."""
    before = now.contestant.cpu_s()
    result = await Wrk(now.place.folder, now.place.layout, now.seconds).run(now.contestant, connections, body_bytes)
    spent = now.contestant.cpu_s() - before
    return {
        "requests_per_s": result.requests / result.seconds,
        "cpu_us": spent * 1e6 / max(1, result.requests),
        "p50_ms": result.p50_ms,
        "p99_ms": result.p99_ms,
        "errors": result.errors,
    }


PARTS = tuple(part(connections) for connections in CONNECTIONS)
