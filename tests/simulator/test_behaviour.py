"""Every directive, keys, recorded requests, and clients that disconnect."""

import asyncio
import http.client
import json
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import anthropic
import httpx2
import openai
import pytest

from tests.harness import wait_until
from tornado_proxy.simulator import Simulator, running_simulator


def make_chat(text: str, **more: object) -> dict[str, object]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **more}


def make_message(text: str, **more: object) -> dict[str, object]:
    return {"model": "claude-opus-4-8", "max_tokens": 1000, "messages": [{"role": "user", "content": text}], **more}


def test_status_directive_raises_the_sdks_error(
    openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic
) -> None:
    with pytest.raises(openai.RateLimitError) as limited:
        openai_client.chat.completions.create(**make_chat("[[sim status=429 retry-after=1]]"))
    with pytest.raises(anthropic.APIStatusError) as overloaded:
        anthropic_client.messages.create(**make_message("[[sim status=529]]"))

    assert limited.value.response.headers["retry-after"] == "1"
    assert overloaded.value.status_code == 529
    assert overloaded.value.body["error"]["type"] == "overloaded_error"


def test_status_directive_with_times_succeeds_after_the_retries(base_url: str, simulator: Simulator) -> None:
    with openai.OpenAI(base_url=f"{base_url}/v1", api_key="k", max_retries=3) as client:
        response = client.chat.completions.create(**make_chat("[[sim status=503 retry-after=0 times=2]]"))

    assert response.choices[0].message.content
    assert len(simulator.requests) == 3


def test_delay_directives_pace_a_stream(openai_client: openai.OpenAI) -> None:
    started = time.monotonic()
    stream = openai_client.chat.completions.create(
        **make_chat("[[sim tokens=4 first-delay-ms=200 delay-ms=50]]", stream=True)
    )
    next(iter(stream))
    first_event_s = time.monotonic() - started
    list(stream)
    total_s = time.monotonic() - started

    assert first_event_s >= 0.2
    assert total_s >= 0.2 + 4 * 0.05


def test_cut_directive_breaks_the_connection(openai_client: openai.OpenAI, base_url: str) -> None:
    stream = openai_client.chat.completions.create(**make_chat("Hi [[sim cut=after:3]]", stream=True))

    received = 0
    with pytest.raises(openai.APIConnectionError):  # noqa: PT012  # the events before the break are counted
        for _ in stream:
            received += 1

    assert received == 3
    with pytest.raises(httpx2.RemoteProtocolError):
        httpx2.post(
            f"{base_url}/v1/chat/completions", json=make_chat("[[sim cut=after:9]]"), headers={"x-api-key": "k"}
        )


@pytest.mark.parametrize("path", ["chat", "responses"])
def test_error_event_directive_ends_an_openai_stream(openai_client: openai.OpenAI, path: str) -> None:
    text, received = "Hi [[sim error-event=after:5]]", 0
    if path == "chat":
        stream = openai_client.chat.completions.create(**make_chat(text, stream=True))
    else:
        stream = openai_client.responses.create(model="gpt-4o-mini", input=text, stream=True)

    with pytest.raises(openai.APIError, match="simulated failure"):  # noqa: PT012  # the events before it are counted
        for _ in stream:
            received += 1

    assert received == 5


def test_error_event_directive_ends_a_message(anthropic_client: anthropic.Anthropic) -> None:
    stream = anthropic_client.messages.create(**make_message("Hi [[sim error-event=after:5]]", stream=True))

    with pytest.raises(anthropic.APIStatusError, match="overloaded_error"):
        list(stream)


def test_silent_directive_lasts_until_the_client_disconnects(base_url: str, simulator: Simulator) -> None:
    with (
        openai.OpenAI(base_url=f"{base_url}/v1", api_key="k", max_retries=0, timeout=0.3) as client,
        pytest.raises(openai.APITimeoutError),
    ):
        client.chat.completions.create(**make_chat("[[sim silent]]"))

    wait_until(lambda: simulator.disconnects == 1, "the disconnect")


