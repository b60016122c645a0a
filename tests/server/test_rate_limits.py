"""Limits on real servers: all processes of a ledger share them, and SDKs wait as long as they are told."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import httpx2 as httpx
import openai
import pytest

from tests.harness import TIMEOUT_S, ProxyProcess, mint, running_proxy, wait_until
from tests.replay_provider import ProviderResponse, ReplayProvider
from tests.server.realtime import connect_session, fetch_rejection, next_event, websocket_url
from tests.server.test_budgets import CHAT, RESPONSE, open_budgets, post, project
from tornado_proxy.simulator import Simulator, running_simulator

STREAM = {**CHAT, "stream": True}
EVENT = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'


def limited(**limits: Any) -> dict[str, Any]:
    """Return the project of the test tokens with `limits`."""
    return project(limits=limits)


@contextlib.contextmanager
def two_processes(
    database: str, folder: Path, url: str, request: pytest.FixtureRequest, **changes: Any
) -> Iterator[tuple[ProxyProcess, ProxyProcess]]:
    """Run two servers on one ledger."""
    ledger = {"url": "sqlite:///ledger.db"}
    if database == "postgresql":
        ledger = {"url": request.getfixturevalue("postgres_database")}
    with (
        running_proxy(folder, url, ledger=ledger, **changes) as first,
        running_proxy(folder, url, ledger=ledger, **changes) as second,
    ):
        yield first, second


def send(pool: ThreadPoolExecutor, proxies: tuple[ProxyProcess, ...], name: str, count: int) -> list[httpx.Response]:
    """Send `count` requests of a participant at once, to the servers in turn."""
    chosen = [proxies[number % len(proxies)] for number in range(count)]
    headers = {"Authorization": f"Bearer {mint(name=name)}"}
    # One client: to make one takes longer than a request.
    with httpx.Client(headers=headers, timeout=TIMEOUT_S) as client:
        return list(pool.map(lambda proxy: client.post(proxy.base_url + "/v1/chat/completions", json=CHAT), chosen))


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_two_processes_admit_a_minutes_worth_and_then_the_rate(
    database: str, provider: ReplayProvider, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    provider.response = ProviderResponse(chunks=(RESPONSE,))
    limits = limited(per_participant={"requests_per_minute": 60})
    with (
        two_processes(database, tmp_path, provider.url, request, projects=[limits]) as proxies,
        ThreadPoolExecutor(8) as pool,
    ):
        earliest = time.monotonic()
        statuses = [post(proxies[0], "ada").status_code]
        latest = time.monotonic()
        statuses += [response.status_code for response in send(pool, proxies, "ada", 75)]
        time.sleep(1.5)
        wanted = time.monotonic()
        statuses += [response.status_code for response in send(pool, proxies, "ada", 15)]
        ended = time.monotonic()
    assert set(statuses) == {200, 429}
    # 60 at once, and one more each second since the first one: 1 % of them is less than one.
    assert int(60 + wanted - latest) <= statuses.count(200) <= 60 + ended - earliest


def test_refusal_states_limits_and_the_response_of_an_admitted_request_does_not(
    provider: ReplayProvider, tmp_path: Path
) -> None:
    provider.response = ProviderResponse(chunks=(RESPONSE,))
    with running_proxy(tmp_path, provider.url, projects=[limited(requests_per_minute=2)]) as proxy:
        began = time.monotonic()
        admitted, _, refused = post(proxy, "ada"), post(proxy, "ada"), post(proxy, "eve")
        passed_s = time.monotonic() - began

    assert not [name for name in admitted.headers if "ratelimit" in name]
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limited"
    assert 30 - passed_s <= int(refused.headers["Retry-After"]) <= 30
    assert refused.headers["x-ratelimit-limit-requests"] == "2"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"


def test_sdks_wait_and_are_not_refused_again(provider: ReplayProvider, tmp_path: Path) -> None:
    with (
        running_simulator(Simulator()) as url,
        running_proxy(tmp_path, url, projects=[limited(per_participant={"requests_per_minute": 20})]) as proxy,
    ):
        for name, ask in (("openai", ask_openai), ("anthropic", ask_anthropic)):
            with ThreadPoolExecutor(16) as pool:
                statuses = [response.status_code for response in send(pool, (proxy,), name, 24)]
            assert 429 in statuses
            ask(proxy, mint(name=name))  # with one retry: a second refusal would raise


def ask_openai(proxy: ProxyProcess, token: str) -> None:
    """Send a request that may be retried once."""
    with openai.OpenAI(base_url=proxy.base_url + "/v1", api_key=token, max_retries=1) as client:
        client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}], max_tokens=5)


def ask_anthropic(proxy: ProxyProcess, token: str) -> None:
    """Send a request that may be retried once."""
    with anthropic.Anthropic(base_url=proxy.base_url + "/anthropic", api_key=token, max_retries=1) as client:
        client.messages.create(model="claude-sonnet-5", max_tokens=5, messages=[{"role": "user", "content": "hi"}])


def test_tokens_that_a_request_did_not_use_are_free_again(provider: ReplayProvider, tmp_path: Path) -> None:
    # The bound is some 4,190 tokens; a response uses 4,010 of them, or 20.
    small = RESPONSE.replace(b"4000", b"10").replace(b"4010", b"20")
    provider.response = ProviderResponse(chunks=(small,))
    with running_proxy(tmp_path, provider.url, projects=[limited(tokens_per_minute=6000)]) as proxy:
        assert [post(proxy, "ada").status_code for _ in range(5)] == [200] * 5
        provider.response = ProviderResponse(chunks=(RESPONSE,))
        assert post(proxy, "ada").status_code == 200
        refused = post(proxy, "ada")
        assert refused.status_code == 429
        assert "tokens per minute" in refused.json()["error"]["message"]
        too_large = post(proxy, "ada", {**CHAT, "max_tokens": 3000})
        assert too_large.status_code == 400


@contextlib.contextmanager
def open_stream(proxy: ProxyProcess, name: str = "ada") -> Iterator[httpx.Response]:
    """Open a streamed response."""
    headers = {"Authorization": f"Bearer {mint(name=name)}"}
    url = proxy.base_url + "/v1/chat/completions"
    with httpx.stream("POST", url, json=STREAM, headers=headers, timeout=TIMEOUT_S) as response:
        yield response


def stream_status(proxy: ProxyProcess) -> int:
    """Return the status of a streamed response, which is read to its end."""
    with open_stream(proxy) as response:
        response.read()
        return response.status_code


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_processes_share_streams_and_a_killed_one_leaves_none(
    database: str, provider: ReplayProvider, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    headers = (("Content-Type", "text/event-stream"),)
    endless = ProviderResponse(headers=headers, chunks=(EVENT,) * 100_000)
    short = ProviderResponse(headers=headers, chunks=(EVENT,))
    with (
        two_processes(
            database,
            tmp_path,
            provider.url,
            request,
            projects=[limited(streams=2)],
            streams={"on_client_disconnect": "cancel"},
        ) as (lasting, dying),
        contextlib.ExitStack() as streams,
    ):
        provider.response = endless
        for proxy in (lasting, dying):
            response = streams.enter_context(open_stream(proxy))
            assert response.status_code == 200
        provider.response = short
        assert [stream_status(proxy) for proxy in (lasting, dying)] == [429, 429]
        assert post(lasting, "ada").status_code == 200  # not a stream
        dying.kill()
        wait_until(lambda: stream_status(lasting) == 200, "the stream of the killed process is free")
        assert [stream_status(lasting) for _ in range(3)] == [200] * 3


def test_sessions_are_streams_until_they_end(tmp_path: Path) -> None:
    with running_simulator(Simulator()) as url, running_proxy(tmp_path, url, projects=[limited(streams=1)]) as proxy:

        async def run() -> None:
            token = mint(name="talker")
            authorization = {"Authorization": f"Bearer {token}"}
            async with connect_session(proxy, token=token) as socket:
                await next_event(socket, "session.created")
                rejection = await fetch_rejection(websocket_url(proxy), additional_headers=authorization)
                assert rejection.status_code == 429
                assert rejection.headers["Retry-After"] == "2"
            await until(lambda: count_streams(proxy) == 0)
            async with connect_session(proxy, token=token) as socket:
                await next_event(socket, "session.created")

        asyncio.run(run())


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until `is_so` returns True."""
    deadline = asyncio.get_running_loop().time() + TIMEOUT_S
    while not is_so():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)


def count_streams(proxy: ProxyProcess) -> int:
    """Return the number of streams of an SQLite ledger's first project."""
    with open_budgets(proxy) as store:
        return sum(store.rates.count_streams().values())


def test_no_slot_is_taken_after_any_end_of_a_stream(provider: ReplayProvider, tmp_path: Path) -> None:
    headers = (("Content-Type", "text/event-stream"),)
    ends = {
        "complete": ProviderResponse(headers=headers, chunks=(EVENT,)),
        "cut": ProviderResponse(headers=headers, chunks=(EVENT,), cut=True),
        "refused": ProviderResponse(status=400, chunks=(b"{}",)),
        "failed": ProviderResponse(status=500, chunks=(b"{}",)),
        "left": ProviderResponse(headers=headers, chunks=(EVENT,) * 5000),
    }
    with running_proxy(
        tmp_path, provider.url, projects=[limited(streams=1)], streams={"on_client_disconnect": "cancel"}
    ) as proxy:
        for end, response in ends.items():
            provider.response = response
            with contextlib.suppress(httpx.TransportError), open_stream(proxy) as stream:
                assert stream.status_code != 429, end
                if end != "left":
                    stream.read()
            wait_until(lambda: count_streams(proxy) == 0, f"no stream after one was {end}")
