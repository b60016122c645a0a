"""The server with a slow name server.  Runs in a network namespace of its own, which test_slow_dns.py creates:

    unshare --map-root-user --mount --net python -m tests.server.slow_dns FOLDER

The name server delays its responses for `slow.example` until the program releases them, and responds at once for
`fast.example`.  The program prints what happened as one line of JSON; the test judges it.
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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import websockets
from dnslib import QTYPE, RR, A, DNSRecord

from tests.harness import TIMEOUT_S, ProxyProcess, mint, running_proxy
from tests.server.chat import CHAT, MESSAGE
from tests.server.realtime import websocket_url
from tornado_proxy.simulator import running_simulator

CONNECT_TIMEOUT_S = 2

#: Seconds for which a name is delayed at most, and after which the system's resolver repeats a query.
MAX_DELAY_S, RESOLVER_TIMEOUT_S = 20, 30

CALLERS = 40
SLOW_NAME = "slow.example"


@dataclass
class NameServer:
    """Resolves every name to 127.0.0.1.  `slow_queries` counts the queries for the slow name."""

    slow_queries: int = 0
    release: threading.Event = field(default_factory=threading.Event)

    def serve(self, udp: socket.socket) -> None:
        """Serve queries, each in a thread of its own."""
        while True:
            data, client = udp.recvfrom(4096)
            threading.Thread(target=self._respond, args=(udp, data, client), daemon=True).start()

    def _respond(self, udp: socket.socket, data: bytes, client: Any) -> None:
        query = DNSRecord.parse(data)
        if str(query.q.qname).rstrip(".") == SLOW_NAME:
            self.slow_queries += 1
            self.release.wait(MAX_DELAY_S)
        reply = query.reply()
        if query.q.qtype == QTYPE.A:
            # A lifetime of 1 s: each scenario resolves the name again.
            reply.add_answer(RR(query.q.qname, QTYPE.A, rdata=A("127.0.0.1"), ttl=1))
        udp.sendto(reply.pack(), client)


@contextlib.contextmanager
def running_name_server(folder: Path) -> Iterator[NameServer]:
    """Serve names on the loopback of this namespace, and configure the system's resolver to use it."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    (folder / "resolv.conf").write_text(f"nameserver 127.0.0.1\noptions timeout:{RESOLVER_TIMEOUT_S}\n")
    subprocess.run(["mount", "--bind", str(folder / "resolv.conf"), "/etc/resolv.conf"], check=True)
    server = NameServer()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 53))
        threading.Thread(target=server.serve, args=(udp,), daemon=True).start()
        yield server


