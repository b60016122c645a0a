"""The pages on the client port that need no credential."""

from __future__ import annotations

import httpx2 as httpx
import pytest

from tests.harness import TIMEOUT_S, ProxyProcess
from tests.replay_provider import ReplayProvider


@pytest.mark.parametrize("path", ["/", "/v1", "/openai", "/openai/", "/anthropic", "/anthropic/v1", "/?x=1"])
def test_base_urls_say_what_this_is_and_where_to_get_a_token(
    path: str, proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    before = len(provider.requests)

    response = httpx.get(proxy.base_url + path, timeout=TIMEOUT_S)
    head = httpx.head(proxy.base_url + path, timeout=TIMEOUT_S)

    assert response.status_code == head.status_code == 200
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert f"OpenAI:     {proxy.base_url}/openai/v1   (OPENAI_BASE_URL)" in response.text
    assert f"Anthropic:  {proxy.base_url}/anthropic   (ANTHROPIC_BASE_URL)" in response.text
    assert "tornado-proxy token mint" in response.text
    assert (head.content, head.headers["content-length"]) == (b"", str(len(response.content)))
    assert len(provider.requests) == before


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_health_of_the_client_port_is_ok(method: str, proxy: ProxyProcess) -> None:
    response = httpx.request(method, proxy.base_url + "/health", timeout=TIMEOUT_S)

    assert (response.status_code, response.text) == (200, "ok\n" if method == "GET" else "")


@pytest.mark.parametrize("path", ["/", "/openai", "/anthropic/v1"])
def test_other_methods_at_a_base_url_are_errors_in_the_provider_s_format(path: str, proxy: ProxyProcess) -> None:
    response = httpx.post(proxy.base_url + path, timeout=TIMEOUT_S)

    assert response.status_code == 404
    assert response.json()["error"]["message"].endswith("GET / lists the base URLs")


def test_unknown_path_below_accounts_is_no_start_page(proxy: ProxyProcess) -> None:
    assert httpx.get(proxy.base_url + "/accounts/nothing", timeout=TIMEOUT_S).status_code == 404
