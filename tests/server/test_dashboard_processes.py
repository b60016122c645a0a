"""The page of running requests over two server processes of one ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.dashboard.sample_server import PROJECTS
from tests.harness import mint, wait_until
from tests.server.test_dashboard import sign_in
from tests.server.test_dashboard_live import STREAMS, open_stream
from tests.server.test_rate_limits import two_processes
from tornado_proxy.simulator import Simulator, running_simulator


def list_running(client: httpx.Client) -> dict[str, dict[str, Any]]:
    """Return the rows of the page by request."""
    return {row["request_id"]: row for row in client.get("/dashboard/now?format=json").json()["running"]}


def test_page_of_each_process_shows_the_requests_of_both(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    with (
        running_simulator(Simulator()) as provider,
        two_processes("postgresql", tmp_path, provider, request, streams=STREAMS, projects=PROJECTS) as (first, second),
        open_stream(first, mint(name="carol")) as carol_id,
        sign_in(first) as one,
        sign_in(second) as two,
    ):
        with open_stream(second, mint(name="dan")) as dan_id:
            # The first look waits for the answer of the other process.
            rows = list_running(one)
            assert set(rows) == {carol_id, dan_id}
            assert float(rows[dan_id]["cost"]) > 0
            assert set(list_running(two)) == {carol_id, dan_id}
        wait_until(lambda: set(list_running(one)) == {carol_id}, "the request that has ended to disappear")
