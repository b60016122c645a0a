"""Run wrk, the load generator for JSON requests."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.contestants import Contestant
from bench.machine import Layout, on_cores
from bench.requests import JsonRequest

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
    """The figures of a run of wrk."""

    requests: int
    seconds: float
    errors: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Wrk:
    """A load: the folder for scripts, the cores of wrk, the seconds of a run."""

    folder: Path
    layout: Layout
    seconds: int

    async def run(self, contestant: Contestant, request: JsonRequest, connections: int, body_bytes: int) -> Result:
        """Send requests of about `body_bytes` to `contestant` without blocking the event loop."""
        script = self.folder / f"{contestant.name}.lua"
        script.write_text(_make_script(request, contestant.headers, body_bytes))
        threads = min(len(self.layout.load), connections)
        command = [
            # wrk needs at least one connection per thread.
            "wrk", f"-t{threads}", f"-c{connections}", f"-d{self.seconds}s", "--timeout", "20s",
            "-s", str(script), contestant.base_url + request.path,
        ]  # fmt: skip
        return _read_output(await asyncio.to_thread(self._run_wrk, command))

    def _run_wrk(self, command: list[str]) -> str:
        with on_cores(self.layout.load):
            return subprocess.run(command, check=True, capture_output=True, text=True, timeout=self.seconds + 60).stdout


def _make_script(request: JsonRequest, headers: tuple[tuple[str, str], ...], body_bytes: int) -> str:
    headers = (("Content-Type", "application/json"), *request.headers, *headers)
    return _SCRIPT.format(
        before=json.dumps(request.before),
        # "word " has five characters; the body is built in Lua, since a command line could not hold 1 MB.
        words=max(1, (body_bytes - len(request.before)) // 5),
        after=json.dumps(request.after),
        headers="\n".join(f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers),
    )


def _read_output(output: str) -> Result:
    found = re.search(r"DONE (\d+) (\d+) (\d+) (\d+) (\d+)", output)
    if found is None:
        raise RuntimeError(f"wrk printed no figures:\n{output}")
    requests, duration_us, errors, p50_us, p99_us = map(int, found.groups())
    return Result(requests, duration_us / 1e6, errors, p50_us / 1000, p99_us / 1000)
