"""A provider of realtime sessions that a test scripts event by event."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

import websockets
from websockets.asyncio.server import Server, ServerConnection, serve

from tests.harness import TIMEOUT_S, ProxyProcess
from tests.stress.async_proxy import async_proxy

Speak = Callable[[ServerConnection], Awaitable[None]]
Act = Callable[[ProxyProcess], Coroutine[Any, Any, Any]]


@contextlib.asynccontextmanager
async def websocket_provider(speak: Speak) -> AsyncIterator[str]:
    """Serve sessions with `speak`; yield the provider's URL."""

    async def handle(connection: ServerConnection) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            await speak(connection)

    async with serve(handle, "127.0.0.1", 0, max_size=None, ping_interval=None) as server:
        yield url_of(server)


def url_of(server: Server, scheme: str = "http") -> str:
    """Return the URL of a listening server."""
    return f"{scheme}://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


def run_against(speak: Speak, act: Act, **config: Any) -> Any:
    """Return the result of `act`, with a server and a provider of this test alone.

    Args:
        speak: The provider's side of each session.
        act: The client's side of the test.
        config: Top-level members of the configuration.
    """

    async def run() -> Any:
        async with (
            websocket_provider(speak) as url,
            async_proxy(url, **config) as proxy,
            asyncio.timeout(TIMEOUT_S),
        ):
            return await act(proxy)

    return asyncio.run(run())


class ScriptedSessions:
    """A WebSocket provider that each test scripts, and one server in front of it that they share."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._stack = contextlib.AsyncExitStack()
        self._speak: Speak | None = None
        self._proxy: ProxyProcess | None = None

    def start(self, **config: Any) -> None:
        """Start the provider and the server; `config` are top-level members of its configuration."""

        async def enter() -> ProxyProcess:
            url = await self._stack.enter_async_context(websocket_provider(self._handle))
            return await self._stack.enter_async_context(async_proxy(url, **config))

        self._proxy = self._runner.run(enter())

    def run(self, speak: Speak, act: Act) -> Any:
        """Return the result of `act`; the provider serves sessions with `speak`."""
        proxy = self._proxy
        assert proxy is not None
        self._speak = speak

        async def run() -> Any:
            async with asyncio.timeout(TIMEOUT_S):
                return await act(proxy)

        return self._runner.run(run())

    def close(self) -> None:
        """Stop the server and the provider."""
        self._runner.run(self._stack.aclose())

    async def _handle(self, connection: ServerConnection) -> None:
        assert self._speak is not None
        await self._speak(connection)


@contextlib.contextmanager
def scripted_sessions(**config: Any) -> Iterator[ScriptedSessions]:
    """Start the server and the provider that the tests of a module share; `config` as for ScriptedSessions.start()."""
    with asyncio.Runner() as runner:
        sessions = ScriptedSessions(runner)
        sessions.start(**config)
        try:
            yield sessions
        finally:
            sessions.close()
