"""Pages of listed origins in browsers: preflights, responses, errors; other origins get no header."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2 as httpx
import pytest

from tests.harness import PROJECT, TIMEOUT_S, ProxyProcess, mint, running_proxy
from tests.replay_provider import ProviderResponse, ReplayProvider
from tests.server.chat import CHAT

PAGE = "https://app.example.com"
ASKED = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-stainless-lang"}


@pytest.fixture(scope="module")
def proxy(provider: ReplayProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    folder = tmp_path_factory.mktemp("proxy")
    with running_proxy(folder, provider.url, cors={"allow_origins": [PAGE, "http://localhost:3000"]}) as running:
        yield running


def cors_of(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("access-control-")}


@pytest.mark.parametrize("origin", [PAGE, "http://localhost:3000"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", f"/accounts/projects/{PROJECT}/llm-proxy/usage", "/unknown"])
def test_preflight_of_a_listed_origin_allows_its_headers(origin: str, path: str, proxy: ProxyProcess) -> None:
    response = httpx.request("OPTIONS", proxy.base_url + path, headers={"Origin": origin, **ASKED}, timeout=TIMEOUT_S)

    assert (response.status_code, response.content) == (204, b"")
    assert cors_of(response) == {
        "access-control-allow-origin": origin,
        "access-control-allow-methods": "GET, POST, PUT, DELETE",
        "access-control-allow-headers": "authorization,x-stainless-lang",
        "access-control-expose-headers": "*",
        "access-control-max-age": "600",
    }
    assert response.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://app.example.com.evil.example",
        "http://app.example.com",
        "https://app.example.com:8443",
        "null",
        "*",
    ],
)
def test_other_origins_get_no_permission(origin: str, proxy: ProxyProcess, provider: ReplayProvider) -> None:
    provider.response = ProviderResponse(chunks=(b'{"data":[]}',))
    url, token = proxy.base_url + "/v1/models", {"Authorization": f"Bearer {mint()}"}

    preflight = httpx.request("OPTIONS", url, headers={"Origin": origin, **ASKED}, timeout=TIMEOUT_S)
    response = httpx.get(url, headers={"Origin": origin, **token}, timeout=TIMEOUT_S)

    assert (preflight.status_code, cors_of(preflight)) == (405, {})
    assert (response.status_code, cors_of(response)) == (200, {})
    assert response.headers["vary"] == "Origin"


def test_response_and_error_name_the_exact_origin_and_never_credentials(
    proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    provider.response = ProviderResponse(
        headers=(("Content-Type", "application/json"), ("Access-Control-Allow-Origin", "*"))
    )
    url = proxy.base_url + "/v1/chat/completions"
    usage = f"{proxy.base_url}/accounts/projects/{PROJECT}/llm-proxy/usage"
    headers = {"Origin": PAGE, "Authorization": f"Bearer {mint()}"}

    responses = [
        httpx.post(url, json=CHAT, headers=headers, timeout=TIMEOUT_S),
        httpx.post(url, json=CHAT, headers={"Origin": PAGE}, timeout=TIMEOUT_S),
        httpx.get(usage, headers=headers, timeout=TIMEOUT_S),
    ]

    assert [response.status_code for response in responses] == [200, 401, 200]
    for response in responses:
        assert cors_of(response) == {
            "access-control-allow-origin": PAGE,
            "access-control-expose-headers": "*",
        }
        assert provider.requests[-1].header("origin") is None


def test_invalid_list_of_headers_is_not_repeated(proxy: ProxyProcess) -> None:
    asked = {**ASKED, "Access-Control-Request-Headers": "a: b"}

    response = httpx.request(
        "OPTIONS", proxy.base_url + "/v1/models", headers={"Origin": PAGE, **asked}, timeout=TIMEOUT_S
    )

    assert (response.status_code, "access-control-allow-headers" in response.headers) == (204, False)
