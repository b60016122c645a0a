"""What callers and an operator see when the file descriptors run out."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from pathlib import Path

from tests.harness import ProxyProcess
from tests.server.raw_provider import END, EVENT, SSE, USAGE, chunk, connect, fetch_chat, read_request, run_against

#: Descriptors that the process gets on top of what it has when it is idle.
_FEW = 40

#: Callers at once: each needs a descriptor here and one for the provider.
_CALLERS = 60

#: Calls that there shall be descriptors for, and those that the server keeps for other things.
_AT_ONCE, _SPARE = 20, 20

WAIT = "new connections wait: too few file descriptors"
AGAIN = "accepting new connections again"


def open_files(proxy: ProxyProcess) -> int:
    return len(os.listdir(f"/proc/{proxy.process.pid}/fd"))


def limit_open_files(proxy: ProxyProcess, most: int) -> None:
    _, hard = resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE, (most, hard))


def processor_s(proxy: ProxyProcess) -> float:
    fields = Path(f"/proc/{proxy.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_callers_past_the_limit_wait_and_are_all_answered(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await asyncio.sleep(0.2)
        writer.write(SSE + chunk(EVENT) + chunk(USAGE) + END)
        await writer.drain()

    async def act(proxy: ProxyProcess) -> tuple[list[bytes], int]:
        limit_open_files(proxy, open_files(proxy) + _FEW)
        answers = await asyncio.gather(*(fetch_chat(proxy) for _ in range(_CALLERS)))
        await asyncio.to_thread(proxy.wait_for_log, AGAIN)
        records = await asyncio.to_thread(proxy.read_records, count=_CALLERS)
        return answers, len([one for one in records if one["basis"] == "reported"])

    answers, reported = run_against(serve, tmp_path, act)

    assert len([one for one in answers if b"data: [DONE]" in one]) == _CALLERS
    assert reported == _CALLERS


def test_descriptors_for_twenty_calls_are_enough_for_twenty_at_once(tmp_path: Path) -> None:
    waiting = asyncio.Barrier(_AT_ONCE)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await waiting.wait()
        writer.write(SSE + chunk(EVENT) + chunk(USAGE) + END)
        await writer.drain()

    async def act(proxy: ProxyProcess) -> list[bytes]:
        limit_open_files(proxy, open_files(proxy) + 2 * _AT_ONCE + _SPARE)
        return await asyncio.wait_for(asyncio.gather(*(fetch_chat(proxy) for _ in range(_AT_ONCE))), 20)

    answers = run_against(serve, tmp_path, act)

    assert len([one for one in answers if b"data: [DONE]" in one]) == _AT_ONCE


def test_connections_that_cannot_be_taken_cost_one_line_and_no_processor_time(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(SSE + chunk(EVENT) + chunk(USAGE) + END)

    async def act(proxy: ProxyProcess) -> tuple[float, list[str], bytes]:
        limit_open_files(proxy, open_files(proxy) + _FEW)
        idle = [await connect(proxy) for _ in range(_CALLERS)]
        await asyncio.to_thread(proxy.wait_for_log, WAIT)
        before_s = processor_s(proxy)
        await asyncio.sleep(1)
        spent_s = processor_s(proxy) - before_s
        assert (await asyncio.to_thread(proxy.fetch_admin, "/readyz"))[0] == 200  # the admin port keeps answering
        for _, writer in idle:
            writer.close()
        seen = await asyncio.wait_for(fetch_chat(proxy), 20)
        proxy.signal(signal.SIGTERM)
        assert await asyncio.to_thread(proxy.wait_exit) == 0
        return spent_s, [line for line in proxy.log if '"level":"error"' in line], seen

    spent_s, errors, seen = run_against(serve, tmp_path, act)

    assert spent_s < 0.3
    assert len(errors) == 1
    assert WAIT in errors[0]
    assert b"data: [DONE]" in seen


def test_the_server_takes_as_many_descriptors_as_it_may_have(tmp_path: Path) -> None:
    async def act(proxy: ProxyProcess) -> tuple[int, int]:
        return resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE)

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1] // 2, before[1]))
    try:
        soft, hard = run_against(read_request, tmp_path, act)  # type: ignore[arg-type]  # nobody asks it
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert soft == hard == before[1]
