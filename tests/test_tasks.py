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
    raise ValueError("of the task")


def test_a_failure_is_logged_and_counted_by_the_task_s_name(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        task = tasks.spawn(fail(), "one that fails")
        await asyncio.wait([task])
        await asyncio.sleep(0)

    before = failures("one that fails")
    asyncio.run(run())

    assert failures("one that fails") == before + 1
    (line,) = caplog.records
    assert (line.levelno, line.getMessage(), vars(line)["task"]) == (
        logging.ERROR,
        "background task failed",
        "one that fails",
    )
    assert line.exc_info is not None
    assert str(line.exc_info[1]) == "of the task"


def test_a_cancelled_task_ends_quietly(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        task = tasks.spawn(asyncio.sleep(60), "one that waits")
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(run())

    assert caplog.records == []
    assert failures("one that waits") == 0


def test_a_task_that_nobody_holds_runs_to_its_end() -> None:
    done: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0.01)
        done.append("yes")

    async def run() -> None:
        tasks.spawn(work(), "one that nobody holds")
        gc.collect()
        await asyncio.sleep(0.05)

    asyncio.run(run())

    assert done == ["yes"]
