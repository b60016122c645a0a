"""The harness runs: every part, small and short, against our own server alone; figures are not judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.machine import family
from tests.harness import ROOT, TIMEOUT_S


def bench(folder: Path, parts: str, *options: str) -> tuple[dict[str, dict[str, dict[str, list[float]]]], str]:
    """Run the command; returns what its JSON file says of each part, and what it printed."""
    result = folder / "result.json"
    done = subprocess.run(
        [
            sys.executable, "-m", "bench", "--only", parts, "--rounds", "1", "--seconds", "1", "--scale", "0.01",
            "--json", str(result), *options,
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=100,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(result.read_text())["parts"], done.stdout


def test_streams_are_measured_against_an_aiohttp_relay_and_no_relay(tmp_path: Path) -> None:
    parts, printed = bench(tmp_path, "sse-first", "--contestants", "tornado-proxy,aiohttp")
    assert set(parts["sse-first"]) == {"direct", "tornado-proxy", "aiohttp"}
    assert len(parts["sse-first"]["tornado-proxy"]["added_p50_ms"]) == 1
    assert "| sse-first | added_p50_ms | ≤ 0.7 (0.35) |" in printed


@pytest.mark.parametrize("name", ["sse-paced", "sse-flood"])
def test_each_way_of_streaming_breaks_no_stream(tmp_path: Path, name: str) -> None:
    parts, _ = bench(tmp_path, name, "--contestants", "tornado-proxy")
    assert parts[name]["tornado-proxy"]["broken_streams"] == [0]
    assert parts[name]["tornado-proxy"]["cpu_us_per_event"][0] > 0


def test_clients_that_leave_and_stall_are_counted(tmp_path: Path) -> None:
    parts, _ = bench(tmp_path, "stall,abort,stress", "--contestants", "tornado-proxy")
    assert parts["stall"]["tornado-proxy"]["complete"] == [True]
    assert parts["abort"]["tornado-proxy"]["never"] == [0]
    assert parts["stress"]["tornado-proxy"]["incomplete"] == [0]


def test_open_streams_are_held_and_flow(tmp_path: Path) -> None:
    parts, _ = bench(tmp_path, "streams-1000", "--contestants", "tornado-proxy")
    assert parts["streams-1000"]["tornado-proxy"]["streams"] == [10]
    assert parts["streams-1000"]["tornado-proxy"]["errors"] == [0]


def test_websocket_messages_are_counted(tmp_path: Path) -> None:
    parts, _ = bench(tmp_path, "ws-flood", "--contestants", "tornado-proxy")
    assert parts["ws-flood"]["tornado-proxy"]["broken_sessions"] == [0]
    assert parts["ws-flood"]["tornado-proxy"]["messages_per_s"][0] > 0


def test_open_websocket_sessions_are_held_and_flow(tmp_path: Path) -> None:
    parts, _ = bench(tmp_path, "ws-1000", "--contestants", "tornado-proxy")
    assert parts["ws-1000"]["tornado-proxy"]["sessions"] == [10]
    assert parts["ws-1000"]["tornado-proxy"]["errors"] == [0]


def runs(pid: int) -> bool:
    """Whether there is such a process, other than one that is dead and waits to be noticed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_harness_that_is_terminated_leaves_no_process_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", "--only", "stall", "--contestants", "tornado-proxy", "--rounds", "100"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    deadline = time.monotonic() + TIMEOUT_S
    while len(family(process.pid)) < 4 and time.monotonic() < deadline:  # itself, two providers, our server
        time.sleep(0.05)
    started = family(process.pid)
    process.terminate()
    assert process.wait(TIMEOUT_S) == 1
    assert len(started) >= 4
    while any(map(runs, started)) and time.monotonic() < deadline:  # a killed process takes a moment
        time.sleep(0.05)
    assert not any(map(runs, started))
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_part_is_refused_with_the_list_of_parts() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--only", "speed"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 1
    assert "json-32" in done.stderr
