"""Stops on real servers: refused in every process, and open requests end with a record."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.harness import PROJECT, TIMEOUT_S, ProxyProcess, mint, running_proxy, wait_until
from tests.replay_provider import ProviderResponse, ReplayProvider
from tests.server.realtime import connect_session, fetch_rejection, next_event, send_text, wait_closed, websocket_url
from tests.server.test_admin_api import send
from tests.server.test_budgets import CHAT, RESPONSE, post
from tests.server.test_rate_limits import EVENT, STREAM
from tornado_proxy.domain.stop import Stop, StopTarget
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.simulator import Simulator, running_simulator
from tornado_proxy.state import stops
from tornado_proxy.state.store import StateStore


@contextlib.contextmanager
def open_state(proxy: ProxyProcess) -> Iterator[StateStore]:
    """Open the state of a server's SQLite ledger, as a command does."""
    store = StateStore(make_backend(proxy.ledger))
    try:
        yield store
    finally:
        store.close()


@pytest.fixture(scope="module")
def two(provider: ReplayProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ProxyProcess, ...]]:
    """Two servers on one ledger."""
    folder = tmp_path_factory.mktemp("stops")
    with running_proxy(folder, provider.url) as first, running_proxy(folder, provider.url) as second:
        yield first, second


@contextlib.contextmanager
def stopped(proxy: ProxyProcess, target: StopTarget, reason: str = "") -> Iterator[Stop]:
    """Stop something meanwhile."""
    with open_state(proxy) as store:
        stop = stops.make(store, "cli:root", target, reason)
        try:
            yield stop
        finally:
            stops.lift(store, "cli:root", stop.id)


def count_outcomes(proxy: ProxyProcess, outcome: str) -> int:
    """Return the number of records with an outcome."""
    return sum(record["outcome"] == outcome for record in proxy.read_records())


