"""For every way in which a request can end: nothing is reserved afterwards, and spent is what its record says."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.harness import (
    OTHER_KEY_ID,
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
from tests.server.test_budgets import CHAT, ENDS, OFTEN, RESPONSE, is_any_open, open_budgets_at, post, project
from tests.server.test_compressed_responses import compressed_response
from tornado_proxy.domain.config.ledger_address import LedgerAddress, PostgresAddress
from tornado_proxy.domain.stop import StopTarget
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.state import stops
from tornado_proxy.state.store import StateStore

BUDGETS = [{"period": "total", "usd": "5", "per": "participant"}, {"period": "total", "usd": "50"}]

#: The outcome of each way to end, by the participant that causes it.
OUTCOMES = {
    "completed": "completed",
    "refused by the provider": "completed",
    "rate limited": "completed",
    "failed": "completed",
    "without usage": "completed",
    "compressed": "completed",
    "cut": "upstream_broken",
    "no response": "upstream_error",
    "client leaves before the response": "client_closed",
    "client leaves a stream": "client_closed",
    "client leaves and the stream is drained": "client_closed",
    "stopped": "proxy_closed",
    "shut down": "shutdown",
    "crashed": "crashed",
}

STREAM = {**CHAT, "stream": True}
EVENT = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
EVENT_STREAM = (("Content-Type", "text/event-stream"),)
ENDLESS = ProviderResponse(headers=EVENT_STREAM, chunks=(EVENT,) * 100_000)
SHORT = ProviderResponse(headers=EVENT_STREAM, chunks=(*(EVENT,) * 100, b"data: " + RESPONSE + b"\n\n"))


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, LedgerAddress]:
    """The URL of an empty ledger on each database in turn, and its address."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}", tmp_path / "ledger.db"
    url = request.getfixturevalue("postgres_database")
    return url, PostgresAddress(url, None, tmp_path / "journal")


@contextlib.contextmanager
def silent_provider() -> Iterator[str]:
    """Accept connections and never respond."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def configure(url: str, silent: str, ledger_url: str) -> dict[str, Any]:
    """Return a configuration; Anthropic never responds, and the other project drains what its clients leave."""
    key = {"id": OTHER_KEY_ID, "secret": {"env": "TEST_OTHER_SIGNING_SECRET"}}
    other = {"id": OTHER_PROJECT, "name": "other", "api_keys": [key], "on_client_disconnect": "drain"}
    return {
        "ledger": {"url": ledger_url},
        "providers": {
            "openai": {"base_url": url, "api_key": {"env": "TEST_OPENAI_KEY"}},
            "anthropic": {"base_url": silent, "api_key": {"env": "TEST_ANTHROPIC_KEY"}},
        },
        "projects": [project(budgets=BUDGETS), {**other, "budgets": BUDGETS}],
        "budgets": {"hold_unsettled": False},
        "streams": {"on_client_disconnect": "cancel", "idle_timeout_s": 1.5},
        "shutdown": {"drain_s": 0.2},
        "constants": OFTEN,
    }


def test_every_end_of_a_request_leaves_nothing_reserved_and_spends_what_its_record_says(
    ledger: tuple[str, LedgerAddress], provider: ReplayProvider, tmp_path: Path
) -> None:
    url, address = ledger
    with silent_provider() as silent, contextlib.ExitStack() as lasting_process:
        changes = configure(provider.url, silent, url)
        with running_proxy(tmp_path, provider.url, **changes) as proxy:
            end_within_a_process(proxy, provider, address)
            lasting = lasting_process.enter_context(running_proxy(tmp_path, provider.url, **changes))
            lasting.ledger_url = url
            with open_stream(proxy, provider, "shut down", ENDLESS):
                proxy.signal(signal.SIGTERM)
                proxy.wait_exit()
        with (
            running_proxy(tmp_path, provider.url, **changes) as proxy,
            open_stream(proxy, provider, "crashed", ENDLESS),
        ):
            proxy.kill()
        records = lasting.read_records(count=len(OUTCOMES))
        with open_budgets_at(address) as store:
            wait_until(lambda: not is_any_open(store), "no open reservation")
            assert list(store.iterate_reservations()) == []
            figures = {
                (state.project_id, state.subject): (state.settled, state.reserved) for state in store.list_counters()
            }

    assert {record["participant"]: record["outcome"] for record in records} == OUTCOMES
    spent = sum_totals(records)
    assert figures == {key: (total, Decimal(0)) for key, total in spent.items()}
    assert spent[PROJECT, "participant cut"] > 0
    assert spent[OTHER_PROJECT, ""] > 0


def sum_totals(records: Sequence[dict[str, Any]]) -> dict[tuple[str, str], Decimal]:
    """Return the sum of the records' totals by project, and by project and participant."""
    totals: dict[tuple[str, str], Decimal] = {}
    for record in records:
        for subject in ("", f"participant {record['participant']}"):
            key = (record["project_id"], subject)
            totals[key] = totals.get(key, Decimal(0)) + Decimal(record["total"])
    return totals


def end_within_a_process(proxy: ProxyProcess, provider: ReplayProvider, address: LedgerAddress) -> None:
    """End a request in each way that a process outlives."""
    for name, response in {**ENDS, "compressed": compressed_response("application/json", RESPONSE)}.items():
        provider.response = response
        with contextlib.suppress(httpx.TransportError):
            post(proxy, name, STREAM if name == "cut" else CHAT)
    assert post_message(proxy, "no response", TIMEOUT_S).status_code == 504
    with pytest.raises(httpx.TimeoutException):
        post_message(proxy, "client leaves before the response", 0.5)
    with open_stream(proxy, provider, "client leaves a stream", ENDLESS):
        pass
    with open_stream(proxy, provider, "client leaves and the stream is drained", SHORT, mint_for_other_project):
        pass
    with open_stream(proxy, provider, "stopped", ENDLESS) as chunks, contextlib.suppress(httpx.TransportError):
        stop(address, "stopped")
        for _ in chunks:
            pass


@contextlib.contextmanager
def open_stream(
    proxy: ProxyProcess, provider: ReplayProvider, name: str, answer: ProviderResponse, sign: Any = mint
) -> Iterator[Iterator[bytes]]:
    """Yield the rest of a streamed response; open it and read its first bytes; the client leaves at the end."""
    provider.response = answer
    headers = {"Authorization": f"Bearer {sign(name=name)}"}
    url = proxy.base_url + "/v1/chat/completions"
    with httpx.stream("POST", url, json=STREAM, headers=headers, timeout=TIMEOUT_S) as response:
        chunks = response.iter_raw()
        next(chunks)
        yield chunks


def post_message(proxy: ProxyProcess, name: str, timeout_s: float) -> httpx.Response:
    """Send a message to the provider that never responds."""
    body = {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    headers = {"x-api-key": mint(name=name)}
    return httpx.post(proxy.base_url + "/anthropic/v1/messages", json=body, headers=headers, timeout=timeout_s)


def stop(address: LedgerAddress, name: str) -> None:
    """Stop a participant, as the command does."""
    store = StateStore(make_backend(address))
    stops.make(store, "cli:root", StopTarget(participant=name))
    store.close()
