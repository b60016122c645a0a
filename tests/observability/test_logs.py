"""Log lines through a real pipe."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import wait_until
from tornado_proxy.observability import logs


@contextlib.contextmanager
def logger_to(fd: int) -> Iterator[logging.Logger]:
    writer = logs.LineWriter(fd)
    log = logging.getLogger("test")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(writer)
    try:
        yield log
    finally:
        log.removeHandler(writer)
        log.propagate = True
        log.setLevel(logging.NOTSET)
        writer.stop()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read_end, write_end = os.pipe()
    yield read_end, write_end
    for fd in (read_end, write_end):
        with contextlib.suppress(OSError):
            os.close(fd)


def read_lines(read_end: int) -> list[dict[str, object]]:
    with os.fdopen(os.dup(read_end), "rb") as stream:
        return [json.loads(line) for line in stream]


def test_line_is_one_json_object_with_the_extra_fields(pipe: tuple[int, int]) -> None:
    read_end, write_end = pipe

    with logger_to(write_end) as log:
        log.info("request", extra={"model": "gpt-5.4", "total_ms": 12.5, "room": None})
    os.close(write_end)

    (line,) = read_lines(read_end)
    assert str(line.pop("time")).endswith("Z")
    assert line == {
        "level": "info",
        "logger": "test",
        "message": "request",
        "model": "gpt-5.4",
        "total_ms": 12.5,
        "room": None,
    }


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("\ud800 and on", id="lone surrogate"),
        pytest.param(2**80, id="integer above 64 bits"),
        pytest.param("one\ntwo\u2028three", id="line ends"),
        pytest.param({"deep": [object()]}, id="value without a JSON form"),
    ],
)
def test_any_value_is_written_as_one_line(pipe: tuple[int, int], value: object) -> None:
    read_end, write_end = pipe

    with logger_to(write_end) as log:
        log.info("request", extra={"value": value})
    os.close(write_end)

    (line,) = read_lines(read_end)
    assert line["message"] == "request"
    assert line["value"]


def test_exception_is_written_in_its_line(pipe: tuple[int, int]) -> None:
    read_end, write_end = pipe

    with logger_to(write_end) as log:
        try:
            raise ValueError("some reason")
        except ValueError:
            log.exception("failed")
    os.close(write_end)

    (line,) = read_lines(read_end)
    assert "ValueError: some reason" in str(line["exception"])


def test_full_pipe_blocks_no_caller_and_dropped_lines_are_reported(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_MAX_QUEUED_LINES", 2_000)
    read_end, write_end = pipe

    with logger_to(write_end) as log:
        for number in range(10_000):  # more than a pipe buffers, 64 KiB on Linux
            log.info("request", extra={"number": number, "text": "x" * 100})
        # To the end: the writer stops when all lines are written, and the report need not be the last one.
        chunks: list[bytes] = []
        drain = threading.Thread(target=lambda: chunks.extend(iter(lambda: os.read(read_end, 65536), b"")))
        drain.start()
    os.close(write_end)
    drain.join()
    written = b"".join(chunks)

    assert b"lines dropped" in written
    assert b'"number":0,' in written
    assert b'"number":9999,' not in written


def test_closed_pipe_raises_nothing(pipe: tuple[int, int]) -> None:
    read_end, write_end = pipe
    os.close(read_end)

    with logger_to(write_end) as log:
        log.info("request")


def test_line_shows_control_characters_as_escapes(pipe: tuple[int, int]) -> None:
    read_end, write_end = pipe
    name = "gpt\x1b[2J\x9b2J\u202e5"

    with logger_to(write_end) as log:
        log.info("request", extra={"model": name})
    os.close(write_end)

    with os.fdopen(os.dup(read_end), "rb") as stream:
        line = stream.read().decode()
    assert '"model":"gpt\\u001b[2J\\u009b2J\\u202e5"' in line
    assert json.loads(line)["model"] == name


def test_line_after_a_full_disk_begins_on_a_line_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "proxy.log"
    output = logs.FileOutput(path)
    old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A limit of the file's size fails as a full disk does: with a part of the bytes written.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old_limit[1]))
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        output.put("x" * 1500)
        wait_until(lambda: path.stat().st_size == 1000, "the file is full")
        time.sleep(0.05)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
        signal.signal(signal.SIGXFSZ, old_handler)
    output.put("next")
    output.stop()

    assert path.read_text().splitlines() == ["x" * 1000, "next"]


def test_warnings_of_the_database_driver_are_left_to_the_ledger_s_own_lines() -> None:
    program = (
        "import logging; from tornado_proxy.observability import logs; writer = logs.start('INFO'); "
        "driver = logging.getLogger('psycopg'); driver.warning('broken'); driver.error('fault'); writer.stop()"
    )

    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert [json.loads(line)["message"] for line in run.stderr.splitlines()] == ["fault"]
