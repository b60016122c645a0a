"""Short-lived keys and calls below /v1/realtime/, through the real server to the simulator."""

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
    OTHER_KEY_ID,
    OTHER_PROJECT,
    OTHER_SIGNING_SECRET,
    ProxyProcess,
    mint,
    running_proxy,
)
from tests.replay_provider import ProviderResponse, running_replay_provider
from tornado_proxy.simulator import Simulator, running_simulator

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
    return mint(name="bob", project=OTHER_PROJECT, key_id=OTHER_KEY_ID, secret=OTHER_SIGNING_SECRET)


def post(proxy: ProxyProcess, path: str, token: str, **content: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}", **content.pop("headers", {})}
    return httpx.post(proxy.base_url + path, headers=headers, timeout=30, **content)


def new_key(proxy: ProxyProcess, **session: Any) -> str:
    with client(proxy) as gpt:
        return gpt.realtime.client_secrets.create(session={**SESSION, **session}).value  # type: ignore[typeddict-item]


async def talk(proxy: ProxyProcess, key: str, query: str = "") -> str:
    """One spoken exchange as a browser holds it; the session's id."""
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


def test_a_browser_gets_a_key_of_the_proxy_and_its_session_is_on_the_participant_s_bill(proxy: ProxyProcess) -> None:
    key = new_key(proxy)

    session = asyncio.run(talk(proxy, key, "?model=gpt-realtime"))

    (record,) = proxy.read_session_records(session, 1)
    assert (record["participant"], record["basis"], record["model"]) == ("eve", "reported", "gpt-realtime")
    assert Decimal(record["total"]) > 0


def test_a_key_knows_its_session_where_the_url_says_nothing(proxy: ProxyProcess) -> None:
    session = asyncio.run(talk(proxy, new_key(proxy, model="gpt-realtime-mini")))

    (record,) = proxy.read_session_records(session, 1)
    assert record["model"] == "gpt-realtime-mini"


def test_the_answer_differs_from_the_provider_s_by_its_key_alone(proxy: ProxyProcess) -> None:
    answer = post(
        proxy, "/v1/realtime/client_secrets", mint(), json={"session": {**SESSION, "instructions": "ek_ is no"}}
    )

    body = answer.json()
    assert body["value"].count(".") == 1
    assert body["session"]["instructions"] == "ek_ is no"
    assert body["expires_at"] > 0
    assert answer.headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize("path", ["sessions", "transcription_sessions"])
def test_the_beta_shape_gets_its_key_replaced_too(proxy: ProxyProcess, path: str) -> None:
    config: dict[str, Any] = {"model": "gpt-realtime"}
    if path == "transcription_sessions":
        config = {"input_audio_transcription": {"model": "whisper-1"}}

    secret = post(proxy, f"/openai/v1/realtime/{path}", mint(), json=config).json()["client_secret"]

    assert secret["value"].startswith("ek_")
    assert "." in secret["value"]


def test_a_key_opens_realtime_sessions_and_nothing_else(proxy: ProxyProcess) -> None:
    key = new_key(proxy)

    for path in ("/v1/chat/completions", "/v1/realtime/client_secrets", "/v1/responses"):
        answer = post(proxy, path, key, json={"model": "gpt-4o-mini", "messages": [], "session": SESSION})
        assert answer.status_code == 401, path
        assert answer.json()["error"]["code"] == "invalid_api_key"
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
def test_a_session_that_could_cost_what_has_no_price_gets_no_key(proxy: ProxyProcess, session: dict[str, Any]) -> None:
    answer = post(proxy, "/v1/realtime/client_secrets", mint(), json={"session": session})

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "model_not_priced"


def test_a_session_that_names_no_model_gets_no_key(proxy: ProxyProcess) -> None:
    answer = post(proxy, "/v1/realtime/client_secrets", mint(), json={"session": {"type": "realtime"}})

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_body")


def test_a_call_is_metered_over_a_sideband_until_it_is_hung_up(proxy: ProxyProcess) -> None:
    with client(proxy) as gpt:
        made = gpt.realtime.calls.with_raw_response.create(sdp=OFFER, session=SESSION)  # type: ignore[arg-type]
        call_id = made.headers["location"].rpartition("/")[2]
        assert made.headers["location"] == f"/v1/realtime/calls/{call_id}"
        (record,) = proxy.read_session_records(call_id, 1)
        gpt.realtime.calls.hangup(call_id)

    assert (record["participant"], record["basis"], record["outcome"]) == ("eve", "reported", "completed")
    items = {item["type"]: Decimal(item["quantity"]) for item in record["line_items"]}
    assert items["output_audio_tokens"] > 0
    assert Decimal(record["total"]) > 0


