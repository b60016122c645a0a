"""The logging client: three lines for each exchange, without secrets, and without delaying a stream."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator

import httpx2 as httpx
import pytest

from tests.harness import ProxyProcess, mint
from tests.replay_provider import ProviderResponse, ReplayProvider
from tornado_proxy.sdk import get_anthropic_client, get_async_openai_client, get_logging_http_client, get_openai_client

JSON = {"Content-Type": "application/json"}

#: A made-up secret for each place in which one can be.
SECRETS = {place: f"s3cret-{number:02}-{place}" for number, place in enumerate("abcdefghijklmnop")}


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "tornado_proxy.sdk.http")
    caplog.set_level(logging.INFO, "httpx2")
    return caplog


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with get_logging_http_client() as made:
        yield made


def own_lines(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in log.records if record.name == "tornado_proxy.sdk.http"]


def test_exchange_is_three_lines(log: pytest.LogCaptureFixture, client: httpx.Client, server: ReplayProvider) -> None:
    server.response = ProviderResponse(chunks=(b'{"answer": ', b'"yes"}'))

    client.post(f"{server.url}/v1/x", json={"model": "m", "input": "hi"})

    request, head, body = own_lines(log)
    number = request.partition(" ")[0]
    assert request.startswith(f"{number} POST {server.url}/v1/x {{")
    assert request.endswith('{"model":"m","input":"hi"}')
    assert head.startswith(f"{number} 200 after ")
    assert '"content-type": "application/json"' in head
    assert body.startswith(f"{number} 17 bytes in ")
    assert body.endswith(': {"answer": "yes"}')


def test_no_secret_of_an_exchange_is_logged(
    log: pytest.LogCaptureFixture, client: httpx.Client, server: ReplayProvider
) -> None:
    s = SECRETS
    jwt = mint()
    answer = {
        "access_token": s["i"],
        "nested": {"clientSecret": s["j"], "password": [s["k"]]},
        "echo": f"your key {s['a']} is wrong, and so is {s['c']}",
        "text": json.dumps({"api_key": s["l"]}),
        "link": f"https://user:{s['m']}@host.test/x?sig={s['n']}",
        "jwt": jwt,
    }
    server.response = ProviderResponse(
        headers=(*JSON.items(), ("Set-Cookie", f"session={s['o']}; Path=/"), ("X-Refresh-Token", s["p"])),
        chunks=(json.dumps(answer).encode(),),
    )

    client.post(
        f"{server.url}/v1/x?api_key={s['d']}&page=2",
        headers={
            "Authorization": f"Bearer {s['a']}",
            "x-api-key": s["b"],
            "Cookie": f"id={s['c']}; theme=dark",
            "Meshagent-Llm-Delegation": s["e"],
            "X-Session-Token": s["f"],
            "Proxy-Authorization": f"Basic {s['g']}",
        },
        json={"api_key": s["h"], "input": f"my token is {jwt}", "page": 2},
    )

    text = log.text
    assert [place for place, secret in {**s, "jwt": jwt}.items() if secret in text] == []
    assert "page=2" in text
    assert '"page":2' in text
    assert '"content-type": "application/json"' in text


def test_line_of_the_http_library_has_no_secret_of_the_url(
    log: pytest.LogCaptureFixture, client: httpx.Client, server: ReplayProvider
) -> None:
    client.get(f"{server.url}/v1/x?token=abcdefgh")

    (line,) = [record.getMessage() for record in log.records if record.name == "httpx2"]
    assert "abcdefgh" not in log.text
    assert "/v1/x?token=***" in line


@pytest.mark.parametrize("cut", range(0, 60, 3))
def test_secret_at_the_limit_of_the_body_is_not_logged(
    cut: int, log: pytest.LogCaptureFixture, server: ReplayProvider
) -> None:
    answer = {"text": "x" * 10, "secret": "abcdefghijklmnopqrstuvwxyz"}
    server.response = ProviderResponse(chunks=(json.dumps(answer).encode(),))

    with get_logging_http_client(body_limit=cut) as client:
        client.get(f"{server.url}/v1/x")

    assert "abc" not in log.text


def test_longer_body_is_cut_and_its_size_stated(log: pytest.LogCaptureFixture, server: ReplayProvider) -> None:
    server.response = ProviderResponse(headers=(("Content-Type", "text/plain"),), chunks=(b"0123456789" * 50,))

    with get_logging_http_client(body_limit=4) as client:
        assert client.post(f"{server.url}/v1/x", content=b"abcdefgh", headers={"Content-Type": "text/plain"}).text

    request, _, body = own_lines(log)
    assert request.endswith(" abcd... (8 bytes)")
    assert body.endswith(": 0123... (500 bytes)")


def test_bodies_are_not_logged_with_a_limit_of_0(log: pytest.LogCaptureFixture, server: ReplayProvider) -> None:
    server.response = ProviderResponse(chunks=(b'{"answer": "yes"}',))

    with get_logging_http_client(body_limit=0) as client:
        client.post(f"{server.url}/v1/x", json={"input": "hello"})

    assert ("hello" in log.text, "yes" in log.text) == (False, False)
    with pytest.raises(ValueError, match="body_limit is -1; it must be 0 or more bytes"):
        get_logging_http_client(body_limit=-1)


def test_binary_body_is_a_number_of_bytes(
    log: pytest.LogCaptureFixture, client: httpx.Client, server: ReplayProvider
) -> None:
    server.response = ProviderResponse(headers=(("Content-Type", "audio/mpeg"),), chunks=(b"\x00\x01RIFF",))

    client.post(f"{server.url}/v1/x", files={"file": ("a.wav", b"RIFF0000")})

    request, _, body = own_lines(log)
    assert "RIFF" not in log.text
    assert "multipart/form-data" in request
    assert body.endswith(": (6 bytes of audio/mpeg)")


def test_body_cannot_forge_a_line(log: pytest.LogCaptureFixture, client: httpx.Client, server: ReplayProvider) -> None:
    server.response = ProviderResponse(
        headers=(("Content-Type", "text/plain"), ("X-Note", "c\x9b2Jd")),
        chunks=("a\n#9 GET forged\r\x1b[2J\u2028b".encode(),),
    )

    client.get(f"{server.url}/v1/x")

    assert r'"x-note": "c\x9b2Jd"' in own_lines(log)[1]
    assert own_lines(log)[-1].endswith(r"a\n#9 GET forged\r\x1b[2J\u2028b")


def test_line_says_that_a_body_broke_off_or_was_closed(
    log: pytest.LogCaptureFixture, client: httpx.Client, server: ReplayProvider
) -> None:
    server.response = ProviderResponse(chunks=(b'{"a": ', b"1"), cut=True)
    with pytest.raises(httpx.RemoteProtocolError):
        client.get(f"{server.url}/v1/x")
    with client.stream("GET", f"{server.url}/v1/x") as response:
        next(response.iter_bytes())

    broken, closed = (line for line in own_lines(log) if " bytes in " in line)
    assert "7 bytes in " in broken
    assert ", broken off by RemoteProtocolError: " in broken
    assert ", closed before its end: " in closed


def test_nothing_is_read_for_a_log_that_is_off(server: ReplayProvider, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "tornado_proxy.sdk.http")
    server.response = ProviderResponse()

    with get_logging_http_client() as client:
        client.get(f"{server.url}/v1/x")

    assert own_lines(caplog) == []


@pytest.mark.usefixtures("variables", "log")
def test_first_piece_of_a_stream_is_as_early_as_without_logging(proxy: ProxyProcess) -> None:
    """The stream takes 0.6 s; its first line arrives at once."""
    body = {
        "model": "gpt-4o-mini",
        "stream": True,
        "messages": [{"role": "user", "content": "[[sim tokens=12 delay-ms=50]] go"}],
    }
    headers = {"Authorization": f"Bearer {mint()}"}

    def measure(client: httpx.Client) -> tuple[float, float]:
        began = time.monotonic()
        with client.stream("POST", f"{proxy.base_url}/v1/chat/completions", json=body, headers=headers) as response:
            lines = response.iter_lines()
            next(lines)
            first = time.monotonic() - began
            for _ in lines:
                pass
        return first, time.monotonic() - began

    with get_logging_http_client() as logging_client, httpx.Client() as plain:
        first_logged, whole = min(measure(logging_client) for _ in range(2))
        first_plain, _ = min(measure(plain) for _ in range(2))

    assert whole > 0.5
    assert first_logged - first_plain < 0.1


@pytest.mark.usefixtures("variables")
def test_sdk_clients_log_and_stream_through_it(log: pytest.LogCaptureFixture) -> None:
    token = mint()
    with get_openai_client(api_key=token, http_client=get_logging_http_client()) as gpt:
        events = list(gpt.responses.create(model="gpt-4o-mini", input="hi", stream=True))
    with get_anthropic_client(api_key=token, http_client=get_logging_http_client()) as claude:
        claude.messages.create(model="claude-haiku-4-5", max_tokens=9, messages=[{"role": "user", "content": "hi"}])

    async def run() -> None:
        http_client = get_logging_http_client(asynchronous=True)
        async with get_async_openai_client(api_key=token, http_client=http_client) as async_gpt:
            stream = await async_gpt.responses.create(model="gpt-4o-mini", input="hi", stream=True)
            assert [event async for event in stream]

    asyncio.run(run())

    assert events[-1].type == "response.completed"
    assert token not in log.text
    assert len(own_lines(log)) == 9
    assert "response.output_text.delta" in log.text


def test_redirect_is_an_exchange_of_its_own(
    log: pytest.LogCaptureFixture, client: httpx.Client, server: ReplayProvider
) -> None:
    server.response = ProviderResponse(status=307, headers=(("Location", f"{server.url}/v1/y?token=abcdefgh"),))
    with pytest.raises(httpx.TooManyRedirects):
        client.get(f"{server.url}/v1/x", headers={"Authorization": "Bearer abcdefghijk"})

    requests = [line for line in own_lines(log) if " GET " in line]
    assert "abcdefgh" not in log.text
    assert len({line.partition(" ")[0] for line in requests}) == len(requests) > 1
