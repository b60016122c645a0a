"""Access keys through real servers: made, rotated and revoked by command while several processes run."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2 as httpx
import openai
import pytest
import websockets

from tests.cli.rated_ledger import run
from tests.harness import (
    ANTHROPIC_KEY,
    OPENAI_KEY,
    OTHER_PROJECT,
    PROJECT,
    TIMEOUT_S,
    ProxyProcess,
    mint,
    run_serve,
    running_proxy,
    wait_until,
    write_config,
)
from tests.server.realtime import connect_session, next_event, wait_closed, websocket_url
from tests.server.test_reload import reload
from tornado_proxy.simulator import Simulator, running_simulator

#: A shorter interval of polls, for tests that are not about its length.
OFTEN: dict[str, float | list[float]] = {"tornado_proxy.state.watcher._POLL_INTERVAL_S": 0.05}

QUESTION: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def simulator() -> Iterator[tuple[Simulator, str]]:
    """The provider, which accepts the provider keys only."""
    served = Simulator(keys={"openai": OPENAI_KEY, "anthropic": ANTHROPIC_KEY})
    with running_simulator(served) as url:
        yield served, url


@pytest.fixture(scope="module")
def proxy(simulator: tuple[Simulator, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    folder, often = tmp_path_factory.mktemp("keys"), {"recheck_s": 0.2}
    with running_proxy(folder, simulator[1], constants=OFTEN, websockets=often) as running:
        yield running


def run_command(proxy: ProxyProcess, *arguments: str) -> dict[str, Any]:
    """Run `tornado-proxy access-key` with the server's configuration; return the document that it prints."""
    done = run("access-key", *arguments, "--config", proxy.folder / "proxy.yaml", "--format", "json")
    assert done.exit_code == 0, done.output
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def create(proxy: ProxyProcess, *arguments: str) -> dict[str, Any]:
    """Create a key that the server has applied; return its document."""
    key = run_command(proxy, "create", "build server", "--project", PROJECT, *arguments)
    wait_until(lambda: list_models(proxy, key["secret"]) == 200, "the new key")
    return key


def list_models(proxy: ProxyProcess, secret: str) -> int:
    """Return the status of a request with a key."""
    headers = {"Authorization": f"Bearer {secret}"}
    return httpx.get(proxy.base_url + "/v1/models", headers=headers, timeout=TIMEOUT_S).status_code


@contextlib.contextmanager
def two_nodes(
    database: str, request: pytest.FixtureRequest, upstream: str, folder: Path
) -> Iterator[tuple[ProxyProcess, ProxyProcess]]:
    """Run two servers with one ledger."""
    url = f"sqlite:///{folder / 'shared.db'}"
    if database == "postgresql":
        url = request.getfixturevalue("postgres_database")
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    with (
        running_proxy(folder / "a", upstream, ledger={"url": url}) as first,
        running_proxy(folder / "b", upstream, ledger={"url": url}) as second,
    ):
        first.ledger_url = second.ledger_url = url
        yield first, second


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_each_change_is_in_effect_in_two_processes(
    database: str, request: pytest.FixtureRequest, simulator: tuple[Simulator, str], tmp_path: Path
) -> None:
    with two_nodes(database, request, simulator[1], tmp_path) as nodes:
        key = run_command(nodes[0], "create", "build server", "--project", PROJECT)
        wait_until(lambda: [list_models(node, key["secret"]) for node in nodes] == [200, 200], "the change")

        rotated = run_command(nodes[1], "rotate", key["id"], "--grace", "1h")
        wait_until(lambda: [list_models(node, rotated["secret"]) for node in nodes] == [200, 200], "the change")
        assert [list_models(node, key["secret"]) for node in nodes] == [200, 200]

        run_command(nodes[0], "revoke", key["id"])
        wait_until(lambda: [list_models(node, rotated["secret"]) for node in nodes] == [401, 401], "the change")
        assert [list_models(node, key["secret"]) for node in nodes] == [401, 401]
        for node in nodes:
            logged = [json.loads(line) for line in node.wait_for_log_lines('"state changed"', 3)]
            assert [line["action"].removeprefix("access key ") for line in logged] == [
                "created",
                "rotated",
                "revoked",
            ]
            assert {line["subject"] for line in logged} == {key["id"]}
            assert "llm_proxy_state_generation 3.0" in node.fetch_admin("/metrics")[1]
            assert not [line for line in node.log for text in (key, rotated) if text["secret"] in line]


