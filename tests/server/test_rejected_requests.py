"""Requests that are rejected before anything is sent: status, error code, message and log line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2 as httpx
import pytest

from tests.harness import (
    OTHER_PROJECT,
    TIMEOUT_S,
    ProxyProcess,
    mint,
    mint_for_other_project,
)
from tests.replay_provider import ReplayProvider

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
EXPIRED = datetime.now(UTC) - timedelta(hours=2)


def send(
    proxy: ProxyProcess, path: str = "/v1/chat/completions", *, token: str | None = None, **how: Any
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {mint() if token is None else token}", **how.pop("headers", {})}
    if token == "":
        del headers["Authorization"]
    return httpx.request(how.pop("method", "POST"), proxy.base_url + path, headers=headers, timeout=TIMEOUT_S, **how)


@pytest.mark.parametrize(
    ("how", "status", "code"),
    [
        pytest.param({"token": ""}, 401, "invalid_api_key", id="no credential"),
        pytest.param({"token": "sk-something-else"}, 401, "invalid_api_key", id="a provider key"),
        pytest.param({"token": mint(exp=EXPIRED)}, 401, "invalid_api_key", id="expired"),
        pytest.param({"token": mint(secret="x" * 40)}, 401, "invalid_api_key", id="signed by another secret"),
        pytest.param({"token": mint(project=OTHER_PROJECT)}, 401, "invalid_api_key", id="another project's id"),
        pytest.param({"token": mint(api={})}, 403, "not_allowed", id="no llm grant"),
        pytest.param({"token": mint(models=["anthropic/*"])}, 403, "not_allowed", id="model not granted"),
        pytest.param(
            {"headers": {"Meshagent-Project-Id": OTHER_PROJECT}}, 403, "project_mismatch", id="another project stated"
        ),
        pytest.param({"json": {**CHAT, "model": "gpt-unknown"}}, 400, "model_not_priced", id="model without a price"),
        pytest.param({"json": {**CHAT, "service_tier": "warp"}}, 400, "model_not_priced", id="tier without a price"),
        pytest.param({"json": {"messages": []}}, 400, "invalid_body", id="no model"),
        pytest.param({"content": b'{"model":"gpt-4o-mini","model":"gpt-5.4"}'}, 400, "invalid_body", id="model twice"),
        pytest.param({"content": b'{"model":'}, 400, "invalid_body", id="not JSON"),
        pytest.param({"content": b""}, 400, "invalid_body", id="no body"),
        pytest.param({"path": "/v1/unknown"}, 404, "not_found", id="unknown route"),
        pytest.param({"path": "/v1/chat%2fcompletions"}, None, None, id="encoded slash"),
        pytest.param({"path": "//v1/chat/completions"}, None, None, id="double slash"),
        pytest.param({"method": "GET", "path": "/v1/chat/completions"}, 405, "method_not_allowed", id="wrong method"),
    ],
)
def test_rejection_has_the_openai_error_format_and_nothing_is_sent(
    how: dict[str, Any], status: int | None, code: str | None, proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    before = len(provider.requests)

    response = send(proxy, **({"json": CHAT} | how if "content" not in how else how))

    if status is None:
        assert 400 <= response.status_code < 500
    else:
        assert response.status_code == status
    error = response.json()["error"]
    assert error["message"]
    assert code is None or error["code"] == code
    assert response.headers["llm-proxy-request-id"].startswith("req_")
    assert len(provider.requests) == before


@pytest.mark.parametrize(
    ("how", "status", "final"),
    [
        pytest.param({"token": "sk-something-else"}, 401, True, id="401"),
        pytest.param({"token": mint(models=["anthropic/*"])}, 403, True, id="403"),
        pytest.param({"path": "/v1/unknown"}, 404, True, id="404"),
        pytest.param({"json": {**CHAT, "model": "gpt-unknown"}}, 400, True, id="model without a price"),
        pytest.param({"content": b"{"}, 400, True, id="invalid body"),
        pytest.param({"path": "/v1/responses/resp_of_another", "method": "GET"}, 404, True, id="object of another"),
        pytest.param({"path": "/v1/realtime?model=gpt-realtime", "method": "GET"}, 426, True, id="426"),
    ],
)
def test_final_rejection_tells_sdks_not_to_retry_and_has_their_request_id(
    how: dict[str, Any], status: int, final: bool, proxy: ProxyProcess
) -> None:
    response = send(proxy, **({"json": CHAT} | how if "content" not in how else how))

    assert response.status_code == status
    assert response.headers.get("x-should-retry") == ("false" if final else None)
    assert response.headers["x-request-id"] == response.headers["llm-proxy-request-id"]


def test_anthropic_sdk_shows_the_request_id_of_a_rejection_and_does_not_retry(proxy: ProxyProcess) -> None:
    response = httpx.post(
        proxy.base_url + "/anthropic/messages",
        json={"model": "gpt-4o-mini", "max_tokens": 5, "messages": []},
        headers={"x-api-key": mint()},
        timeout=TIMEOUT_S,
    )

    assert response.status_code == 400
    assert response.headers["request-id"] == response.json()["request_id"]
    assert response.headers["x-should-retry"] == "false"
    message = "gpt-4o-mini is an OpenAI model; its API is served under /openai"
    assert response.json()["error"]["message"] == message


def test_anthropic_rejection_has_the_anthropic_error_format(proxy: ProxyProcess) -> None:
    response = httpx.post(
        proxy.base_url + "/anthropic/v1/messages", json={"model": "claude-sonnet-5"}, timeout=TIMEOUT_S
    )

    assert response.status_code == 401
    assert response.json()["type"] == "error"
    assert response.json()["error"]["type"] == "authentication_error"


def test_rejection_is_logged_without_the_path_of_an_unknown_route(proxy: ProxyProcess) -> None:
    rejected = send(proxy, json={**CHAT, "model": "gpt-unknown"}).headers["llm-proxy-request-id"]
    unknown = send(proxy, "/v1/my-secret-in-a-path", json=CHAT).headers["llm-proxy-request-id"]

    line = json.loads(proxy.wait_for_log(rejected))
    assert (line["message"], line["status"], line["code"]) == ("request rejected", 400, "model_not_priced")
    assert (line["participant"], line["endpoint"]) == ("ada", "/v1/chat/completions")
    assert (line["method"], line["path"], line["model"]) == ("POST", "/v1/chat/completions", "gpt-unknown")
    unknown_line = json.loads(proxy.wait_for_log(unknown))
    assert (unknown_line["endpoint"], unknown_line["path"], unknown_line["model"]) == (None, "unknown", None)
    assert "my-secret-in-a-path" not in "".join(proxy.log)


def test_project_model_list_limits_its_tokens(proxy: ProxyProcess) -> None:
    token = mint_for_other_project()

    assert send(proxy, token=token, json=CHAT).status_code == 200
    assert send(proxy, token=token, json={**CHAT, "model": "gpt-5.4"}).status_code == 403


def test_body_over_the_limit_is_a_413(proxy: ProxyProcess) -> None:
    response = send(proxy, content=b" " * (65 * 1024 * 1024))

    assert response.status_code == 413
    assert "limits.max_body_mb" in response.json()["error"]["message"]
