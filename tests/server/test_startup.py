"""Start of the server: an invalid configuration is reported completely, and a killed server's ledger is repaired."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import httpx2 as httpx

from tests.harness import TIMEOUT_S, ProxyProcess, run_serve, running_proxy, wait_until, write_config
from tests.replay_provider import ProviderResponse, running_replay_provider
from tests.server.chat import CHAT_RESPONSE, post_chat


def test_invalid_configuration_is_reported_completely_and_nothing_starts(tmp_path: Path) -> None:
    path = write_config(tmp_path, "ftp://nowhere", limits={"max_body_mb": -1})

    failed = run_serve(path, TEST_OPENAI_KEY="")

    assert failed.returncode == 1
    for word in ("base_url", "max_body_mb", "TEST_OPENAI_KEY", f"{path.name}:"):
        assert word in failed.stderr


def test_killed_server_loses_no_request_that_was_sent(tmp_path: Path) -> None:
    def call(proxy: ProxyProcess) -> None:
        with contextlib.suppress(httpx.TransportError):
            post_chat(proxy)

    with running_replay_provider() as provider:
        with running_proxy(tmp_path, provider.url) as proxy:
            provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
            proxy.read_record(post_chat(proxy).headers["llm-proxy-request-id"])
            provider.response = ProviderResponse(chunks=tuple(b" " for _ in range(5000)))
            caller = threading.Thread(target=call, args=(proxy,))
            caller.start()
            wait_until(lambda: len(provider.requests) == 2, "two requests at the provider")
            proxy.kill()
            caller.join(TIMEOUT_S)
        with running_proxy(tmp_path, provider.url) as proxy:
            records = proxy.read_records(count=2)

    assert [(record["basis"], record["outcome"]) for record in records] == [
        ("reported", "completed"),
        ("unsettled", "crashed"),
    ]
