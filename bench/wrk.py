"""wrk, the load generator for requests that are answered whole."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.contestants import Contestant
from bench.machine import Layout, on_cores

_SCRIPT = """\
wrk.method = "POST"
wrk.body = {before} .. string.rep("word ", {words}) .. {after}
{headers}
done = function(summary, latency, requests)
  local e = summary.errors
  print(string.format("DONE %d %d %d %d %d", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What wrk counted: seconds, latencies in milliseconds."""

    requests: int
    seconds: float
    errors: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Wrk:
    """How to load: where scripts are kept, on which cores wrk runs, how long."""

    folder: Path
    layout: Layout
    seconds: int

    async def run(self, contestant: Contestant, connections: int, body_bytes: int) -> Result:
        """POST chat completions of about `body_bytes` to `contestant`, without blocking the loop."""
        script = self.folder / f"{contestant.name}.lua"
        script.write_text(_script(contestant.headers, body_bytes))
        threads = min(len(self.layout.load), connections)
        command = [
            "wrk", f"-t{threads}", f"-c{connections}", f"-d{self.seconds}s", "--timeout", "20s",
            "-s", str(script), contestant.url,
        ]  # fmt: skip
        return _read(await asyncio.to_thread(self._call, command))

    def _call(self, command: list[str]) -> str:
        with on_cores(self.layout.load):
            return subprocess.run(command, check=True, capture_output=True, text=True, timeout=self.seconds + 60).stdout


def _script(headers: tuple[tuple[str, str], ...], body_bytes: int) -> str:
    before = '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"'
    lines = [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers]
    return _SCRIPT.format(
        before=json.dumps(before),
        words=max(1, (body_bytes - len(before)) // 5),
        after=json.dumps('"}]}'),
        headers="\n".join(['wrk.headers["Content-Type"] = "application/json"', *lines]),
    )


def _read(output: str) -> Result:
    found = re.search(r"DONE (\d+) (\d+) (\d+) (\d+) (\d+)", output)
    if found is None:
        raise RuntimeError(f"wrk says no figures:\n{output}")
    requests, duration_us, errors, p50_us, p99_us = map(int, found.groups())
    return Result(requests, duration_us / 1e6, errors, p50_us / 1000, p99_us / 1000)