class Scenarios:
    """Clients of a server whose OpenAI has the slow name and whose Anthropic has the fast one."""

    def __init__(self, proxy: ProxyProcess, names: NameServer, client: httpx.AsyncClient) -> None:
        self._proxy = proxy
        self._names = names
        self._client = client

    async def run_all(self) -> dict[str, Any]:
        """Return the facts of each scenario.  The order matters: libcurl caches a resolved name for a minute."""
        return {
            "disconnect": await self.disconnect(),
            "http": await self.http(),
            "websocket": await self.websocket(),
        }

    async def http(self) -> dict[str, Any]:
        """Many clients wait for the name, and get their responses when it is resolved."""
        async with self._delayed_name() as facts:
            requests = [asyncio.create_task(self._send_slow_request()) for _ in range(CALLERS)]
            await self._wait_all_in_flight()
        facts["then"] = [response.status_code for response in await asyncio.gather(*requests)]
        return facts

    async def disconnect(self) -> dict[str, Any]:
        """Clients disconnect while they wait for the name."""
        async with self._delayed_name() as facts:
            requests = [asyncio.create_task(self._send_slow_request()) for _ in range(CALLERS)]
            await self._wait_all_in_flight()
            for request in requests:
                request.cancel()
            await asyncio.gather(*requests, return_exceptions=True)
        return facts

    async def timeout(self) -> dict[str, Any]:
        """The name is not resolved within the connect timeout."""
        async with self._delayed_name() as facts:
            started = time.monotonic()
            response = await self._send_slow_request()
            facts["then"] = [response.status_code, response.json()["error"]["code"]]
            facts["waited_s"] = time.monotonic() - started
            facts["record"] = self._proxy.read_record(response.headers["llm-proxy-request-id"])
        return facts

    async def websocket(self) -> dict[str, Any]:
        """A realtime session waits for the name."""
        before = self._names.slow_queries
        async with self._delayed_name() as facts:
            opening = asyncio.create_task(self._read_first_event())
            async with asyncio.timeout(MAX_DELAY_S):
                while self._names.slow_queries == before:  # noqa: ASYNC110  # the name server runs in threads
                    await asyncio.sleep(0.01)
        facts["then"] = await opening
        return facts

    @contextlib.asynccontextmanager
    async def _delayed_name(self) -> AsyncIterator[dict[str, Any]]:
        """Delay the slow name within the block, and send requests to the fast one at its end; yield the facts."""
        self._names.release.clear()
        facts: dict[str, Any] = {}
        try:
            yield facts
            facts["others"] = await self._send_other_requests()
            facts["still_delayed"] = not self._names.release.is_set()
        finally:
            self._names.release.set()

    async def _wait_all_in_flight(self) -> None:
        gauge = f"llm_proxy_requests_in_flight {CALLERS}.0"
        async with asyncio.timeout(MAX_DELAY_S):
            while gauge not in self._proxy.fetch_admin("/metrics")[1]:  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.01)

    async def _send_slow_request(self) -> httpx.Response:
        return await self._client.post(f"{self._proxy.base_url}/v1/chat/completions", json=CHAT)

    async def _send_other_requests(self) -> list[int]:
        url = f"{self._proxy.base_url}/anthropic/v1/messages"
        return [(await self._client.post(url, json=MESSAGE)).status_code for _ in range(10)]

    async def _read_first_event(self) -> str:
        headers = {"Authorization": f"Bearer {mint()}"}
        async with websockets.connect(
            websocket_url(self._proxy), additional_headers=headers, open_timeout=TIMEOUT_S
        ) as session:
            kind: str = json.loads(await session.recv())["type"]
            return kind


Facts = dict[str, Any]


async def run(proxy: ProxyProcess, names: NameServer, select: Callable[[Scenarios], Awaitable[Facts]]) -> Facts:
    """Return the facts of the selected scenarios of one server."""
    headers = {"Authorization": f"Bearer {mint()}"}
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(headers=headers, timeout=TIMEOUT_S, limits=limits) as client:
        return await select(Scenarios(proxy, names, client))


def main() -> None:
    folder = Path(sys.argv[1])
    with running_name_server(folder) as names, running_simulator() as url:
        port = url.rpartition(":")[2]
        providers = {
            "openai": {"base_url": f"http://{SLOW_NAME}:{port}", "api_key": {"env": "TEST_OPENAI_KEY"}},
            "anthropic": {"base_url": f"http://fast.example:{port}", "api_key": {"env": "TEST_ANTHROPIC_KEY"}},
        }
        brief = {"connect_timeout_s": CONNECT_TIMEOUT_S}
        with running_proxy(folder, url, providers=providers, streams=brief) as proxy:
            facts = {"timeout": asyncio.run(run(proxy, names, Scenarios.timeout))}
        patient = {"connect_timeout_s": RESOLVER_TIMEOUT_S, "on_client_disconnect": "cancel"}
        with running_proxy(folder, url, providers=providers, streams=patient) as proxy:
            facts |= asyncio.run(run(proxy, names, Scenarios.run_all))
            chats = [record for record in proxy.read_records() if record["endpoint"] == "/v1/chat/completions"]
            facts["disconnected"] = [record["basis"] for record in chats if record["outcome"] == "client_closed"]
            print(json.dumps(facts))  # noqa: T201  # to the test


if __name__ == "__main__":
    main()
