from __future__ import annotations

import asyncio
import gc
import logging

import pytest
from prometheus_client import REGISTRY

from tornado_proxy import tasks


def failures(name: str) -> float:
    return REGISTRY.get_sample_value("llm_proxy_task_failures_total", {"task": name}) or 0


async def fail() -> None:
    raise ValueError("raised by the task")


def test_failure_is_logged_and_counted_under_the_task_name(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        task = tasks.spawn(fail(), "failing task")
        await asyncio.wait([task])
        await asyncio.sleep(0)

    before = failures("failing task")
    asyncio.run(run())

    assert failures("failing task") == before + 1
    (line,) = caplog.records
    assert (line.levelno, line.getMessage(), vars(line)["task"]) == (
        logging.ERROR,
        "background task failed",
        "failing task",
    )
    assert line.exc_info is not None
    assert str(line.exc_info[1]) == "raised by the task"


def test_cancelled_task_is_not_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        task = tasks.spawn(asyncio.sleep(60), "waiting task")
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(run())

    assert caplog.records == []
    assert failures("waiting task") == 0


def test_unreferenced_task_runs_to_its_end() -> None:
    done: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0.01)
        done.append("yes")

    async def run() -> None:
        tasks.spawn(work(), "unreferenced task")
        gc.collect()
        await asyncio.sleep(0.05)

    asyncio.run(run())

    assert done == ["yes"]
