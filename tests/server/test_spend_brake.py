"""The spend brake on real servers: whoever spends too much in a minute is stopped in every process, until a resume."""

from __future__ import annotations

import contextlib
import re
from decimal import Decimal
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.harness import PROJECT
from tests.replay_provider import ProviderResponse, ReplayProvider
from tests.server.test_budgets import RESPONSE, post
from tests.server.test_rate_limits import limited, two_processes
from tests.server.test_stops import open_state, wait_for_status
from tornado_proxy.domain.stop import StopTarget
from tornado_proxy.state import stops


def test_participant_who_spends_too_much_in_a_minute_is_stopped_everywhere_until_resumed(
    provider: ReplayProvider, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    provider.response = ProviderResponse(chunks=(RESPONSE,))
    # Each request costs 0.0006363 USD: the fourth one passes the limit.
    project = limited(per_participant={"usd_per_minute": "0.002"})
    with contextlib.ExitStack() as stack:
        two = stack.enter_context(two_processes("sqlite", tmp_path, provider.url, request, projects=[project]))
        assert [post(proxy, "ada").status_code for proxy in (*two, two[0])] == [200, 200, 200]
        assert post(two[1], "ada").status_code == 200

        refusals: list[httpx.Response] = [wait_for_status(proxy, "ada", 403) for proxy in two]

        for refusal in refusals:
            message = refusal.json()["error"]["message"]
            assert message.startswith(f"participant ada of project {PROJECT} was stopped by spend brake at ")
            assert "USD spent in a minute, the limit is 0.002); ask an admin of project first to resume it" in message
            spent = re.search(r"\((0\.\d+) USD", message)
            assert spent is not None
            assert Decimal(spent[1]) > Decimal("0.002")
        assert post(two[0], "eve").status_code == 200
        with open_state(two[0]) as store:
            (stop,) = stops.list_stops(store)
            assert stop.target == StopTarget(PROJECT, "ada")
            stops.lift(store, "cli:root", stop.id)
        for proxy in two:
            wait_for_status(proxy, "ada", 200)
        lines = [line for proxy in two for line in proxy.log if "spend brake applied" in line]
        assert len(lines) == 1
