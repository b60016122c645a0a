"""Log lines through a real pipe."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator

import pytest

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
        writer.stop()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(fd)


def lines_of(reading: int) -> list[dict[str, object]]:
    with os.fdopen(os.dup(reading), "rb") as stream:
        return [json.loads(line) for line in stream]


def test_a_line_is_one_json_object_with_what_was_given_as_extra(pipe: tuple[int, int]) -> None:
    reading, writing = pipe

    with logger_to(writing) as log:
        log.info("call", extra={"model": "gpt-5.4", "total_ms": 12.5, "room": None})
    os.close(writing)

    (line,) = lines_of(reading)
    assert str(line.pop("time")).endswith("Z")
    assert line == {
        "level": "info",
        "logger": "test",
        "message": "call",
        "model": "gpt-5.4",
        "total_ms": 12.5,
        "room": None,
    }


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("\ud800 and on", id="half a surrogate pair"),
        pytest.param(2**80, id="an integer past 64 bits"),
        pytest.param("one\ntwo\u2028three", id="line ends"),
        pytest.param({"deep": [object()]}, id="what JSON has no word for"),
    ],
)
def test_any_value_gives_one_line(pipe: tuple[int, int], value: object) -> None:
    reading, writing = pipe

    with logger_to(writing) as log:
        log.info("call", extra={"value": value})
    os.close(writing)

    (line,) = lines_of(reading)
    assert line["message"] == "call"
    assert line["value"]


def test_an_exception_is_in_its_line(pipe: tuple[int, int]) -> None:
    reading, writing = pipe

    with logger_to(writing) as log:
        try:
            raise ValueError("what went wrong")
        except ValueError:
            log.exception("failed")
    os.close(writing)

    (line,) = lines_of(reading)
    assert "ValueError: what went wrong" in str(line["exception"])


def test_a_pipe_that_nobody_reads_holds_up_nobody_and_says_later_what_it_lost(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_MOST_WAITING", 2_000)
    reading, writing = pipe

    with logger_to(writing) as log:
        for number in range(10_000):  # a pipe holds some 64 KiB
            log.info("call", extra={"number": number, "text": "x" * 100})
        drained = iter(lambda: os.read(reading, 65536), b"")
        seen = b""
        while b"lines dropped" not in seen:
            seen += next(drained)

    assert b'"number":0,' in seen
    assert b'"number":9999,' not in seen


def test_a_closed_pipe_is_no_fault(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.close(reading)

    with logger_to(writing) as log:
        log.info("call")
