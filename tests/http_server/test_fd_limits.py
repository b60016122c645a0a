"""A server that runs out of file descriptors, as its callers and its operator see it."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from pathlib import Path

import pytest

from tests.harness import ProxyProcess
from tests.server.raw_provider import END, EVENT, SSE, USAGE, chunk, connect, fetch_chat, read_request, run_against

#: Descriptors that the process may open beyond those of the idle process.
_EXTRA_FDS = 40

#: Concurrent callers: each needs a descriptor for its connection and one for the provider's.
_CALLERS = 60

#: Concurrent requests that there are just enough descriptors for.
_CONCURRENT_REQUESTS = 20

#: Descriptors for other purposes; a little more than the server reserves.
_OTHER_FDS = 20

EXHAUSTED_MESSAGE = "new connections wait: too few file descriptors"
RESUMED_MESSAGE = "accepting new connections again"


def count_open_files(proxy: ProxyProcess) -> int:
    return len(os.listdir(f"/proc/{proxy.process.pid}/fd"))


def limit_open_files(proxy: ProxyProcess, limit: int) -> None:
    _, hard = resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE, (limit, hard))


def read_cpu_s(proxy: ProxyProcess) -> float:
    """Return the seconds of CPU time that the process has used."""
    fields = Path(f"/proc/{proxy.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def count_complete(responses: list[bytes]) -> int:
    return len([response for response in responses if b"data: [DONE]" in response])


def test_callers_over_the_limit_wait_and_all_get_a_response(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await asyncio.sleep(0.2)
        writer.write(SSE + chunk(EVENT) + chunk(USAGE) + END)
        await writer.drain()

    async def act(proxy: ProxyProcess) -> tuple[list[bytes], int]:
        limit_open_files(proxy, count_open_files(proxy) + _EXTRA_FDS)
        responses = await asyncio.gather(*(fetch_chat(proxy) for _ in range(_CALLERS)))
        await asyncio.to_thread(proxy.wait_for_log, RESUMED_MESSAGE)
        records = await asyncio.to_thread(proxy.read_records, count=_CALLERS)
        return responses, len([record for record in records if record["basis"] == "reported"])

    responses, reported = run_against(serve, tmp_path, act)

    assert count_complete(responses) == _CALLERS
    assert reported == _CALLERS


def test_descriptors_for_twenty_requests_allow_twenty_concurrent_requests(tmp_path: Path) -> None:
    all_arrived = asyncio.Barrier(_CONCURRENT_REQUESTS)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await all_arrived.wait()
        writer.write(SSE + chunk(EVENT) + chunk(USAGE) + END)
        await writer.drain()

    async def act(proxy: ProxyProcess) -> list[bytes]:
        limit_open_files(proxy, count_open_files(proxy) + 2 * _CONCURRENT_REQUESTS + _OTHER_FDS)
        return await asyncio.wait_for(asyncio.gather(*(fetch_chat(proxy) for _ in range(_CONCURRENT_REQUESTS))), 20)

    responses = run_against(serve, tmp_path, act)

    assert count_complete(responses) == _CONCURRENT_REQUESTS


def test_waiting_connections_cost_one_log_line_and_no_cpu_time(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(SSE + chunk(EVENT) + chunk(USAGE) + END)

    async def act(proxy: ProxyProcess) -> tuple[float, list[str], bytes]:
        limit_open_files(proxy, count_open_files(proxy) + _EXTRA_FDS)
        idle_connections = [await connect(proxy) for _ in range(_CALLERS)]
        await asyncio.to_thread(proxy.wait_for_log, EXHAUSTED_MESSAGE)
        before_s = read_cpu_s(proxy)
        await asyncio.sleep(1)
        spent_s = read_cpu_s(proxy) - before_s
        assert (await asyncio.to_thread(proxy.fetch_admin, "/readyz"))[0] == 200  # the admin port still responds
        for _, writer in idle_connections:
            writer.close()
        response = await asyncio.wait_for(fetch_chat(proxy), 20)
        proxy.signal(signal.SIGTERM)
        assert await asyncio.to_thread(proxy.wait_exit) == 0
        return spent_s, [line for line in proxy.log if '"level":"error"' in line], response

    spent_s, errors, response = run_against(serve, tmp_path, act)

    assert spent_s < 0.3
    assert len(errors) == 1
    assert EXHAUSTED_MESSAGE in errors[0]
    assert b"data: [DONE]" in response


@pytest.mark.parametrize("sent", [pytest.param(b"POST /v1/cha", id="half a head"), pytest.param(b"", id="nothing")])
def test_connections_without_a_request_make_room_for_a_request(sent: bytes, tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(SSE + chunk(EVENT) + chunk(USAGE) + END)

    async def act(proxy: ProxyProcess) -> bytes:
        limit_open_files(proxy, count_open_files(proxy) + _EXTRA_FDS)
        connections = [await connect(proxy) for _ in range(_CALLERS)]
        for _, writer in connections:
            writer.write(sent)
        response = await asyncio.wait_for(fetch_chat(proxy), 20)
        for _, writer in connections:
            writer.close()
        return response

    constants = {"tornado_proxy.http_server.idle_connections._MIN_CLOSE_IDLE_S": 0.5}
    assert b"data: [DONE]" in run_against(serve, tmp_path, act, constants=constants)


def test_server_raises_its_soft_limit_of_open_files_to_the_hard_limit(tmp_path: Path) -> None:
    async def act(proxy: ProxyProcess) -> tuple[int, int]:
        return resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE)

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1] // 2, before[1]))
    try:
        soft, hard = run_against(read_request, tmp_path, act)  # type: ignore[arg-type]  # no request reaches it
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert soft == hard == before[1]
