"""Start, reload, drain, death: what an operator does to the process, and what its clients see of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx2 as httpx
import pytest
import yaml

from tests.harness import ROOT, ProxyProcess, mint, running_proxy, write_config
from tests.replay_provider import ProviderResponse, ReplayProvider, running_replay_provider

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
USAGE = (
    b'{"id":"c","model":"gpt-4o-mini","choices":[],'
    b'"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}'
)
SLOW = ProviderResponse(headers=(("Content-Type", "application/json"),), chunks=(*(b" " for _ in range(600)), USAGE))


def chat(proxy: ProxyProcess, **how: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {mint()}"}
    return httpx.post(proxy.base_url + "/v1/chat/completions", json={**CHAT, **how}, headers=headers, timeout=30)


def test_readiness_liveness_and_metrics_stand_on_the_admin_port_only(
    proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    provider.response = ProviderResponse(chunks=(USAGE,))
    chat(proxy)

    assert proxy.fetch_admin("/healthz") == (200, "ok\n")
    assert proxy.fetch_admin("/readyz") == (200, "ready\n")
    assert 'llm_proxy_requests_total{outcome="completed",provider="openai"}' in proxy.fetch_admin("/metrics")[1]
    assert httpx.get(proxy.base_url + "/metrics").status_code == 404


def test_each_call_leaves_one_json_line(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    provider.response = ProviderResponse(chunks=(USAGE,))
    answer = chat(proxy)

    line = json.loads(proxy.wait_for_log(answer.headers["llm-proxy-request-id"]))

    assert line["message"] == "request"
    assert (line["provider"], line["endpoint"], line["model"]) == ("openai", "/v1/chat/completions", "gpt-4o-mini")
    assert (line["status"], line["outcome"], line["basis"]) == (200, "completed", "reported")
    assert (line["participant"], line["room"]) == ("ada", "lab")
    assert line["total_usd"] == "0.000004725000"  # 10 x 0.15 + 5 x 0.60 per million, and 5 % on top


def test_sighup_puts_a_new_configuration_in_use_and_refuses_a_broken_one(
    provider: ReplayProvider, tmp_path: Path
) -> None:
    provider.response = ProviderResponse(chunks=(USAGE,))
    with running_proxy(tmp_path, provider.url) as proxy:
        path = tmp_path / "proxy.yaml"
        config = yaml.safe_load(path.read_text())
        config["pricing"]["surcharge_rate"] = "0.5"
        path.write_text(yaml.safe_dump(config))
        proxy.signal(signal.SIGHUP)
        proxy.wait_for_log("configuration reloaded")
        record = proxy.read_record(chat(proxy).headers["llm-proxy-request-id"])
        assert record["surcharge"] == "0.000002250000"

        config["pricing"]["surcharge_rate"] = "a lot"
        config["lissten"] = {}
        path.write_text(yaml.safe_dump(config))
        proxy.signal(signal.SIGHUP)
        refused = json.loads(proxy.wait_for_log("reload refused"))
        assert any("surcharge_rate" in fault for fault in refused["faults"])
        assert any("lissten" in fault for fault in refused["faults"])
        assert proxy.read_record(chat(proxy).headers["llm-proxy-request-id"])["surcharge"] == "0.000002250000"
        assert proxy.fetch_admin("/reload", method="POST")[0] == 422


def test_sigterm_lets_a_call_in_flight_finish_and_refuses_new_ones(tmp_path: Path) -> None:
    with running_replay_provider() as provider, running_proxy(tmp_path, provider.url) as proxy:
        provider.response = SLOW
        answers: list[httpx.Response] = []
        caller = threading.Thread(target=lambda: answers.append(chat(proxy)))
        caller.start()
        _wait_for_asked(provider, 1)
        proxy.signal(signal.SIGTERM)
        proxy.wait_for_log("draining")

        assert proxy.fetch_admin("/readyz")[0] == 503
        with pytest.raises(httpx.TransportError):
            httpx.post(proxy.base_url + "/v1/chat/completions", json=CHAT, timeout=5)
        caller.join(20)
        assert proxy.wait_exit() == 0
        assert answers[0].status_code == 200
        assert [record["outcome"] for record in proxy.read_records()] == ["completed"]


def test_what_outlasts_the_drain_is_cut_so_that_it_looks_broken(tmp_path: Path) -> None:
    with (
        running_replay_provider() as provider,
        running_proxy(tmp_path, provider.url, shutdown={"drain_s": 0.2}) as proxy,
    ):
        provider.response = ProviderResponse(chunks=tuple(b" " for _ in range(5000)))
        broken: list[BaseException] = []

        def call() -> None:
            try:
                chat(proxy)
            except httpx.TransportError as error:
                broken.append(error)

        caller = threading.Thread(target=call)
        caller.start()
        _wait_for_asked(provider, 1)
        proxy.signal(signal.SIGTERM)
        caller.join(20)

        assert proxy.wait_exit() == 0
        assert len(broken) == 1
        assert [record["outcome"] for record in proxy.read_records()] == ["shutdown"]


def test_kill_9_loses_no_request_that_was_sent(tmp_path: Path) -> None:
    with running_replay_provider() as provider:
        with running_proxy(tmp_path, provider.url) as proxy:
            provider.response = ProviderResponse(chunks=(USAGE,))
            done = chat(proxy).headers["llm-proxy-request-id"]
            proxy.read_record(done)
            provider.response = ProviderResponse(chunks=tuple(b" " for _ in range(5000)))
            caller = threading.Thread(target=_ignore_errors, args=(proxy,))
            caller.start()
            _wait_for_asked(provider, 2)
            proxy.process.kill()
            caller.join(20)
            proxy.process.wait()
        with running_proxy(tmp_path, provider.url) as proxy:
            records = proxy.read_records(count=2)

    assert [(record["basis"], record["outcome"]) for record in records] == [
        ("reported", "completed"),
        ("unsettled", "crashed"),
    ]


def test_a_faulty_configuration_is_told_in_full_and_nothing_starts(tmp_path: Path) -> None:
    path = write_config(tmp_path, "ftp://nowhere", limits={"max_body_mb": -1})

    refused = subprocess.run(
        [sys.executable, "-m", "tornado_proxy", "serve", "--config", str(path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=30,
    )

    assert refused.returncode == 1
    for word in ("base_url", "max_body_mb", "TEST_OPENAI_KEY", f"{path.name}:"):
        assert word in refused.stderr


def _wait_for_asked(provider: ReplayProvider, count: int) -> None:
    for _ in range(500):
        if len(provider.requests) >= count:
            return
        threading.Event().wait(0.02)
    raise AssertionError("the provider was not asked")


def _ignore_errors(proxy: ProxyProcess) -> None:
    try:
        chat(proxy)
    except httpx.TransportError:
        return