def test_no_usage_directive_omits_usage(openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic) -> None:
    text = "[[sim no-usage]]"

    assert openai_client.chat.completions.create(**make_chat(text)).usage is None
    assert openai_client.responses.create(model="gpt-4o-mini", input=text).usage is None
    assert getattr(anthropic_client.messages.create(**make_message(text)), "usage", None) is None


def test_echo_secret_directive_returns_the_received_key(
    openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic
) -> None:
    assert (
        openai_client.chat.completions.create(**make_chat("[[sim echo-secret]]")).choices[0].message.content
        == "sk-test"
    )
    assert anthropic_client.messages.create(**make_message("[[sim echo-secret]]")).content[0].text == "sk-ant-test"


def test_say_directive_sets_the_text(openai_client: openai.OpenAI) -> None:
    response = openai_client.chat.completions.create(**make_chat('[[sim say="It is 5 o\'clock."]]'))

    assert response.choices[0].message.content == "It is 5 o'clock."


def test_bytes_directive_sets_the_length_of_the_text(
    openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic
) -> None:
    text = "[[sim bytes=1000000]]"

    complete = openai_client.chat.completions.create(**make_chat(text)).choices[0].message.content
    with anthropic_client.messages.stream(**make_message(text)) as stream:
        streamed = stream.get_final_text()

    assert len(complete or "") == 1_000_000
    assert streamed == complete


def test_headers_directive_adds_account_headers(base_url: str) -> None:
    with httpx2.Client(base_url=base_url, headers={"Authorization": "Bearer k"}) as client:
        without_headers = client.post("/v1/chat/completions", json=make_chat("Hi"))
        with_headers = client.post("/v1/chat/completions", json=make_chat("[[sim headers]]"))

    assert "openai-organization" not in without_headers.headers
    assert with_headers.headers["openai-organization"] == "org-simulated"
    assert with_headers.headers["connection"] == "x-hop-by-hop"
    for name in ("set-cookie", "alt-svc", "access-control-allow-origin", "x-hop-by-hop", "openai-project"):
        assert name in with_headers.headers


def test_only_the_configured_keys_are_accepted() -> None:
    simulator = Simulator(keys={"openai": "sk-right", "anthropic": "sk-ant-right"})

    with running_simulator(simulator) as url:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="sk-right", max_retries=0) as client:
            assert client.chat.completions.create(**make_chat("Hi")).id
        with (
            openai.OpenAI(base_url=f"{url}/v1", api_key="sk-ant-right", max_retries=0) as client,
            pytest.raises(openai.AuthenticationError) as openai_refused,
        ):
            client.chat.completions.create(**make_chat("Hi"))
        with (
            anthropic.Anthropic(base_url=url, api_key="sk-wrong", max_retries=0) as other,
            pytest.raises(anthropic.AuthenticationError) as anthropic_refused,
        ):
            other.messages.create(**make_message("Hi"))

    assert openai_refused.value.code == "invalid_api_key"
    assert anthropic_refused.value.body["error"]["type"] == "authentication_error"


def test_request_without_a_key_is_rejected(base_url: str) -> None:
    assert httpx2.post(f"{base_url}/v1/chat/completions", json=make_chat("Hi")).status_code == 401


def test_requests_are_recorded(base_url: str, simulator: Simulator, openai_client: openai.OpenAI) -> None:
    openai_client.chat.completions.create(**make_chat("Hi"), extra_query={"a": "b"})

    recorded = simulator.requests[-1]
    served = httpx2.get(f"{base_url}/_simulator/requests").json()["requests"]
    assert (recorded.method, recorded.target) == ("POST", "/v1/chat/completions?a=b")
    assert recorded.header("authorization") == "Bearer sk-test"
    assert json.loads(recorded.body) == make_chat("Hi")
    assert served[0]["target"] == recorded.target
    assert httpx2.delete(f"{base_url}/_simulator/requests").status_code == 204
    assert len(simulator.requests) == 0


