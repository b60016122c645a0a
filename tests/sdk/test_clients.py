"""The clients of the SDK helpers: where their requests go, with which credential, and what is left out."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest

from tests.harness import PROJECT, ProxyProcess, mint
from tests.replay_provider import ProviderResponse, ReplayProvider
from tornado_proxy.sdk import (
    AnthropicMessagesAdapter,
    OpenAIResponsesAdapter,
    get_anthropic_client,
    get_async_anthropic_client,
    get_async_openai_client,
    get_logging_http_client,
    get_openai_client,
)

MODELS = ProviderResponse(chunks=(b'{"object": "list", "data": [], "has_more": false}',))


def list_models(**arguments: Any) -> None:
    with get_openai_client(**arguments) as client:
        client.models.list()


def list_models_asynchronously(**arguments: Any) -> None:
    async def run() -> None:
        async with get_async_openai_client(**arguments) as client:
            await client.models.list()

    asyncio.run(run())


def list_claude_models(**arguments: Any) -> None:
    with get_anthropic_client(**arguments) as client:
        client.models.list()


def list_claude_models_asynchronously(**arguments: Any) -> None:
    async def run() -> None:
        async with get_async_anthropic_client(**arguments) as client:
            await client.models.list()

    asyncio.run(run())


OPENAI_CLIENTS = [
    pytest.param(list_models, id="openai"),
    pytest.param(list_models_asynchronously, id="async openai"),
]
ANTHROPIC_CLIENTS = [
    pytest.param(list_claude_models, id="anthropic"),
    pytest.param(list_claude_models_asynchronously, id="async anthropic"),
]

#: The variables that lead to a provider's own account, as a developer's shell has them.
LEFTOVERS = {
    "ANTHROPIC_AUTH_TOKEN": "leftover-auth-token",
    "OPENAI_ADMIN_KEY": "leftover-admin-key",
    "OPENAI_CUSTOM_HEADERS": "Authorization: Bearer leftover-header",
    "ANTHROPIC_CUSTOM_HEADERS": "x-api-key: leftover-header\nAuthorization: Bearer leftover-header",
}


def set_variables(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("variables")
def test_clients_send_requests_to_the_proxy_with_the_variables_of_connect(proxy: ProxyProcess) -> None:
    with get_openai_client() as gpt, get_anthropic_client() as claude:
        response = gpt.responses.with_raw_response.create(model="gpt-4o-mini", input="hi")
        message = claude.messages.with_raw_response.create(
            model="claude-haiku-4-5", max_tokens=20, messages=[{"role": "user", "content": "hi"}]
        )

    assert response.parse().output_text
    for raw, model in ((response, "gpt-4o-mini"), (message, "claude-haiku-4-5")):
        record = proxy.read_record(raw.headers["llm-proxy-request-id"])
        assert (record["participant"], record["model_requested"], record["basis"]) == ("ada", model, "reported")


@pytest.mark.usefixtures("variables")
def test_asynchronous_clients_send_requests_to_the_proxy(proxy: ProxyProcess) -> None:
    async def run() -> list[str]:
        async with get_async_openai_client() as gpt, get_async_anthropic_client() as claude:
            response = await gpt.responses.with_raw_response.create(model="gpt-4o-mini", input="hi")
            message = await claude.messages.with_raw_response.create(
                model="claude-haiku-4-5", max_tokens=20, messages=[{"role": "user", "content": "hi"}]
            )
        return [raw.headers["llm-proxy-request-id"] for raw in (response, message)]

    for request_id in asyncio.run(run()):
        assert proxy.read_record(request_id)["basis"] == "reported"


@pytest.mark.parametrize("list_them", OPENAI_CLIENTS)
@pytest.mark.parametrize(
    ("arguments", "variables", "sent"),
    [
        pytest.param({}, {"MESHAGENT_API_URL": "URL", "MESHAGENT_TOKEN": "t1"}, ("/openai/v1", "t1"), id="room"),
        pytest.param({}, {"MESHAGENT_API_URL": "URL/", "OPENAI_API_KEY": "t2"}, ("/openai/v1", "t2"), id="slash"),
        pytest.param(
            {},
            {"OPENAI_BASE_URL": "URL/v1", "OPENAI_API_KEY": "t3", "MESHAGENT_API_URL": "x", "MESHAGENT_TOKEN": "x"},
            ("/v1", "t3"),
            id="the provider's variables before those of the room",
        ),
        pytest.param(
            {"base_url": "URL/own", "api_key": "t4"},
            {"OPENAI_BASE_URL": "http://127.0.0.1:1/v1", "OPENAI_API_KEY": "x"},
            ("/own", "t4"),
            id="arguments before variables",
        ),
        pytest.param(
            {"base_url": "  ", "api_key": ""},
            {"OPENAI_BASE_URL": " ", "OPENAI_API_KEY": "", "MESHAGENT_API_URL": "URL", "MESHAGENT_TOKEN": "t5\n"},
            ("/openai/v1", "t5"),
            id="blank counts as unset",
        ),
    ],
)
def test_openai_request_goes_to_the_first_url_with_the_first_credential(
    list_them: Callable[..., None],
    arguments: dict[str, str],
    variables: dict[str, str],
    sent: tuple[str, str],
    server: ReplayProvider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.response = MODELS
    set_variables(monkeypatch, **{name: value.replace("URL", server.url) for name, value in variables.items()})

    list_them(**{name: value.replace("URL", server.url) for name, value in arguments.items()})

    (request,) = server.requests
    assert (request.target, request.header("authorization")) == (f"{sent[0]}/models", f"Bearer {sent[1]}")


@pytest.mark.parametrize("list_them", ANTHROPIC_CLIENTS)
@pytest.mark.parametrize(
    ("variables", "path"),
    [
        pytest.param({"MESHAGENT_API_URL": "URL"}, "/anthropic", id="room"),
        pytest.param({"ANTHROPIC_BASE_URL": "URL/a", "MESHAGENT_API_URL": "x"}, "/a", id="the provider's variables"),
    ],
)
def test_anthropic_request_goes_to_the_first_url_with_the_first_credential(
    list_them: Callable[..., None],
    variables: dict[str, str],
    path: str,
    server: ReplayProvider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.response = MODELS
    set_variables(monkeypatch, **{name: value.replace("URL", server.url) for name, value in variables.items()})
    set_variables(monkeypatch, ANTHROPIC_API_KEY="token", MESHAGENT_TOKEN="x")

    list_them()

    (request,) = server.requests
    assert request.target.partition("?")[0] == f"{path}/v1/models"
    # The SDK sends one of both.
    assert {request.header("authorization"), request.header("x-api-key")} in ({"Bearer token", None}, {"token", None})


@pytest.mark.parametrize("list_them", [*OPENAI_CLIENTS, *ANTHROPIC_CLIENTS])
def test_leftover_credentials_are_not_sent(
    list_them: Callable[..., None], server: ReplayProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.response = MODELS
    set_variables(monkeypatch, MESHAGENT_API_URL=server.url, MESHAGENT_TOKEN="token", **LEFTOVERS)

    list_them()

    (request,) = server.requests
    assert "leftover" not in str(request)


@pytest.mark.parametrize("list_them", [*OPENAI_CLIENTS, *ANTHROPIC_CLIENTS])
@pytest.mark.parametrize(
    ("arguments", "variables", "sent"),
    [
        pytest.param({}, {}, None, id="none"),
        pytest.param({}, {"MESHAGENT_PROJECT_ID": PROJECT}, PROJECT, id="variable"),
        pytest.param({"project_id": "p"}, {"MESHAGENT_PROJECT_ID": PROJECT}, "p", id="argument"),
    ],
)
def test_project_is_sent_if_it_is_known(
    list_them: Callable[..., None],
    arguments: dict[str, str],
    variables: dict[str, str],
    sent: str | None,
    server: ReplayProvider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.response = MODELS
    set_variables(monkeypatch, MESHAGENT_API_URL=server.url, MESHAGENT_TOKEN="token", **variables)

    list_them(**arguments)

    assert server.requests[0].header("meshagent-project-id") == sent


def test_variables_are_read_when_a_client_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("http://one.test", "http://two.test"):
        set_variables(monkeypatch, MESHAGENT_API_URL=url, MESHAGENT_TOKEN="token")

        assert str(get_openai_client().base_url) == f"{url}/openai/v1/"
        assert str(get_anthropic_client().base_url) == f"{url}/anthropic/"


@pytest.mark.parametrize("make", [get_openai_client, get_async_openai_client, OpenAIResponsesAdapter])
@pytest.mark.parametrize(
    ("variables", "names"),
    [
        pytest.param({"MESHAGENT_TOKEN": "t"}, ["base_url=", "OPENAI_BASE_URL", "MESHAGENT_API_URL"], id="no URL"),
        pytest.param(
            {"MESHAGENT_API_URL": "http://p.test"}, ["api_key=", "OPENAI_API_KEY", "MESHAGENT_TOKEN"], id="no key"
        ),
        pytest.param(
            {"OPENAI_BASE_URL": "https://api.openai.com/v1", "MESHAGENT_TOKEN": "t"},
            ["api.openai.com", "MESHAGENT_TOKEN", "OPENAI_BASE_URL"],
            id="token of the room for the provider",
        ),
        pytest.param({"OPENAI_BASE_URL": "llm.example.com"}, ["OPENAI_BASE_URL", "llm.example.com"], id="no scheme"),
        pytest.param({"OPENAI_BASE_URL": "http://u:p@x.test"}, ["OPENAI_BASE_URL", "api_key"], id="URL with password"),
        pytest.param({"OPENAI_BASE_URL": "http://[x"}, ["OPENAI_BASE_URL is not a URL"], id="broken URL"),
        pytest.param(
            {"MESHAGENT_API_URL": "http://p.test", "OPENAI_API_KEY": "two words"}, ["OPENAI_API_KEY"], id="no token"
        ),
    ],
)
def test_faulty_settings_are_named(
    make: Callable[..., object], variables: dict[str, str], names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_variables(monkeypatch, OPENAI_MODEL="gpt-4o-mini", **variables)

    with pytest.raises(ValueError, match=re.escape(names[0])) as raised:
        make()

    assert [name for name in names if name not in str(raised.value)] == []
    assert "two words" not in str(raised.value)
    assert "u:p" not in str(raised.value)


@pytest.mark.parametrize("make", [get_anthropic_client, get_async_anthropic_client])
def test_anthropic_settings_are_named(make: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="base_url= or set ANTHROPIC_BASE_URL or MESHAGENT_API_URL"):
        make()
    monkeypatch.setenv("MESHAGENT_API_URL", "http://p.test")
    with pytest.raises(ValueError, match="api_key= or set ANTHROPIC_API_KEY or MESHAGENT_TOKEN"):
        make()


def test_adapters_name_the_variable_of_a_missing_model(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, MESHAGENT_API_URL="http://p.test", MESHAGENT_TOKEN="t", OPENAI_MODEL=" ")

    with pytest.raises(ValueError, match="pass model= or set OPENAI_MODEL"):
        OpenAIResponsesAdapter()
    with pytest.raises(ValueError, match="pass model= or set ANTHROPIC_MODEL"):
        AnthropicMessagesAdapter()


@pytest.mark.usefixtures("variables")
def test_logging_client_fits_the_clients_of_both_sdks() -> None:
    with (
        get_openai_client(http_client=get_logging_http_client()) as gpt,
        get_anthropic_client(http_client=get_logging_http_client()) as claude,
    ):
        assert gpt.models.list().data
        assert claude.models.list().data


@pytest.mark.usefixtures("variables")
def test_errors_of_the_proxy_are_those_of_the_sdks() -> None:
    with get_openai_client(api_key=mint(models=["openai/gpt-4o"])) as gpt, get_anthropic_client(api_key="x") as claude:
        with pytest.raises(openai.PermissionDeniedError) as denied:
            gpt.responses.create(model="gpt-4o-mini", input="hi")
        with pytest.raises(anthropic.AuthenticationError):
            claude.models.list()

    assert json.loads(denied.value.response.content)["error"]["code"] == denied.value.code == "not_allowed"
