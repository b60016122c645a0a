"""Measure the CPU time of an exchange with a provider alone: a JSON request and its response, no client, no ledger.

    python -m bench.exchange [--exchanges 20000] [--connections 32] [--rounds 5]

The provider is that of the other benchmarks, in a process of its own.  Figures are those of this process, which runs
the upstream client as the server does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from bench.contestants import Workspace, running_provider
from bench.machine import Layout, on_cores
from tornado_proxy import event_loop
from tornado_proxy.domain.identity import Secret
from tornado_proxy.upstream.http.client import UpstreamClient
from tornado_proxy.upstream.http.messages import Payload, UpstreamRequest

#: Exchanges of each connection before the first round: they open the connections.
_WARM_UP = 10

_BODY = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Say hello."}]}).encode()
_HEADERS = (
    ("User-Agent", "OpenAI/Python 2.1.0"),
    ("Accept", "application/json"),
    ("Content-Type", "application/json"),
    ("Accept-Encoding", "identity"),
)
_KEY_HEADERS = (("Authorization", Secret("Bearer sk-benchmark")),)


def _make_request(port: int) -> UpstreamRequest:
    return UpstreamRequest(
        method="POST",
        url=f"http://127.0.0.1:{port}/v1/chat/completions",
        headers=_HEADERS,
        key_headers=_KEY_HEADERS,
        body=Payload(_BODY),
        connect_timeout_s=10,
        idle_timeout_s=60,
    )


async def _run_exchanges(client: UpstreamClient, port: int, count: int) -> None:
    """Run `count` exchanges in turn."""
    for _ in range(count):
        exchange = client.start(_make_request(port))
        head = await exchange.head()
        if head.status != 200:
            raise RuntimeError(f"the provider responded with status {head.status}")
        while await exchange.read():
            pass


async def _measure(port: int, options: argparse.Namespace, results: list[float]) -> None:
    """Append the CPU microseconds of an exchange to `results`, for each round."""
    client = UpstreamClient()
    share = max(1, options.exchanges // options.connections)
    try:
        await asyncio.gather(*(_run_exchanges(client, port, _WARM_UP) for _ in range(options.connections)))
        event_loop.freeze_startup_objects()
        for _ in range(options.rounds):
            began = time.process_time()
            await asyncio.gather(*(_run_exchanges(client, port, share) for _ in range(options.connections)))
            results.append((time.process_time() - began) / (share * options.connections) * 1e6)
    finally:
        client.close()


def main() -> None:
    """Print the median of the rounds, and the least and the most."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exchanges", type=int, default=20_000, help="of each round")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    layout = Layout.assign(sorted(os.sched_getaffinity(0)))
    results: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="exchange-") as folder,
        running_provider(Workspace(Path(folder), layout, 1024), processes=1) as port,
        on_cores(layout.relay),
    ):
        event_loop.run(_measure(port, options, results))
    print(f"CPU of an exchange: {statistics.median(results):.1f} us ({min(results):.1f} to {max(results):.1f})")


if __name__ == "__main__":
    main()