def test_server_that_was_killed_knows_the_changes_made_meanwhile(
    simulator: tuple[Simulator, str], tmp_path: Path
) -> None:
    with running_proxy(tmp_path, simulator[1], constants=OFTEN) as proxy:
        revoked = create(proxy)
        kept = create(proxy)
        run_command(proxy, "revoke", revoked["id"])
        # Without a wait: the change is durable when the command has ended, whatever the server knows.
        proxy.kill()
    made = run_command(proxy, "create", "offline", "--project", PROJECT)

    with running_proxy(tmp_path, simulator[1], constants=OFTEN) as proxy:
        assert list_models(proxy, revoked["secret"]) == 401
        assert list_models(proxy, kept["secret"]) == 200
        assert list_models(proxy, made["secret"]) == 200


def test_open_session_ends_with_1008_after_its_key_was_revoked(proxy: ProxyProcess) -> None:
    key = create(proxy)

    async def revoke() -> tuple[int | None, str | None]:
        async with connect_session(proxy, token=key["secret"]) as socket:
            await next_event(socket, "session.created")
            await asyncio.to_thread(run_command, proxy, "revoke", key["id"])
            return await wait_closed(socket)

    code, reason = asyncio.run(revoke())
    assert code == 1008
    assert reason is not None
    assert "access key is unknown or was revoked" in reason


def test_official_sdks_work_with_an_access_key_and_are_recorded_under_its_participant(proxy: ProxyProcess) -> None:
    key = create(proxy, "--participant", "ci", "--label", "team=web")
    with openai.OpenAI(base_url=proxy.base_url + "/v1", api_key=key["secret"], max_retries=0) as gpt:
        chat = gpt.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=QUESTION)
    for credential in ({"api_key": key["secret"]}, {"auth_token": key["secret"]}):
        with anthropic.Anthropic(base_url=proxy.base_url + "/anthropic", max_retries=0, **credential) as claude:
            message = claude.messages.with_raw_response.create(model="claude-sonnet-5", max_tokens=5, messages=QUESTION)
            assert proxy.read_record(message.headers["llm-proxy-request-id"])["participant"] == "ci"
    assert proxy.read_record(chat.headers["llm-proxy-request-id"])["participant"] == "ci"

    with contextlib.closing(sqlite3.connect(proxy.ledger)) as db:
        rows = db.execute(
            "SELECT basis, total > 0, labels FROM records WHERE credential_id = ? AND method = 'POST'", (key["id"],)
        )
        assert rows.fetchall() == [("reported", 1, '{"team":"web"}')] * 3


def test_browser_sends_an_access_key_in_a_subprotocol(proxy: ProxyProcess) -> None:
    key = create(proxy)

    async def open_session() -> str | None:
        offered = [websockets.Subprotocol(name) for name in ("realtime", f"openai-insecure-api-key.{key['secret']}")]
        url = websocket_url(proxy, query="model=gpt-realtime")
        async with websockets.connect(url, subprotocols=offered) as socket:
            await next_event(socket, "session.created")
            return socket.subprotocol

    assert asyncio.run(open_session()) == "realtime"


def test_key_allows_the_models_of_its_patterns_and_its_project_only(proxy: ProxyProcess) -> None:
    key = create(proxy, "--model", "openai/gpt-4o*")
    other = run_command(proxy, "create", "other", "--project", OTHER_PROJECT, "--model", "*")
    wait_until(lambda: list_models(proxy, other["secret"]) == 200, "the other key")

    def chat(secret: str, model: str) -> int:
        headers = {"Authorization": f"Bearer {secret}"}
        body = {"model": model, "messages": QUESTION}
        return httpx.post(proxy.base_url + "/v1/chat/completions", json=body, headers=headers).status_code

    assert [chat(key["secret"], model) for model in ("gpt-4o-mini", "gpt-5.4")] == [200, 403]
    # The project's own list has gpt-4o-mini alone.
    assert [chat(other["secret"], model) for model in ("gpt-4o-mini", "gpt-5.4")] == [200, 403]


