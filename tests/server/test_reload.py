"""A reload while a call is under way: it ends on the configuration that it began with, the next is on the new one."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import yaml

from tests.harness import ProxyProcess, running_proxy
from tests.server.blocking_provider import chat, request_in_flight, running_blocking_provider


def reload(proxy: ProxyProcess, **changes: Any) -> None:
    """Change the configuration and wait until it is in use."""
    path = proxy.folder / "proxy.yaml"
    config = {**yaml.safe_load(path.read_text()), **changes}
    path.write_text(yaml.safe_dump(config))
    before = sum("configuration reloaded" in line for line in proxy.log)
    proxy.signal(signal.SIGHUP)
    proxy.wait_for_log(f'"config_generation":{before + 2}')


def line_of(proxy: ProxyProcess, request_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(proxy.wait_for_log(request_id))
    return found


def test_a_call_under_way_keeps_its_prices_and_its_generation(tmp_path: Path) -> None:
    with running_blocking_provider() as provider, running_proxy(tmp_path, provider.url) as proxy:
        with request_in_flight(proxy, provider, "held") as answers:
            reload(proxy, pricing={"surcharge_rate": "0.5"})
        after = chat(proxy.base_url, "later")

        before_id, after_id = (one.headers["llm-proxy-request-id"] for one in (answers[0], after))
        # 10 x 0.15 + 5 x 0.60 per million: 0.0000045, and 5 % or 50 % of it.
        assert proxy.read_record(before_id)["surcharge"] == "0.000000225000"
        assert proxy.read_record(after_id)["surcharge"] == "0.000002250000"
        assert line_of(proxy, before_id)["config_generation"] == 1
        assert line_of(proxy, after_id)["config_generation"] == 2


def test_a_key_that_a_reload_removes_ends_its_tokens_at_the_next_request_and_no_call_under_way(tmp_path: Path) -> None:
    with running_blocking_provider() as provider, running_proxy(tmp_path, provider.url) as proxy:
        config = yaml.safe_load((tmp_path / "proxy.yaml").read_text())
        assert chat(proxy.base_url, "remembered").status_code == 200
        with request_in_flight(proxy, provider, "held") as answers:
            reload(proxy, projects=[{**config["projects"][0], "api_keys": []}])
            refused = chat(proxy.base_url, "remembered")

        assert answers[0].status_code == 200
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
        reload(proxy, projects=config["projects"])
        assert chat(proxy.base_url, "remembered").status_code == 200
