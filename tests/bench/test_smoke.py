"""Every kind of part runs, small and short, against our server; its figures are not judged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.machine import list_process_tree
from tests.harness import ROOT, TIMEOUT_S


def bench(folder: Path, parts: str, *options: str) -> tuple[dict[str, dict[str, dict[str, list[float]]]], str]:
    """Run the benchmark; return the figures of each part from its JSON file, and its standard output."""
    result = folder / "result.json"
    process = subprocess.run(
        [
            sys.executable, "-m", "bench", "--only", parts, "--rounds", "1", "--seconds", "0.1", "--scale", "0.01",
            "--json", str(result), *options,
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=100,
        check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return json.loads(result.read_text())["parts"], process.stdout


def test_streams_are_compared_with_an_aiohttp_relay_and_with_no_relay(tmp_path: Path) -> None:
    parts, printed = bench(tmp_path, "sse-first", "--contestants", "tornado-proxy,aiohttp")
    assert set(parts["sse-first"]) == {"direct", "tornado-proxy", "aiohttp"}
    assert len(parts["sse-first"]["tornado-proxy"]["added_p50_ms"]) == 1
    assert "| sse-first | added_p50_ms | ≤ 1.3 x aiohttp (1) |" in printed


@pytest.mark.parametrize("name", ["sse-paced", "sse-flood"])
def test_streaming_breaks_no_stream(tmp_path: Path, name: str) -> None:
    parts, _ = bench(tmp_path, name, "--contestants", "tornado-proxy")
    assert parts[name]["tornado-proxy"]["broken_streams"] == [0]
    assert parts[name]["tornado-proxy"]["cpu_us_per_event"][0] > 0


def test_clients_that_disconnect_and_stall_are_measured(tmp_path: Path) -> None:
    parts, _ = bench(tmp_path, "stall,abort,stress", "--contestants", "tornado-proxy")
    assert parts["stall"]["tornado-proxy"]["complete"] == [True]
    assert parts["abort"]["tornado-proxy"]["never"] == [0]
    assert parts["stress"]["tornado-proxy"]["incomplete"] == [0]


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_json_requests_of_both_providers_are_answered_and_measured(tmp_path: Path) -> None:
    parts, _ = bench(tmp_path, "json-1,messages-32", "--contestants", "tornado-proxy,aiohttp")
    for part in ("json-1", "messages-32"):
        for contestant in ("tornado-proxy", "aiohttp"):
            assert parts[part][contestant]["errors"] == [0]
            assert parts[part][contestant]["requests_per_s"][0] > 0


def test_open_streams_deliver_events(tmp_path: Path) -> None:
    parts, _ = bench(tmp_path, "streams-1000", "--contestants", "tornado-proxy")
    assert parts["streams-1000"]["tornado-proxy"]["streams"] == [10]
    assert parts["streams-1000"]["tornado-proxy"]["errors"] == [0]


def test_websocket_messages_are_counted(tmp_path: Path) -> None:
    parts, _ = bench(tmp_path, "ws-flood", "--contestants", "tornado-proxy")
    assert parts["ws-flood"]["tornado-proxy"]["broken_sessions"] == [0]
    assert parts["ws-flood"]["tornado-proxy"]["messages_per_s"][0] > 0


def test_open_websocket_sessions_deliver_messages(tmp_path: Path) -> None:
    parts, _ = bench(tmp_path, "ws-1000", "--contestants", "tornado-proxy")
    assert parts["ws-1000"]["tornado-proxy"]["sessions"] == [10]
    assert parts["ws-1000"]["tornado-proxy"]["errors"] == [0]


def is_running(pid: int) -> bool:
    """Return True if the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_terminated_benchmark_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", "--only", "stall", "--contestants", "tornado-proxy", "--rounds", "100"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    deadline = time.monotonic() + TIMEOUT_S
    while len(list_process_tree(process.pid)) < 4 and time.monotonic() < deadline:  # itself, two providers, server
        time.sleep(0.05)
    pids = list_process_tree(process.pid)
    process.terminate()
    assert process.wait(TIMEOUT_S) == 1
    assert len(pids) >= 4
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, pids))
    assert list(tmp_path.iterdir()) == []


def test_unknown_part_is_rejected_with_the_list_of_parts() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "bench", "--only", "speed"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert process.returncode == 1
    assert "json-32" in process.stderr
