"""Realtime events state the quota of the provider account only to the clients of a project with its own key."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import httpx2 as httpx
import pytest

from tests.harness import (
    KEY_ID,
    OTHER_KEY_ID,
    OTHER_PROJECT,
    PROJECT,
    TIMEOUT_S,
    ProxyProcess,
    mint,
    mint_for_other_project,
    running_proxy,
)
from tests.server.realtime import connect_session, send, send_text
from tornado_proxy.simulator import running_simulator


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """A server whose second project has its own provider key."""
    folder = tmp_path_factory.mktemp("quota")
    (folder / "own_key").write_text("sk-own-key-of-the-other-project-5521")
    (folder / "own_key").chmod(0o600)
    first = {"id": PROJECT, "name": "first", "api_keys": [{"id": KEY_ID, "secret": {"env": "TEST_SIGNING_SECRET"}}]}
    other = {
        "id": OTHER_PROJECT,
        "name": "other",
        "api_keys": [{"id": OTHER_KEY_ID, "secret": {"env": "TEST_OTHER_SIGNING_SECRET"}}],
        "providers": {"openai": {"api_key": {"file": "own_key"}}},
    }
    with running_simulator() as url, running_proxy(folder, url, projects=[first, other]) as running:
        yield running


async def list_events(proxy: ProxyProcess, query: str, token: str) -> list[str]:
    """Return the types of the events of a session, up to one that follows its second response."""
    async with connect_session(proxy, query, token) as socket:
        kinds = [json.loads(await asyncio.wait_for(socket.recv(), TIMEOUT_S))["type"]]
        await send_text(socket, "hi")
        await send_text(socket, "hi")
        await send(socket, "input_audio_buffer.clear")
        while kinds[-1] != "input_audio_buffer.cleared":
            kinds.append(json.loads(await asyncio.wait_for(socket.recv(), TIMEOUT_S))["type"])
        return kinds


def start_call(proxy: ProxyProcess, token: str) -> str:
    """Start a realtime call; return its id."""
    form = {"sdp": (None, "v=0\r\n"), "session": (None, '{"type":"realtime","model":"gpt-realtime"}')}
    headers = {"Authorization": f"Bearer {token}"}
    response = httpx.post(proxy.base_url + "/v1/realtime/calls", files=form, headers=headers, timeout=TIMEOUT_S)
    assert response.status_code == 201, response.text
    return response.headers["location"].rpartition("/")[2]


@pytest.mark.parametrize("is_call", [False, True], ids=["session", "client's sideband of a call"])
def test_quota_reaches_only_a_project_with_its_own_key(proxy: ProxyProcess, is_call: bool) -> None:
    seen = {}
    for name, token in (("own", mint_for_other_project()), ("shared", mint())):
        query = "model=gpt-realtime"
        if is_call:
            call_id = start_call(proxy, token)
            proxy.read_session_records(call_id, 1)  # the greeting is over: none of its events reach the sideband
            query = f"call_id={call_id}"
        seen[name] = asyncio.run(list_events(proxy, query, token))

    assert seen["own"].count("rate_limits.updated") >= 2
    assert seen["shared"] == [kind for kind in seen["own"] if kind != "rate_limits.updated"]
