"""The server where the name server is slow.  Runs in a network of its own, which test_slow_names.py makes.

    unshare --map-root-user --mount --net python -m tests.server.slow_dns FOLDER

Its name server holds the answers for `slow.example` back until the program lets them go, and answers `fast.example` at
once.  The facts that the test is to judge are printed as one line of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import websockets
from dnslib import QTYPE, RR, A, DNSRecord

from tests.harness import ProxyProcess, mint, running_proxy
from tornado_proxy.simulator import running_simulator

#: Seconds.  The calls beside a slow name take milliseconds; the system's resolver asks again after five seconds.
CONNECT_TIMEOUT_S = 2
HELD_AT_MOST_S = 4.5

CALLERS = 40
SLOW = "slow.example"
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
MESSAGE = {"model": "claude-sonnet-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}


@dataclass
class NameServer:
    """All names are this machine.  `asked` counts the questions for the slow name, `release` lets the answers go."""

    asked: int = 0
    release: threading.Event = field(default_factory=threading.Event)

    def serve(self, at: socket.socket) -> None:
        while True:
            data, client = at.recvfrom(4096)
            threading.Thread(target=self._answer, args=(at, data, client), daemon=True).start()

    def _answer(self, at: socket.socket, data: bytes, client: Any) -> None:
        question = DNSRecord.parse(data)
        if str(question.q.qname).rstrip(".") == SLOW:
            self.asked += 1
            self.release.wait(HELD_AT_MOST_S)
        reply = question.reply()
        if question.q.qtype == QTYPE.A:
            reply.add_answer(RR(question.q.qname, QTYPE.A, rdata=A("127.0.0.1"), ttl=1))
        at.sendto(reply.pack(), client)


@contextlib.contextmanager
def name_server(folder: Path) -> Iterator[NameServer]:
    """Serve names on this network's loopback, and have the system's resolver ask there."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    subprocess.run(["mount", "--bind", str(folder / "resolv.conf"), "/etc/resolv.conf"], check=True)
    server = NameServer()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as at:
        at.bind(("127.0.0.1", 53))
        threading.Thread(target=server.serve, args=(at,), daemon=True).start()
        yield server


class Trip:
    """Callers of one server, whose OpenAI has the slow name and whose Anthropic has the fast one."""

    def __init__(self, proxy: ProxyProcess, names: NameServer, client: httpx.AsyncClient) -> None:
        self._proxy = proxy
        self._names = names
        self._client = client

    async def slow_call(self) -> httpx.Response:
        return await self._client.post(f"{self._proxy.base_url}/v1/chat/completions", json=CHAT)

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[dict[str, Any]]:
        """Within the block the slow name has no answer; at its end, calls elsewhere are made.  Gives the facts."""
        self._names.release.clear()
        fact: dict[str, Any] = {}
        try:
            yield fact
            fact["beside"] = await self._calls_beside()
            fact["still_held"] = not self._names.release.is_set()
        finally:
            self._names.release.set()

    async def all_under_way(self) -> None:
        """Wait until the server waits for the name, for all callers."""
        gauge = f"llm_proxy_requests_in_flight {CALLERS}.0"
        async with asyncio.timeout(HELD_AT_MOST_S):
            while gauge not in self._proxy.fetch_admin("/metrics")[1]:  # noqa: ASYNC110  # it has no event to wait for
                await asyncio.sleep(0.01)

    async def _calls_beside(self) -> dict[str, Any]:
        began = time.monotonic()
        url = f"{self._proxy.base_url}/anthropic/v1/messages"
        answers = [await self._client.post(url, json=MESSAGE) for _ in range(10)]
        return {"statuses": [answer.status_code for answer in answers], "took_s": time.monotonic() - began}

    async def http(self) -> dict[str, Any]:
        """Many callers wait for the name, and get their answers when it has come."""
        async with self.held() as fact:
            calls = [asyncio.create_task(self.slow_call()) for _ in range(CALLERS)]
            await self.all_under_way()
        fact["then"] = [answer.status_code for answer in await asyncio.gather(*calls)]
        return fact

    async def leaving(self) -> dict[str, Any]:
        """Callers leave while they wait for the name."""
        async with self.held() as fact:
            calls = [asyncio.create_task(self.slow_call()) for _ in range(CALLERS)]
            await self.all_under_way()
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        return fact

    async def time_out(self) -> dict[str, Any]:
        """The name does not come in time."""
        async with self.held() as fact:
            began = time.monotonic()
            answer = await self.slow_call()
            fact["then"] = [answer.status_code, answer.json()["error"]["code"]]
            fact["waited_s"] = time.monotonic() - began
            fact["record"] = self._proxy.read_record(answer.headers["llm-proxy-request-id"])
        return fact

    async def web_socket(self) -> dict[str, Any]:
        """A session waits for the name."""
        before = self._names.asked
        async with self.held() as fact:
            opening = asyncio.create_task(self._first_event())
            async with asyncio.timeout(HELD_AT_MOST_S):
                while self._names.asked == before:  # noqa: ASYNC110  # the name server lives in threads
                    await asyncio.sleep(0.01)
        fact["then"] = await opening
        return fact

    async def _first_event(self) -> str:
        url = f"ws{self._proxy.base_url.removeprefix('http')}/openai/v1/realtime?model=gpt-realtime"
        headers = {"Authorization": f"Bearer {mint()}"}
        async with websockets.connect(url, additional_headers=headers, open_timeout=20) as session:
            kind: str = json.loads(await session.recv())["type"]
            return kind


async def travel(proxy: ProxyProcess, names: NameServer) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {mint()}"}
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(headers=headers, timeout=30, limits=limits) as client:
        trip = Trip(proxy, names, client)
        # In this order, because libcurl knows a name for a minute.
        return {
            "leaving": await trip.leaving(),
            "time_out": await trip.time_out(),
            "http": await trip.http(),
            "web_socket": await trip.web_socket(),
        }


def main() -> None:
    folder = Path(sys.argv[1])
    with name_server(folder) as names, running_simulator() as url:
        port = url.rpartition(":")[2]
        providers = {
            "openai": {"base_url": f"http://{SLOW}:{port}", "api_key": {"env": "TEST_OPENAI_KEY"}},
            "anthropic": {"base_url": f"http://fast.example:{port}", "api_key": {"env": "TEST_ANTHROPIC_KEY"}},
        }
        streams = {"connect_timeout_s": CONNECT_TIMEOUT_S, "on_client_disconnect": "cancel"}
        with running_proxy(folder, url, providers=providers, streams=streams) as proxy:
            facts = asyncio.run(travel(proxy, names))
            chats = [one for one in proxy.read_records() if one["endpoint"] == "/v1/chat/completions"]
            facts["left"] = [one["basis"] for one in chats if one["outcome"] == "client_closed"]
            print(json.dumps(facts))  # noqa: T201  # to the test


if __name__ == "__main__":
    main()