def test_a_browser_makes_a_call_with_its_key_alone(proxy: ProxyProcess) -> None:
    key = new_key(proxy)

    answer = post(proxy, "/v1/realtime/calls", key, content=OFFER, headers={"Content-Type": "application/sdp"})

    assert answer.status_code == 201
    assert answer.text.startswith("v=0")
    (record,) = proxy.read_session_records(answer.headers["location"].rpartition("/")[2], 1)
    assert (record["participant"], record["model"]) == ("eve", "gpt-realtime")


def test_an_offer_without_a_session_needs_a_key_that_is_for_one(proxy: ProxyProcess) -> None:
    answer = post(proxy, "/v1/realtime/calls", mint(), content=OFFER, headers={"Content-Type": "application/sdp"})

    assert answer.status_code == 400
    assert "client_secrets" in answer.json()["error"]["message"]


@pytest.mark.parametrize("action", ["reject", "refer", "hangup"])
def test_a_call_of_another_project_is_not_found(proxy: ProxyProcess, action: str) -> None:
    with client(proxy) as gpt:
        made = gpt.realtime.calls.with_raw_response.create(sdp=OFFER, session=SESSION)  # type: ignore[arg-type]
    call_id = made.headers["location"].rpartition("/")[2]

    answer = post(proxy, f"/v1/realtime/calls/{call_id}/{action}", other_token(), json=SESSION)

    assert answer.status_code == 404


def test_a_call_that_comes_in_is_nobody_s_until_an_operator_says_so(proxy: ProxyProcess) -> None:
    answer = post(proxy, "/v1/realtime/calls/rtc_from_a_telephone/accept", mint(), json=SESSION)

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_a_sideband_of_another_project_s_call_is_not_found(proxy: ProxyProcess) -> None:
    with client(proxy) as gpt:
        made = gpt.realtime.calls.with_raw_response.create(sdp=OFFER, session=SESSION)  # type: ignore[arg-type]
    call_id = made.headers["location"].rpartition("/")[2]

    async def connect() -> int:
        url = f"ws{proxy.base_url.removeprefix('http')}/v1/realtime?call_id={call_id}"
        headers = {"Authorization": f"Bearer {other_token()}"}
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with websockets.connect(url, additional_headers=headers):
                pass
        return refused.value.response.status_code

    assert asyncio.run(connect()) == 404


def test_a_call_that_cannot_be_metered_is_hung_up_and_refused(tmp_path: Path) -> None:
    with running_replay_provider() as provider, running_proxy(tmp_path, provider.url) as proxy:
        headers = (("Content-Type", "application/sdp"), ("Location", "/v1/realtime/calls/rtc_1"))
        provider.response = ProviderResponse(201, headers, (b"v=0",))

        with client(proxy) as gpt, pytest.raises(openai.APIStatusError) as refused:
            gpt.realtime.calls.create(sdp=OFFER, session=SESSION)  # type: ignore[arg-type]

        assert refused.value.status_code == 502
        assert "metered" in refused.value.message
        assert provider.requests[-1].target == "/v1/realtime/calls/rtc_1/hangup"


def test_a_call_can_be_answered_at_once_and_is_ended_when_it_cannot_be_metered(tmp_path: Path) -> None:
    settings = {"sideband_failure": "end"}
    with running_replay_provider() as provider, running_proxy(tmp_path, provider.url, websockets=settings) as proxy:
        headers = (("Content-Type", "application/sdp"), ("Location", "/v1/realtime/calls/rtc_1"))
        provider.response = ProviderResponse(201, headers, (b"v=0",))

        with client(proxy) as gpt:
            made = gpt.realtime.calls.with_raw_response.create(sdp=OFFER, session=SESSION)  # type: ignore[arg-type]

        assert made.status_code == 201
        proxy.wait_for_log("realtime call hung up: sideband lost")
        assert provider.requests[-1].target == "/v1/realtime/calls/rtc_1/hangup"


def test_shutdown_hangs_up_calls_that_nobody_would_meter(tmp_path: Path) -> None:
    simulator = Simulator(keys={"openai": OPENAI_KEY}, record=True)
    with running_simulator(simulator) as url, running_proxy(tmp_path, url) as proxy:
        with client(proxy) as gpt:
            made = gpt.realtime.calls.with_raw_response.create(sdp=OFFER, session=SESSION)  # type: ignore[arg-type]
        call_id = made.headers["location"].rpartition("/")[2]
        proxy.read_session_records(call_id, 1)
        proxy.signal(signal.SIGTERM)

        assert proxy.wait_exit() == 0
        assert any(seen.target.endswith(f"{call_id}/hangup") for seen in simulator.requests)
