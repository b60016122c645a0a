"""The common part of the adapters: their clients, made when they are first used, closing them, and reading streams."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from types import TracebackType
from typing import ClassVar, Generic, Protocol, Self, TypeVar, cast

from tornado_proxy.sdk.connection import Connection, ProviderVariables, find_connection
from tornado_proxy.sdk.request_errors import request_errors


class _Client(Protocol):
    def close(self) -> None: ...


class _AsyncClient(Protocol):
    async def close(self) -> None: ...


ClientT = TypeVar("ClientT", bound=_Client)
AsyncClientT = TypeVar("AsyncClientT", bound=_AsyncClient)


EventT = TypeVar("EventT", contravariant=True)


class TextReader(Protocol[EventT]):
    """Reads the text from the events of one response, and notices whether it has ended."""

    def read(self, event: EventT) -> Iterator[str]:
        """Yield the text of an event, if it has some; raise the SDK's error if the event says one."""

    def require_end(self) -> None:
        """Raise broken_off() if the response was cut off."""

    def broken_off(self) -> Exception:
        """Return the SDK's error of a response that was cut off."""


def read_text(events: Iterable[EventT], reader: TextReader[EventT]) -> Iterator[str]:
    """Yield the text of a response; raise the SDK's error if it fails or is cut off."""
    try:
        for event in events:
            yield from reader.read(event)
    except request_errors() as error:
        raise reader.broken_off() from error
    reader.require_end()


async def read_text_async(events: AsyncIterable[EventT], reader: TextReader[EventT]) -> AsyncIterator[str]:
    """Yield the text of a response; the errors are those of read_text()."""
    try:
        async for event in events:
            for piece in reader.read(event):
                yield piece
    except request_errors() as error:
        raise reader.broken_off() from error
    reader.require_end()


class Adapter(ABC, Generic[ClientT, AsyncClientT]):
    """Holds the client that it was given, or makes one for each of stream() and astream() when it is first used.

    Close it, or use it in `with` or `async with`: it closes the clients that it has made, not one that it was given.
    """

    variables: ClassVar[ProviderVariables]

    def __init__(self, client: ClientT | AsyncClientT | None, base_url: str | None, api_key: str | None) -> None:
        self._given = client
        if client is None:
            self._connection = find_connection(self.variables, base_url, api_key, None)
        elif base_url is not None or api_key is not None:
            raise ValueError("client= excludes base_url= and api_key=; the client has its own")

    @abstractmethod
    def _make_client(self, connection: Connection) -> ClientT: ...

    @abstractmethod
    def _make_async_client(self, connection: Connection) -> AsyncClientT: ...

    @abstractmethod
    def _is_asynchronous(self, client: ClientT | AsyncClientT) -> bool: ...

    def close(self) -> None:
        """Close the connections of stream()."""
        if self._given is None and "_client" in self.__dict__:
            self._client.close()

    async def aclose(self) -> None:
        """Close all connections."""
        self.close()
        if self._given is None and "_async_client" in self.__dict__:
            await self._async_client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @functools.cached_property
    def _client(self) -> ClientT:
        """The client of stream().

        Raises:
            TypeError: The client that was given is asynchronous.
        """
        if self._given is None:
            return self._make_client(self._connection)
        if self._is_asynchronous(self._given):
            raise TypeError("stream() needs a client that is not asynchronous; use astream() with this one")
        return cast("ClientT", self._given)

    @functools.cached_property
    def _async_client(self) -> AsyncClientT:
        """The client of astream().

        Raises:
            TypeError: The client that was given is not asynchronous.
        """
        if self._given is None:
            return self._make_async_client(self._connection)
        if not self._is_asynchronous(self._given):
            raise TypeError("astream() needs an asynchronous client; use stream() with this one")
        return cast("AsyncClientT", self._given)
