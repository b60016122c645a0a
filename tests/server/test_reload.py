"""Reload of the configuration: requests in flight end with the one they began with, new ones use the new one."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import yaml

from tests.config.conftest import PRICES
from tests.harness import OTHER_KEY_ID, OTHER_SIGNING_SECRET, ProxyProcess, mint, running_proxy
from tests.replay_provider import ProviderResponse, ReplayProvider
from tests.server.blocking_provider import chat, request_in_flight, running_blocking_provider
from tests.server.chat import CHAT_RESPONSE, post_chat


def reload(proxy: ProxyProcess, **changes: Any) -> None:
    """Change the configuration and wait until it is in use."""
    path = proxy.folder / "proxy.yaml"
    config = {**yaml.safe_load(path.read_text()), **changes}
    path.write_text(yaml.safe_dump(config))
    before = sum("configuration reloaded" in line for line in proxy.log)
    proxy.signal(signal.SIGHUP)
    proxy.wait_for_log(f'"config_generation":{before + 2}')


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def log_line(proxy: ProxyProcess, request_id: str) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(proxy.wait_for_log(request_id))
    return line


def test_sighup_loads_a_new_configuration_and_rejects_an_invalid_one(provider: ReplayProvider, tmp_path: Path) -> None:
    provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
    with running_proxy(tmp_path, provider.url) as proxy:
        path = tmp_path / "proxy.yaml"
        config = yaml.safe_load(path.read_text())
        config["pricing"]["surcharge_rate"] = "0.5"
        path.write_text(yaml.safe_dump(config))
        proxy.signal(signal.SIGHUP)
        proxy.wait_for_log("configuration reloaded")
        record = proxy.read_record(post_chat(proxy).headers["llm-proxy-request-id"])
        assert record["surcharge"] == "0.000002250000"

        config["pricing"]["surcharge_rate"] = "a lot"
        config["lissten"] = {}
        path.write_text(yaml.safe_dump(config))
        proxy.signal(signal.SIGHUP)
        rejected = json.loads(proxy.wait_for_log("reload refused"))
        assert any("surcharge_rate" in fault for fault in rejected["faults"])
        assert any("lissten" in fault for fault in rejected["faults"])
        record = proxy.read_record(post_chat(proxy).headers["llm-proxy-request-id"])
        assert record["surcharge"] == "0.000002250000"
        assert proxy.fetch_admin("/reload", method="POST")[0] == 422


def test_request_in_flight_keeps_its_prices_and_its_configuration_generation(tmp_path: Path) -> None:
    with running_blocking_provider() as provider, running_proxy(tmp_path, provider.url) as proxy:
        with request_in_flight(proxy, provider, "held") as responses:
            reload(proxy, pricing={"surcharge_rate": "0.5"})
        later = chat(proxy.base_url, "later")

        first_id, later_id = (response.headers["llm-proxy-request-id"] for response in (responses[0], later))
        # 10 x 0.15 + 5 x 0.60 per million: 0.0000045, and 5 % or 50 % of it.
        assert proxy.read_record(first_id)["surcharge"] == "0.000000225000"
        assert proxy.read_record(later_id)["surcharge"] == "0.000002250000"
        assert log_line(proxy, first_id)["config_generation"] == 1
        assert log_line(proxy, later_id)["config_generation"] == 2


def test_removed_api_key_ends_its_tokens_at_the_next_request_but_no_request_in_flight(tmp_path: Path) -> None:
    with running_blocking_provider() as provider, running_proxy(tmp_path, provider.url) as proxy:
        config = yaml.safe_load((tmp_path / "proxy.yaml").read_text())
        assert chat(proxy.base_url, "cached").status_code == 200
        with request_in_flight(proxy, provider, "held") as responses:
            reload(proxy, projects=[{**config["projects"][0], "api_keys": []}])
            rejected = chat(proxy.base_url, "cached")

        assert responses[0].status_code == 200
        assert rejected.status_code == 401
        assert rejected.json()["error"]["code"] == "invalid_api_key"
        reload(proxy, projects=config["projects"])
        assert chat(proxy.base_url, "cached").status_code == 200


def test_reloads_under_load_fail_no_request_and_end_removed_credentials(
    provider: ReplayProvider, tmp_path: Path
) -> None:
    """Two processes on one port and ledger reload again and again while clients of two keys send requests."""
    provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
    second = {"id": OTHER_KEY_ID, "secret": {"env": "TEST_OTHER_SIGNING_SECRET"}}
    tokens = {"kept": mint(), "toggled": mint(key_id=OTHER_KEY_ID, secret=OTHER_SIGNING_SECRET)}
    statuses: dict[str, list[int]] = {name: [] for name in tokens}
    stopped = threading.Event()
    with contextlib.ExitStack() as stack:
        port = find_free_port()
        (tmp_path / "prices.yaml").write_text(PRICES)
        changes: dict[str, Any] = {
            "listen": {"host": "127.0.0.1", "port": port, "reuse_port": True},
            "pricing": {"path": "prices.yaml"},
        }
        first = stack.enter_context(running_proxy(tmp_path, provider.url, **changes))
        project = yaml.safe_load((tmp_path / "proxy.yaml").read_text())["projects"][0]
        both = {**project, "api_keys": [*project["api_keys"], second]}
        proxies = [first, stack.enter_context(running_proxy(tmp_path, provider.url, **changes))]

        def send(name: str) -> None:
            while not stopped.is_set():
                statuses[name].append(post_chat(first, token=tokens[name]).status_code)

        clients = [threading.Thread(target=send, args=(name,)) for name in tokens for _ in range(2)]
        for client in clients:
            client.start()
        for count in range(4):
            config = {**yaml.safe_load((tmp_path / "proxy.yaml").read_text()), "projects": [(both, project)[count % 2]]}
            (tmp_path / "proxy.yaml").write_text(yaml.safe_dump(config))
            for proxy in proxies:
                proxy.signal(signal.SIGHUP)
            for proxy in proxies:
                proxy.wait_for_log(f'"config_generation":{count + 2}')
        # Both processes have removed the key: none of the next requests is accepted.
        after = [post_chat(first, token=tokens["toggled"]).status_code for _ in range(20)]
        stopped.set()
        for client in clients:
            client.join()

    assert len(statuses["kept"]) > 20
    assert set(statuses["kept"]) == {200}
    assert set(statuses["toggled"]) == {200, 401}
    assert after == [401] * 20
