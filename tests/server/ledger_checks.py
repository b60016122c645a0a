"""Intervals of the ledger for tests, and checks of records and rejections while it fails."""

from __future__ import annotations

import contextlib
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.harness import TIMEOUT_S, ProxyProcess, mint, wait_until
from tests.ledger.usage_lines import faults
from tests.server.blocking_provider import TOTAL_USD, BlockingProvider, chat

_WRITER = "tornado_proxy.ledger.writer.writer_thread"

#: Seconds; the server waits up to 60 s for each of them.
SHORT_INTERVALS = {
    f"{_WRITER}._IDLE_CHECK_S": 0.1,
    f"{_WRITER}._MAX_BACKOFF_S": 0.5,
    f"{_WRITER}._FIRST_SEARCH_S": 0.5,
    f"{_WRITER}._SEARCH_INTERVAL_S": 0.5,
}


def wait_unready(proxy: ProxyProcess) -> None:
    wait_until(lambda: proxy.fetch_admin("/readyz")[0] == 503, "readiness to fail")


def wait_ready(proxy: ProxyProcess) -> None:
    wait_until(lambda: proxy.fetch_admin("/readyz") == (200, "ready\n"), "readiness to return")


def check_rejects_requests(proxy: ProxyProcess) -> None:
    """Check that both providers' clients receive a 503 that their SDKs parse, and that the process lives, not ready."""
    openai = chat(proxy.base_url, "rejected")
    assert openai.status_code == 503
    assert openai.json()["error"]["code"] == "ledger_unavailable"
    message = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    headers = {"x-api-key": mint(name="rejected"), "anthropic-version": "2023-06-01"}
    anthropic = httpx.post(f"{proxy.base_url}/anthropic/v1/messages", json=message, headers=headers, timeout=TIMEOUT_S)
    assert anthropic.status_code == 503
    assert (anthropic.json()["type"], anthropic.json()["error"]["type"]) == ("error", "overloaded_error")
    # The reason has the path or the address of the database, which concern the operator alone.
    shown = {response.json()["error"]["message"] for response in (openai, anthropic)}
    assert shown <= {
        "no new requests while the ledger cannot be written",
        "the ledger cannot be written",
        "no new requests with a budget while the budgets cannot be written",
    }
    assert proxy.fetch_admin("/healthz") == (200, "ok\n")
    assert proxy.fetch_admin("/readyz")[0] == 503


def check_one_record_each(records: list[dict[str, Any]], users: list[str]) -> None:
    """Check that each user has one record, with the total of a BlockingProvider's response, valid by the schema."""
    assert sorted(record["participant"] for record in records) == sorted(users)
    assert {record["total"] for record in records} == {TOTAL_USD}
    assert [fault for record in records for fault in faults(record)] == []


def check_one_entry_each(proxy: ProxyProcess, provider: BlockingProvider, *, callers: int) -> None:
    """Check that each request that the provider received has one entry.

    A killed server may leave an entry of a request that it did not send: at most one for each of `callers`.
    """
    # A database server may need a moment to detect that a process is dead.
    wait_until(lambda: set(provider.users) <= {record["participant"] for record in proxy.read_records()}, "all entries")
    records = proxy.read_records()
    entries = Counter(record["participant"] for record in records)
    assert max(entries.values()) == 1
    assert [fault for record in records for fault in faults(record)] == []
    assert len(set(entries) - set(provider.users)) <= callers


def check_received_are_settled(records: list[dict[str, Any]], received: list[str]) -> None:
    """Check that each response that a client received whole has a record with its usage and its price."""
    settled = {record["participant"]: (record["basis"], record["total"]) for record in records}
    assert {user: settled.get(user) for user in received} == dict.fromkeys(received, ("reported", TOTAL_USD))


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a file system of 8 MB; skip the test if this user may not."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("only root may mount a small disk")  # a full journal has a test without one
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_disk(filler: Path) -> None:
    """Write a file until the disk is full."""
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
