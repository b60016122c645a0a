"""Work that outlives its request, and sessions: nothing is reserved after any end, and spent is what records say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import openai
import websockets
from websockets.asyncio.client import ClientConnection

from tests.harness import PROJECT, ProxyProcess, mint, running_proxy, wait_until
from tests.server.realtime import connect_session, next_event, send_text, wait_closed, websocket_url
from tests.server.test_budgets import OFTEN, open_budgets_at, project
from tests.server.test_request_ends import BUDGETS, stop, sum_totals
from tornado_proxy.simulator import Simulator, running_simulator

#: The outcomes of the records of each participant.
OUTCOMES = {
    "background completed": ["completed"],
    "background cancelled": ["completed"],
    "batch ended": ["completed"],
    "batch cancelled": ["completed"],
    "session completed": ["completed", "completed"],
    "session left": ["client_closed"],
    "session cut": ["upstream_broken"],
    "session stopped": ["proxy_closed"],
    "session shut down": ["shutdown"],
    "session crashed": ["crashed"],
    "socket completed": ["completed"],
    "socket left": ["client_closed"],
}

SLOW = "[[sim tokens=400 delay-ms=20]] hello"


def test_every_end_of_a_session_and_of_deferred_work_leaves_nothing_reserved(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    with running_simulator(Simulator(settle_s=0.2)) as url, contextlib.ExitStack() as lasting_process:
        changes: dict[str, Any] = {
            "projects": [project(budgets=BUDGETS)],
            "budgets": {"hold_unsettled": False},
            "shutdown": {"drain_s": 0.2},
            "streams": {"on_client_disconnect": "cancel"},
            "constants": OFTEN,
        }
        with running_proxy(tmp_path, url, **changes) as proxy:
            defer(proxy)
            asyncio.run(end_sessions(proxy, ledger))
            lasting = lasting_process.enter_context(running_proxy(tmp_path, url, **changes))
            asyncio.run(end_process(proxy, "session shut down", signal.SIGTERM))
        with running_proxy(tmp_path, url, **changes) as proxy:
            asyncio.run(end_process(proxy, "session crashed", signal.SIGKILL))
        wait_until(lambda: read_outcomes(lasting) == OUTCOMES, "all records")
        with open_budgets_at(ledger) as store:
            wait_until(lambda: not list(store.iterate_reservations()), "no reservation")
            wait_until(lambda: not any(store.leasing.read_idle().values()), "no slice")
            spent = sum_totals(lasting.read_records())
            figures = {
                (state.project_id, state.subject): (state.settled, state.reserved) for state in store.list_counters()
            }

    assert figures == {key: (total, Decimal(0)) for key, total in spent.items()}
    # A batch that is cancelled before its first request costs nothing, and nothing tells the cost of a lost response.
    free = {name for name in OUTCOMES if not spent[PROJECT, f"participant {name}"]}
    assert free == {"batch cancelled", "session crashed"}


def read_outcomes(proxy: ProxyProcess) -> dict[str, list[str]]:
    """Return the outcomes of the records of each participant that are not free."""
    outcomes: dict[str, list[str]] = {}
    for record in proxy.read_records():
        if record["basis"] != "free":
            outcomes.setdefault(record["participant"], []).append(record["outcome"])
    return outcomes


def defer(proxy: ProxyProcess) -> None:
    """Start work whose usage comes later, and cancel some of it."""
    message = {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    for name in ("background completed", "background cancelled"):
        with openai.OpenAI(base_url=proxy.base_url + "/v1", api_key=mint(name=name), max_retries=0) as gpt:
            response = gpt.responses.create(model="gpt-5-mini", input="Hello " * 50, background=True)
            if name == "background cancelled":
                gpt.responses.cancel(response.id)
    for name in ("batch ended", "batch cancelled"):
        url = proxy.base_url + "/anthropic"
        with anthropic.Anthropic(base_url=url, api_key=mint(name=name), max_retries=0) as claude:
            batch = claude.messages.batches.create(requests=[{"custom_id": "a", "params": message}])  # type: ignore[typeddict-item]
            if name == "batch cancelled":
                claude.messages.batches.cancel(batch.id)


async def end_sessions(proxy: ProxyProcess, ledger: Path) -> None:
    """End sessions in each way that their process outlives."""
    async with connect_session(proxy, token=mint(name="session completed")) as socket:
        for _ in range(2):
            await send_text(socket, "hello")
            await next_event(socket, "response.done")
    async with begin(proxy, "session left"):
        pass
    async with begin(proxy, "session cut", "[[sim cut=after:5]] hello") as socket:
        await wait_closed(socket)
    async with begin(proxy, "session stopped") as socket:
        stop(ledger, "session stopped")
        assert (await wait_closed(socket))[0] == 1008
    for name in ("socket completed", "socket left"):
        headers = {"Authorization": f"Bearer {mint(name=name)}"}
        url = websocket_url(proxy, "/v1/responses", "")
        async with websockets.connect(url, additional_headers=headers) as socket:
            text = SLOW if name == "socket left" else "hello"
            await socket.send(json.dumps({"type": "response.create", "model": "gpt-4o-mini", "input": text}))
            await next_event(socket, "response.completed" if text == "hello" else "response.output_text.delta")


@contextlib.asynccontextmanager
async def begin(proxy: ProxyProcess, name: str, text: str = SLOW) -> AsyncIterator[ClientConnection]:
    """Yield a session whose response has begun."""
    async with connect_session(proxy, token=mint(name=name)) as socket:
        await send_text(socket, text)
        await next_event(socket, "response.output_text.delta")
        yield socket


async def end_process(proxy: ProxyProcess, name: str, number: signal.Signals) -> None:
    """Send the process a signal while a session is open."""
    async with begin(proxy, name) as socket:
        proxy.signal(number)
        await wait_closed(socket)
    proxy.wait_exit()
