"""A voice agent of the Agents SDK, and a client that does not read, through the real server to the simulator."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
import websockets
from agents.realtime import RealtimeAgent, RealtimeRunner

from tests.harness import OPENAI_KEY, ProxyProcess, mint, running_proxy
from tornado_proxy.simulator import Simulator, running_simulator

MODEL = "gpt-realtime"
_ANSWERS = 25


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    with (
        running_simulator(Simulator(keys={"openai": OPENAI_KEY})) as url,
        running_proxy(tmp_path_factory.mktemp("agents"), url) as running,
    ):
        yield running


def socket_url(proxy: ProxyProcess) -> str:
    return f"ws{proxy.base_url.removeprefix('http')}/openai/v1/realtime?model={MODEL}"


def test_a_voice_agent_speaks_and_is_billed(proxy: ProxyProcess) -> None:
    async def talk() -> str:
        runner = RealtimeRunner(
            RealtimeAgent(name="clerk", instructions="Be brief."),
            config={"model_settings": {"model_name": MODEL}, "tracing_disabled": True},
        )
        session = await runner.run(model_config={"url": socket_url(proxy), "api_key": mint(name="agent-smith")})
        async with session:
            await session.send_message("Hello")
            async with asyncio.timeout(20):
                async for event in session:
                    if event.type == "agent_end":
                        return event.type
        raise AssertionError("the session ended before its answer")

    assert asyncio.run(talk()) == "agent_end"

    records = [one for one in proxy.read_records(count=1) if one["participant"] == "agent-smith"]
    (record,) = [one for one in records if one["basis"] == "reported"]
    items = {item["type"]: Decimal(item["quantity"]) for item in record["line_items"]}
    assert items["output_audio_tokens"] > 0
    assert Decimal(record["subtotal"]) == sum(
        (Decimal(item["amount"]) for item in record["line_items"] if item["type"] != "llm_proxy_surcharge"), Decimal(0)
    )


def resident_kib(proxy: ProxyProcess) -> int:
    status = Path(f"/proc/{proxy.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def test_a_client_that_does_not_read_costs_little_and_gets_everything_in_the_end(proxy: ProxyProcess) -> None:
    """Tens of megabytes of sound wait for it; what the kernel does not hold stays with the provider."""

    async def stall() -> tuple[int, int]:
        headers = {"Authorization": f"Bearer {mint()}"}
        async with websockets.connect(
            socket_url(proxy), additional_headers=headers, max_size=None, ping_interval=None, max_queue=1
        ) as socket:
            said = {"type": "input_text", "text": "[[sim tokens=100]]"}
            item = {"type": "message", "role": "user", "content": [said]}
            await socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
            before = resident_kib(proxy)
            for _ in range(_ANSWERS):
                await socket.send(json.dumps({"type": "response.create"}))
            await asyncio.sleep(2)
            grown = resident_kib(proxy) - before
            received = done = 0
            while done < _ANSWERS:
                frame = await asyncio.wait_for(socket.recv(), 20)
                received += len(frame)
                done += '"response.done"' in str(frame[:100])
            return grown, received

    grown, received = asyncio.run(stall())

    assert received > 30_000_000
    assert grown < 24 * 1024
