"""Configuration keys with an effect on clients or providers: each has the effect that its description states."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.harness import (
    KEY_ID,
    OPENAI_KEY,
    OTHER_KEY_ID,
    OTHER_PROJECT,
    PROJECT,
    TIMEOUT_S,
    ProxyProcess,
    mint,
    mint_for_other_project,
    running_proxy,
)
from tests.replay_provider import ReplayProvider
from tests.upstream.authority import make_server_context, write_ca_file
from tornado_proxy.simulator import Simulator, running_simulator

OWN_KEY = "sk-own-key-of-the-other-project-5521"
CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
SILENT: dict[str, Any] = {**CHAT, "messages": [{"role": "user", "content": "[[sim silent]]"}]}


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    return Simulator()


@pytest.fixture(scope="module")
def proxy(simulator: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """A server with all settings of these tests; the second project has its own provider key."""
    folder = tmp_path_factory.mktemp("settings")
    (folder / "own_key").write_text(OWN_KEY)
    (folder / "own_key").chmod(0o600)
    with running_simulator(simulator) as url:
        provider = {"base_url": f"{url}/openai/v1/", "api_key": {"env": "TEST_OPENAI_KEY"}}
        projects = [
            {"id": PROJECT, "name": "first", "api_keys": [{"id": KEY_ID, "secret": {"env": "TEST_SIGNING_SECRET"}}]},
            {
                "id": OTHER_PROJECT,
                "name": "other",
                "api_keys": [{"id": OTHER_KEY_ID, "secret": {"env": "TEST_OTHER_SIGNING_SECRET"}}],
                "providers": {"openai": {"api_key": {"file": "own_key"}}},
            },
        ]
        with running_proxy(
            folder,
            url,
            providers={"openai": provider},
            projects=projects,
            forward_headers=["X-Team"],
            models_list="provider",
            limits={"max_body_mb": 1, "max_streams": 2},
            streams={"idle_timeout_s": 1, "on_client_disconnect": "drain", "drain_limit_s": 0.2},
        ) as running:
            yield running


def send(proxy: ProxyProcess, body: dict[str, Any] | None = None, **how: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {how.pop('token', None) or mint()}", **how.pop("headers", {})}
    path = how.pop("path", "/v1/chat/completions")
    return httpx.post(proxy.base_url + path, json=body or CHAT, headers=headers, timeout=TIMEOUT_S, **how)


def other_token() -> str:
    return mint_for_other_project()


def test_base_url_keeps_its_path_without_v1(proxy: ProxyProcess, simulator: Simulator) -> None:
    assert send(proxy).status_code == 200
    assert simulator.requests[-1].target == "/openai/v1/chat/completions"


def test_only_headers_named_in_the_configuration_are_forwarded(proxy: ProxyProcess, simulator: Simulator) -> None:
    send(proxy, headers={"x-team": "blue", "x-team-2": "red"})

    seen = simulator.requests[-1]
    assert (seen.header("x-team"), seen.header("x-team-2")) == ("blue", None)


def test_project_s_provider_key_is_used_for_that_project_only_and_masked(
    proxy: ProxyProcess, simulator: Simulator
) -> None:
    echo = {**CHAT, "messages": [{"role": "user", "content": "[[sim status=401 echo-secret]]"}]}

    theirs = send(proxy, echo, token=other_token())
    assert simulator.requests[-1].header("authorization") == f"Bearer {OWN_KEY}"
    ours = send(proxy, echo)
    assert simulator.requests[-1].header("authorization") == f"Bearer {OPENAI_KEY}"

    assert theirs.status_code == ours.status_code == 401
    assert OWN_KEY not in theirs.text
    assert "*" * len(OWN_KEY) in theirs.text
    assert OPENAI_KEY not in ours.text


@pytest.mark.parametrize("status", [200, 429])
def test_provider_s_rate_limits_reach_only_a_project_with_its_own_key(status: int, proxy: ProxyProcess) -> None:
    chat = {**CHAT, "messages": [{"role": "user", "content": f"[[sim status={status}]]" if status != 200 else "hi"}]}

    own, shared = send(proxy, chat, token=other_token()), send(proxy, chat)

    assert own.status_code == shared.status_code == status
    assert own.headers["x-ratelimit-limit-requests"] == "10000"
    assert not [name for name in shared.headers if name.startswith("x-ratelimit")]


def test_anthropic_s_rate_limits_do_not_reach_a_project_without_its_own_key(proxy: ProxyProcess) -> None:
    body = {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}

    response = send(proxy, body, path="/anthropic/v1/messages")

    assert "request-id" in response.headers
    assert not [name for name in response.headers if name.startswith("anthropic-ratelimit")]


def test_model_list_of_the_provider_is_relayed_unchanged(proxy: ProxyProcess) -> None:
    token = mint(models=["openai/gpt-4o-mini"])

    listed = httpx.get(proxy.base_url + "/v1/models", headers={"Authorization": f"Bearer {token}"}, timeout=TIMEOUT_S)

    assert "sim-unpriced-1" in listed.text


def test_provider_that_is_not_configured_is_a_503_in_its_error_format(proxy: ProxyProcess) -> None:
    body = {"model": "claude-sonnet-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}

    response = send(proxy, body, path="/anthropic/v1/messages")

    assert response.status_code == 503
    assert response.json()["error"]["code"] == "provider_not_configured"
    assert "providers.anthropic" in response.json()["error"]["message"]


def test_body_over_the_configured_limit_is_a_413(proxy: ProxyProcess) -> None:
    response = send(proxy, {**CHAT, "messages": [{"role": "user", "content": "x" * 1_100_000}]})

    assert response.status_code == 413
    assert "larger than 1 MiB" in response.json()["error"]["message"]


def test_provider_that_sends_nothing_is_a_504_and_unsettled(proxy: ProxyProcess) -> None:
    response = send(proxy, SILENT)

    assert response.status_code == 504
    assert response.json()["error"]["code"] == "upstream_timeout"
    record = proxy.read_record(response.headers["llm-proxy-request-id"])
    assert (record["outcome"], record["basis"], record["status"]) == ("upstream_error", "unsettled", 504)


def test_stream_whose_provider_stalls_is_cut(proxy: ProxyProcess) -> None:
    slow = {**CHAT, "stream": True, "messages": [{"role": "user", "content": "[[sim delay-ms=5000]]"}]}

    with (
        httpx.Client(
            base_url=proxy.base_url, headers={"Authorization": f"Bearer {mint()}"}, timeout=TIMEOUT_S
        ) as client,
        client.stream("POST", "/v1/chat/completions", json=slow) as response,
    ):
        assert response.status_code == 200
        with pytest.raises(httpx.TransportError):
            response.read()

    record = proxy.read_record(response.headers["llm-proxy-request-id"])
    assert (record["outcome"], record["basis"]) == ("upstream_broken", "estimated")


def test_streams_over_the_limit_are_rejected_with_retry_after(proxy: ProxyProcess) -> None:
    slow = {**CHAT, "stream": True, "messages": [{"role": "user", "content": "[[sim delay-ms=100]]"}]}
    headers = {"Authorization": f"Bearer {mint()}"}
    with contextlib.ExitStack() as open_streams:
        client = open_streams.enter_context(httpx.Client(base_url=proxy.base_url, headers=headers, timeout=TIMEOUT_S))
        responses = [
            open_streams.enter_context(client.stream("POST", "/v1/chat/completions", json=slow)) for _ in range(2)
        ]

        rejected = send(proxy)

    assert [response.status_code for response in responses] == [200, 200]
    assert rejected.status_code == 503
    assert rejected.json()["error"]["code"] == "too_many_streams"
    assert rejected.headers["retry-after"] == "1"
    for response in responses:
        proxy.read_record(response.headers["llm-proxy-request-id"])
    assert send(proxy).status_code == 200


def test_drain_over_its_time_limit_is_estimated(proxy: ProxyProcess) -> None:
    slow = {**CHAT, "stream": True, "messages": [{"role": "user", "content": "[[sim delay-ms=300 tokens=100]]"}]}

    with (
        httpx.Client(
            base_url=proxy.base_url, headers={"Authorization": f"Bearer {mint()}"}, timeout=TIMEOUT_S
        ) as client,
        client.stream("POST", "/v1/chat/completions", json=slow) as response,
    ):
        assert response.status_code == 200
        next(response.iter_raw())

    record = proxy.read_record(response.headers["llm-proxy-request-id"])
    assert (record["outcome"], record["basis"]) == ("client_closed", "estimated")


@contextlib.contextmanager
def tls_provider() -> Iterator[ReplayProvider]:
    """Run a provider with TLS, whose certificate only the authority of these tests has signed."""
    provider = ReplayProvider()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        starting = asyncio.start_server(provider.serve, "127.0.0.1", 0, ssl=make_server_context())
        server = asyncio.run_coroutine_threadsafe(starting, loop).result(TIMEOUT_S)
        provider.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield provider
        loop.call_soon_threadsafe(server.close)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(TIMEOUT_S)
        loop.close()


def test_provider_s_certificate_must_be_trusted(tmp_path: Path) -> None:
    with tls_provider() as provider:
        trusted = {
            "base_url": provider.url,
            "api_key": {"env": "TEST_OPENAI_KEY"},
            "ca_file": Path(write_ca_file(tmp_path)).name,  # relative to the configuration file
        }
        usual = {"base_url": provider.url, "api_key": {"env": "TEST_ANTHROPIC_KEY"}}
        with running_proxy(tmp_path, provider.url, providers={"openai": trusted, "anthropic": usual}) as proxy:
            good = send(proxy)
            message = {"model": "claude-sonnet-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
            bad = send(proxy, message, path="/anthropic/v1/messages")
            record = proxy.read_record(bad.headers["llm-proxy-request-id"])

    assert good.status_code == 200
    assert (bad.status_code, bad.json()["error"]["code"]) == (502, "upstream_unreachable")
    assert "certificate" in bad.json()["error"]["message"].lower()
    assert (record["basis"], record["outcome"]) == ("free", "upstream_error")
    assert len(provider.requests) == 1
