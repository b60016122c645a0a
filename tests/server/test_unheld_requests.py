"""A server killed right after the record of a request of unknown cost: another one holds the most that it can cost."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.harness import TIMEOUT_S, ProxyProcess, mint, running_proxy, wait_until
from tests.replay_provider import ProviderResponse, ReplayProvider
from tests.server.test_budgets import CHAT, COST, OFTEN, RESPONSE, each_participant, open_budgets_at
from tests.server.test_compressed_responses import compressed_response
from tornado_proxy.budgets.open_reservations import OpenReservation
from tornado_proxy.budgets.store import BudgetStore
from tornado_proxy.domain.config.ledger_address import LedgerAddress, PostgresAddress

#: A server that counts records a minute later: it can hold nothing before it is killed.
LATE: dict[str, float | list[float]] = {
    "tornado_proxy.budgets.schedule._SLICED_FOLD_S": 60,
    "tornado_proxy.budgets.schedule._FAR_FOLD_S": 60,
}

#: A token for each of 256 bytes, up to which requests share a bound (CHAT has 83), and for 4,096 hidden ones, x 0.15,
#: and 10 x 0.60 per million, and 1e-9 for rounding; with 5 % on top.
UNSETTLED_BOUND = Decimal("0.000658801") * Decimal("1.05")

#: The same for BACKGROUND, and 16 tokens of output.
PENDING_BOUND = Decimal("0.000662401") * Decimal("1.05")

BACKGROUND = {"model": "gpt-4o-mini", "input": "hi", "max_output_tokens": 16, "background": True}
QUEUED = {"id": "resp_1", "object": "response", "model": "gpt-4o-mini", "status": "queued", "usage": None}


@contextlib.contextmanager
def two_servers(
    database: str, folder: Path, url: str, request: pytest.FixtureRequest
) -> Iterator[tuple[ProxyProcess, ProxyProcess, LedgerAddress]]:
    """Run a server that lasts and one to be killed; yield both, and the address of their ledger."""
    ledger_url = "sqlite:///ledger.db" if database == "sqlite" else request.getfixturevalue("postgres_database")
    changes: dict[str, Any] = {"projects": [each_participant("100")], "ledger": {"url": ledger_url}}
    address: LedgerAddress = folder / "ledger.db"
    if database == "postgresql":
        address = PostgresAddress(ledger_url, None, folder / "ledger-journal")
    with (
        running_proxy(folder, url, constants=OFTEN, **changes) as lasting,
        running_proxy(folder, url, constants=LATE, **changes) as dying,
    ):
        lasting.ledger_url = ledger_url if database == "postgresql" else ""
        yield lasting, dying, address


def begin(proxy: ProxyProcess, token: str, path: str, body: dict[str, Any]) -> str:
    """Send a request; return its id."""
    headers = {"Authorization": f"Bearer {token}"}
    response = httpx.post(proxy.base_url + path, json=body, headers=headers, timeout=TIMEOUT_S)
    assert response.status_code == 200
    return response.headers["llm-proxy-request-id"]


def find_held(store: BudgetStore, request_id: str) -> list[OpenReservation]:
    return [one for one in store.iterate_reservations() if one.request_id == request_id and one.state != "open"]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_requests_of_unknown_cost_are_held_although_their_process_is_killed_at_once(
    database: str, provider: ReplayProvider, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with (
        two_servers(database, tmp_path, provider.url, request) as (lasting, dying, address),
        open_budgets_at(address) as store,
    ):
        provider.response = ProviderResponse(chunks=(RESPONSE,))
        token = mint(name="ada")  # one of another second is another caller, whose first request shares no bound
        settled, has_slice = 0, False
        # Until requests reserve from a slice, and have no row of their own: from the second one after its row is seen,
        # as the process takes from it a moment after the transaction.
        while not has_slice:
            has_slice = bool(store.leasing.read_idle())
            begin(dying, token, "/v1/chat/completions", CHAT)
            settled += 1
        provider.response = compressed_response("application/json", RESPONSE)
        unsettled = begin(dying, token, "/v1/chat/completions", CHAT)
        provider.response = ProviderResponse(chunks=(json.dumps(QUEUED).encode(),))
        pending = begin(dying, token, "/v1/responses", BACKGROUND)
        dying.kill()

        wait_until(lambda: len(find_held(store, unsettled)) == 1, "the request of unknown cost is held")
        wait_until(lambda: [bool(one.total) for one in find_held(store, pending)] == [True], "the bound of the other")
        wait_until(lambda: not store.leasing.read_idle(), "the slice is freed")
        held = [*find_held(store, unsettled), *find_held(store, pending)]
        (state,) = [one for one in store.list_counters() if one.subject == "participant ada"]

    assert {lasting.read_record(request_id)["basis"] for request_id in (unsettled, pending)} == {"unsettled", "pending"}
    assert [(one.state, one.total) for one in held] == [("held", UNSETTLED_BOUND), ("pending", PENDING_BOUND)]
    assert (state.settled, state.reserved) == (settled * COST, UNSETTLED_BOUND + PENDING_BOUND)
