"""Provider settings over REST, through real servers: set, used, masked, replaced, deleted, protected."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.harness import (
    OPENAI_KEY,
    OTHER_PROJECT,
    PROJECT,
    TIMEOUT_S,
    ProxyProcess,
    mint,
    mint_for_other_project,
    running_proxy,
    wait_until,
)
from tests.replay_provider import ProviderResponse, ReplayProvider
from tests.server.chat import CHAT_RESPONSE, post_chat
from tests.server.test_admin_api import code_of, send

STATE = {"keys": {"env": "TEST_STATE_KEYS"}}
PATH = f"/v1/projects/{PROJECT}/settings/openai"
OWN_KEY = "sk-acme-own-6Yt3nB8vQ2"
OTHER_KEY = "sk-acme-other-1Wz9mK4xR7"


@pytest.fixture(scope="module")
def server(provider: ReplayProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    with running_proxy(tmp_path_factory.mktemp("settings"), provider.url, state=STATE) as running:
        yield running


@pytest.fixture(autouse=True)
def chat_response(provider: ReplayProvider) -> None:
    provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))


@pytest.fixture
def proxy(server: ProxyProcess) -> Iterator[ProxyProcess]:
    """The server, with no settings after the test."""
    yield server
    for project in (PROJECT, OTHER_PROJECT):
        send(server, "DELETE", f"/v1/projects/{project}/settings/openai")


def used_key(proxy: ProxyProcess, provider: ReplayProvider, token: str | None = None) -> str:
    """Send a request; return the key that the provider received."""
    assert post_chat(proxy, token=token or mint()).status_code == 200
    return dict(provider.requests[-1].headers)["Authorization"].removeprefix("Bearer ")


def test_key_set_over_rest_is_used_at_once_and_only_for_its_project(
    proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    assert code_of(send(proxy, "GET", PATH)) == (404, "not_found")

    put = send(proxy, "PUT", PATH, {"api_key": OWN_KEY})
    used, others = used_key(proxy, provider), used_key(proxy, provider, mint_for_other_project())
    got = send(proxy, "GET", PATH)

    assert (put.status_code, put.json()) == (200, {"ok": True})
    assert (used, others) == (OWN_KEY, OPENAI_KEY)
    assert got.json() == {"api_key": "****8vQ2", "base_url": None}
    assert got.headers["etag"] == put.headers["etag"]
    assert proxy.read_records(count=2)[-2]["provider_key"] == "settings"

    deleted = send(proxy, "DELETE", PATH)

    assert (deleted.status_code, deleted.json()) == (200, {"ok": True})
    assert used_key(proxy, provider) == OPENAI_KEY
    assert code_of(send(proxy, "DELETE", PATH)) == (404, "not_found")


def test_object_of_another_project_is_not_found_when_its_key_is_the_projects_alone_now(
    proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    usage = {"input_tokens": 5, "output_tokens": 5, "total_tokens": 10}
    content = {"id": "resp_theirs", "object": "response", "model": "gpt-5.4", "status": "completed", "usage": usage}
    provider.response = ProviderResponse(chunks=(json.dumps(content).encode(),))
    url, theirs = proxy.base_url + "/v1/responses", {"Authorization": f"Bearer {mint_for_other_project()}"}
    ours = {"Authorization": f"Bearer {mint()}"}
    other_path = f"/v1/projects/{OTHER_PROJECT}/settings/openai"
    for path in (PATH, other_path):
        send(proxy, "PUT", path, {"api_key": OWN_KEY})
    body = {"model": "gpt-4o-mini", "input": "hi"}
    assert httpx.post(url, json=body, headers=theirs, timeout=TIMEOUT_S).status_code == 200

    def read() -> tuple[int, int, int]:
        sent = len(provider.requests)
        found = httpx.get(f"{url}/resp_theirs", headers=ours, timeout=TIMEOUT_S).status_code
        following = {**body, "previous_response_id": "resp_theirs"}
        continued = httpx.post(url, json=following, headers=ours, timeout=TIMEOUT_S).status_code
        return found, continued, len(provider.requests) - sent

    assert read() == (404, 404, 0)
    send(proxy, "DELETE", other_path)
    assert used_key(proxy, provider, mint_for_other_project()) == OPENAI_KEY
    assert read() == (404, 404, 0)
    # Another key is another account, whose host may use the same id.
    send(proxy, "PUT", PATH, {"api_key": OTHER_KEY})
    assert read()[0] == 200


def test_key_is_in_no_log_line_no_database_and_no_response(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    send(proxy, "PUT", PATH, {"api_key": OWN_KEY})
    provider.response = ProviderResponse(status=400, chunks=(json.dumps({"error": f"bad key {OWN_KEY}"}).encode(),))

    echoed = post_chat(proxy)

    assert OWN_KEY not in echoed.text
    assert "bad key ***" in echoed.text
    changed = {"subject": f"{PROJECT}/openai", "new": {"api_key": "****8vQ2", "base_url": None}}

    def list_actors() -> list[str]:
        lines = map(json.loads, proxy.wait_for_log_lines('"message":"admin"', 1))
        return [line["actor"] for line in lines if changed.items() <= line.items()]

    wait_until(lambda: bool(list_actors()), "the log line of the change")
    assert list_actors()[-1] == "admin"
    assert not [line for line in proxy.log if OWN_KEY in line]
    for file in proxy.folder.glob("ledger.db*"):
        assert OWN_KEY.encode() not in file.read_bytes()


def test_put_of_the_masked_document_keeps_the_key(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    send(proxy, "PUT", PATH, {"api_key": OWN_KEY})

    assert send(proxy, "PUT", PATH, send(proxy, "GET", PATH).json()).status_code == 200

    assert used_key(proxy, provider) == OWN_KEY
    assert code_of(send(proxy, "PUT", PATH, {"api_key": "****zzzz"})) == (400, "bad_request")


def test_versions_protect_a_change_of_another_program(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    first = send(proxy, "PUT", PATH, {"api_key": OWN_KEY}, If_None_Match="*").headers["etag"]
    second = send(proxy, "PUT", PATH, {"api_key": OTHER_KEY}, If_Match=first).headers["etag"]

    assert first != second
    for method, headers in (
        ("PUT", {"If_Match": first}),
        ("PUT", {"If_Match": f"W/{second}"}),
        ("PUT", {"If_None_Match": "*"}),
        ("DELETE", {"If_Match": first}),
    ):
        response = send(proxy, method, PATH, {"api_key": OWN_KEY}, **headers)
        assert code_of(response) == (412, "precondition_failed"), (method, headers)
    assert used_key(proxy, provider) == OTHER_KEY
    assert send(proxy, "DELETE", PATH, If_Match=f'"0", {second}').status_code == 200
    assert code_of(send(proxy, "PUT", PATH, {"api_key": OWN_KEY}, If_Match="*")) == (412, "precondition_failed")


def test_dry_run_checks_and_changes_nothing(proxy: ProxyProcess) -> None:
    dry = send(proxy, "PUT", PATH + "?dry_run=1", {"api_key": OWN_KEY})

    assert dry.json() == {"ok": True, "dry_run": True}
    assert send(proxy, "GET", PATH).status_code == 404
    assert send(proxy, "PUT", PATH + "?dry_run=1", {}).status_code == 400


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({}, id="empty"),
        pytest.param({"base_url": "https://eu.api.openai.com"}, id="base_url without a key"),
        pytest.param({"api_key": "", "base_url": "https://eu.api.openai.com"}, id="base_url with an empty key"),
        pytest.param({"api_key": "with space"}, id="space"),
        pytest.param({"api_key": "with\nline end"}, id="line end"),
        pytest.param({"api_key": 7}, id="number"),
        pytest.param({"api_key": OWN_KEY, "apiKey": 1}, id="unknown member"),
        pytest.param([], id="list"),
    ],
)
def test_invalid_document_is_400(document: Any, proxy: ProxyProcess) -> None:
    response = send(proxy, "PUT", PATH, document)

    assert response.status_code == 400
    assert OWN_KEY not in response.text


@pytest.mark.parametrize(
    "url",
    [
        *("http://api.openai.com", "ftp://api.openai.com", "https://user:pw@api.openai.com", "https://a.example/?x=1"),
        *("http://127.0.0.1:9", "https://127.0.0.1", "https://127.1", "https://0x7f000001", "https://2130706433"),
        *("https://localhost", "https://a.localhost.", "https://[::1]", "https://[::ffff:127.0.0.1]"),
        *("https://[::ffff:a9fe:a9fe]", "https://[64:ff9b::a9fe:a9fe]", "https://169.254.169.254", "https://0.0.0.0"),
        *("https://10.0.0.1", "https://192.168.1.1", "https://172.16.0.1", "https://100.64.0.1", "https://[fd00::1]"),
        *("https://[fe80::1]", "https://224.0.0.1", "https://0251.0376.0251.0376", "https://\u2460\u2461\u2466.0.0.1"),
    ],
)
def test_base_url_that_is_not_public_is_400(url: str, proxy: ProxyProcess) -> None:
    assert code_of(send(proxy, "PUT", PATH, {"api_key": OWN_KEY, "base_url": url})) == (400, "bad_request")


def test_unknown_project_and_provider_are_404(proxy: ProxyProcess) -> None:
    for path in ("/v1/projects/unknown/settings/openai", f"/v1/projects/{PROJECT}/settings/grok"):
        assert code_of(send(proxy, "PUT", path, {"api_key": OWN_KEY})) == (404, "not_found")


def test_name_that_leads_to_loopback_is_refused_when_it_is_used(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    # The checks of a PUT accept every name; that of this machine leads to a private or loopback address.
    seen = len(provider.requests)
    port = provider.url.rpartition(":")[2]
    put = send(proxy, "PUT", PATH, {"api_key": OWN_KEY, "base_url": f"https://{socket.gethostname()}:{port}"})
    assert put.status_code == 200, put.text

    response = post_chat(proxy)

    assert code_of(response) == (502, "upstream_unreachable")
    assert "not public" in response.json()["error"]["message"]
    assert len(provider.requests) == seen
    assert proxy.read_record(response.headers["Llm-Proxy-Request-Id"])["basis"] == "free"


def test_allowed_private_address_gets_the_projects_own_key_only(provider: ReplayProvider, tmp_path: Path) -> None:
    other = "http://127.0.0.2:9"
    key = {"env": "TEST_OPENAI_KEY"}
    providers = {"openai": {"base_url": other, "api_key": key, "allow_private": True}}
    with running_proxy(tmp_path, provider.url, state=STATE, providers=providers) as proxy:
        seen = len(provider.requests)
        put = send(proxy, "PUT", PATH, {"api_key": OWN_KEY, "base_url": provider.url + "/v1"})
        assert put.status_code == 200, put.text
        assert send(proxy, "GET", PATH).json()["base_url"] == provider.url + "/v1"
        assert used_key(proxy, provider) == OWN_KEY

        send(proxy, "DELETE", PATH)

        assert post_chat(proxy).status_code == 502  # at the server's address again
        assert len(provider.requests) == seen + 1


def test_without_a_key_ring_nothing_can_be_set(provider: ReplayProvider, tmp_path: Path) -> None:
    with running_proxy(tmp_path, provider.url) as proxy:
        for method in ("PUT", "GET"):
            response = send(proxy, method, PATH, {"api_key": OWN_KEY} if method == "PUT" else None)
            assert code_of(response) == (503, "settings_unavailable")
            assert response.headers["x-should-retry"] == "false"


def test_key_that_the_ring_does_not_open_is_503_for_its_project_alone(
    provider: ReplayProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_proxy(tmp_path, provider.url, state=STATE) as proxy:
        send(proxy, "PUT", PATH, {"api_key": OWN_KEY})
    monkeypatch.setenv("OTHER_RING", "k2:MjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjI=")

    with running_proxy(tmp_path, provider.url, state={"keys": {"env": "OTHER_RING"}}) as proxy:
        seen = len(provider.requests)
        assert code_of(post_chat(proxy)) == (503, "settings_unavailable")
        assert len(provider.requests) == seen
        assert used_key(proxy, provider, mint_for_other_project()) == OPENAI_KEY
        assert send(proxy, "GET", PATH).json() == {"api_key": "****", "base_url": None}
        assert "provider settings cannot be opened" in proxy.wait_for_log("provider settings cannot be opened")
        send(proxy, "PUT", PATH, {"api_key": OTHER_KEY})
        assert used_key(proxy, provider) == OTHER_KEY


def test_ciphertext_moved_to_another_project_is_503(provider: ReplayProvider, tmp_path: Path) -> None:
    with running_proxy(tmp_path, provider.url, state=STATE) as proxy:
        send(proxy, "PUT", PATH, {"api_key": OWN_KEY})
        with sqlite3.connect(proxy.ledger) as db:
            db.execute("UPDATE provider_settings SET project_id = ?", (OTHER_PROJECT,))
            db.execute("UPDATE meta SET value = value + 1 WHERE key = 'state_generation'")
        seen = len(provider.requests)

        proxy.wait_for_log("provider settings cannot be opened")
        refused = post_chat(proxy, token=mint_for_other_project())

        assert code_of(refused) == (503, "settings_unavailable")
        assert OWN_KEY not in {
            dict(request.headers)["Authorization"].removeprefix("Bearer ") for request in provider.requests[seen:]
        }


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_two_nodes_use_a_key_that_is_set_over_rest(
    database: str, request: pytest.FixtureRequest, provider: ReplayProvider, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    if database == "postgresql":
        url = request.getfixturevalue("postgres_database")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    ledger = {"ledger": {"url": url}, "state": STATE}
    with (
        running_proxy(tmp_path / "a", provider.url, **ledger) as first,
        running_proxy(tmp_path / "b", provider.url, **ledger) as second,
    ):
        send(first, "PUT", PATH, {"api_key": OWN_KEY})
        assert used_key(first, provider) == OWN_KEY
        wait_until(lambda: used_key(second, provider) == OWN_KEY, "the change")

        send(second, "DELETE", PATH)
        assert used_key(second, provider) == OPENAI_KEY
        wait_until(lambda: used_key(first, provider) == OPENAI_KEY, "the change")


def test_participants_may_not_use_the_settings_of_their_project(proxy: ProxyProcess) -> None:
    url = f"{proxy.base_url}/accounts/projects/{PROJECT}/settings/openai"
    headers = {"Authorization": f"Bearer {mint()}"}
    for method in ("GET", "PUT", "DELETE"):
        response = httpx.request(method, url, headers=headers, timeout=TIMEOUT_S)
        assert code_of(response) == (403, "not_allowed")
    assert code_of(httpx.get(url, timeout=TIMEOUT_S)) == (401, "invalid_api_key")
    assert code_of(httpx.post(url, headers=headers, timeout=TIMEOUT_S)) == (405, "method_not_allowed")
