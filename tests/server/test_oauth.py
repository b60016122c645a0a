"""People with tokens of a real identity provider (oidc-provider), through the real server to the simulator."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
import websockets

from tests.harness import (
    KEY_ID,
    OPENAI_KEY,
    OTHER_PROJECT,
    PROJECT,
    TIMEOUT_S,
    ProxyProcess,
    mint,
    running_proxy,
    wait_until,
    write_config,
)
from tests.oauth.fake_issuer import running_fake_issuer
from tests.oauth.real_issuer import RealIssuer, running_real_issuer
from tests.oauth.tokens import claims_of, ec_key, key_set, rsa_key, sign
from tornado_proxy.simulator import Simulator, running_simulator

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
USE = ["can_use_llm_proxy"]
ADA = {"user": "ada@example.com", "permissions": USE}

#: Seconds for which an answer about an opaque token counts; 60 and 10 in the program.
SHORT_MEMORY: dict[str, float | list[float]] = {
    "tornado_proxy.issuers.introspection_cache.ACTIVE_S": 0.5,
    "tornado_proxy.issuers.introspection_cache.INACTIVE_S": 0.1,
}


@pytest.fixture(scope="module")
def issuer() -> Iterator[RealIssuer]:
    with running_real_issuer() as running:
        yield running


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with running_simulator(Simulator(keys={"openai": OPENAI_KEY})) as url:
        yield url


def configure(issuer: RealIssuer, *members: dict[str, Any]) -> dict[str, Any]:
    """Return the members of a configuration with this issuer, and with these members of the first project."""
    endpoint = {
        "url": f"{issuer.url}/token/introspection",
        "client_id": "proxy",
        "client_secret": {"env": "TEST_INTROSPECTION_SECRET"},
    }
    return {
        "oauth": [{"issuer": issuer.url, "audience": "llm-proxy", "clients": ["cli"], "introspection": endpoint}],
        "projects": [
            {
                "id": PROJECT,
                "name": "first",
                "api_keys": [{"id": KEY_ID, "secret": {"env": "TEST_SIGNING_SECRET"}}],
                "members": list(members),
            },
            {"id": OTHER_PROJECT, "name": "other", "members": [{"user": "bob", "permissions": USE}]},
        ],
        "websockets": {"recheck_s": 1},
    }


@pytest.fixture(scope="module")
def proxy(issuer: RealIssuer, upstream: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TEST_INTROSPECTION_SECRET", "introspection-secret")
        folder = tmp_path_factory.mktemp("oauth")
        members = configure(issuer, ADA, {"user": "bob", "admin": True})
        with running_proxy(folder, upstream, constants=SHORT_MEMORY, **members) as running:
            yield running


def send(proxy: ProxyProcess, token: str, *, project: str = PROJECT) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}", "Meshagent-Project-Id": project}
    return httpx.post(f"{proxy.base_url}/v1/chat/completions", json=CHAT, headers=headers, timeout=TIMEOUT_S)


def read_usage(proxy: ProxyProcess, token: str, **parameters: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}", "Meshagent-Project-Id": PROJECT}
    url = f"{proxy.base_url}/accounts/projects/{PROJECT}/llm-proxy/usage"
    return httpx.get(url, params=parameters, headers=headers, timeout=TIMEOUT_S)


@pytest.mark.parametrize("resource", ["urn:RS256", "urn:ES256", "urn:EdDSA", "urn:opaque"])
def test_login_by_code_and_pkce_pays_as_its_user(proxy: ProxyProcess, issuer: RealIssuer, resource: str) -> None:
    token = issuer.log_in(resource=resource)["access_token"]

    response = send(proxy, token)

    assert response.status_code == 200
    record = proxy.read_record(response.headers["Llm-Proxy-Request-Id"])
    assert (record["user"], record["issuer"], record["participant"]) == ("ada", issuer.url, None)
    assert (record["project_id"], record["basis"]) == (PROJECT, "reported")
    line = json.loads(proxy.wait_for_log(response.headers["Llm-Proxy-Request-Id"]))
    assert (line["user"], line["issuer"]) == ("ada", issuer.url)
    assert token not in "".join(proxy.log)


def test_login_on_a_device_pays_as_its_user(proxy: ProxyProcess, issuer: RealIssuer) -> None:
    assert send(proxy, issuer.log_in_on_device()["access_token"]).status_code == 200


def test_official_sdk_sends_the_token_and_the_project(proxy: ProxyProcess, issuer: RealIssuer) -> None:
    headers = {"Meshagent-Project-Id": PROJECT}
    token = issuer.log_in()["access_token"]
    with openai.OpenAI(base_url=f"{proxy.base_url}/openai/v1", api_key=token, default_headers=headers) as client:
        assert client.responses.create(model="gpt-4o-mini", input="hi").output_text


def test_rotated_refresh_token_gives_a_valid_access_token_and_a_reused_one_none(
    proxy: ProxyProcess, issuer: RealIssuer
) -> None:
    first = issuer.log_in(resource="urn:opaque")
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"], "resource": "urn:opaque"}
    second = issuer.request_token(**form).json()

    assert second["refresh_token"] != first["refresh_token"]
    assert send(proxy, second["access_token"]).status_code == 200
    assert issuer.request_token(**form).json()["error"] == "invalid_grant"
    # The reuse revokes the whole grant.
    wait_until(lambda: send(proxy, second["access_token"]).status_code == 401, "the revoked token to be refused")


@pytest.mark.parametrize("kind", ["id_token", "refresh_token"])
def test_other_tokens_of_a_login_are_refused(proxy: ProxyProcess, issuer: RealIssuer, kind: str) -> None:
    response = send(proxy, issuer.log_in()[kind])

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_token_without_the_scope_is_refused(proxy: ProxyProcess, issuer: RealIssuer) -> None:
    response = send(proxy, issuer.log_in(scope="openid offline_access")["access_token"])

    assert response.status_code == 403
    assert response.json()["error"]["code"] == "insufficient_scope"


def test_revoked_opaque_token_is_refused_and_its_session_ends(proxy: ProxyProcess, issuer: RealIssuer) -> None:
    token = issuer.log_in(resource="urn:opaque")["access_token"]

    async def revoke_while_connected() -> int | None:
        headers = {"Authorization": f"Bearer {token}", "Meshagent-Project-Id": PROJECT}
        url = f"ws{proxy.base_url.removeprefix('http')}/v1/realtime?model=gpt-realtime"
        async with websockets.connect(url, additional_headers=headers) as socket:
            await asyncio.to_thread(issuer.revoke, token)
            async with asyncio.timeout(TIMEOUT_S):
                await socket.wait_closed()
            return socket.close_code

    assert asyncio.run(revoke_while_connected()) == 1008
    assert send(proxy, token).status_code == 401


def test_user_who_is_no_member_of_a_project_is_refused(proxy: ProxyProcess, issuer: RealIssuer) -> None:
    assert send(proxy, issuer.log_in("ada")["access_token"], project=OTHER_PROJECT).status_code == 403
    assert send(proxy, issuer.log_in("bob")["access_token"], project=OTHER_PROJECT).status_code == 200
    assert send(proxy, issuer.log_in("eve")["access_token"]).status_code == 403


def test_user_reads_its_own_usage_and_an_admin_that_of_the_project(proxy: ProxyProcess, issuer: RealIssuer) -> None:
    ada, bob = (issuer.log_in(user)["access_token"] for user in ("ada", "bob"))
    ids = [send(proxy, token).headers["Llm-Proxy-Request-Id"] for token in (ada, bob, mint(name="room-agent"))]
    for request_id in ids:
        proxy.read_record(request_id)

    def callers(token: str, **parameters: str) -> set[tuple[str | None, str | None]]:
        response = read_usage(proxy, token, group_by="participant,user", **parameters)
        assert response.status_code == 200, response.text
        return {(row["participant"], row["user"]) for row in response.json()["usage"]}

    assert callers(ada) == {(None, "ada")}
    assert {(None, "ada"), (None, "bob"), ("room-agent", None)} <= callers(bob)
    assert callers(bob, user="ada") == {(None, "ada")}
    # The path names the project, so that no header is needed.
    path = f"{proxy.base_url}/accounts/projects/{PROJECT}/llm-proxy/usage"
    bare = httpx.get(path, headers={"Authorization": f"Bearer {ada}"}, timeout=TIMEOUT_S)
    assert (bare.status_code, bool(bare.json()["usage"])) == (200, True)
    assert read_usage(proxy, ada, user="bob").status_code == 403
    assert read_usage(proxy, ada, issuer="https://other.example.com").status_code == 403


def test_browser_session_of_a_user_names_its_project_in_a_subprotocol(proxy: ProxyProcess, issuer: RealIssuer) -> None:
    token = issuer.log_in()["access_token"]
    session = asyncio.run(
        talk(proxy, ["realtime", f"openai-insecure-api-key.{token}", f"meshagent-project-id.{PROJECT}"])
    )

    (record,) = proxy.read_session_records(session, 1)
    assert (record["user"], record["basis"]) == ("ada", "reported")


def test_session_key_of_a_user_opens_a_session_that_is_billed_to_it(proxy: ProxyProcess, issuer: RealIssuer) -> None:
    headers = {"Meshagent-Project-Id": PROJECT}
    token = issuer.log_in()["access_token"]
    with openai.OpenAI(base_url=f"{proxy.base_url}/v1", api_key=token, default_headers=headers) as client:
        secret = client.realtime.client_secrets.create(session={"type": "realtime", "model": "gpt-realtime"}).value
    session = asyncio.run(talk(proxy, ["realtime", f"openai-insecure-api-key.{secret}"]))

    (record,) = proxy.read_session_records(session, 1)
    assert (record["user"], record["issuer"]) == ("ada", issuer.url)


async def talk(proxy: ProxyProcess, subprotocols: list[Any]) -> str:
    """Ask for one response as a browser does; return the id of the session."""
    url = f"ws{proxy.base_url.removeprefix('http')}/v1/realtime?model=gpt-realtime"
    async with websockets.connect(url, subprotocols=subprotocols) as socket:
        assert socket.subprotocol == "realtime"
        content = [{"type": "input_text", "text": "Hello"}]
        item = {"type": "message", "role": "user", "content": content}
        await socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
        await socket.send(json.dumps({"type": "response.create"}))
        async for event in socket:
            if json.loads(event)["type"] == "response.done":
                break
        assert socket.response is not None
        return str(socket.response.headers["Llm-Proxy-Request-Id"])


# The tests below have an issuer and a server of their own, because they stop and change them.


@pytest.fixture
def own_issuer() -> Iterator[RealIssuer]:
    with running_real_issuer() as running:
        yield running


def test_keys_of_the_issuer_roll_over_and_known_ones_survive_its_outage_and_a_reload(
    own_issuer: RealIssuer, upstream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_INTROSPECTION_SECRET", "introspection-secret")
    members = configure(own_issuer, ADA)
    old = own_issuer.log_in()["access_token"]
    with running_proxy(tmp_path, upstream, **members) as proxy:
        assert send(proxy, old).status_code == 200

        own_issuer.stop()
        assert send(proxy, old).status_code == 200
        # The settings of the issuer are the same, so a reload keeps its keys.
        write_config(tmp_path, upstream, **members, speech_usage="estimated")
        assert proxy.fetch_admin("/reload", method="POST")[0] == 200
        assert send(proxy, old).status_code == 200

        own_issuer.start(rsa_key("new"), ec_key())
        new = own_issuer.log_in()["access_token"]
        assert send(proxy, new).status_code == 200
        assert send(proxy, old).status_code == 401  # its key was withdrawn


def test_server_that_starts_during_an_outage_asks_clients_to_retry(
    own_issuer: RealIssuer, upstream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_INTROSPECTION_SECRET", "introspection-secret")
    signed, opaque = (own_issuer.log_in(resource=name)["access_token"] for name in ("urn:RS256", "urn:opaque"))
    own_issuer.stop()
    with running_proxy(tmp_path, upstream, **configure(own_issuer, ADA)) as proxy:
        for token in (signed, opaque):
            response = send(proxy, token)
            assert (response.status_code, response.json()["error"]["code"]) == (503, "identity_provider_unavailable")
            assert 1 <= int(response.headers["Retry-After"]) <= 30
            assert "x-should-retry" not in response.headers
        assert send(proxy, mint()).status_code == 200

        own_issuer.start()
        wait_until(lambda: send(proxy, signed).status_code == 200, "the keys to be fetched")


def test_removed_member_is_refused_at_once_and_its_session_ends(
    issuer: RealIssuer, upstream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_INTROSPECTION_SECRET", "introspection-secret")
    token = issuer.log_in()["access_token"]
    with running_proxy(tmp_path, upstream, **configure(issuer, ADA)) as proxy:

        async def remove_while_connected() -> tuple[int | None, str | None]:
            headers = {"Authorization": f"Bearer {token}", "Meshagent-Project-Id": PROJECT}
            url = f"ws{proxy.base_url.removeprefix('http')}/v1/realtime?model=gpt-realtime"
            async with websockets.connect(url, additional_headers=headers) as socket:
                write_config(tmp_path, upstream, **configure(issuer))
                assert proxy.fetch_admin("/reload", method="POST")[0] == 200
                assert send(proxy, token).status_code == 403
                async with asyncio.timeout(TIMEOUT_S):
                    await socket.wait_closed()
                return socket.close_code, socket.close_reason

        code, reason = asyncio.run(remove_while_connected())

    assert code == 1008
    assert "no member" in (reason or "")


def test_other_requests_are_served_while_the_issuer_takes_three_seconds(upstream: str, tmp_path: Path) -> None:
    with running_fake_issuer() as slow:
        slow.publish(key_set(rsa_key()), delay_s=3)
        oauth = [{"issuer": slow.url, "audience": "llm-proxy", "clients": ["cli"]}]
        members = {**configure(RealIssuer(slow.url), {"user": "user-7", "permissions": USE}), "oauth": oauth}
        with running_proxy(tmp_path, upstream, **members) as proxy, httpx.Client(base_url=proxy.base_url) as client:

            async def count() -> int:
                waiting = asyncio.create_task(asyncio.to_thread(send, proxy, sign(rsa_key(), claims_of(slow.url))))
                answered = 0
                while not waiting.done():
                    own = {"Authorization": f"Bearer {mint()}"}
                    assert (await asyncio.to_thread(client.get, "/v1/models", headers=own)).status_code == 200
                    answered += 1
                assert (await waiting).status_code == 200
                return answered

            answered = asyncio.run(count())

    assert answered > 5  # some hundred; one or two if the event loop waited for the issuer
