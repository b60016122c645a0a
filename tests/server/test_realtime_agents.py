"""A voice agent of the Agents SDK, and a client that does not read, through the real server to the simulator."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from decimal import Decimal

import pytest
import websockets

from tests.harness import OPENAI_KEY, TIMEOUT_S, ProxyProcess, mint, running_proxy
from tests.server.realtime import MODEL, websocket_url
from tests.stress.process_stats import resident_kib
from tornado_proxy.simulator import Simulator, running_simulator

_RESPONSES = 25


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    with (
        running_simulator(Simulator(keys={"openai": OPENAI_KEY})) as url,
        running_proxy(tmp_path_factory.mktemp("agents"), url) as running,
    ):
        yield running


def test_voice_agent_speaks_and_is_billed(proxy: ProxyProcess) -> None:
    # Here, because every test process collects this file, and the import takes a second.
    from agents.realtime import RealtimeAgent, RealtimeRunner

    async def talk() -> str:
        runner = RealtimeRunner(
            RealtimeAgent(name="clerk", instructions="Be brief."),
            config={"model_settings": {"model_name": MODEL}, "tracing_disabled": True},
        )
        session = await runner.run(model_config={"url": websocket_url(proxy), "api_key": mint(name="agent-smith")})
        async with session:
            await session.send_message("Hello")
            async with asyncio.timeout(TIMEOUT_S):
                async for event in session:
                    if event.type == "agent_end":
                        return event.type
        raise AssertionError("the session ended before its response")

    assert asyncio.run(talk()) == "agent_end"

    records = [record for record in proxy.read_records(count=1) if record["participant"] == "agent-smith"]
    (record,) = [record for record in records if record["basis"] == "reported"]
    items = {item["type"]: Decimal(item["quantity"]) for item in record["line_items"]}
    assert items["output_audio_tokens"] > 0
    assert Decimal(record["subtotal"]) == sum(
        (Decimal(item["amount"]) for item in record["line_items"] if item["type"] != "llm_proxy_surcharge"), Decimal(0)
    )


def test_client_that_does_not_read_costs_little_memory_and_receives_everything(proxy: ProxyProcess) -> None:
    """Tens of megabytes of audio wait for it; the kernel buffers some, the rest stays with the provider."""

    async def stall() -> tuple[int, int]:
        headers = {"Authorization": f"Bearer {mint()}"}
        async with websockets.connect(
            websocket_url(proxy), additional_headers=headers, max_size=None, ping_interval=None, max_queue=1
        ) as socket:
            content = {"type": "input_text", "text": "[[sim tokens=100]]"}
            item = {"type": "message", "role": "user", "content": [content]}
            await socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
            before = resident_kib(proxy)
            for _ in range(_RESPONSES):
                await socket.send(json.dumps({"type": "response.create"}))
            # Without back-pressure the server would hold tens of megabytes by then.
            await asyncio.sleep(2)
            growth = resident_kib(proxy) - before
            received = done = 0
            while done < _RESPONSES:
                frame = await asyncio.wait_for(socket.recv(), TIMEOUT_S)
                received += len(frame)
                done += '"response.done"' in str(frame[:100])
            # Later events fill the queue, the client stops reading, and close() would wait 10 s.
            socket.transport.abort()
            return growth, received

    growth, received = asyncio.run(stall())

    assert received > 30_000_000
    assert growth < 24 * 1024
