"""Realtime calls that a browser starts with a client secret: metered and hung up with the server's own key."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
import websockets

from tests.harness import (
    KEY_ID,
    OPENAI_KEY,
    PROJECT,
    TIMEOUT_S,
    ProxyProcess,
    mint,
    running_proxy,
    wait_until,
    write_config,
)
from tests.replay_provider import ProviderResponse, running_replay_provider
from tornado_proxy.simulator import Simulator, running_simulator

OFFER = b"v=0\r\no=- 2 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"


@pytest.fixture
def simulator() -> Iterator[tuple[Simulator, str]]:
    running = Simulator(keys={"openai": OPENAI_KEY}, record=True)
    with running_simulator(running) as url:
        yield running, url


def create_client_secret(proxy: ProxyProcess, **session: Any) -> str:
    with openai.OpenAI(base_url=proxy.base_url + "/v1", api_key=mint(name="eve")) as client:
        config: Any = {"type": "realtime", "model": "gpt-realtime", **session}
        return client.realtime.client_secrets.create(session=config).value


def start_call(proxy: ProxyProcess, **session: Any) -> str:
    """Start a call with a client secret alone, as a page does; return its id."""
    key = create_client_secret(proxy, **session)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/sdp"}
    response = httpx.post(proxy.base_url + "/v1/realtime/calls", content=OFFER, headers=headers, timeout=TIMEOUT_S)
    assert response.status_code == 201, response.text
    return response.headers["location"].rpartition("/")[2]


def test_call_started_with_a_client_secret_is_hung_up_with_the_server_s_key(
    simulator: tuple[Simulator, str], tmp_path: Path
) -> None:
    with running_proxy(tmp_path, simulator[1]) as proxy:
        call_id = start_call(proxy)
        proxy.read_session_records(call_id, 1)
        assert simulator[0].realtime_calls.get(call_id) is not None

        proxy.signal(signal.SIGTERM)
        assert proxy.wait_exit() == 0

    assert simulator[0].realtime_calls.get(call_id) is None


def test_call_of_a_removed_project_is_hung_up(simulator: tuple[Simulator, str], tmp_path: Path) -> None:
    often = {"recheck_s": 0.2}
    with running_proxy(tmp_path, simulator[1], websockets=often) as proxy:
        call_id = start_call(proxy)
        proxy.read_session_records(call_id, 1)

        write_config(tmp_path, simulator[1], websockets=often, projects=[])
        assert proxy.fetch_admin("/reload", method="POST")[0] == 200

        wait_until(lambda: simulator[0].realtime_calls.get(call_id) is None, "the end of the call")
        assert "the credential is no longer valid" in proxy.wait_for_log("realtime call hung up")


def test_call_with_a_client_s_sideband_is_billed_once(simulator: tuple[Simulator, str], tmp_path: Path) -> None:
    async def talk(call_id: str) -> dict[str, Any]:
        url = f"ws{proxy.base_url.removeprefix('http')}/v1/realtime?call_id={call_id}"
        headers = {"Authorization": f"Bearer {mint(name='eve')}"}
        async with websockets.connect(url, additional_headers=headers) as socket:
            # Only session.created tells the proxy the model; a request before it would be rejected.
            assert json.loads(await asyncio.wait_for(socket.recv(), TIMEOUT_S))["type"] == "session.created"
            await socket.send(json.dumps({"type": "response.create", "response": {"output_modalities": ["text"]}}))
            while True:
                event: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), TIMEOUT_S))
                if event["type"] == "response.done":
                    done: dict[str, Any] = event["response"]
                    return done

    with running_proxy(tmp_path, simulator[1]) as proxy:
        call_id = start_call(proxy)
        (greeting,) = proxy.read_session_records(call_id, 1)
        response = asyncio.run(talk(call_id))
        _, answer = proxy.read_session_records(call_id, 2)
        proxy.signal(signal.SIGTERM)
        assert proxy.wait_exit() == 0
        metered = [record for record in proxy.read_records() if record["line_items"]]

    assert [record["request_id"] for record in metered] == [greeting["request_id"], answer["request_id"]]
    usage, items = response["usage"], {item["type"]: item["quantity"] for item in answer["line_items"]}
    assert Decimal(items["output_tokens"]) == usage["output_token_details"]["text_tokens"]


def test_call_whose_server_is_killed_is_unsettled(simulator: tuple[Simulator, str], tmp_path: Path) -> None:
    with running_proxy(tmp_path, simulator[1]) as proxy:
        call_id = start_call(proxy)
        proxy.read_session_records(call_id, 1)
        proxy.signal(signal.SIGKILL)
        proxy.wait_exit()

    with running_proxy(tmp_path, simulator[1]) as proxy:
        records = proxy.read_session_records(call_id, 2)

    assert sorted(record["basis"] for record in records) == ["reported", "unsettled"]


def test_call_that_is_hung_up_leaves_nothing_unsettled(simulator: tuple[Simulator, str], tmp_path: Path) -> None:
    with running_proxy(tmp_path, simulator[1]) as proxy:
        call_id = start_call(proxy)
        proxy.read_session_records(call_id, 1)
        headers = {"Authorization": f"Bearer {mint(name='eve')}"}
        ended = httpx.post(f"{proxy.base_url}/v1/realtime/calls/{call_id}/hangup", headers=headers, timeout=TIMEOUT_S)
        assert ended.status_code == 200

        records = proxy.read_session_records(call_id, 2)

    assert [(record["basis"], bool(record["line_items"])) for record in records] == [
        ("free", False),
        ("reported", True),
    ]


def test_call_whose_sideband_keeps_breaking_is_hung_up(simulator: tuple[Simulator, str], tmp_path: Path) -> None:
    with running_proxy(tmp_path, simulator[1]) as proxy:
        call_id = start_call(proxy, instructions="[[sim cut=6]]")
        proxy.wait_for_log("realtime call hung up: sideband lost")
        records = proxy.read_session_records(call_id, 6)

    assert simulator[0].realtime_calls.get(call_id) is None
    # Each of the five connections broke in the middle of a response.
    assert [record["basis"] for record in records].count("estimated") == 5


def test_incoming_call_is_accepted_by_the_project_that_the_configuration_allows(
    simulator: tuple[Simulator, str], tmp_path: Path
) -> None:
    api_keys = [{"id": KEY_ID, "secret": {"env": "TEST_SIGNING_SECRET"}}]
    project = {"id": PROJECT, "name": "first", "api_keys": api_keys, "allowed_objects": ["rtc_phone"]}
    with (
        running_proxy(tmp_path, simulator[1], projects=[project]) as proxy,
        openai.OpenAI(base_url=proxy.base_url + "/v1", api_key=mint(name="desk"), max_retries=0) as client,
    ):
        with pytest.raises(openai.BadRequestError, match="no price"):
            client.realtime.calls.accept("rtc_phone", type="realtime", model="gpt-unknown")
        assert simulator[0].realtime_calls.get("rtc_phone") is None

        client.realtime.calls.accept("rtc_phone", type="realtime", model="gpt-realtime")
        (record,) = proxy.read_session_records("rtc_phone", 1)
        client.realtime.calls.hangup("rtc_phone")
        proxy.read_session_records("rtc_phone", 2)

    assert (record["participant"], record["model"], record["basis"]) == ("desk", "gpt-realtime", "reported")
    assert simulator[0].realtime_calls.get("rtc_phone") is None


def test_provider_s_rejection_is_relayed_without_its_key(tmp_path: Path) -> None:
    async def connect(key: str) -> websockets.Response:
        url = f"ws{proxy.base_url.removeprefix('http')}/v1/realtime?model=gpt-realtime"
        offered: Any = ["realtime", f"openai-insecure-api-key.{key}"]
        with pytest.raises(websockets.InvalidStatus) as rejected:
            async with websockets.connect(url, subprotocols=offered):
                pass
        return rejected.value.response

    with running_replay_provider() as provider, running_proxy(tmp_path, provider.url) as proxy:
        provider.response = ProviderResponse(
            chunks=(b'{"value":"ek_provider12345","expires_at":4102444800,"session":{}}',)
        )
        key = create_client_secret(proxy)
        provider.response = ProviderResponse(
            401, chunks=(b'{"error":{"message":"Incorrect API key: ek_provider12345"}}',)
        )
        rejection = asyncio.run(connect(key))

    assert provider.requests[-1].header("Authorization") == "Bearer ek_provider12345"
    assert (rejection.status_code, rejection.body) == (
        401,
        b'{"error":{"message":"Incorrect API key: ****************"}}',
    )


def test_translation_session_is_opened_with_its_own_client_secret(
    simulator: tuple[Simulator, str], tmp_path: Path
) -> None:
    async def listen(key: str) -> str:
        offered: Any = ["realtime", f"openai-insecure-api-key.{key}"]
        url = f"ws{proxy.base_url.removeprefix('http')}/v1/realtime/translations"
        async with websockets.connect(url, subprotocols=offered) as socket:
            audio = base64.b64encode(bytes(48_000 * 3)).decode()
            await socket.send(json.dumps({"type": "session.input_audio_buffer.append", "audio": audio}))
            await socket.send(json.dumps({"type": "session.close"}))
            async for event in socket:
                if json.loads(event)["type"] == "session.closed":
                    break
            assert socket.response is not None
            return socket.response.headers["Llm-Proxy-Request-Id"]

    with running_proxy(tmp_path, simulator[1]) as proxy:
        headers = {"Authorization": f"Bearer {mint(name='eve')}"}
        response = httpx.post(
            proxy.base_url + "/v1/realtime/translations/client_secrets",
            json={"session": {"model": "gpt-realtime-translate"}},
            headers=headers,
            timeout=TIMEOUT_S,
        )
        (record,) = proxy.read_session_records(asyncio.run(listen(response.json()["value"])), 1)

    # 3 s of audio at 0.034 USD a minute
    assert (record["participant"], record["basis"], record["subtotal"]) == ("eve", "inferred", "0.001700000000")


def test_client_secret_is_valid_at_every_server_with_the_same_configuration(
    simulator: tuple[Simulator, str], tmp_path: Path
) -> None:
    async def greeted(proxy: ProxyProcess, key: str) -> str:
        offered: Any = ["realtime", f"openai-insecure-api-key.{key}"]
        url = f"ws{proxy.base_url.removeprefix('http')}/v1/realtime"
        async with websockets.connect(url, subprotocols=offered) as socket:
            event = json.loads(await asyncio.wait_for(socket.recv(), TIMEOUT_S))
            return f"{event['type']} {event['session']['model']}"

    with running_proxy(tmp_path, simulator[1]) as proxy:
        key = create_client_secret(proxy, model="gpt-realtime-mini")

    with running_proxy(tmp_path, simulator[1]) as another:
        assert asyncio.run(greeted(another, key)) == "session.created gpt-realtime-mini"