def wait_for_status(proxy: ProxyProcess, name: str, status: int) -> httpx.Response:
    """Send requests of a participant until one gets this status."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        # A request that is under way when the stop takes effect is cut.
        with contextlib.suppress(httpx.RemoteProtocolError):
            if (response := post(proxy, name)).status_code == status:
                return response
        assert time.monotonic() < deadline, f"no response with status {status}"
        time.sleep(0.05)


def test_stopped_participant_is_refused_in_both_processes_until_it_is_resumed(
    two: tuple[ProxyProcess, ...], provider: ReplayProvider
) -> None:
    provider.response = ProviderResponse(chunks=(RESPONSE,))
    with stopped(two[0], StopTarget(participant="ada"), "runaway") as stop:
        for proxy in two:
            refused = wait_for_status(proxy, "ada", 403)
            error = refused.json()["error"]
            assert error["code"] == "stopped"
            assert error["message"] == f"{stop}; ask an admin of project first to resume it"
            assert refused.headers["x-should-retry"] == "false"
            assert post(proxy, "eve").status_code == 200
    for proxy in two:
        wait_for_status(proxy, "ada", 200)


def test_stop_cuts_the_streams_of_both_processes_and_records_them(
    two: tuple[ProxyProcess, ...], provider: ReplayProvider
) -> None:
    headers = (("Content-Type", "text/event-stream"),)
    provider.response = ProviderResponse(headers=headers, chunks=(EVENT,) * 100_000)
    with contextlib.ExitStack() as streams:
        opened = [streams.enter_context(open_stream(proxy, "ada")) for proxy in two]
        for response in opened:
            assert response.status_code == 200
        streams.enter_context(stopped(two[0], StopTarget(PROJECT)))
        for response in opened:
            with pytest.raises(httpx.TransportError):
                for _ in response.iter_bytes():
                    pass
    wait_until(lambda: count_outcomes(two[0], "proxy_closed") == 2, "both records")
    ends = [record for record in two[0].read_records() if record["outcome"] == "proxy_closed"]
    assert [record["basis"] for record in ends] == ["estimated"] * 2
    with contextlib.closing(sqlite3.connect(two[0].ledger)) as ledger:
        faults = ledger.execute("SELECT faults FROM records WHERE outcome = 'proxy_closed'").fetchall()
    assert all("was stopped by cli:root" in fault for (fault,) in faults)


@contextlib.contextmanager
def open_stream(proxy: ProxyProcess, name: str, **headers: str) -> Iterator[httpx.Response]:
    """Open a streamed response."""
    sent = {"Authorization": f"Bearer {mint(name=name)}", **headers}
    url = proxy.base_url + "/v1/chat/completions"
    with httpx.stream("POST", url, json=STREAM, headers=sent, timeout=TIMEOUT_S) as response:
        yield response


def test_stop_of_an_agent_session_spares_other_sessions(
    two: tuple[ProxyProcess, ...], provider: ReplayProvider
) -> None:
    provider.response = ProviderResponse(chunks=(RESPONSE,))
    proxy = two[1]

    def post_in(session: str) -> int | None:
        headers = {"Authorization": f"Bearer {mint(name='ada')}", "session-id": session}
        headers["User-Agent"] = "codex_exec/0.171.0"
        try:
            return httpx.post(proxy.base_url + "/v1/chat/completions", json=CHAT, headers=headers).status_code
        except httpx.RemoteProtocolError:
            return None  # it was under way when the stop took effect

    wait_until(lambda: post_in("s1") == 200, "stops of other tests are lifted")
    with stopped(two[0], StopTarget(agent_session="s1")):
        wait_until(lambda: post_in("s1") == 403, "the session is stopped")
        assert post_in("s2") == 200


def test_stop_closes_sessions_with_1008_and_records_their_work(tmp_path: Path) -> None:
    with running_simulator(Simulator()) as url, running_proxy(tmp_path, url) as proxy:

        async def run() -> None:
            token = mint(name="talker")
            async with connect_session(proxy, token=token) as socket:
                await next_event(socket, "session.created")
                await send_text(socket, "[[sim delay 20]] hello")
                await next_event(socket, "response.created")
                with open_state(proxy) as store:
                    stops.make(store, "cli:root", StopTarget(participant="talker"), "too long")
                code, reason = await wait_closed(socket)
                assert code == 1008
                assert "participant talker was stopped by cli:root" in (reason or "")
            rejection = await fetch_rejection(
                websocket_url(proxy), additional_headers={"Authorization": f"Bearer {token}"}
            )
            assert rejection.status_code == 403

        asyncio.run(run())
        wait_until(lambda: bool(proxy.read_records()), "the record")
        assert {record["basis"] for record in proxy.read_records()} <= {"reported", "estimated"}


def test_admin_port_stops_and_resumes(two: tuple[ProxyProcess, ...], provider: ReplayProvider) -> None:
    provider.response = ProviderResponse(chunks=(RESPONSE,))
    proxy, _ = two
    wait_for_status(proxy, "ada", 200)
    body: dict[str, Any] = {"participant": "ada", "reason": "runaway"}
    assert send(proxy, "POST", "/v1/stops?dry_run=1", body).json() == {"dry_run": True}
    created = send(proxy, "POST", "/v1/stops", body)
    stop = created.json()
    assert (created.status_code, created.headers["Location"]) == (201, f"/v1/stops/{stop['id']}")
    assert (stop["participant"], stop["project_id"], stop["reason"]) == ("ada", None, "runaway")
    assert post(proxy, "ada").status_code == 403  # at once in the process that was asked
    assert send(proxy, "GET", "/v1/stops").json() == {"stops": [stop]}
    assert send(proxy, "GET", f"/v1/stops/{stop['id']}").json() == stop
    assert send(proxy, "POST", "/v1/stops", body).status_code == 400
    assert send(proxy, "POST", "/v1/stops", {}).status_code == 400
    assert send(proxy, "DELETE", f"/v1/stops/{stop['id']}").json() == stop
    assert send(proxy, "DELETE", f"/v1/stops/{stop['id']}").status_code == 404
    assert post(proxy, "ada").status_code == 200


def test_stopped_participant_can_cancel_its_work_at_the_provider_and_nothing_else(tmp_path: Path) -> None:
    with (
        running_simulator(Simulator(settle_s=60)) as url,
        running_proxy(tmp_path, url) as proxy,
        httpx.Client(base_url=proxy.base_url, headers={"Authorization": f"Bearer {mint()}"}) as client,
    ):
        work = {"model": "gpt-4o-mini", "input": "hi", "background": True}
        made = client.post("/v1/responses", json=work).json()["id"]
        item = {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
        batch = client.post(
            "/anthropic/v1/messages/batches", json={"requests": [{"custom_id": "a", "params": item}]}
        ).json()["id"]

        def is_stopped() -> bool:
            # A request that is under way when the stop takes effect is cut.
            with contextlib.suppress(httpx.RemoteProtocolError):
                return client.get(f"/v1/responses/{made}").status_code == 403
            return False

        with stopped(proxy, StopTarget(project_id=PROJECT)):
            wait_until(is_stopped, "the stop")
            refused = client.post("/v1/responses", json=work)
            cancelled = client.post(f"/v1/responses/{made}/cancel")
            ended = client.post(f"/anthropic/v1/messages/batches/{batch}/cancel")

    assert refused.json()["error"]["code"] == "stopped"
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert (ended.status_code, ended.json()["processing_status"]) == (200, "canceling")
