"""Client secrets and calls below /v1/realtime/, through the real server to the simulator."""

from __future__ import annotations

import asyncio
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
    OPENAI_KEY,
    ProxyProcess,
    mint,
    mint_for_other_project,
    running_proxy,
)
from tests.replay_provider import ProviderResponse, running_replay_provider
from tornado_proxy.simulator import Simulator, running_simulator

#: Seconds between attempts to connect the sideband; the server waits 2 s in all.
SHORT_BACKOFF: dict[str, float | list[float]] = {
    "tornado_proxy.gateway.realtime.sideband.CONNECT_BACKOFF_S": [0.05, 0.05, 0.1]
}

SESSION = {"type": "realtime", "model": "gpt-realtime"}
OFFER = "v=0\r\no=- 2 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    with (
        running_simulator(Simulator(keys={"openai": OPENAI_KEY})) as url,
        running_proxy(tmp_path_factory.mktemp("keys"), url) as running,
    ):
        yield running


def client(proxy: ProxyProcess, token: str | None = None) -> openai.OpenAI:
    return openai.OpenAI(base_url=proxy.base_url + "/openai/v1", api_key=token or mint(name="eve"), max_retries=0)


def other_token() -> str:
    return mint_for_other_project("bob")


def post(proxy: ProxyProcess, path: str, token: str, **content: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}", **content.pop("headers", {})}
    return httpx.post(proxy.base_url + path, headers=headers, timeout=30, **content)


def create_client_secret(proxy: ProxyProcess, **session: Any) -> str:
    with client(proxy) as gpt:
        config: Any = {**SESSION, **session}
        return gpt.realtime.client_secrets.create(session=config).value


async def talk(proxy: ProxyProcess, key: str, query: str = "") -> str:
    """Ask for one spoken response as a browser does; return the id of the session."""
    offered = ["realtime", f"openai-insecure-api-key.{key}"]
    url = f"ws{proxy.base_url.removeprefix('http')}/v1/realtime{query}"
    async with websockets.connect(url, subprotocols=offered) as socket:  # type: ignore[arg-type]
        content = [{"type": "input_text", "text": "Hello"}]
        item = {"type": "message", "role": "user", "content": content}
        await socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
        await socket.send(json.dumps({"type": "response.create"}))
        async for event in socket:
            if json.loads(event)["type"] == "response.done":
                break
        assert socket.response is not None
        return socket.response.headers["Llm-Proxy-Request-Id"]


def test_browser_session_with_a_client_secret_is_billed_to_its_participant(proxy: ProxyProcess) -> None:
    key = create_client_secret(proxy)

    session = asyncio.run(talk(proxy, key, "?model=gpt-realtime"))

    (record,) = proxy.read_session_records(session, 1)
    assert (record["participant"], record["basis"], record["model"]) == ("eve", "reported", "gpt-realtime")
    assert Decimal(record["total"]) > 0


def test_client_secret_selects_the_model_if_the_url_names_none(proxy: ProxyProcess) -> None:
    session = asyncio.run(talk(proxy, create_client_secret(proxy, model="gpt-realtime-mini")))

    (record,) = proxy.read_session_records(session, 1)
    assert record["model"] == "gpt-realtime-mini"


def test_only_the_secret_of_the_provider_s_response_is_replaced(proxy: ProxyProcess) -> None:
    response = post(
        proxy, "/v1/realtime/client_secrets", mint(), json={"session": {**SESSION, "instructions": "ek_ is no"}}
    )

    body = response.json()
    assert body["value"].count(".") == 1
    assert body["session"]["instructions"] == "ek_ is no"
    assert body["expires_at"] > 0
    assert response.headers["content-length"] == str(len(response.content))


@pytest.mark.parametrize("path", ["sessions", "transcription_sessions"])
def test_secret_of_a_beta_response_is_replaced(proxy: ProxyProcess, path: str) -> None:
    config: dict[str, Any] = {"model": "gpt-realtime"}
    if path == "transcription_sessions":
        config = {"input_audio_transcription": {"model": "whisper-1"}}

    secret = post(proxy, f"/openai/v1/realtime/{path}", mint(), json=config).json()["client_secret"]

    assert secret["value"].startswith("ek_")
    assert "." in secret["value"]


def test_client_secret_is_valid_for_realtime_sessions_only(proxy: ProxyProcess) -> None:
    key = create_client_secret(proxy)

    for path in ("/v1/chat/completions", "/v1/realtime/client_secrets", "/v1/responses"):
        response = post(proxy, path, key, json={"model": "gpt-4o-mini", "messages": [], "session": SESSION})
        assert response.status_code == 401, path
        assert response.json()["error"]["code"] == "invalid_api_key"
    usage = httpx.get(
        f"{proxy.base_url}/accounts/projects/x/llm-proxy/usage", headers={"Authorization": f"Bearer {key}"}
    )
    assert usage.status_code == 401


@pytest.mark.parametrize(
    "session",
    [
        pytest.param({**SESSION, "model": "gpt-unknown"}, id="model"),
        pytest.param({**SESSION, "audio": {"input": {"transcription": {"model": "whisper-9"}}}}, id="transcription"),
        pytest.param({**SESSION, "input_audio_transcription": {"model": "whisper-9"}}, id="transcription, beta"),
    ],
)
def test_session_with_an_unpriced_model_gets_no_client_secret(proxy: ProxyProcess, session: dict[str, Any]) -> None:
    response = post(proxy, "/v1/realtime/client_secrets", mint(), json={"session": session})

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "model_not_priced"


def test_session_without_a_model_gets_no_client_secret(proxy: ProxyProcess) -> None:
    response = post(proxy, "/v1/realtime/client_secrets", mint(), json={"session": {"type": "realtime"}})

    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_body")


