"""Readiness, liveness, metrics and the log line of each request: what an operator's tools read."""

from __future__ import annotations

import json

import httpx2 as httpx

from tests.harness import ProxyProcess
from tests.replay_provider import ProviderResponse, ReplayProvider
from tests.server.chat import CHAT_RESPONSE, post_chat


def test_readiness_liveness_and_metrics_are_on_the_admin_port_only(
    proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
    post_chat(proxy)

    assert proxy.fetch_admin("/healthz") == (200, "ok\n")
    assert proxy.fetch_admin("/readyz") == (200, "ready\n")
    assert 'llm_proxy_requests_total{outcome="completed",provider="openai"}' in proxy.fetch_admin("/metrics")[1]
    assert httpx.get(proxy.base_url + "/metrics").status_code == 404


def test_each_request_is_one_json_log_line(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
    response = post_chat(proxy)

    line = json.loads(proxy.wait_for_log(response.headers["llm-proxy-request-id"]))

    assert line["message"] == "request"
    assert (line["provider"], line["endpoint"], line["model"]) == ("openai", "/v1/chat/completions", "gpt-4o-mini")
    assert (line["status"], line["outcome"], line["basis"]) == (200, "completed", "reported")
    assert (line["participant"], line["room"]) == ("ada", "lab")
    assert line["total_usd"] == "0.000004725000"  # 10 x 0.15 + 5 x 0.60 per million, and 5 % on top
