"""JSON requests: a small request and a response of about 1 kB with usage, over kept connections."""

from __future__ import annotations

import math
from dataclasses import replace

from bench.contestants import OURS, WITH_BUDGET, WITH_BUDGETS, WITH_LIMITS
from bench.parts.base import Figures, Part, Round
from bench.requests import CHAT_COMPLETION, MESSAGE, JsonRequest
from bench.wrk import Wrk

#: One shows the latency, 32 the throughput, 256 the behaviour under overload.
CONNECTIONS = (1, 32, 256)

_MESSAGE_CONNECTIONS = 32

_BUDGET_CONNECTIONS = 32

_BODY_BYTES = 100


def make_part(connections: int) -> Part:
    """Return the part with a number of connections at once."""

    async def measure(round_: Round) -> Figures:
        return await load(round_, CHAT_COMPLETION, connections, _BODY_BYTES)

    return Part(f"json-{connections}", f"JSON, {connections} connections", measure, needs="wrk")


async def measure_budgets(round_: Round) -> Figures:
    """Measure small requests after a second of them, in which a new process fills its caches."""
    await load(replace(round_, seconds=1), CHAT_COMPLETION, _BUDGET_CONNECTIONS, _BODY_BYTES)
    return await load(round_, CHAT_COMPLETION, _BUDGET_CONNECTIONS, _BODY_BYTES)


async def measure_messages(round_: Round) -> Figures:
    """Measure requests for messages, which LiteLLM's proxy relays in Rust."""
    request = replace(MESSAGE, path=round_.contestant.anthropic_prefix + MESSAGE.path)
    return await load(round_, request, _MESSAGE_CONNECTIONS, _BODY_BYTES)


async def load(round_: Round, request: JsonRequest, connections: int, body_bytes: int) -> Figures:
    """Run wrk and return its figures.

    `cpu_us` is the relay's CPU time for a request, `own_cpu_us` that of its first process: without the processes that
    read large bodies and send telemetry.
    """
    cpu_before_s, own_before_s = round_.contestant.read_cpu_s(), round_.contestant.read_own_cpu_s()
    result = await Wrk(round_.workspace.folder, round_.workspace.layout, math.ceil(round_.seconds)).run(
        round_.contestant, request, connections, body_bytes
    )
    cpu_s = round_.contestant.read_cpu_s() - cpu_before_s
    own_cpu_s = round_.contestant.read_own_cpu_s() - own_before_s
    return {
        "requests_per_s": result.requests / result.seconds,
        "cpu_us": cpu_s * 1e6 / max(1, result.requests),
        "own_cpu_us": own_cpu_s * 1e6 / max(1, result.requests),
        "p50_ms": result.p50_ms,
        "p99_ms": result.p99_ms,
        "errors": result.errors,
    }


PARTS = (
    *(make_part(connections) for connections in CONNECTIONS),
    Part(
        f"messages-{_MESSAGE_CONNECTIONS}",
        f"JSON messages, {_MESSAGE_CONNECTIONS} connections",
        measure_messages,
        needs="wrk",
    ),
    # Two processes of one configuration differ for as long as they run, by up to 4 %: so each round has new ones.
    Part(
        "json-budget",
        f"JSON with and without budgets, {_BUDGET_CONNECTIONS} connections, new processes in each round",
        measure_budgets,
        (OURS, WITH_BUDGET, WITH_BUDGETS, WITH_LIMITS),
        fresh=True,
        needs="wrk",
    ),
)
