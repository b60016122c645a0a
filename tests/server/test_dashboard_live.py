"""The page of running requests: rows and costs of the viewer's own requests, one stream of events for each viewer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx2 as httpx
import pytest

from tests.dashboard.browsing import find_violations, running_browser
from tests.dashboard.browsing import sign_in as sign_in_browser
from tests.dashboard.sample_ledger import IMAGE
from tests.dashboard.sample_server import running_sample
from tests.harness import PROJECT, TIMEOUT_S, ProxyProcess, mint, mint_for_other_project, wait_until
from tests.server.test_dashboard import sign_in
from tornado_proxy.dashboard.requests.live_requests import MAX_STREAMS_PER_VIEWER
from tornado_proxy.simulator import Simulator, running_simulator

#: 1,000 tokens, one each 20 ms: longer than the test.
PROMPT = "[[sim tokens=1000 delay-ms=20]]"

#: A stream ends with its client, and not when it has been drained.
STREAMS = {"on_client_disconnect": "cancel"}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    with (
        running_simulator(Simulator()) as provider,
        running_sample(tmp_path_factory.mktemp("live"), provider, streams=STREAMS) as running,
    ):
        yield running


@contextmanager
def open_stream(proxy: ProxyProcess, token: str) -> Iterator[str]:
    """Hold a stream open, and yield the id of its request."""
    body = {"model": "gpt-4o-mini", "stream": True, "messages": [{"role": "user", "content": PROMPT}]}
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{proxy.base_url}/openai/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=TIMEOUT_S) as response:
        lines = response.iter_lines()
        for _ in range(6):
            next(lines)
        stop = threading.Event()
        reader = threading.Thread(target=_read_until, args=(lines, stop))
        reader.start()
        try:
            yield response.headers["llm-proxy-request-id"]
        finally:
            stop.set()
            reader.join(TIMEOUT_S)


def _read_until(lines: Iterator[str], stop: threading.Event) -> None:
    """Read the stream, as a client does, so that it goes on."""
    for _ in lines:
        if stop.is_set():
            return


def read_events(client: httpx.Client, count: int) -> list[dict[str, Any]]:
    """Return the documents of the first events."""
    with client.stream("GET", "/dashboard/now/events") as response:
        assert response.headers["content-type"] == "text/event-stream"
        data = (line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: "))
        return [json.loads(next(data)) for _ in range(count)]


def test_running_requests_are_shown_with_their_cost_to_their_own_viewers(proxy: ProxyProcess) -> None:
    with (
        open_stream(proxy, mint(name="carol")) as carol_id,
        open_stream(proxy, mint(name="dan")) as dan_id,
        open_stream(proxy, mint_for_other_project()) as eve_id,
        sign_in(proxy) as operator,
        sign_in(proxy, "--project", PROJECT) as lead,
        sign_in(proxy, "--project", PROJECT, "--participant", "carol") as carol,
    ):
        shown = {
            name: {row["request_id"] for row in client.get("/dashboard/now?format=json").json()["running"]}
            for name, client in (("operator", operator), ("lead", lead), ("carol", carol))
        }
        first, second = read_events(carol, 2)

    assert shown == {"operator": {carol_id, dan_id, eve_id}, "lead": {carol_id, dan_id}, "carol": {carol_id}}
    assert [row["request_id"] for row in first["rows"]] == [carol_id]
    assert 0 < float(first["rows"][0]["cost"]) < float(second["rows"][0]["cost"])


def test_number_of_streams_of_a_viewer_is_bounded(proxy: ProxyProcess) -> None:
    with sign_in(proxy) as client, sign_in(proxy, "--project", PROJECT) as lead:
        with ExitStack() as streams:
            for _ in range(MAX_STREAMS_PER_VIEWER):
                stream = streams.enter_context(client.stream("GET", "/dashboard/now/events"))
                next(stream.iter_lines())
            assert _watch(client) == 503
            assert _watch(lead) == 200
            assert client.get("/dashboard/now").status_code == 200
            assert client.head("/dashboard/now/events").status_code == 200
        wait_until(lambda: _watch(client) == 200, "the streams to be forgotten")


def _watch(client: httpx.Client) -> int:
    with client.stream("GET", "/dashboard/now/events") as response:
        return response.status_code


def test_page_follows_the_requests_and_can_be_paused(proxy: ProxyProcess) -> None:
    with running_browser() as browser:
        page = sign_in_browser(browser.new_context(), proxy)
        page.get_by_role("link", name="Now").click()
        rows = page.locator("#live-rows tr")
        assert rows.count() == 0
        with open_stream(proxy, mint(name=IMAGE)) as request_id:
            rows.get_by_text(request_id).wait_for()
            assert find_violations(page) == []
            assert page.locator("main img").count() == 0
            assert IMAGE in rows.inner_text()
            page.get_by_role("button", name="Pause").click()
        page.wait_for_timeout(1500)
        assert rows.count() == 1
        page.get_by_role("button", name="Continue").click()
        rows.first.wait_for(state="detached")
        assert page.evaluate("window.hacked") is None
