"""Open WebSocket sessions follow a reload: the next request in them has the new prices, models and budgets."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import websockets
import yaml
from websockets.asyncio.client import ClientConnection

from tests.harness import TIMEOUT_S, ProxyProcess, mint, running_proxy
from tests.server.realtime import read_session, wait_closed, websocket_url
from tests.server.test_reload import reload
from tornado_proxy.simulator import Simulator, running_simulator

_ENDS = ("response.completed", "error")


async def create(socket: ClientConnection, text: str = "Hi") -> dict[str, Any]:
    """Ask for a response; return the event that ends it."""
    await socket.send(json.dumps({"type": "response.create", "model": "gpt-4o-mini", "input": text}))
    while True:
        event: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), TIMEOUT_S))
        if event["type"] in _ENDS:
            return event


def test_each_request_of_an_open_session_has_the_configuration_of_its_time(tmp_path: Path) -> None:
    async def talk(proxy: ProxyProcess) -> tuple[ClientConnection, list[Any]]:
        project = yaml.safe_load((tmp_path / "proxy.yaml").read_text())["projects"][0]

        def change(**members: Any) -> None:
            reload(proxy, projects=[{**project, **members}])

        url = websocket_url(proxy, "/openai/v1/responses", "")
        async with websockets.connect(url, additional_headers={"Authorization": f"Bearer {mint()}"}) as socket:
            ends = [await create(socket)]
            await asyncio.to_thread(change, surcharge_rate="0.5")
            ends.append(await create(socket))
            await asyncio.to_thread(change, models=["openai/gpt-5.4"])
            ends.append(await create(socket))
            await asyncio.to_thread(change, budgets=[{"period": "day", "usd": "0"}])
            ends.append(await create(socket))
            return socket, [*ends, await wait_closed(socket)]

    with running_simulator(Simulator()) as url, running_proxy(tmp_path, url) as proxy:
        socket, [first, second, refused, spent, (code, _)] = asyncio.run(talk(proxy))
        records = read_session(proxy, socket, 2)

    assert [event["type"] for event in (first, second)] == ["response.completed"] * 2
    # 1 x 0.15 + 24 x 0.60 per million: 0.00001455, and 5 % or 50 % of it.
    assert [record["surcharge"] for record in records] == ["0.000000727500", "0.000007275000"]
    assert (refused["type"], refused["error"]["code"]) == ("error", "not_allowed")
    assert (spent["type"], spent["error"]["code"]) == ("error", "budget_exceeded")
    assert code == 1008