def test_recorded_requests_are_served_only_with_record() -> None:
    with running_simulator() as url:
        assert httpx2.get(f"{url}/_simulator/requests", headers={"x-api-key": "k"}).status_code == 404


def test_missing_models_and_paths_are_404_in_the_providers_format(
    openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic, base_url: str
) -> None:
    with pytest.raises(openai.NotFoundError) as openai_missing:
        openai_client.chat.completions.create(**make_chat("Hi") | {"model": "sim-missing-1"})
    with pytest.raises(anthropic.NotFoundError) as anthropic_missing:
        anthropic_client.messages.create(**make_message("Hi") | {"model": "sim-missing-1"})
    unknown = httpx2.get(f"{base_url}/v1/nothing", headers={"Authorization": "Bearer k"})

    assert openai_missing.value.code == "model_not_found"
    assert anthropic_missing.value.body["error"]["type"] == "not_found_error"
    assert unknown.status_code == 404
    assert "message" in unknown.json()["error"]


def test_models_are_listed_in_each_providers_format(
    openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic
) -> None:
    openai_models = [model.id for model in openai_client.models.list()]
    anthropic_models = [model.id for model in anthropic_client.models.list(limit=2)]

    assert {"gpt-5.4", "whisper-1", "sim-unpriced-1"} <= set(openai_models)
    assert anthropic_models == ["claude-opus-4-8", "claude-sonnet-5", "claude-haiku-4-5-20251001", "sim-unpriced-1"]
    assert openai_client.models.retrieve("gpt-5.4").id == "gpt-5.4"
    assert anthropic_client.models.retrieve("claude-sonnet-5").display_name == "Claude Sonnet 5"


def test_body_that_is_not_json_is_400(base_url: str) -> None:
    response = httpx2.post(f"{base_url}/v1/responses", content=b"{", headers={"Authorization": "Bearer k"})

    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_client_disconnect_ends_its_stream(base_url: str, simulator: Simulator) -> None:
    address = urllib.parse.urlsplit(base_url).netloc
    connection = http.client.HTTPConnection(address, timeout=10)
    body = json.dumps(make_chat("[[sim tokens=1000 delay-ms=20]]", stream=True))
    connection.request("POST", "/v1/chat/completions", body, {"Authorization": "Bearer k"})
    response = connection.getresponse()
    response.readline()

    response.close()
    connection.close()

    wait_until(lambda: simulator.streams == 0, "the end of all streams")
    assert simulator.disconnects == 1


def test_a_hundred_slow_streams_run_concurrently(base_url: str) -> None:
    async def count_events(client: httpx2.AsyncClient) -> int:
        arguments = make_chat("[[sim tokens=10 delay-ms=50]]", stream=True)
        response = await client.post("/v1/chat/completions", json=arguments)
        return response.text.count("data: ")

    async def run_all() -> list[int]:
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(
            base_url=base_url, headers={"x-api-key": "k"}, limits=limits, timeout=60
        ) as client:
            return await asyncio.gather(*(count_events(client) for _ in range(100)))

    assert asyncio.run(run_all()) == [13] * 100


def test_stop_ends_requests_in_flight() -> None:
    simulator = Simulator()

    with ThreadPoolExecutor(1) as pool:
        with running_simulator(simulator) as url:
            arguments = {"json": make_chat("[[sim silent]]"), "headers": {"x-api-key": "k"}, "timeout": 30}
            waiting = pool.submit(httpx2.post, f"{url}/v1/chat/completions", **arguments)
            wait_until(lambda: len(simulator.requests) == 1, "the request")
        with pytest.raises(httpx2.RemoteProtocolError):
            waiting.result(timeout=10)


@pytest.mark.gen_test
async def test_simulator_runs_on_the_event_loop_of_a_test() -> None:
    simulator = Simulator()
    port = await simulator.start()
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        response = await client.get("/v1/models", headers={"Authorization": "Bearer k"})
    await simulator.stop()

    assert response.json()["object"] == "list"
