"""Readiness, liveness, metrics and the log line of each request: what an operator's tools read."""

from __future__ import annotations

import json
import socket

import httpx2 as httpx
import pytest

from tests.harness import TIMEOUT_S, ProxyProcess
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


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"Host": "192.0.2.7:8081"}, 200, id="an IP address"),
        pytest.param({"Host": "[::1]:8081"}, 200, id="an IPv6 address"),
        pytest.param({"Host": "localhost"}, 200, id="localhost"),
        pytest.param({"Host": "proxy:8081"}, 200, id="a service of a cluster"),
        pytest.param({"Host": socket.gethostname()}, 200, id="the machine's name"),
        pytest.param({"Host": "rebound.evil.example:8081"}, 403, id="a page's own name that resolves to this machine"),
        pytest.param({"Host": "127.0.0.1.evil.example"}, 403, id="a name that begins as an address"),
        pytest.param({"Origin": "https://evil.example"}, 403, id="a page of another origin"),
        pytest.param({"Origin": "null"}, 403, id="a page without an origin"),
        pytest.param({"Origin": "http://127.0.0.1:8081"}, 403, id="an own page"),
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/reload"), ("GET", "/metrics"), ("GET", "/readyz")])
def test_no_page_reaches_the_admin_port(
    method: str, path: str, headers: dict[str, str], status: int, proxy: ProxyProcess
) -> None:
    response = httpx.request(method, proxy.admin_url + path, headers=headers, timeout=TIMEOUT_S)

    assert response.status_code == status
    assert status == 200 or "admin port" in response.text


def test_each_request_is_one_json_log_line(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
    response = post_chat(proxy)

    line = json.loads(proxy.wait_for_log(response.headers["llm-proxy-request-id"]))

    assert line["message"] == "request"
    assert (line["provider"], line["endpoint"], line["model"]) == ("openai", "/v1/chat/completions", "gpt-4o-mini")
    assert (line["status"], line["outcome"], line["basis"]) == (200, "completed", "reported")
    assert (line["participant"], line["room"]) == ("ada", "lab")
    assert line["total_usd"] == "0.000004725000"  # 10 x 0.15 + 5 x 0.60 per million, and 5 % on top
