"""Realtime calls over WebRTC: the data channel does not pass the proxy, and its responses are billed nevertheless."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.harness import OPENAI_KEY, TIMEOUT_S, ProxyProcess, mint, running_proxy
from tests.webrtc import CallClient, CallPeer, use_loopback_only
from tornado_proxy.simulator import Simulator, running_simulator

SESSION = '{"type":"realtime","model":"gpt-realtime"}'


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Simulator, str]]:
    use_loopback_only(monkeypatch)
    running = Simulator(keys={"openai": OPENAI_KEY}, answer_call=CallPeer().answer)
    with running_simulator(running) as url:
        yield running, url


@pytest.fixture
def proxy(simulator: tuple[Simulator, str], tmp_path: Path) -> Iterator[ProxyProcess]:
    with running_proxy(tmp_path, simulator[1]) as running:
        yield running


class Call:
    """A call of ada through the proxy; `id` is known when it has started."""

    def __init__(self, proxy: ProxyProcess) -> None:
        self.client = CallClient()
        self._proxy = proxy

    async def start(self) -> None:
        await self.client.start(self._exchange)
        await self.client.receive("session.created")

    async def _exchange(self, offer: str) -> str:
        form = {"sdp": (None, offer), "session": (None, SESSION)}
        headers = {"Authorization": f"Bearer {mint()}"}
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as http:
            response = await http.post(self._proxy.base_url + "/v1/realtime/calls", files=form, headers=headers)
        assert response.status_code == 201, response.text
        self.id = response.headers["location"].rpartition("/")[2]
        return response.text

    async def ask(self, text: str) -> dict[str, Any]:
        content = [{"type": "input_text", "text": text}]
        self.client.send("conversation.item.create", item={"type": "message", "role": "user", "content": content})
        self.client.send("response.create", response={"output_modalities": ["text"]})
        response: dict[str, Any] = (await self.client.receive("response.done"))["response"]
        return response


def test_responses_on_the_data_channel_are_billed_over_the_sideband(proxy: ProxyProcess) -> None:
    async def talk() -> tuple[str, dict[str, Any], list[dict[str, Any]]]:
        call = Call(proxy)
        await call.start()
        response = await call.ask("[[sim tokens=50]]")
        # The record is there while the call runs.
        records = await asyncio.to_thread(proxy.read_session_records, call.id, 1)
        await call.client.close()
        return call.id, response, records

    call_id, response, (record,) = asyncio.run(talk())

    assert (response["usage"]["input_tokens"], response["usage"]["output_tokens"]) == (8, 50)
    assert (record["participant"], record["model"], record["basis"]) == ("ada", "gpt-realtime", "reported")
    # 8 tokens of text at 4 USD and 50 at 16 USD per million, plus 5 %
    assert (record["subtotal"], record["total"]) == ("0.000832000000", "0.000873600000")
    # The page's end is the call's end, whose own record is free.
    last = proxy.read_session_records(call_id, 2)
    assert sorted((each["basis"], each["total"]) for each in last) == [
        ("free", "0"),
        ("reported", "0.000873600000"),
    ]


def test_call_that_the_proxy_hangs_up_ends_at_the_page(proxy: ProxyProcess, simulator: tuple[Simulator, str]) -> None:
    async def talk() -> str:
        call = Call(proxy)
        await call.start()
        await call.ask("hi")
        headers = {"Authorization": f"Bearer {mint()}"}
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as http:
            await http.post(f"{proxy.base_url}/v1/realtime/calls/{call.id}/hangup", headers=headers)
        await call.client.wait_closed()
        return call.id

    call_id = asyncio.run(talk())

    assert simulator[0].realtime_calls.get(call_id) is None
    assert [record["basis"] for record in proxy.read_session_records(call_id, 2)].count("reported") == 1
