"""The log file beside standard error: renamed by another program, and opened again after SIGUSR1."""

from __future__ import annotations

import json
import signal
import stat
from pathlib import Path

from tests.harness import run_serve, running_proxy, wait_until, write_config
from tests.replay_provider import ProviderResponse, ReplayProvider
from tests.server.chat import CHAT_RESPONSE, post_chat


def request_ids(path: Path) -> list[str]:
    """Return the ids of the requests in a log file."""
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    return [line["request_id"] for line in lines if line["message"] == "request"]


def test_lines_after_a_rename_and_sigusr1_are_in_a_new_file_and_none_is_lost(
    provider: ReplayProvider, tmp_path: Path
) -> None:
    provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
    path, renamed = tmp_path / "log/proxy.log", tmp_path / "log/proxy.log.1"
    with running_proxy(tmp_path, provider.url, log={"file": "log/proxy.log"}) as proxy:
        first = post_chat(proxy).headers["llm-proxy-request-id"]
        wait_until(lambda: request_ids(path) == [first], "the first line is in the file")
        path.rename(renamed)
        second = post_chat(proxy).headers["llm-proxy-request-id"]
        wait_until(lambda: request_ids(renamed) == [first, second], "the second line is in the renamed file")

        proxy.signal(signal.SIGUSR1)
        wait_until(path.exists, "the new file")
        third = post_chat(proxy).headers["llm-proxy-request-id"]
        wait_until(lambda: request_ids(path) == [third], "the third line is in the new file")
        for request_id in (first, second, third):
            proxy.wait_for_log(request_id)

    assert request_ids(renamed) == [first, second]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_old_file_stays_in_use_if_the_new_one_cannot_be_opened(provider: ReplayProvider, tmp_path: Path) -> None:
    provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
    path, renamed = tmp_path / "proxy.log", tmp_path / "proxy.log.1"
    with running_proxy(tmp_path, provider.url, log={"file": "proxy.log"}) as proxy:
        path.rename(renamed)
        path.mkdir()
        proxy.signal(signal.SIGUSR1)
        line = proxy.wait_for_log("the log file cannot be opened again")
        assert json.loads(line)["reason"].startswith("[Errno 21] Is a directory")
        request_id = post_chat(proxy).headers["llm-proxy-request-id"]
        wait_until(lambda: request_ids(renamed) == [request_id], "the line is in the old file")


def test_server_without_a_log_file_ignores_sigusr1(provider: ReplayProvider, tmp_path: Path) -> None:
    provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
    with running_proxy(tmp_path, provider.url) as proxy:
        proxy.signal(signal.SIGUSR1)
        assert post_chat(proxy).status_code == 200


def test_server_does_not_start_with_a_log_file_that_cannot_be_opened(provider: ReplayProvider, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = write_config(tmp_path, provider.url, log={"file": "file/proxy.log"})

    result = run_serve(config)

    assert result.returncode == 1
    assert f"log.file: {tmp_path}/file/proxy.log cannot be opened" in result.stderr