def test_imported_key_works_until_it_is_revoked(proxy: ProxyProcess) -> None:
    secret = "sk-of-a-former-gateway-0123456789"
    digest = hashlib.sha256(secret.encode()).hexdigest()
    assert list_models(proxy, secret) == 401

    key = run_command(proxy, "import", "ada", "--project", PROJECT, "--sha256", digest)
    wait_until(lambda: list_models(proxy, secret) == 200, "the change")

    run_command(proxy, "revoke", key["id"])
    wait_until(lambda: list_models(proxy, secret) == 401, "the change")


def test_forged_keys_are_401_and_reach_no_provider(proxy: ProxyProcess, simulator: tuple[Simulator, str]) -> None:
    key = create(proxy)
    secret = key["secret"]
    run_command(proxy, "create", "expired", "--project", PROJECT)
    forged = {
        "cut": secret[:-1],
        "longer": secret + "A",
        "other case": secret.swapcase(),
        "digest": hashlib.sha256(secret.encode()).hexdigest(),
        "prefixed digest": "tp_" + hashlib.sha256(secret.encode()).hexdigest(),
        "id": key["id"],
        "prefix": "tp_",
        "unknown": "tp_" + "A" * 43,
        "local bearer": "tpl_" + secret[3:],
        "two keys": f"{secret} {secret}",
        "comma": f"{secret},{secret}",
        "quotes": f'"{secret}"',
        "provider key": OPENAI_KEY,
        "SQL": "tp_' OR '1'='1",
    }
    places = {
        "bearer": lambda text: {"Authorization": f"Bearer {text}"},
        "x-api-key": lambda text: {"x-api-key": text, "anthropic-version": "2023-06-01"},
    }
    before = len(simulator[0].requests)

    statuses = {
        (name, place): httpx.post(
            proxy.base_url + ("/v1/chat/completions" if place == "bearer" else "/anthropic/v1/messages"),
            json={"model": "gpt-4o-mini", "messages": QUESTION},
            headers=headers(text),
        ).status_code
        for name, text in forged.items()
        for place, headers in places.items()
    }

    assert {case: status for case, status in statuses.items() if status != 401} == {}
    assert len(simulator[0].requests) == before


def test_key_beside_a_participant_token_is_refused_and_beside_a_provider_key_counts(proxy: ProxyProcess) -> None:
    key = create(proxy)

    def post(*credentials: str) -> int:
        headers = dict(zip(("Authorization", "x-api-key"), (f"Bearer {credentials[0]}", credentials[1]), strict=True))
        body = {"model": "claude-sonnet-5", "max_tokens": 5, "messages": QUESTION}
        return httpx.post(proxy.base_url + "/anthropic/v1/messages", json=body, headers=headers).status_code

    assert post(key["secret"], ANTHROPIC_KEY) == 200
    assert post("sk-leftover", key["secret"]) == 200
    assert post(key["secret"], mint()) == 401


def test_session_key_of_an_access_key_is_refused_before_the_provider_is_asked(
    proxy: ProxyProcess, simulator: tuple[Simulator, str]
) -> None:
    key = create(proxy)
    before = len(simulator[0].requests)

    response = httpx.post(
        proxy.base_url + "/v1/realtime/client_secrets",
        json={"session": {"type": "realtime", "model": "gpt-realtime"}},
        headers={"Authorization": f"Bearer {key['secret']}"},
    )

    assert (response.status_code, response.json()["error"]["code"]) == (403, "not_allowed")
    assert len(simulator[0].requests) == before


def test_reload_keeps_access_keys_and_ends_those_of_a_removed_project(
    simulator: tuple[Simulator, str], tmp_path: Path
) -> None:
    with running_proxy(tmp_path, simulator[1], constants=OFTEN) as proxy:
        key = create(proxy)
        other = run_command(proxy, "create", "other", "--project", OTHER_PROJECT)
        wait_until(lambda: list_models(proxy, other["secret"]) == 200, "the other key")

        reload(proxy, projects=[{"id": PROJECT, "name": "first"}])

        assert list_models(proxy, key["secret"]) == 200
        assert list_models(proxy, other["secret"]) == 401


def test_server_does_not_start_without_its_state(tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9")
    assert run("access-key", "create", "ci", "--project", PROJECT, "--config", config).exit_code == 0
    with sqlite3.connect(tmp_path / "ledger.db") as db:
        db.execute("UPDATE access_keys SET labels = 'damaged'")
    db.close()

    ended = run_serve(config)

    assert ended.returncode == 1
    assert "the state (access keys) cannot be read: " in ended.stderr
    assert "a row of the state is damaged" in ended.stderr
