"""Reload of the configuration: requests in flight end with the one they began with, new ones use the new one."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import yaml

from tests.harness import ProxyProcess, running_proxy
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