def test_call_is_metered_over_a_sideband_until_it_is_hung_up(proxy: ProxyProcess) -> None:
    with client(proxy) as gpt:
        made = gpt.realtime.calls.with_raw_response.create(sdp=OFFER, session=SESSION)  # type: ignore[arg-type]
        call_id = made.headers["location"].rpartition("/")[2]
        assert made.headers["location"] == f"/openai/v1/realtime/calls/{call_id}"
        (record,) = proxy.read_session_records(call_id, 1)
        gpt.realtime.calls.hangup(call_id)

    assert (record["participant"], record["basis"], record["outcome"]) == ("eve", "reported", "completed")
    items = {item["type"]: Decimal(item["quantity"]) for item in record["line_items"]}
    assert items["output_audio_tokens"] > 0
    assert Decimal(record["total"]) > 0


def test_browser_starts_a_call_with_its_client_secret_alone(proxy: ProxyProcess) -> None:
    key = create_client_secret(proxy)

    response = post(proxy, "/v1/realtime/calls", key, content=OFFER, headers={"Content-Type": "application/sdp"})

    assert response.status_code == 201
    assert response.text.startswith("v=0")
    (record,) = proxy.read_session_records(response.headers["location"].rpartition("/")[2], 1)
    assert (record["participant"], record["model"]) == ("eve", "gpt-realtime")


def test_offer_without_a_session_needs_a_client_secret(proxy: ProxyProcess) -> None:
    response = post(proxy, "/v1/realtime/calls", mint(), content=OFFER, headers={"Content-Type": "application/sdp"})

    assert response.status_code == 400
    assert "client_secrets" in response.json()["error"]["message"]


@pytest.mark.parametrize("action", ["reject", "refer", "hangup"])
def test_call_of_another_project_is_not_found(proxy: ProxyProcess, action: str) -> None:
    with client(proxy) as gpt:
        made = gpt.realtime.calls.with_raw_response.create(sdp=OFFER, session=SESSION)  # type: ignore[arg-type]
    call_id = made.headers["location"].rpartition("/")[2]

    response = post(proxy, f"/v1/realtime/calls/{call_id}/{action}", other_token(), json=SESSION)

    assert response.status_code == 404


def test_incoming_call_is_not_found_unless_the_configuration_allows_it(proxy: ProxyProcess) -> None:
    response = post(proxy, "/v1/realtime/calls/rtc_from_a_telephone/accept", mint(), json=SESSION)

    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


def test_sideband_of_another_project_s_call_is_not_found(proxy: ProxyProcess) -> None:
    with client(proxy) as gpt:
        made = gpt.realtime.calls.with_raw_response.create(sdp=OFFER, session=SESSION)  # type: ignore[arg-type]
    call_id = made.headers["location"].rpartition("/")[2]

    async def connect() -> int:
        url = f"ws{proxy.base_url.removeprefix('http')}/v1/realtime?call_id={call_id}"
        headers = {"Authorization": f"Bearer {other_token()}"}
        with pytest.raises(websockets.InvalidStatus) as rejected:
            async with websockets.connect(url, additional_headers=headers):
                pass
        return rejected.value.response.status_code

    assert asyncio.run(connect()) == 404


def test_call_that_cannot_be_metered_is_hung_up_and_rejected(tmp_path: Path) -> None:
    with (
        running_replay_provider() as provider,
        running_proxy(tmp_path, provider.url, constants=SHORT_BACKOFF) as proxy,
    ):
        headers = (("Content-Type", "application/sdp"), ("Location", "/v1/realtime/calls/rtc_1"))
        provider.response = ProviderResponse(201, headers, (b"v=0",))

        with client(proxy) as gpt, pytest.raises(openai.APIStatusError) as rejected:
            gpt.realtime.calls.create(sdp=OFFER, session=SESSION)  # type: ignore[arg-type]

        assert rejected.value.status_code == 502
        assert "metered" in rejected.value.message
        assert provider.requests[-1].target == "/v1/realtime/calls/rtc_1/hangup"


def test_call_is_relayed_at_once_and_hung_up_when_it_cannot_be_metered(tmp_path: Path) -> None:
    settings = {"sideband_failure": "end"}
    with (
        running_replay_provider() as provider,
        running_proxy(tmp_path, provider.url, constants=SHORT_BACKOFF, websockets=settings) as proxy,
    ):
        headers = (("Content-Type", "application/sdp"), ("Location", "/v1/realtime/calls/rtc_1"))
        provider.response = ProviderResponse(201, headers, (b"v=0",))

        with client(proxy) as gpt:
            made = gpt.realtime.calls.with_raw_response.create(sdp=OFFER, session=SESSION)  # type: ignore[arg-type]

        assert made.status_code == 201
        proxy.wait_for_log("realtime call hung up: sideband lost")
        assert provider.requests[-1].target == "/v1/realtime/calls/rtc_1/hangup"


def test_shutdown_hangs_up_calls(tmp_path: Path) -> None:
    simulator = Simulator(keys={"openai": OPENAI_KEY}, record=True)
    with running_simulator(simulator) as url, running_proxy(tmp_path, url) as proxy:
        with client(proxy) as gpt:
            made = gpt.realtime.calls.with_raw_response.create(sdp=OFFER, session=SESSION)  # type: ignore[arg-type]
        call_id = made.headers["location"].rpartition("/")[2]
        proxy.read_session_records(call_id, 1)
        proxy.signal(signal.SIGTERM)

        assert proxy.wait_exit() == 0
        assert any(seen.target.endswith(f"{call_id}/hangup") for seen in simulator.requests)
